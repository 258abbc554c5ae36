//! The command line: what can be typed, and which file does it.

mod agent;
mod apply;
mod attach;
mod config;
mod cp;
mod doctor;
mod down;
mod exec;
mod image;
mod known;
mod logs;
mod order;
mod plan;
mod port;
mod progress;
mod ps;
mod pulling;
mod schema;
mod shell;
mod stats;
mod status;
mod target;
mod top;
mod up;
mod version;
mod why;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use backend::layout::Layout;
use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
use serde::Serialize;

use crate::{
    client::Client,
    exit, host,
    logging::{self, Speaker},
    orders::Order,
};

const AFTER: &str = "\
Exit status: 0 done; 1 failed, with the reason; 2 `plan` and `doctor`: there is something to do;
64 wrong usage; 69 no agent answers; 124 the time ran out. `exec` and `attach`: that of the command.

Start with `stead up examples/hello`, or `stead doctor` to see what this host can do.";

/// Keeps a Linux host in the state a directory of Compose files describes.
#[derive(Debug, Parser)]
#[command(
    name = "stead",
    version,
    subcommand_required = true,
    arg_required_else_help = false,
    disable_help_subcommand = true,
    after_help = AFTER
)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb may be given.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// A wholly separate instance: DIR/manifests, DIR/state, DIR/run.
    #[arg(long, global = true, env = "STEAD_ROOT", value_name = "DIR")]
    root: Option<PathBuf>,
    /// One JSON document on standard output.
    #[arg(long, global = true)]
    json: bool,
    /// Say more on standard error; twice: still more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Keep PATH converged: progress, then logs; Ctrl-C stops what it started.
    Up(up::Up),
    /// The daemon, in the foreground.
    Agent(agent::Agent),
    /// Add projects and wait until they are converged.
    Apply(apply::Apply),
    /// Remove projects and wait until they are gone; volumes stay.
    Down(down::Down),
    /// What would change and why; changes nothing. Status 2: there is something to do.
    Plan(plan::Plan),
    /// The checked, canonical project; no agent and no root needed.
    Config(config::Config),
    /// The JSON Schema of manifests, for editors.
    Schema,
    /// Instances: state, health, restarts, ports, addresses.
    Ps(ps::Ps),
    /// Per project: converged, working, waiting or degraded, and on what.
    Status(status::Status),
    /// The chain of causes, newest first: what was asked or happened, and what followed.
    Why(why::Why),
    /// Stop services until `start`, also over a reboot; the manifest stays as it is.
    Stop(order::Orders),
    /// Let stopped services run again; one that runs is left alone.
    Start(order::Orders),
    /// Start services anew.
    Restart(order::Orders),
    /// What the services of a project printed.
    Logs(logs::Logs),
    /// Run a command in a running instance; its exit status is the command's.
    Exec(exec::Exec),
    /// The output of a running instance as it comes; what is typed is its input. Ctrl-P Ctrl-Q leaves it.
    Attach(attach::Attach),
    /// Files into a running instance and out of it, as `docker cp` does.
    Cp(cp::Cp),
    /// The processes of a running instance.
    Top(top::Top),
    /// What running instances use: processor, memory, network, disk.
    Stats(stats::Stats),
    /// Where the ports of an instance are on this host.
    Port(port::Port),
    /// The images of this host: list, bring, load, save, check and remove them; no agent needed.
    Image(image::Image),
    /// What this host can and cannot do, each with its remedy.
    Doctor,
    /// The version and the build.
    Version,
}

impl Global {
    fn layout(&self) -> anyhow::Result<Layout> {
        Layout::new(self.root.as_deref())
            .map_err(|error| exit::usage(format!("--root cannot be made absolute: {error}")))
    }

    fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(&self.layout()?))
    }
}

pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Without a verb: what there is to choose from.
            if error.kind() == ErrorKind::MissingSubcommand {
                eprint!("{}", Arguments::command().render_help());
            } else {
                let _ = error.print();
            }
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    let speaker = match arguments.verb {
        Verb::Agent(_) => Speaker::Daemon,
        Verb::Up(_) => Speaker::Up,
        _ => Speaker::Command,
    };
    logging::start(arguments.global.verbose, speaker);
    match run(arguments) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("stead: {error:#}");
            ExitCode::from(exit::status(&error))
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<u8> {
    let global = arguments.global;
    match arguments.verb {
        Verb::Config(verb) => return verb.run(&global),
        Verb::Schema => return schema::run(),
        Verb::Image(verb) => return verb.run(&global),
        Verb::Doctor => return doctor::run(&global),
        Verb::Version => return version::run(&global),
        // Before there are threads.
        Verb::Exec(_) => host::hold_resizes()?,
        Verb::Attach(_) => host::hold_signals()?,
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // What blocks has threads of its own; a second one would only be woken along with the first.
        .worker_threads(1)
        .enable_all()
        .build()?;
    let status = runtime.block_on(async {
        match arguments.verb {
            Verb::Up(verb) => verb.run(&global).await,
            Verb::Agent(verb) => verb.run(&global).await,
            Verb::Apply(verb) => verb.run(&global).await,
            Verb::Down(verb) => verb.run(&global).await,
            Verb::Plan(verb) => verb.run(&global).await,
            Verb::Ps(verb) => verb.run(&global).await,
            Verb::Status(verb) => verb.run(&global).await,
            Verb::Why(verb) => verb.run(&global).await,
            Verb::Stop(verb) => verb.run(Order::Stop, &global).await,
            Verb::Start(verb) => verb.run(Order::Start, &global).await,
            Verb::Restart(verb) => verb.run(Order::Restart, &global).await,
            Verb::Logs(verb) => verb.run(&global).await,
            Verb::Exec(verb) => verb.run(&global).await,
            Verb::Attach(verb) => verb.run(&global).await,
            Verb::Cp(verb) => verb.run(&global).await,
            Verb::Top(verb) => verb.run(&global).await,
            Verb::Stats(verb) => verb.run(&global).await,
            Verb::Port(verb) => verb.run(&global).await,
            Verb::Config(_) | Verb::Schema | Verb::Image(_) | Verb::Doctor | Verb::Version => Ok(0),
        }
    });
    // A blocking read of the terminal must not hold up the end.
    runtime.shutdown_background();
    status
}

/// Prints one JSON document.
fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Prints; a reader that went away (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// `5m`, `1m30s`, `90` (seconds), `250ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration; write it as 90s, 5m or 1h30m");
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let milliseconds = match &rest[..unit] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        total += Duration::from_millis(number.checked_mul(milliseconds).ok_or_else(wrong)?);
        rest = &rest[unit..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// The paths as the agent must see them: it has another working directory.
fn absolute(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    paths
        .iter()
        .map(|path| {
            std::fs::canonicalize(path).map_err(|error| {
                let why = match error.kind() {
                    std::io::ErrorKind::NotFound => "there is nothing".to_owned(),
                    _ => error.to_string(),
                };
                anyhow::anyhow!(
                    "there is no project at {}: {why}; name a Compose file or a directory that has one",
                    path.display()
                )
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;

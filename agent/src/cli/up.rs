//! `stead up`: keep a path converged in the foreground, or hand it to the agent that runs.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use backend::layout::Layout;
use model::diagnostic::{Severity, Span};
use nix::{
    sys::signal::{Signal as KillSignal, kill},
    unistd::Pid,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use super::{
    Global, absolute, doctor,
    logs::{Follower, Show},
    progress::{Progress, is_converged},
    shell,
};
use crate::{
    api::wire::{
        ApplyReply, ApplyRequest, Condition, Diagnostic, EndRequest, LAST_GOOD, PlanRequest, Project,
    },
    client::Client,
    collection::Watermarks,
    daemon, exit, host, render,
    source::{self, directory},
    text,
};

/// How long an agent may take until it answers.
const START: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub struct Up {
    /// A Compose file, a project directory or a directory of manifests.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Leave an agent behind.
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    watermarks: Watermarks,
}

impl Up {
    pub async fn run(&self, global: &Global) -> anyhow::Result<u8> {
        daemon::demand_root(&with_sudo())?;
        let watermarks = self.watermarks.check()?;
        let path = absolute(std::slice::from_ref(&self.path))?;
        directory::at(&path[0]).with_context(|| format!("there is no project at {}", path[0].display()))?;
        let layout = global.layout()?;
        let client = Client::new(&layout);
        let running = client.answers().await;
        if !running && let Some(obstacle) = doctor::obstacle(&host::check(&layout)) {
            bail!(obstacle);
        }
        if !running && !self.detach {
            return foreground(layout, path, watermarks).await;
        }
        let new = match running {
            true => None,
            false => Some(leave_agent_behind(&layout, global, watermarks, &client).await?),
        };
        for note in shell::notes(&layout, &path) {
            eprintln!("{note}");
        }
        let mut progress = Progress::start(&client).await?;
        let request = ApplyRequest {
            paths: path,
            plan: None,
        };
        let applied = client.post("/v1/apply", &request).await;
        if let (Err(_), Some(agent)) = (&applied, new) {
            end_idle(agent, &client).await;
        }
        let reply: ApplyReply = applied?;
        reply
            .diagnostics
            .iter()
            .for_each(|diagnostic| eprintln!("{diagnostic}"));
        let projects: Vec<String> = reply.applied.keys().cloned().collect();
        let names = projects.join(" ");
        if self.detach {
            progress.converged(&reply.applied, None).await?;
            eprintln!("the agent keeps it so; `stead down {names}` stops it");
            return Ok(0);
        }
        let hint = "an agent runs already and keeps it so; Ctrl-C ends only these logs";
        let mut interrupt = Interrupt::new()?;
        follow(&layout, &projects, &mut progress, &mut interrupt, hint).await?;
        eprintln!("{names}: goes on; `stead down {names}` stops it");
        Ok(0)
    }
}

/// An agent of our own for as long as this command runs.
async fn foreground(layout: Layout, paths: Vec<PathBuf>, watermarks: Watermarks) -> anyhow::Result<u8> {
    let client = Client::new(&layout);
    let mut interrupt = Interrupt::new()?;
    let (ready, is_ready) = oneshot::channel();
    let options = daemon::Options {
        layout: layout.clone(),
        manifests: Vec::new(),
        foreground: paths.clone(),
        signals: false,
        watermarks,
    };
    let mut agent = tokio::spawn(daemon::run(options, ready));
    if is_ready.await.is_err() {
        // It ended before it was ready, so it has an error to tell.
        return (&mut agent).await?.map(|()| exit::FAILED);
    }
    let ours = ours(&client, &paths).await?;
    let watching = async {
        let mut progress = Progress::start_at_the_beginning(&client);
        let projects: Vec<String> = ours.keys().cloned().collect();
        let hint = "edits are followed; Ctrl-C stops it and keeps its volumes";
        follow(&layout, &projects, &mut progress, &mut interrupt, hint).await
    };
    tokio::select! {
        watched = watching => watched?,
        ended = &mut agent => {
            ended??;
            bail!("the agent ended; start it again");
        }
    }
    eprintln!(
        "stopping {} (Ctrl-C again leaves at once)",
        ours.keys().cloned().collect::<Vec<_>>().join(", ")
    );
    tokio::select! {
        gone = end(&client, ours.into_keys().collect()) => {
            gone?;
            eprintln!("everything is gone but the volumes");
            Ok(0)
        }
        () = interrupt.recv() => {
            eprintln!("left as it is; the next `stead up` takes over what still runs");
            Ok(exit::INTERRUPTED)
        }
    }
}

/// The projects that came from the command line. Their errors are shown, and keep them from starting.
async fn ours(client: &Client, paths: &[PathBuf]) -> anyhow::Result<BTreeMap<String, String>> {
    let request = PlanRequest {
        paths: paths.to_vec(),
        projects: Vec::new(),
    };
    let looked: ApplyReply = client.post("/v1/look", &request).await?;
    looked
        .diagnostics
        .iter()
        .for_each(|diagnostic| eprintln!("{diagnostic}"));
    if looked.applied.is_empty() {
        bail!("there is nothing to run; correct what is said above");
    }
    Ok(looked.applied)
}

async fn end(client: &Client, projects: Vec<String>) -> anyhow::Result<()> {
    let mut progress = Progress::start(client).await?;
    let request = EndRequest {
        projects: projects.clone(),
    };
    let _: serde_json::Value = client.post("/v1/end", &request).await?;
    progress.gone(&projects, false, None).await
}

/// Logs on standard output and progress on standard error, until interrupted. `hint` is said once all is
/// converged for the first time.
async fn follow(
    layout: &Layout,
    projects: &[String],
    progress: &mut Progress<'_>,
    interrupt: &mut Interrupt,
    hint: &str,
) -> anyhow::Result<()> {
    let mut follower = Follower::new(layout.state.join("logs"), projects, Vec::new());
    let show = Show {
        json: false,
        timestamps: false,
        colour: render::colour_out(),
        width: Cell::new(8),
    };
    let mut told = Told::default();
    loop {
        progress.show().await?;
        told.look(progress, projects, hint).await?;
        show.print(&follower.read())?;
        progress.draw().await?;
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = interrupt.recv() => {
                // What was done since the last look is told, too.
                progress.show().await?;
                show.print(&follower.read())?;
                return Ok(());
            }
        }
    }
}

/// What was said about the projects of `up`.
#[derive(Default)]
struct Told {
    /// The revision that was last said to be converged.
    converged: BTreeMap<String, Option<String>>,
    /// Errors and warnings of the manifests; the first ones were said when they were looked at.
    diagnostics: Option<Vec<String>>,
    hinted: bool,
}

impl Told {
    async fn look(
        &mut self,
        progress: &mut Progress<'_>,
        projects: &[String],
        hint: &str,
    ) -> anyhow::Result<()> {
        let mut all: Vec<Project> = progress.client().get("/v1/status").await?;
        all.retain(|project| projects.contains(&project.project));
        for project in &all {
            // Afterwards a process that ends is told by its restart.
            progress.complain(project, !self.hinted);
            let applied = project.revision.applied.clone();
            if is_converged(project) && self.converged.get(&project.project) != Some(&applied) {
                self.converged.insert(project.project.clone(), applied);
                progress.show().await?;
                progress.report(&project.project).await?;
            }
        }
        if !self.hinted && self.converged.len() == projects.len() {
            self.hinted = true;
            eprintln!("{hint}");
        }
        self.complain(&all);
        Ok(())
    }

    /// Errors of an edit, each time they change.
    fn complain(&mut self, all: &[Project]) {
        let now: Vec<String> = all
            .iter()
            .flat_map(|project| {
                let kept = |condition: &Condition| condition.message.ends_with(LAST_GOOD);
                let kept = project.conditions.iter().any(kept).then(|| LAST_GOOD.to_owned());
                project.diagnostics.iter().map(shown).chain(kept)
            })
            .collect();
        if self.diagnostics.as_ref().is_some_and(|before| *before != now) {
            now.iter().for_each(|line| eprintln!("{line}"));
        }
        self.diagnostics = Some(now);
    }
}

/// With the source line and a caret, as everywhere: the file is on this host.
fn shown(diagnostic: &Diagnostic) -> String {
    let span = Span {
        file: diagnostic.file.clone(),
        line: diagnostic.line,
        column: diagnostic.column,
    };
    let severity = match diagnostic.severity.as_str() {
        "warning" => Severity::Warning,
        _ => Severity::Error,
    };
    let whole = model::diagnostic::Diagnostic {
        severity,
        refusal: false,
        source_line: source::line_of(&span),
        span,
        message: diagnostic.message.clone(),
        hint: diagnostic.hint.clone(),
    };
    text::diagnostic(&whole, render::colour_err())
}

/// Ctrl-C, or being told to end.
struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    fn new() -> anyhow::Result<Self> {
        Ok(Interrupt {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// `stead agent` in a session of its own, its output in `state/agent.log`.
async fn leave_agent_behind(
    layout: &Layout,
    global: &Global,
    marks: Watermarks,
    client: &Client,
) -> anyhow::Result<Child> {
    fs::create_dir_all(&layout.state)
        .with_context(|| format!("cannot make {}; choose another --root", layout.state.display()))?;
    let path = layout.state.join("agent.log");
    let log = File::options().create(true).append(true).open(&path)?;
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(root) = &global.root {
        command.arg("--root").arg(root);
    }
    command
        .args(["agent", "--detached"])
        .arg(format!("--image-gc-high={}", marks.high))
        .arg(format!("--image-gc-low={}", marks.low))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let mut agent = command.spawn().context("cannot start the agent")?;
    let start = Instant::now();
    while !client.answers().await {
        if let Some(status) = agent.try_wait()? {
            bail!("the agent ended at once ({status}); see {}", path.display());
        }
        if start.elapsed() > START {
            bail!("the agent does not answer; see {}", path.display());
        }
        tokio::time::sleep(EVERY).await;
    }
    Ok(agent)
}

/// Who was left behind for a project that was refused goes again, unless there are others to keep.
async fn end_idle(mut agent: Child, client: &Client) {
    let kept: Result<Vec<Project>, _> = client.get("/v1/status").await;
    if kept.is_ok_and(|kept| kept.is_empty()) {
        let _ = kill(Pid::from_raw(agent.id().cast_signed()), KillSignal::SIGTERM);
        let start = Instant::now();
        while agent.try_wait().is_ok_and(|ended| ended.is_none()) && start.elapsed() < START {
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// The line to type instead of this one: the same, as root.
pub fn with_sudo() -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let program = std::env::current_exe().unwrap_or_else(|_| "stead".into());
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    sudo_line(&here, &program, &arguments)
}

fn sudo_line(here: &Path, program: &Path, arguments: &[String]) -> String {
    let program = program
        .strip_prefix(here)
        .unwrap_or(program)
        .display()
        .to_string();
    // Without a slash the shell would look in PATH.
    let program = if program.contains('/') {
        program
    } else {
        format!("./{program}")
    };
    let words = std::iter::once(&program).chain(arguments).map(|word| quote(word));
    format!("sudo {}", words.collect::<Vec<_>>().join(" "))
}

/// As the shell must see it.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_to_type_instead() {
        assert_eq!(
            sudo_line(Path::new("/tmp"), Path::new("/tmp/stead"), &[]),
            "sudo ./stead"
        );
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let program = Path::new("/home/me/stead/target/x86_64-unknown-linux-gnu/release/stead");
        assert_eq!(
            sudo_line(
                Path::new("/home/me/stead"),
                program,
                &words(&["up", "examples/hello"])
            ),
            "sudo target/x86_64-unknown-linux-gnu/release/stead up examples/hello"
        );
        assert_eq!(
            sudo_line(
                Path::new("/tmp"),
                Path::new("/usr/bin/stead"),
                &words(&["up", "my shop's"])
            ),
            r"sudo /usr/bin/stead up 'my shop'\''s'"
        );
    }
}

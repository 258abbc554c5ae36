//! `stead exec`: a command in a running instance.

use std::{collections::BTreeMap, io::IsTerminal, path::PathBuf};

use backend::shim::protocol::{self, Reason};
use nix::errno::Errno;

use super::{Global, target};
use crate::{api::wire::Place, exit, host};

#[derive(Debug, clap::Args)]
pub struct Exec {
    /// Connect standard input; without it the command reads nothing.
    #[arg(short, long)]
    interactive: bool,
    /// With a terminal.
    #[arg(short = 't', long)]
    tty: bool,
    /// uid[:gid] or names of the image; by default the container's own.
    #[arg(short, long, default_value = "")]
    user: String,
    /// Where the command starts; by default where the container did.
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// KEY=VALUE, or KEY with the value it has here.
    #[arg(short, long, value_name = "K=V")]
    env: Vec<String>,
    /// PROJECT/SERVICE[/INDEX], or SERVICE where there is only one of that name.
    target: String,
    /// The command and its arguments, after `--`.
    #[arg(required = true, last = true, value_name = "CMD")]
    command: Vec<String>,
}

impl Exec {
    pub async fn run(&self, global: &Global) -> anyhow::Result<u8> {
        let places: Vec<Place> = global.client()?.get("/v1/instances").await?;
        let place = target::find(&self.target, &places)?;
        let terminal = self.tty;
        if terminal && !std::io::stdin().is_terminal() {
            return Err(exit::usage(
                "-t needs a terminal on standard input; leave it away",
            ));
        }
        let exec = protocol::Exec {
            argv: self.command.clone(),
            environment: self.environment()?,
            user: self.user.clone(),
            working_dir: self.workdir.clone(),
            terminal,
        };
        let (socket, interactive) = (place.socket.clone(), self.interactive || terminal);
        let ended = tokio::task::spawn_blocking(move || host::exec(&socket, exec, interactive)).await?;
        let code = match ended {
            Ok(code) => code,
            Err(host::ExecError::Refused {
                message,
                errno: Some(errno),
                reason: Reason::Spec,
            }) => {
                eprintln!("stead: {message}");
                // As shells say it: not found, found but not executable.
                if errno == Errno::ENOENT as i32 { 127 } else { 126 }
            }
            Err(error) => return Err(error.into()),
        };
        Ok(u8::try_from(code).unwrap_or(exit::FAILED))
    }

    fn environment(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut environment = BTreeMap::new();
        for entry in &self.env {
            match entry.split_once('=') {
                Some(("", _)) => return Err(exit::usage(format!("-e {entry}: write it as KEY=VALUE"))),
                Some((key, value)) => {
                    environment.insert(key.to_owned(), value.to_owned());
                }
                None => environment.extend(std::env::var(entry).ok().map(|value| (entry.clone(), value))),
            }
        }
        Ok(environment)
    }
}

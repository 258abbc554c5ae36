//! `stead exec`: a command in a running instance.

use std::{collections::BTreeMap, io::IsTerminal, path::PathBuf};

use anyhow::bail;
use backend::shim::protocol::{self, Reason};
use nix::errno::Errno;

use super::Global;
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
        let place = find(&self.target, &places)?;
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

fn find<'a>(target: &str, places: &'a [Place]) -> anyhow::Result<&'a Place> {
    let parts: Vec<&str> = target.split('/').collect();
    let fits = |place: &&Place| match parts.as_slice() {
        [service] => place.service == *service,
        [project, service] => place.project == *project && place.service == *service,
        [project, service, index] => {
            place.project == *project && place.service == *service && place.index.to_string() == *index
        }
        _ => false,
    };
    let found: Vec<&Place> = places.iter().filter(fits).collect();
    let mut projects: Vec<&str> = found.iter().map(|place| place.project.as_str()).collect();
    projects.dedup();
    match found.iter().find(|place| place.running) {
        _ if projects.len() > 1 => {
            bail!(
                "`{target}` is in several projects ({}); write PROJECT/{target}",
                projects.join(", ")
            )
        }
        Some(place) => Ok(place),
        None if found.is_empty() => {
            bail!("there is no instance `{target}`; `stead ps -a` shows what there is")
        }
        None => bail!("`{target}` is not running; `stead status` says why"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(project: &str, service: &str, running: bool) -> Place {
        Place {
            project: project.into(),
            service: service.into(),
            index: 1,
            running,
            socket: "/s".into(),
            logs: "/l".into(),
        }
    }

    #[test]
    fn a_target_names_one_running_instance() {
        let places = [
            place("shop", "web", true),
            place("blog", "web", true),
            place("shop", "db", true),
            place("shop", "job", false),
        ];
        for (target, want) in [
            ("db", Ok(2)),
            ("shop/web", Ok(0)),
            ("blog/web/1", Ok(1)),
            ("web", Err("several projects (shop, blog)")),
            ("shop/web/2", Err("no instance")),
            ("job", Err("not running")),
            ("a/b/c/d", Err("no instance")),
        ] {
            match (find(target, &places), want) {
                (Ok(found), Ok(index)) => assert_eq!(found, &places[index], "{target}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{target}: {error}"),
                (found, want) => panic!("{target}: {found:?}, not {want:?}"),
            }
        }
    }
}

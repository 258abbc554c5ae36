//! Programs that keep credentials (docker-credential-helpers): the registry on standard input, JSON on standard output.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, kill_process_group},
};
use serde::Deserialize;

use super::{Credential, CredentialError, LONGEST};

/// What a helper gives as the name when the secret is a refresh token.
const TOKEN: &str = "<token>";

/// How helpers are run.
#[derive(Debug, Clone)]
pub struct Helpers {
    /// Who has not answered then is killed, with everything that it has started.
    pub patience: Duration,
    /// `PATH` for them; `None`: our own.
    pub path: Option<OsString>,
}

impl Default for Helpers {
    fn default() -> Self {
        Helpers {
            patience: Duration::from_secs(30),
            path: None,
        }
    }
}

impl Helpers {
    pub(super) fn ask(&self, helper: &str, registry: &str) -> Result<Option<Credential>, CredentialError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Answer {
            username: String,
            secret: String,
        }
        let refused = |said: &str| CredentialError::Refused {
            helper: helper.to_owned(),
            registry: registry.to_owned(),
            said: said.to_owned(),
        };
        let (status, output) = self
            .run(helper, registry)
            .map_err(|source| CredentialError::Helper {
                helper: helper.to_owned(),
                registry: registry.to_owned(),
                source,
            })?
            .ok_or_else(|| CredentialError::Silent {
                helper: helper.to_owned(),
                registry: registry.to_owned(),
                limit: self.patience,
            })?;
        if !status.success() {
            let said = String::from_utf8_lossy(&output);
            // Nothing of it may act on a terminal.
            let plain = said.trim().chars().filter(|c| !c.is_control()).take(200);
            return match said.contains("credentials not found") {
                true => Ok(None),
                false => Err(refused(&plain.collect::<String>())),
            };
        }
        let answer: Answer =
            serde_json::from_slice(&output).map_err(|_| refused("an answer that is no JSON of a helper"))?;
        Ok(Some(match answer.username.as_str() {
            TOKEN => Credential::Identity(answer.secret),
            _ => Credential::Password {
                name: answer.username,
                password: answer.secret,
            },
        }))
    }

    /// How it ended, and what it said; `None`: it took too long.
    fn run(&self, helper: &str, registry: &str) -> io::Result<Option<(ExitStatus, Vec<u8>)>> {
        // The name becomes a part of the name of a program.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !helper.bytes().all(plain) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut command = Command::new(format!("docker-credential-{helper}"));
        command
            .arg("get")
            .envs(self.path.iter().map(|path| ("PATH", path)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        let end = Instant::now() + self.patience;
        let mut child = command.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // One that does not read ends with an answer all the same.
            let _ = input.write_all(registry.as_bytes());
        }
        let output = child.stdout.take();
        let answered = output.map_or(Ok(Some(Vec::new())), |mut output| read(&mut output, end));
        let ended = answered.and_then(|said| match said {
            Some(said) => Ok(wait(&mut child, end)?.map(|status| (status, said))),
            None => Ok(None),
        });
        if !matches!(ended, Ok(Some(_))) {
            if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            child.wait()?;
        }
        ended
    }
}

/// All that is said until the end; `None`: `end` came first.
fn read(output: &mut ChildStdout, end: Instant) -> io::Result<Option<Vec<u8>>> {
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let limit = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&limit)) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(0) => return Ok(None),
            ready => ready?,
        };
        match output.read(&mut buffer)? {
            0 => return Ok(Some(said)),
            read => said.extend_from_slice(&buffer[..read]),
        }
        if said.len() as u64 > LONGEST {
            return Err(io::Error::other("it does not stop answering"));
        }
    }
}

/// It has closed its output and is about to end.
fn wait(child: &mut Child, end: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        match child.try_wait()? {
            None if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
            ended => return Ok(ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path};

    use serde_json::json;

    use super::super::Credentials;
    use super::*;

    /// What is told about `r.example`, by a helper that is this script.
    fn told(place: &Path, script: &str) -> Result<Option<String>, CredentialError> {
        let file = place.join("auth.json");
        fs::write(
            &file,
            json!({ "credHelpers": { "r.example": "ours" } }).to_string(),
        )
        .unwrap();
        let program = place.join("docker-credential-ours");
        // Replaced whole: what is being written to cannot be executed.
        let new = place.join("new");
        fs::write(&new, format!("#!/bin/sh\ncd {}\n{script}\n", place.display())).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, program).unwrap();
        let mut path = place.as_os_str().to_owned();
        path.push(":/usr/bin:/bin");
        let helpers = Helpers {
            patience: Duration::from_millis(1500),
            path: Some(path),
        };
        let credentials = Credentials {
            files: vec![file],
            helpers,
        };
        let found = credentials.find(&"r.example/app:1".parse().unwrap())?;
        Ok(found.map(|credential| match credential {
            Credential::Password { name, password } => format!("{name}:{password}"),
            Credential::Identity(token) => format!("token {token}"),
        }))
    }

    fn text(error: &dyn std::error::Error) -> String {
        let chain = std::iter::successors(Some(error), |error| error.source());
        chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }

    #[test]
    fn a_helper_is_asked_for_the_registry_and_believed() {
        let place = tempfile::tempdir().unwrap();
        let say = |name: &str| {
            format!(
                "[ \"$1 $(cat)\" = 'get r.example' ] && echo '{{\"Username\":\"{name}\",\"Secret\":\"s\"}}'"
            )
        };
        for (script, expected) in [
            (say("me"), Some("me:s")),
            (say("<token>"), Some("token s")),
            (
                "echo 'credentials not found in native keychain'; exit 1".to_owned(),
                None,
            ),
        ] {
            assert_eq!(
                told(place.path(), &script).unwrap().as_deref(),
                expected,
                "{script}"
            );
        }
        for (script, says) in [
            ("echo the keychain is locked; exit 1", "the keychain is locked"),
            ("echo s3cret", "no JSON of a helper"),
            ("exec cat /dev/zero", "does not stop"),
        ] {
            let error = text(&told(place.path(), script).unwrap_err());
            assert!(
                error.contains(says) && error.contains("docker-credential-ours"),
                "{error}"
            );
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_helper_that_hangs_is_named_and_killed_with_all_that_it_started() {
        let place = tempfile::tempdir().unwrap();
        for script in [
            "echo $$ > pids; exec sleep 1000",
            "sleep 1000 & echo $! $$ > pids; wait",
            // It has answered and ended, and what it left holds its output open.
            "sleep 1000 & echo $! > pids; echo '{}'",
            // It does not even say so.
            "echo $$ > pids; exec sleep 1000 >&-",
            "trap '' TERM HUP; echo $$ > pids; while :; do sleep 1; done",
        ] {
            let begun = Instant::now();
            let error = told(place.path(), script).unwrap_err();
            assert!(begun.elapsed() < Duration::from_secs(10), "{script}");
            assert!(
                matches!(error, CredentialError::Silent { .. }),
                "{script}: {error}"
            );
            let text = error.to_string();
            assert!(
                text.contains("docker-credential-ours") && text.contains("r.example"),
                "{text}"
            );
            for pid in fs::read_to_string(place.path().join("pids"))
                .unwrap()
                .split_whitespace()
            {
                let gone = || match fs::read_to_string(format!("/proc/{pid}/stat")) {
                    // Whoever inherits it may take its time to notice.
                    Ok(stat) => stat.contains(") Z "),
                    Err(_) => true,
                };
                while !gone() {
                    assert!(
                        begun.elapsed() < Duration::from_secs(20),
                        "{script}: {pid} lives on"
                    );
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }
}

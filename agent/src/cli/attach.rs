//! `stead attach`: the output of a running instance as it comes, and its input.

use super::{Global, target};
use crate::{api::wire::Place, exit, host};

#[derive(Debug, clap::Args)]
pub struct Attach {
    /// Watch only: what is typed is not for the service.
    #[arg(long)]
    no_stdin: bool,
    /// Signals that come here are for the service, where it has no terminal.
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// What is typed to leave a terminal.
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: String,
    /// PROJECT/SERVICE[/INDEX], or SERVICE where there is only one of that name.
    target: String,
}

impl Attach {
    pub async fn run(&self, global: &Global) -> anyhow::Result<u8> {
        let keys: host::Keys = self
            .detach_keys
            .parse()
            .map_err(|error| exit::usage(format!("--detach-keys: {error}")))?;
        let places: Vec<Place> = global.client()?.get("/v1/instances").await?;
        let place = target::find(&self.target, &places)?;
        let how = host::Attach {
            input: !self.no_stdin,
            signals: self.sig_proxy,
            keys,
        };
        let socket = place.socket.clone();
        match tokio::task::spawn_blocking(move || host::attach(&socket, &how)).await?? {
            host::AttachEnd::Exited(code) => Ok(u8::try_from(code).unwrap_or(exit::FAILED)),
            host::AttachEnd::Detached => {
                eprintln!("\nstead: detached; {} runs on", self.target);
                Ok(0)
            }
            host::AttachEnd::Signal(signal) => Ok(u8::try_from(128 + signal).unwrap_or(exit::FAILED)),
            host::AttachEnd::CutOff => anyhow::bail!(
                "cut off, because the output was not taken as fast as it came; {} runs on, and \
                 `stead logs` has all of it",
                self.target
            ),
        }
    }
}

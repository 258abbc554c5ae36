//! The socket: made for root alone, and nobody else is listened to.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use anyhow::Context;
use axum::{Router, serve::Listener};
use tokio::net::{UnixListener, UnixStream, unix::SocketAddr};

/// Replaces a socket that an earlier agent left. The caller holds the lock of the root.
pub fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    let listen = || -> io::Result<UnixListener> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    listen().with_context(|| {
        format!(
            "cannot listen on {} (at most 107 bytes long); choose a shorter --root",
            path.display()
        )
    })
}

/// Answers until it is dropped.
pub async fn serve(listener: UnixListener, router: Router) -> io::Result<()> {
    let owner = nix::unistd::geteuid().as_raw();
    axum::serve(Trusted { listener, owner }, router).await
}

/// Lets in root and the agent's own user (SO_PEERCRED, unix(7)).
struct Trusted {
    listener: UnixListener,
    owner: u32,
}

impl Listener for Trusted {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => match stream.peer_cred() {
                    Ok(peer) if peer.uid() == 0 || peer.uid() == self.owner => return (stream, address),
                    Ok(peer) => tracing::warn!(uid = peer.uid(), "refused a connection: only root may ask"),
                    Err(error) => tracing::warn!(%error, "refused a connection of nobody knows whom"),
                },
                Err(error) => {
                    // Out of descriptors, most likely: it passes.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

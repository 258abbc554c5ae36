//! The socket: made for root alone, and nobody else is listened to.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use axum::{Router, serve::Listener};
use notify::{RecursiveMode, Watcher};
use tokio::{
    net::{UnixListener, UnixStream, unix::SocketAddr},
    sync::mpsc,
    task::JoinSet,
};

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

/// Answers until it is dropped. Whoever removes the file of the socket has it made again.
///
/// # Errors
/// None of its own.
pub async fn keep(path: PathBuf, listener: UnixListener, router: Router) -> io::Result<()> {
    let (hints, mut hint) = mpsc::channel(1);
    let watcher = notify::recommended_watcher(move |_| {
        // Full: it is being looked already.
        let _ = hints.try_send(());
    });
    let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
    let watched = watcher.and_then(|mut watcher| {
        watcher.watch(&directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    if let Err(error) = &watched {
        tracing::warn!(%error, "the socket of the agent is not made again should somebody remove it");
    }
    // Connections go on: each is a task of its own.
    let mut serving = JoinSet::new();
    serving.spawn(serve(listener, router.clone()));
    let mut made = inode(&path);
    while hint.recv().await.is_some() {
        if inode(&path) == made {
            continue;
        }
        match bind(&path) {
            Ok(listener) => {
                tracing::warn!(path = %path.display(), "somebody removed the socket of the agent; it is made again");
                made = inode(&path);
                serving.abort_all();
                serving.spawn(serve(listener, router.clone()));
            }
            Err(error) => tracing::warn!(error = format!("{error:#}"), "the socket of the agent is gone"),
        }
    }
    // No watch: what was bound is served all the same.
    serving.join_all().await;
    Ok(())
}

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|metadata| metadata.ino())
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

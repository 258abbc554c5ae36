//! Asks the agent of a root, over its socket.

use std::path::PathBuf;

use anyhow::{Context, bail};
use backend::layout::Layout;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use crate::{api::wire::Problem, exit};

/// One connection a request: they are few, and an agent may be replaced between two of them.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    pub fn new(layout: &Layout) -> Self {
        Client {
            socket: layout.agent_socket(),
        }
    }

    /// Whether an agent listens.
    pub async fn answers(&self) -> bool {
        UnixStream::connect(&self.socket).await.is_ok()
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        self.ask(Method::POST, path, serde_json::to_vec(body)?.into())
            .await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<T> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.no_agent(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the connection.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "stead")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let gone = || {
            exit::with(
                exit::NO_AGENT,
                "the agent went away before it answered; look at its log and try again",
            )
        };
        let reply = sender.send_request(request).await.map_err(|_| gone())?;
        let status = reply.status();
        let body = reply.into_body().collect().await.map_err(|_| gone())?.to_bytes();
        if status == StatusCode::OK {
            return serde_json::from_slice(&body)
                .context("the agent speaks another version of the API; restart it with this stead");
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => {
                for diagnostic in &problem.diagnostics {
                    eprintln!("{diagnostic}");
                }
                bail!("{}", problem.error)
            }
            Err(_) => bail!(
                "the agent refused {path}: {status}: {}",
                String::from_utf8_lossy(&body)
            ),
        }
    }

    fn no_agent(&self, error: &std::io::Error) -> anyhow::Error {
        let socket = self.socket.display();
        let why = match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                format!("{socket} may only be used by root; run it with sudo")
            }
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                format!("no agent answers on {socket}; start one with `stead agent` or `stead up`")
            }
            _ => format!("no agent answers on {socket}: {error}; look at its log"),
        };
        exit::with(exit::NO_AGENT, why)
    }
}

/// A query value; project names need it as little as paths do, what people type may.
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

//! Asks the agent of a root, over its socket.

use std::{path::PathBuf, pin::pin, time::Duration};

use anyhow::{Context, bail};
use backend::layout::Layout;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use crate::{api::wire::Problem, exit};

/// What has come before its connection ended is read in no time.
const LAST: Duration = Duration::from_secs(5);

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
        let exchange = async {
            let reply = sender.send_request(request).await?;
            let status = reply.status();
            Ok((status, reply.into_body().collect().await?.to_bytes()))
        };
        let mut exchange = pin!(exchange);
        let ended: hyper::Result<_> = tokio::select! {
            biased;
            ended = &mut exchange => ended,
            // What it has brought is taken; more will not come, whatever is waited for.
            _ = connection => timeout(LAST, exchange).await.map_err(|_| gone())?,
        };
        let (status, body) = ended.map_err(|_| gone())?;
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
    };

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn an_agent_that_goes_away_is_waited_for_no_longer() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(directory.path())).unwrap();
        let client = Client::new(&layout);
        std::fs::create_dir_all(client.socket.parent().unwrap()).unwrap();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
        let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
        let whole = format!("{head}content-length: 2\r\n\r\n[]");
        let said = [
            (String::new(), false),
            (head.to_owned(), false),
            (format!("{head}content-length: 10\r\n\r\n"), false),
            (format!("{head}content-length: 10\r\n\r\n[1, 2"), false),
            (chunked.clone(), false),
            (format!("{chunked}2\r\n[1\r\n"), false),
            (format!("{chunked}2\r\n[]\r\n0\r\n\r\n"), true),
            (whole, true),
        ];
        for (text, answers) in said {
            let _ = std::fs::remove_file(&client.socket);
            let listener = UnixListener::bind(&client.socket).unwrap();
            let saying = text.clone();
            let agent = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = [0; 4096];
                assert!(stream.read(&mut asked).await.unwrap() > 0);
                stream.write_all(saying.as_bytes()).await.unwrap();
            });
            let reply = timeout(Duration::from_secs(60), client.get::<Vec<u8>>("/v1/status")).await;
            agent.await.unwrap();
            match reply.expect(&text) {
                Ok(list) => assert!(answers && list.is_empty(), "{text}"),
                Err(error) => {
                    assert!(!answers, "{text}: {error:#}");
                    assert!(format!("{error:#}").contains("went away"), "{text}: {error:#}");
                }
            }
        }
    }
}

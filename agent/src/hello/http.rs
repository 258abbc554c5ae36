//! As much of HTTP/1.1 as a demonstration needs: requests without bodies, keep-alive, one client call.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use super::dns;

/// Longest request or response head.
const MAX_HEAD: u64 = 16 << 10;
/// Longest body, of a request to skip and of a response to read.
const MAX_BODY: u64 = 1 << 20;
/// A silent kept-alive connection is closed after so long.
const IDLE: Duration = Duration::from_secs(120);

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub method: String,
    /// Path and query.
    pub path: String,
    keep_alive: bool,
    body: u64,
}

pub(super) enum Reply {
    Text {
        status: u16,
        body: String,
    },
    /// A line at every tick, for ever; it ends with the connection.
    Stream(Duration),
    /// The process ends once the answer is out.
    Exit(u8),
}

impl Reply {
    pub(super) fn text(status: u16, body: &str) -> Self {
        Reply::Text {
            status,
            body: body.to_owned(),
        }
    }
}

/// Answers one connection until it ends; one log line per request.
pub(super) fn serve(stream: TcpStream, answer: impl Fn(&Request) -> Reply, log: impl Fn(&str)) {
    let peer = stream
        .peer_addr()
        .map_or_else(|_| "?".to_owned(), |peer| peer.ip().to_string());
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(Some(IDLE));
    let Ok(mut output) = stream.try_clone() else {
        return;
    };
    let mut input = BufReader::new(stream);
    loop {
        let request = match read_head(&mut input).map(|head| head.map(|head| parse_request(&head))) {
            Ok(Some(Some(request))) => request,
            Ok(Some(None)) => {
                let _ = write_text(&mut output, 400, "not a request\n", false, true);
                return;
            }
            Ok(None) | Err(_) => return,
        };
        let skipped = io::copy(&mut input.by_ref().take(request.body), &mut io::sink());
        if skipped.ok() != Some(request.body) {
            return;
        }
        let line = |status: u16| log(&format!("{peer} {} {} {status}", request.method, request.path));
        let written = match answer(&request) {
            Reply::Text { status, body } => {
                line(status);
                write_text(
                    &mut output,
                    status,
                    &body,
                    request.keep_alive,
                    request.method != "HEAD",
                )
            }
            Reply::Stream(pause) => {
                line(200);
                let _ = write_stream(&mut output, pause);
                return;
            }
            Reply::Exit(code) => {
                line(200);
                let _ = write_text(&mut output, 200, &format!("exit {code}\n"), false, true);
                std::process::exit(i32::from(code));
            }
        };
        if written.is_err() || !request.keep_alive {
            return;
        }
    }
}

/// The lines up to the empty one; `None`: the peer has closed.
fn read_head(input: &mut impl BufRead) -> io::Result<Option<Vec<String>>> {
    let mut input = input.take(MAX_HEAD);
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        input.read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            let cut = !lines.is_empty() || !line.is_empty();
            return if cut {
                Err(io::ErrorKind::UnexpectedEof.into())
            } else {
                Ok(None)
            };
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        match (line.is_empty(), lines.is_empty()) {
            // RFC 9112, 2.2: empty lines before a request line are ignored.
            (true, true) => {}
            (true, false) => return Ok(Some(lines)),
            (false, _) => lines.push(String::from_utf8_lossy(&line).into_owned()),
        }
    }
}

/// `None`: not a request, or one whose body cannot be skipped.
fn parse_request(head: &[String]) -> Option<Request> {
    let (line, fields) = head.split_first()?;
    let mut words = line.split(' ');
    let (method, path, version) = (words.next()?, words.next()?, words.next()?);
    let known = matches!(version, "HTTP/1.0" | "HTTP/1.1");
    if !known || words.next().is_some() || method.is_empty() || !path.starts_with('/') {
        return None;
    }
    let connection = field(fields, "connection")
        .unwrap_or_default()
        .to_ascii_lowercase();
    let body = match field(fields, "content-length") {
        Some(length) => length.parse().ok().filter(|length| *length <= MAX_BODY)?,
        None => 0,
    };
    if field(fields, "transfer-encoding").is_some() {
        return None;
    }
    Some(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        keep_alive: match version {
            "HTTP/1.1" => connection != "close",
            _ => connection == "keep-alive",
        },
        body,
    })
}

fn field<'a>(fields: &'a [String], name: &str) -> Option<&'a str> {
    fields.iter().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn write_text(
    output: &mut impl Write,
    status: u16,
    body: &str,
    keep_alive: bool,
    with_body: bool,
) -> io::Result<()> {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let mut text = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n",
        reason = reason(status),
        length = body.len(),
    );
    if with_body {
        text.push_str(body);
    }
    output.write_all(text.as_bytes())
}

/// Without a length: the body ends with the connection.
fn write_stream(output: &mut impl Write, pause: Duration) -> io::Result<()> {
    output.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n")?;
    for number in 1_u64.. {
        output.write_all(format!("{number}\n").as_bytes())?;
        thread::sleep(pause);
    }
    Ok(())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        502 => "Bad Gateway",
        _ => "Status",
    }
}

/// `http://HOST[:PORT][/PATH]`; the port of `hello` is 8080, so that is what is meant without one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub host: String,
    pub port: u16,
    pub path: String,
}

impl Url {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("http://")?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
            None => (authority, 8080),
        };
        let printable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        (!host.is_empty() && printable(host) && printable(path)).then(|| Url {
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        })
    }
}

/// One GET on a connection of its own: status and body. Errors are sentences.
pub(super) fn get(url: &Url, patience: Duration) -> Result<(u16, String), String> {
    let end = Instant::now() + patience;
    let mut error = format!("{} has no address", url.host);
    for address in dns::lookup(&url.host)? {
        let address = SocketAddr::from((address, url.port));
        let left = end
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return exchange(stream, url, left).map_err(|error| format!("{address}: {error}")),
            Err(refused) => error = format!("{address}: {refused}"),
        }
    }
    Err(error)
}

fn exchange(mut stream: TcpStream, url: &Url, patience: Duration) -> io::Result<(u16, String)> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let Url { host, port, path } = url;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut input = BufReader::new(stream);
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed response");
    let head = read_head(&mut input)?.ok_or_else(malformed)?;
    let (line, fields) = head.split_first().ok_or_else(malformed)?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(malformed)?;
    let length = match field(fields, "content-length") {
        Some(length) => Some(length.parse::<u64>().map_err(|_| malformed())?),
        None => None,
    };
    let mut body = Vec::new();
    input
        .take(length.unwrap_or(MAX_BODY).min(MAX_BODY))
        .read_to_end(&mut body)?;
    if length.is_some_and(|length| length <= MAX_BODY && length != body.len() as u64) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

#[cfg(test)]
mod tests;

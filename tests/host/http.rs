//! A tiny HTTP/1.1 client: one request, one connection.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(3);

/// The body of a 200 answer; anything else is an error in words.
pub fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    get_within(address, path, LIMIT)
}

/// As [`get`]; connecting and each read may take `limit`.
pub fn get_within(address: SocketAddr, path: &str, limit: Duration) -> Result<String, String> {
    let mut reader = open(address, path, limit)?;
    let head = head(&mut reader)?;
    let mut body = Vec::new();
    reader
        .read_to_end(&mut body)
        .map_err(|error| format!("reading the body: {error}"))?;
    let body = match head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        true => unchunk(&body)?,
        false => body,
    };
    let body = String::from_utf8_lossy(&body).into_owned();
    match head.split(' ').nth(1) {
        Some("200") => Ok(body),
        _ => Err(format!("{}: {body}", head.lines().next().unwrap_or_default())),
    }
}

/// The answer as a stream of bytes, its head already read.
pub fn stream(address: SocketAddr, path: &str) -> Result<BufReader<TcpStream>, String> {
    let mut reader = open(address, path, LIMIT)?;
    head(&mut reader)?;
    Ok(reader)
}

fn open(address: SocketAddr, path: &str, limit: Duration) -> Result<BufReader<TcpStream>, String> {
    let mut connection =
        TcpStream::connect_timeout(&address, limit).map_err(|error| format!("connecting: {error}"))?;
    connection
        .set_read_timeout(Some(limit))
        .map_err(|error| error.to_string())?;
    // In one piece: a server may answer and close as soon as it has read the first line.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection
        .write_all(request.as_bytes())
        .map_err(|error| format!("sending: {error}"))?;
    Ok(BufReader::new(connection))
}

fn head(reader: &mut impl BufRead) -> Result<String, String> {
    let mut head = String::new();
    loop {
        let start = head.len();
        let read = reader
            .read_line(&mut head)
            .map_err(|error| format!("reading the head: {error}"))?;
        if read == 0 {
            return Err(format!("closed after {start} bytes"));
        }
        if &head[start..] == "\r\n" {
            return Ok(head);
        }
    }
}

fn unchunk(mut body: &[u8]) -> Result<Vec<u8>, String> {
    let mut whole = Vec::new();
    loop {
        let end = body
            .windows(2)
            .position(|two| two == b"\r\n")
            .ok_or("a chunk without a size")?;
        let size = std::str::from_utf8(&body[..end])
            .ok()
            .and_then(|text| usize::from_str_radix(text.trim(), 16).ok())
            .ok_or("a chunk size that is no number")?;
        if size == 0 {
            return Ok(whole);
        }
        let chunk = body.get(end + 2..end + 2 + size).ok_or("a chunk cut short")?;
        whole.extend_from_slice(chunk);
        body = body.get(end + 2 + size + 2..).ok_or("a chunk without an end")?;
    }
}

//! Output pipes to log files: whole lines, bounded files, never in the way of the service.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{CURRENT, FILES};

/// Longer lines are split and tagged `P`.
const LINE: usize = 16 << 10;
/// A file that has grown beyond is rotated.
const FILE: u64 = 10 << 20;

/// Output that could not be written: told in the log itself as soon as that can be written again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    pub lines: u64,
    /// Of the first of them.
    pub why: String,
}

/// The log files of one instance.
#[derive(Debug)]
pub struct Writer {
    directory: PathBuf,
    file: Option<File>,
    size: u64,
    pub lost: Lost,
}

impl Writer {
    /// For `current.log` in `directory`. A directory that cannot be written loses the output and counts
    /// it; it does not stop the service. `lost`: from the writer before.
    pub fn new(directory: &Path, lost: Lost) -> Self {
        Writer {
            directory: directory.to_owned(),
            file: None,
            size: 0,
            lost,
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        let open = || -> io::Result<(File, u64)> {
            fs::create_dir_all(&self.directory)?;
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(self.directory.join(CURRENT))?;
            let size = file.metadata()?.len();
            Ok((file, size))
        };
        self.file = None;
        let (file, size) = open()?;
        (self.file, self.size) = (Some(file), size);
        Ok(())
    }

    /// One line without its end; `partial` when the rest is still to come.
    fn line(&mut self, out: &mut Vec<u8>, stream: &str, text: &[u8], partial: bool, now: Timestamp) {
        let tag = if partial { 'P' } else { 'F' };
        let _ = write!(out, "{now:.9} {stream} {tag} ");
        out.extend_from_slice(text);
        out.push(b'\n');
    }

    /// Whole lines.
    fn write(&mut self, bytes: &[u8], now: Timestamp) {
        if bytes.is_empty() {
            return;
        }
        let mut all = Vec::new();
        if self.lost.lines > 0 {
            let text = format!(
                "stead: {} lines of output are missing here, the log could not be written: {}",
                self.lost.lines, self.lost.why
            );
            self.line(&mut all, "stderr", text.as_bytes(), false, now);
        }
        all.extend_from_slice(bytes);
        match self.append(&all) {
            Ok(()) => self.lost = Lost::default(),
            Err(error) => {
                self.file = None;
                if self.lost.lines == 0 {
                    self.lost.why = error.to_string();
                }
                self.lost.lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
            }
        }
    }

    /// All of it or nothing: half a line would swallow the next one.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.reopen()?;
        }
        if self.size > 0 && self.size + bytes.len() as u64 > FILE {
            self.rotate()?;
        }
        let Some(file) = &mut self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut written = 0;
        while written < bytes.len() {
            match file.write(&bytes[written..]) {
                Ok(count) if count > 0 => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => {
                    let size = file.metadata()?.len();
                    file.set_len(size.saturating_sub(written as u64))?;
                    return Err(other.err().unwrap_or(io::ErrorKind::WriteZero.into()));
                }
            }
        }
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let name = |number: usize| match number {
            0 => self.directory.join(CURRENT),
            number => self.directory.join(format!("{CURRENT}.{number}")),
        };
        for number in (0..FILES - 1).rev() {
            let _ = fs::rename(name(number), name(number + 1));
        }
        self.reopen()
    }
}

/// What has come of the line a stream is printing.
#[derive(Debug, Default)]
pub struct Lines {
    pub pending: Vec<u8>,
    /// A terminal ends its lines with a carriage return as well, which no program wrote.
    pub terminal: bool,
}

impl Lines {
    /// Takes what was read and writes every line that is whole.
    pub fn take(&mut self, stream: &str, bytes: &[u8], writer: &mut Writer, now: Timestamp) {
        self.pending.extend_from_slice(bytes);
        let mut out = Vec::new();
        let mut start = 0;
        loop {
            let rest = &self.pending[start..];
            let end = rest.iter().take(LINE + 1).position(|byte| *byte == b'\n');
            match end {
                Some(end) => {
                    let text = &rest[..end];
                    let text = text.strip_suffix(b"\r").filter(|_| self.terminal).unwrap_or(text);
                    writer.line(&mut out, stream, text, false, now);
                    start += end + 1;
                }
                None if rest.len() > LINE => {
                    writer.line(&mut out, stream, &rest[..LINE], true, now);
                    start += LINE;
                }
                None => break,
            }
        }
        self.pending.drain(..start);
        writer.write(&out, now);
    }

    /// The stream has ended: a line without an end counts.
    pub fn finish(&mut self, stream: &str, writer: &mut Writer, now: Timestamp) {
        if !self.pending.is_empty() {
            let mut out = Vec::new();
            writer.line(&mut out, stream, &self.pending, false, now);
            writer.write(&out, now);
            self.pending = Vec::new();
        }
    }
}

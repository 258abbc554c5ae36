//! Output pipes to log files: whole lines, bounded files, never in the way of the service.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{CURRENT, FILES};

/// Longer lines are split and tagged `P`.
const LINE: usize = 16 << 10;
/// A file that has grown beyond is rotated.
const FILE: u64 = 10 << 20;

/// The log files of one instance.
#[derive(Debug)]
pub struct Writer {
    directory: PathBuf,
    file: Option<File>,
    size: u64,
}

impl Writer {
    /// Opens or makes `current.log` in `directory`. A directory that cannot be written loses the
    /// output; it does not stop the service.
    pub fn open(directory: &Path) -> Self {
        let mut writer = Writer {
            directory: directory.to_owned(),
            file: None,
            size: 0,
        };
        writer.reopen();
        writer
    }

    fn reopen(&mut self) {
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
        (self.file, self.size) = match open() {
            Ok((file, size)) => (Some(file), size),
            Err(_) => (None, 0),
        };
    }

    /// One line without its end; `partial` when the rest is still to come.
    fn line(&mut self, out: &mut Vec<u8>, stream: &str, text: &[u8], partial: bool, now: Timestamp) {
        let tag = if partial { 'P' } else { 'F' };
        let _ = write!(out, "{now:.9} {stream} {tag} ");
        out.extend_from_slice(text);
        out.push(b'\n');
    }

    fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.size > 0 && self.size + bytes.len() as u64 > FILE {
            self.rotate();
        }
        if self.file.is_none() {
            self.reopen();
        }
        if let Some(file) = &mut self.file
            && file.write_all(bytes).is_ok()
        {
            self.size += bytes.len() as u64;
        }
    }

    fn rotate(&mut self) {
        let name = |number: usize| match number {
            0 => self.directory.join(CURRENT),
            number => self.directory.join(format!("{CURRENT}.{number}")),
        };
        for number in (0..FILES - 1).rev() {
            let _ = fs::rename(name(number), name(number + 1));
        }
        self.reopen();
    }
}

/// What has come of the line a stream is printing.
#[derive(Debug, Default)]
pub struct Lines {
    pub pending: Vec<u8>,
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
                    writer.line(&mut out, stream, &rest[..end], false, now);
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
        writer.write(&out);
    }

    /// The stream has ended: a line without an end counts.
    pub fn finish(&mut self, stream: &str, writer: &mut Writer, now: Timestamp) {
        if !self.pending.is_empty() {
            let mut out = Vec::new();
            writer.line(&mut out, stream, &self.pending, false, now);
            writer.write(&out);
            self.pending = Vec::new();
        }
    }
}

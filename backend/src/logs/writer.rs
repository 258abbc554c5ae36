//! Output pipes to log files: whole lines, bounded files, never in the way of the service.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use reconciler::key::InstanceKey;
use serde::{Deserialize, Serialize};

use reconciler::spec::{LogFiles, LogForward, LogSettings, SyslogAddress};

use super::{
    CURRENT, ELSEWHERE,
    forward::{Dropped, Forward},
    index::Index,
};
use crate::shim::clock;

/// Longer lines are split and tagged `P`.
const LINE: usize = 16 << 10;

/// What is gathered before it is written.
const GATHERED: usize = 32 << 10;

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
    /// `None`: nothing is kept.
    files: Option<LogFiles>,
    forward: Option<Forward>,
    index: Index,
    /// What was printed before the file that grows.
    before: u64,
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
            files: LogSettings::default().files,
            forward: None,
            index: Index::default(),
            before: 0,
        }
    }

    /// Goes on in another way, or begins. `dropped`: by the writer before.
    pub fn set(&mut self, settings: &LogSettings, key: &InstanceKey, dropped: Dropped) {
        self.files = settings.files;
        for number in settings.files.map_or(0, |files| files.max_file as usize).. {
            if fs::remove_file(self.name(number)).is_err() {
                break;
            }
        }
        if settings.files.is_none() {
            self.file = None;
        }
        if self.forward.as_ref().map(Forward::to) != settings.forward.as_ref() {
            let to = settings.forward.clone();
            let before = self.forward.take().map(|forward| forward.finish(clock::boot()));
            let dropped = before.unwrap_or(dropped);
            self.forward = to.map(|to| Forward::new(to, key.clone(), dropped));
        }
        let place = self.directory.join(ELSEWHERE);
        let _ = match elsewhere(settings) {
            None => fs::remove_file(place),
            Some(text) => fs::create_dir_all(&self.directory).and_then(|()| fs::write(place, text)),
        };
    }

    /// As [`Forward::poll_fd`], [`Forward::due`] and [`Forward::flush`].
    pub fn forward(&mut self) -> Option<&mut Forward> {
        self.forward.as_mut()
    }

    pub fn forwarded(&self) -> Option<&Forward> {
        self.forward.as_ref()
    }

    fn name(&self, number: usize) -> PathBuf {
        match number {
            0 => self.directory.join(CURRENT),
            number => self.directory.join(format!("{CURRENT}.{number}")),
        }
    }

    /// Goes on with the file that is there, or with a new one. A new one is in the index before it has its name,
    /// because it may have the inode of one that was removed.
    fn open(&mut self, fresh: bool) -> io::Result<()> {
        self.file = None;
        fs::create_dir_all(&self.directory)?;
        let mut options = OpenOptions::new();
        options.append(true).mode(0o600);
        let path = self.name(0);
        self.index = Index::read(&self.directory);
        match options.open(&path) {
            Ok(file) if !fresh => {
                let found = file.metadata()?;
                self.before = self.index.before(found.ino()).unwrap_or(self.before);
                (self.file, self.size) = (Some(file), found.len());
                return Ok(());
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let new = self.directory.join("current.log.new");
        let _ = fs::remove_file(&new);
        let file = options.create_new(true).open(&new)?;
        let files = self.files.map_or(1, |files| files.max_file as usize);
        // Without it, only what a slow reader missed is not counted.
        let _ = self.index.add(&self.directory, &file, self.before, files);
        fs::rename(new, path)?;
        (self.file, self.size) = (Some(file), 0);
        Ok(())
    }

    /// One line without its end; `partial` when the rest is still to come.
    fn line(&mut self, out: &mut Vec<u8>, stream: &str, text: &[u8], partial: bool, now: Timestamp) {
        if let Some(forward) = &mut self.forward {
            forward.line(stream == "stderr", &[text], partial, now, clock::boot());
            if let Some(news) = forward.news.take().filter(|_| self.files.is_some()) {
                let _ = writeln!(out, "{now:.9} stderr F stead: {news}");
            }
        }
        if self.files.is_none() {
            return;
        }
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
            self.open(false)?;
        }
        let most = self.files.map_or(u64::MAX, |files| files.max_size);
        if self.size > 0 && self.size + bytes.len() as u64 > most {
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
        let files = self.files.map_or(1, |files| files.max_file as usize);
        for number in (0..files - 1).rev() {
            let _ = fs::rename(self.name(number), self.name(number + 1));
        }
        self.before += std::mem::take(&mut self.size);
        self.open(true)
    }
}

/// What `stead logs` says of output that is not, or not all, in the files.
fn elsewhere(settings: &LogSettings) -> Option<String> {
    let kept = match settings.files {
        Some(_) => "only the last of it is kept here",
        None => "none of it is kept here",
    };
    match &settings.forward {
        Some(LogForward::Journal { tag, .. }) => Some(format!(
            "its output goes to the journal, and {kept}: journalctl SYSLOG_IDENTIFIER={tag}"
        )),
        Some(LogForward::Syslog { address, .. }) => {
            let to = match address {
                SyslogAddress::Datagram(path) | SyslogAddress::Stream(path) => path.display().to_string(),
                SyslogAddress::Udp(address) | SyslogAddress::Tcp(address) => address.to_string(),
            };
            Some(format!("its output goes to the syslog server {to}, and {kept}"))
        }
        None if settings.files.is_none() => Some(
            "nothing of its output is kept (logging driver none); `stead attach` shows it as it comes".into(),
        ),
        None => None,
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
            // Files stay near their size, and the buffer small.
            if out.len() > GATHERED {
                writer.write(&out, now);
                out.clear();
            }
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

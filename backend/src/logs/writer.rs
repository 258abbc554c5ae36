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
/// What is gathered before it is written: short lines grow by the time before them, and must not make a
/// buffer that nobody needs again.
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
    /// Whole lines that are about to be written. It stays, so that no line costs memory.
    out: Vec<u8>,
    /// At the beginning of `out`: the line about those that are lost.
    note: usize,
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
            out: Vec::new(),
            note: 0,
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

    /// One line without its end, in two parts; `partial` when the rest of it is still to come. `head`: time and
    /// stream.
    fn line(&mut self, head: &Head<'_>, text: [&[u8]; 2], partial: bool) {
        let mut news = None;
        if let Some(forward) = &mut self.forward {
            let text: &[&[u8]] = if text[0].is_empty() { &text[1..] } else { &text };
            forward.line(head.stream == "stderr", text, partial, head.now, clock::boot());
            news = forward.news.take();
        }
        if self.files.is_none() {
            return;
        }
        let now = head.now;
        if self.out.is_empty() && self.lost.lines > 0 {
            let Lost { lines, why } = &self.lost;
            let _ = writeln!(
                self.out,
                "{now:.9} stderr F stead: {lines} lines of output are missing here, the log could not be written: {why}",
            );
            self.note = self.out.len();
        }
        let length = head.text.len() + text[0].len() + text[1].len() + 3;
        if self.out.capacity() < GATHERED {
            self.out.reserve_exact(GATHERED);
        }
        if self.out.len() + length > GATHERED && self.out.len() > self.note {
            self.flush();
        }
        if let Some(news) = news {
            let _ = writeln!(self.out, "{now:.9} stderr F stead: {news}");
        }
        self.out.extend_from_slice(head.text.as_bytes());
        self.out.extend_from_slice(if partial { b"P " } else { b"F " });
        self.out.extend_from_slice(text[0]);
        self.out.extend_from_slice(text[1]);
        self.out.push(b'\n');
    }

    /// Writes what was gathered.
    fn flush(&mut self) {
        if self.out.is_empty() {
            return;
        }
        let out = std::mem::take(&mut self.out);
        match self.append(&out) {
            Ok(()) => self.lost = Lost::default(),
            Err(error) => {
                self.file = None;
                if self.lost.lines == 0 {
                    self.lost.why = error.to_string();
                }
                let lines = out[self.note..].iter().filter(|byte| **byte == b'\n').count();
                self.lost.lines += lines as u64;
            }
        }
        self.out = out;
        self.out.clear();
        self.note = 0;
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

/// What has come of the line a stream is printing, at most [`LINE`] bytes.
#[derive(Debug, Default)]
pub struct Lines {
    pub pending: Vec<u8>,
    /// A terminal ends its lines with a carriage return as well, which no program wrote.
    pub terminal: bool,
}

/// What stands before each line of one moment.
struct Head<'a> {
    stream: &'a str,
    now: Timestamp,
    text: String,
}

impl<'a> Head<'a> {
    fn new(stream: &'a str, now: Timestamp) -> Self {
        let text = format!("{now:.9} {stream} ");
        Head { stream, now, text }
    }
}

impl Lines {
    /// Takes what was read and writes every line that is whole.
    pub fn take(&mut self, stream: &str, bytes: &[u8], writer: &mut Writer, now: Timestamp) {
        let head = Head::new(stream, now);
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = LINE - self.pending.len().min(LINE);
            let end = rest.iter().take(room + 1).position(|byte| *byte == b'\n');
            let (text, partial, next) = match end {
                Some(end) => (&rest[..end], false, &rest[end + 1..]),
                None if rest.len() > room => (&rest[..room], true, &rest[room..]),
                None => {
                    self.pending
                        .reserve_exact(LINE.saturating_sub(self.pending.len()));
                    self.pending.extend_from_slice(rest);
                    break;
                }
            };
            writer.line(&head, self.whole(text, partial), partial);
            self.pending.clear();
            rest = next;
        }
        writer.flush();
    }

    /// What has come of a line before and now, without the carriage return that a terminal ends it with.
    fn whole<'a>(&'a self, text: &'a [u8], partial: bool) -> [&'a [u8]; 2] {
        let cut = |part: &'a [u8]| part.strip_suffix(b"\r").unwrap_or(part);
        match self.terminal && !partial {
            true if text.is_empty() => [cut(&self.pending), text],
            true => [&self.pending, cut(text)],
            false => [&self.pending, text],
        }
    }

    /// The stream has ended: a line without an end counts.
    pub fn finish(&mut self, stream: &str, writer: &mut Writer, now: Timestamp) {
        if !self.pending.is_empty() {
            writer.line(&Head::new(stream, now), self.whole(b"", false), false);
            writer.flush();
            self.pending = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written of `parts`, without times.
    fn written(parts: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(directory.path(), Lost::default());
        let mut lines = Lines::default();
        for part in parts {
            lines.take("stdout", part, &mut writer, Timestamp::UNIX_EPOCH);
            assert!(lines.pending.len() <= LINE, "{} are kept", lines.pending.len());
        }
        lines.finish("stdout", &mut writer, Timestamp::UNIX_EPOCH);
        assert!(
            writer.out.capacity() <= GATHERED + LINE + 64,
            "{}",
            writer.out.capacity()
        );
        let text = fs::read(directory.path().join(CURRENT)).unwrap();
        let all = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        all.map(|line| {
            let at = line.windows(8).position(|part| part == b" stdout ").unwrap() + 8;
            (line[at] == b'P', line[at + 2..].to_vec())
        })
        .collect()
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let long = vec![b'x'; 2 * LINE + 7];
        let mut text = b"one\n\nthree\n".to_vec();
        text.extend_from_slice(&long);
        text.push(b'\n');
        text.extend_from_slice(&long[..LINE]);
        text.extend_from_slice(b"\nlast");
        let line = |partial, text: &[u8]| (partial, text.to_vec());
        let expected = [
            line(false, b"one"),
            line(false, b""),
            line(false, b"three"),
            line(true, &long[..LINE]),
            line(true, &long[..LINE]),
            line(false, &long[..7]),
            line(false, &long[..LINE]),
            line(false, b"last"),
        ];
        assert_eq!(written(&[&text]), expected);
        for size in [1, 3, LINE - 1, LINE, LINE + 1] {
            let parts: Vec<&[u8]> = text.chunks(size).collect();
            assert!(written(&parts) == expected, "in parts of {size}");
        }
    }

    #[test]
    fn what_could_not_be_written_is_counted_and_told_once_it_can() {
        let directory = tempfile::tempdir().unwrap();
        let logs = directory.path().join("logs");
        fs::write(&logs, "in the way").unwrap();
        let mut writer = Writer::new(&logs, Lost::default());
        let mut lines = Lines::default();
        let now = Timestamp::UNIX_EPOCH;
        // More than is gathered at once.
        lines.take("stdout", "line\n".repeat(5000).as_bytes(), &mut writer, now);
        assert_eq!(writer.lost.lines, 5000);
        fs::remove_file(&logs).unwrap();
        lines.take("stdout", b"after\n", &mut writer, now);
        assert_eq!(writer.lost, Lost::default());
        let text = fs::read_to_string(logs.join(CURRENT)).unwrap();
        let found: Vec<&str> = text.lines().collect();
        assert_eq!(found.len(), 2, "{text}");
        assert!(
            found[0].contains("stderr F stead: 5000 lines of output are missing here"),
            "{text}"
        );
        assert!(found[1].ends_with("stdout F after"), "{text}");
    }
}

//! Reads and follows the log files of one instance across rotation.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{CURRENT, index::Index};

/// More than there may be.
const MOST: usize = 1000;
/// Looks at the files, until no rotation falls into one.
const LOOKS: usize = 100;

/// One line as it was printed; split ones are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// RFC 3339, nanoseconds.
    pub time: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    pub text: Vec<u8>,
}

/// One file.
#[derive(Debug)]
struct Log {
    file: File,
    inode: u64,
    /// What was printed before it.
    before: Option<u64>,
    read: u64,
}

/// Oldest line first. As an iterator it ends where the files end; [`Reader::follow`] waits for more.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    /// Still to be read, oldest first; the last is the newest that was opened.
    files: VecDeque<Log>,
    /// Where in all that was ever printed the file ends that was read last, where that is known.
    reached: Option<u64>,
    /// To be told before the next line.
    gap: Option<u64>,
    buffer: Vec<u8>,
    /// Of the buffer, what was given out.
    given: usize,
    partial: Option<Line>,
}

impl Reader {
    /// An instance that never ran has no lines.
    ///
    /// # Errors
    /// As open(2), except that a missing file is empty.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let mut reader = Reader {
            directory: directory.to_owned(),
            files: VecDeque::new(),
            reached: None,
            gap: None,
            buffer: Vec::new(),
            given: 0,
            partial: None,
        };
        reader.look_for_more()?;
        Ok(reader)
    }

    fn path(&self, number: usize) -> PathBuf {
        match number {
            0 => self.directory.join(CURRENT),
            number => self.directory.join(format!("{CURRENT}.{number}")),
        }
    }

    fn log(&self, number: usize) -> io::Result<Option<Log>> {
        match File::open(self.path(number)) {
            Ok(file) => {
                let inode = file.metadata()?.ino();
                Ok(Some(Log {
                    file,
                    inode,
                    before: None,
                    read: 0,
                }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next line that is there now.
    ///
    /// # Errors
    /// As read(2).
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        loop {
            while let Some(length) = self.buffer[self.given..].iter().position(|byte| *byte == b'\n') {
                let raw = self.buffer[self.given..self.given + length].to_vec();
                self.given += length + 1;
                if let Some(line) = self.join(&raw) {
                    return Ok(Some(line));
                }
            }
            self.buffer.drain(..std::mem::take(&mut self.given));
            if let Some(missing) = self.gap.take() {
                // What was begun there has no end.
                self.partial = None;
                return Ok(Some(missed(missing)));
            }
            let Some(log) = self.files.front_mut() else {
                if !self.look_for_more()? {
                    return Ok(None);
                }
                continue;
            };
            let mut chunk = vec![0; 64 << 10];
            let count = log.file.read(&mut chunk)?;
            log.read += count as u64;
            self.buffer.extend_from_slice(&chunk[..count]);
            if count == 0 {
                // The newest stays open to be followed until another has taken its place.
                if self.files.len() > 1 {
                    self.next_file();
                } else if !self.look_for_more()? {
                    return Ok(None);
                }
            }
        }
    }

    /// The first file is read.
    fn next_file(&mut self) {
        let Some(done) = self.files.pop_front() else {
            return;
        };
        self.reached = done.before.map(|before| before + done.read);
        if let (Some(reached), Some(before)) = (self.reached, self.files.front().and_then(|next| next.before))
        {
            self.gap = before.checked_sub(reached).filter(|missing| *missing > 0);
        }
    }

    /// Files younger than the newest that is open; more than one when rotation was fast.
    fn look_for_more(&mut self) -> io::Result<bool> {
        let known = self.files.back().map(|log| log.inode);
        for _ in 0..LOOKS {
            let mut younger = Vec::new();
            for number in 0..MOST {
                match self.log(number)? {
                    Some(log) if Some(log.inode) == known => break,
                    Some(log) => younger.push(log),
                    None => break,
                }
            }
            // The same one twice, or another at the head: a rotation came between. All of them are open, so none
            // has the inode of one that was removed.
            let mut inodes: Vec<u64> = younger.iter().map(|log| log.inode).collect();
            inodes.sort_unstable();
            let twice = inodes.windows(2).any(|pair| pair[0] == pair[1]);
            let head = self.log(0)?.map(|log| log.inode);
            let first = younger.first().map(|log| log.inode);
            if twice
                || (first.is_some() && first != head)
                || (first.is_none() && head.is_some() && head != known)
            {
                continue;
            }
            let index = Index::read(&self.directory);
            if let Some(newest) = self.files.back_mut().filter(|log| log.before.is_none()) {
                newest.before = index.before(newest.inode);
            }
            let more = !younger.is_empty();
            for mut log in younger.into_iter().rev() {
                log.before = index.before(log.inode);
                self.files.push_back(log);
            }
            return Ok(more);
        }
        // Rotated faster than anybody could look: the next look may have it.
        Ok(false)
    }

    fn join(&mut self, raw: &[u8]) -> Option<Line> {
        let mut fields = raw.splitn(4, |byte| *byte == b' ');
        let time = String::from_utf8_lossy(fields.next()?).into_owned();
        let stream = String::from_utf8_lossy(fields.next()?).into_owned();
        let tag = fields.next()?;
        let text = fields.next()?;
        let mut line = match self.partial.take() {
            Some(begun) if begun.stream == stream => begun,
            _ => Line {
                time,
                stream,
                text: Vec::new(),
            },
        };
        line.text.extend_from_slice(text);
        if tag == b"P" {
            self.partial = Some(line);
            return None;
        }
        Some(line)
    }

    /// The next line, waiting for it until `stop` says so (asked every 100 ms).
    ///
    /// # Errors
    /// As read(2).
    pub fn follow(&mut self, stop: &mut dyn FnMut() -> bool) -> io::Result<Option<Line>> {
        loop {
            if let Some(line) = self.next_line()? {
                return Ok(Some(line));
            }
            if stop() {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// In the place of lines that were rotated away.
fn missed(bytes: u64) -> Line {
    let text = format!(
        "stead: {bytes} bytes of output are missing here: they were rotated away before they were read; raise max-size \
         or max-file in `logging.options`"
    );
    Line {
        time: format!("{:.9}", jiff::Timestamp::now()),
        stream: "stderr".into(),
        text: text.into_bytes(),
    }
}

impl Iterator for Reader {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_line().transpose()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{
        super::writer::{Lines, Writer},
        *,
    };

    #[test]
    fn lines_survive_splitting_rotation_and_a_missing_end() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(directory.path(), Default::default());
        let mut lines = Lines::default();
        let now = Timestamp::from_nanosecond(1_793_000_000_123_456_789).unwrap();
        let mut reader = Reader::open(directory.path()).unwrap();
        let long = vec![b'x'; 40_000];
        let mut sent = Vec::new();
        for number in 0..900 {
            let mut text = format!("{number} ").into_bytes();
            text.extend_from_slice(&long[..(number * 41) % 40_000]);
            sent.push(text.clone());
            text.push(b'\n');
            for piece in text.chunks(5000) {
                lines.take("stdout", piece, &mut writer, now);
            }
            if number % 50 == 0 {
                while let Some(line) = reader.next_line().unwrap() {
                    assert_eq!(line.text, sent.remove(0));
                    assert_eq!(line.time, "2026-10-26T07:33:20.123456789Z");
                }
            }
        }
        lines.take("stderr", b"no end", &mut writer, now);
        lines.finish("stderr", &mut writer, now);
        sent.push(b"no end".to_vec());
        let rest: Vec<_> = reader.map(|line| line.unwrap().text).collect();
        assert!(rest == sent);
        assert!(directory.path().join("current.log.1").exists());
    }
}

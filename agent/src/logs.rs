//! Reads the logs that the shims write, in the CRI line format: `TIME STREAM F|P TEXT`.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// One line of one instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// RFC 3339, as written.
    pub time: String,
    pub instance: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    pub text: String,
}

/// The logs of one instance, from the oldest kept line on, across rotation.
pub struct Tail {
    instance: String,
    directory: PathBuf,
    file: Option<File>,
    inode: u64,
    rest: Vec<u8>,
    /// A line that a shim cut into parts (`P`) and that has not ended yet.
    partial: String,
}

/// The instances of a project that have logs: directory name `web-1a`, shown as `web-1`.
pub fn instances(logs: &Path, project: &str) -> io::Result<Vec<Tail>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(logs.join(project))? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found
        .into_iter()
        .map(|(name, directory)| Tail::new(shown(&name), directory))
        .collect())
}

fn shown(directory: &str) -> String {
    directory.trim_end_matches(['a', 'b']).to_owned()
}

impl Tail {
    fn new(instance: String, directory: PathBuf) -> Self {
        Tail {
            instance,
            directory,
            file: None,
            inode: 0,
            rest: Vec::new(),
            partial: String::new(),
        }
    }

    pub fn service(&self) -> &str {
        self.instance
            .rsplit_once('-')
            .map_or(&self.instance, |(service, _)| service)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What came since the last call; the first one gives everything that is kept.
    pub fn read(&mut self) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        if self.file.is_none() && self.inode == 0 {
            for path in self.rotated()? {
                let mut text = Vec::new();
                File::open(path)?.read_to_end(&mut text)?;
                self.take(text, &mut lines);
            }
        }
        // The old file to its end first: the shim has renamed it and writes to the new one.
        self.drain(&mut lines)?;
        let current = self.directory.join("current.log");
        if let Ok(metadata) = fs::metadata(&current)
            && metadata.ino() != self.inode
        {
            self.drain(&mut lines)?;
            self.file = Some(File::open(&current)?);
            self.inode = metadata.ino();
            self.drain(&mut lines)?;
        }
        Ok(lines)
    }

    fn drain(&mut self, lines: &mut Vec<Line>) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        if file.metadata()?.len() < file.stream_position()? {
            file.seek(SeekFrom::Start(0))?;
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        self.take(text, lines);
        Ok(())
    }

    /// Older files, the oldest first: `current.log.2`, `current.log.1`.
    fn rotated(&self) -> io::Result<Vec<PathBuf>> {
        let mut found: Vec<(u32, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let number = path.extension().and_then(|number| number.to_str()?.parse().ok());
            found.extend(number.map(|number| (number, path)));
        }
        found.sort();
        Ok(found.into_iter().rev().map(|(_, path)| path).collect())
    }

    fn take(&mut self, text: Vec<u8>, lines: &mut Vec<Line>) {
        self.rest.extend(text);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return;
        };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        for line in String::from_utf8_lossy(&whole).lines() {
            lines.extend(self.parse(line));
        }
    }

    fn parse(&mut self, line: &str) -> Option<Line> {
        let mut parts = line.splitn(4, ' ');
        let (time, stream, tag, text) = (
            parts.next()?,
            parts.next()?,
            parts.next()?,
            parts.next().unwrap_or(""),
        );
        self.partial.push_str(text);
        if tag.starts_with('P') {
            return None;
        }
        Some(Line {
            time: time.to_owned(),
            instance: self.instance.clone(),
            stream: stream.to_owned(),
            text: std::mem::take(&mut self.partial),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_in_order_across_rotation_and_parts_are_joined() {
        let logs = tempfile::tempdir().unwrap();
        let directory = logs.path().join("shop/web-1a");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("current.log.2"), "1 stdout F oldest\n").unwrap();
        fs::write(directory.join("current.log.1"), "2 stdout F older\n").unwrap();
        let current = directory.join("current.log");
        fs::write(&current, "3 stdout P be\n3 stdout F gin\n4 stderr F half").unwrap();
        let mut tail = instances(logs.path(), "shop").unwrap().remove(0);
        assert_eq!(tail.service(), "web");
        let mut texts = || {
            tail.read()
                .unwrap()
                .into_iter()
                .map(|line| line.text)
                .collect::<Vec<_>>()
        };
        assert_eq!(texts(), ["oldest", "older", "begin"]);
        fs::write(&current, "3 stdout P be\n3 stdout F gin\n4 stderr F half done\n").unwrap();
        assert_eq!(texts(), ["half done"]);
        fs::rename(&current, directory.join("current.log.1")).unwrap();
        fs::write(&current, "5 stdout F new\n").unwrap();
        assert_eq!(texts(), ["new"]);
        assert_eq!(texts(), Vec::<String>::new());
    }
}

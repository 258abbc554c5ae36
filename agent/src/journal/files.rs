//! The files of the journal: `journal.jsonl` is written, and those before it have a number, the oldest the least.
//! What is older than 30 days goes, and the oldest where all are more than 32 MB.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use reconciler::journal::Entry;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A line beyond this is shortened: values of a manifest may be of any size.
const LINE: usize = 64 * 1024;

#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Of all files, in bytes.
    pub total: u64,
    /// At this size, or when its first entry is a day old, a file is closed and another one begun.
    pub each: u64,
    pub age: Duration,
}

pub const BOUNDS: Bounds = Bounds {
    total: 32 * 1024 * 1024,
    each: 1024 * 1024,
    age: DAY.saturating_mul(30),
};

pub struct Files {
    path: PathBuf,
    bounds: Bounds,
    file: File,
    size: u64,
    /// When the file that is written was begun.
    begun: SystemTime,
    /// Closed files by number, with their sizes.
    closed: BTreeMap<u64, u64>,
    pruned: SystemTime,
}

impl Files {
    pub fn open(path: &Path) -> io::Result<Self> {
        Files::bounded(path, BOUNDS)
    }

    pub fn bounded(path: &Path, bounds: Bounds) -> io::Result<Self> {
        let mut closed = BTreeMap::new();
        for (number, path) in numbered(path)? {
            closed.insert(number, fs::metadata(path)?.len());
        }
        let mut file = append(path)?;
        let mut size = file.metadata()?.len();
        // The agent before this one may have died within a line: what follows it must not be lost, too.
        if size > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != [b'\n'] {
                file.write_all(b"\n")?;
                size += 1;
            }
        }
        let mut files = Files {
            begun: begun(path).unwrap_or_else(SystemTime::now),
            path: path.to_owned(),
            bounds,
            file,
            size,
            closed,
            pruned: SystemTime::UNIX_EPOCH,
        };
        files.prune()?;
        Ok(files)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        if line.len() > LINE {
            line = serde_json::to_vec(&shortened(entry))?;
        }
        line.push(b'\n');
        let length = line.len() as u64;
        let old = age(self.begun) >= DAY;
        if self.size > 0 && (old || self.size + length > self.bounds.each) {
            self.rotate()?;
        }
        if age(self.pruned) >= Duration::from_secs(3600) {
            self.prune()?;
        }
        self.make_room(length)?;
        // One write a line: a reader sees half of one only where the machine has stopped in it.
        self.file.write_all(&line)?;
        self.size += length;
        Ok(())
    }

    /// Removes what is too old.
    pub fn prune(&mut self) -> io::Result<()> {
        self.pruned = SystemTime::now();
        let old = |path: &Path| -> io::Result<bool> {
            // The last entry of a file was written when the file was.
            Ok(age(fs::metadata(path)?.modified()?) >= self.bounds.age)
        };
        let mut gone = Vec::new();
        for number in self.closed.keys() {
            let path = self.numbered(*number);
            if old(&path)? {
                fs::remove_file(path)?;
                gone.push(*number);
            }
        }
        for number in gone {
            self.closed.remove(&number);
        }
        if self.size > 0 && old(&self.path)? {
            self.file.set_len(0)?;
            self.size = 0;
            self.begun = SystemTime::now();
        }
        self.make_room(0)
    }

    fn rotate(&mut self) -> io::Result<()> {
        let number = self.closed.keys().next_back().map_or(1, |last| last + 1);
        fs::rename(&self.path, self.numbered(number))?;
        self.closed.insert(number, self.size);
        self.file = append(&self.path)?;
        self.size = 0;
        self.begun = SystemTime::now();
        Ok(())
    }

    fn make_room(&mut self, more: u64) -> io::Result<()> {
        while self.size + more + self.closed.values().sum::<u64>() > self.bounds.total {
            let Some((number, _)) = self.closed.pop_first() else {
                return Ok(());
            };
            match fs::remove_file(self.numbered(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn numbered(&self, number: u64) -> PathBuf {
        self.path.with_extension(format!("jsonl.{number}"))
    }
}

/// All entries of the journal at `path`, oldest first. What cannot be understood (a line that was cut off, one
/// of a newer stead) is left out; a missing journal is an empty one.
///
/// # Errors
/// A file cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let closed = numbered(path)?.into_values();
    for path in closed.chain([path.to_owned()]) {
        let file = match File::open(&path) {
            Ok(file) => file,
            // Rotated away in this moment, or never begun.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for line in BufReader::new(file).split(b'\n') {
            entries.extend(serde_json::from_slice::<Entry>(&line?));
        }
    }
    Ok(entries)
}

/// The closed files beside `path`.
fn numbered(path: &Path) -> io::Result<BTreeMap<u64, PathBuf>> {
    let mut found = BTreeMap::new();
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Ok(found);
    };
    let listed = match fs::read_dir(directory) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for entry in listed {
        let entry = entry?;
        let file = entry.file_name();
        let number = file
            .to_str()
            .and_then(|file| file.strip_prefix(name)?.strip_prefix('.'));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            found.insert(number, entry.path());
        }
    }
    Ok(found)
}

/// When the first entry of a file was made.
fn begun(path: &Path) -> Option<SystemTime> {
    let mut line = Vec::new();
    let file = File::open(path).ok()?;
    BufReader::new(file).read_until(b'\n', &mut line).ok()?;
    let entry: Entry = serde_json::from_slice(&line).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_millis(entry.at.wall))
}

/// Of what lies in the future: none.
fn age(time: SystemTime) -> Duration {
    time.elapsed().unwrap_or_default()
}

fn append(path: &Path) -> io::Result<File> {
    // Values of manifests are in it.
    let mut options = File::options();
    options
        .create(true)
        .read(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

fn shortened(entry: &Entry) -> Entry {
    let cut = |text: &mut Option<String>| {
        if let Some(text) = text.as_mut().filter(|text| text.len() > 1000) {
            *text = text.chars().take(1000).chain(['…']).collect();
        }
    };
    let mut entry = entry.clone();
    cut(&mut entry.error);
    for cause in entry.differences.iter_mut().chain([&mut entry.cause]) {
        cut(&mut cause.old);
        cut(&mut cause.new);
    }
    entry.differences.truncate(10);
    entry
}

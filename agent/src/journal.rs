//! The journal of a root: one JSON object a line, bounded, and its latest entries in memory.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::Write,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::Context;
use reconciler::journal::{Entry, Journal};
use serde::{Deserialize, Serialize};

/// At this size the file becomes `journal.jsonl.1`, and that one goes.
const ROTATE_AT: u64 = 32 * 1024 * 1024;
/// Entries kept for those who follow the progress.
const KEPT: usize = 2000;

/// An entry with its number since the agent started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Numbered {
    pub number: u64,
    #[serde(flatten)]
    pub entry: Entry,
}

pub struct FileJournal {
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    file: File,
    size: u64,
    limit: u64,
    next: u64,
    latest: VecDeque<Numbered>,
}

impl FileJournal {
    pub fn open(path: PathBuf) -> anyhow::Result<Self> {
        let file = append(&path).with_context(|| format!("cannot open the journal {}", path.display()))?;
        let size = file.metadata()?.len();
        let inner = Inner {
            file,
            size,
            limit: ROTATE_AT,
            next: 1,
            latest: VecDeque::new(),
        };
        Ok(FileJournal {
            path,
            inner: Mutex::new(inner),
        })
    }

    /// Entries with a greater number, oldest first.
    pub fn since(&self, number: u64) -> Vec<Numbered> {
        let inner = self.inner();
        inner
            .latest
            .iter()
            .filter(|entry| entry.number > number)
            .cloned()
            .collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, inner: &mut Inner, entry: &Entry) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        if inner.size > 0 && inner.size + line.len() as u64 > inner.limit {
            fs::rename(&self.path, self.path.with_extension("jsonl.1"))?;
            inner.file = append(&self.path)?;
            inner.size = 0;
        }
        // One write a line: a reader never sees half of one.
        inner.file.write_all(&line)?;
        inner.size += line.len() as u64;
        Ok(())
    }
}

fn append(path: &PathBuf) -> std::io::Result<File> {
    File::options().create(true).append(true).open(path)
}

impl Journal for FileJournal {
    fn record(&self, entry: Entry) {
        let mut inner = self.inner();
        if let Err(error) = self.write(&mut inner, &entry) {
            tracing::error!(path = %self.path.display(), %error, "cannot write the journal; make room on that disk");
        }
        let number = inner.next;
        inner.next += 1;
        if inner.latest.len() == KEPT {
            inner.latest.pop_front();
        }
        inner.latest.push_back(Numbered { number, entry });
    }
}

#[cfg(test)]
mod tests {
    use reconciler::plan::step::Cause;

    use super::*;

    fn entry(key: &str) -> Entry {
        let cause = Cause {
            field: "manifest".into(),
            old: None,
            new: None,
            span: None,
        };
        Entry {
            at: Default::default(),
            project: None,
            key: key.into(),
            change: None,
            cause,
            error: None,
        }
    }

    #[test]
    fn entries_are_lines_and_the_file_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.jsonl");
        let journal = FileJournal::open(path.clone()).unwrap();
        journal.inner().limit = 500;
        for number in 0..20 {
            journal.record(entry(&format!("container shop/web/{number}a")));
        }
        assert_eq!(
            journal.since(18).iter().map(|e| e.number).collect::<Vec<_>>(),
            [19, 20]
        );
        assert!(fs::metadata(&path).unwrap().len() <= 500);
        let text = fs::read_to_string(&path).unwrap();
        let last: Entry = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last, entry("container shop/web/19a"));
        assert!(path.with_extension("jsonl.1").exists());
    }
}

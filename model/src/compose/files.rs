//! How files enter a project: each is read once, noted as an input, and kept inside the project's
//! directory where the source is not trusted.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

use crate::{
    report::Report,
    source::{MAX_FILE, Sources, too_large},
    syntax,
    tree::At,
};

/// The texts of one project may have this many bytes in all, each counted as often as it is read.
const MAX_TEXT: usize = 2 * MAX_FILE as usize;
/// How often a file may be asked for: a bound for files that include each other many times over.
const MAX_READS: usize = 10_000;

/// Why a file is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Where it is named; nowhere for the project's own files.
    pub at: At,
    /// The field that names it, for messages; empty for the project's own files.
    pub path: &'a str,
    pub need: Need,
}

/// What it means that a file is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Required,
    /// Nothing.
    Optional,
    /// Nothing, nor does a directory of this name: nobody has asked for the file.
    Default,
}

pub(crate) struct Files<'s> {
    sources: &'s dyn Sources,
    /// Nothing outside may be read.
    root: Option<PathBuf>,
    /// Every file asked for, also the missing ones.
    pub inputs: BTreeSet<PathBuf>,
    texts: BTreeMap<PathBuf, Rc<str>>,
    bytes: usize,
    reads: usize,
}

impl<'s> Files<'s> {
    pub fn new(sources: &'s dyn Sources, root: Option<&Path>) -> Self {
        Files {
            sources,
            root: root.map(|root| real(sources, root)),
            inputs: BTreeSet::new(),
            texts: BTreeMap::new(),
            bytes: 0,
            reads: 0,
        }
    }

    /// The text of a file without its byte order mark. Failures are reported where the file is named.
    pub fn read(&mut self, file: &Path, wanted: Wanted<'_>, report: &mut Report) -> Option<Rc<str>> {
        self.inputs.insert(file.to_owned());
        self.reads += 1;
        if self.reads > MAX_READS {
            let message = format!("more than {MAX_READS} files are read for one project");
            refuse_file(
                file,
                wanted,
                &message,
                "include and extend fewer files, and each only once",
                report,
            );
            return None;
        }
        if !self.inside(file, wanted, report) {
            return None;
        }
        if let Some(text) = self.texts.get(file).cloned() {
            return self.count(text.len(), file, wanted, report).then_some(text);
        }
        let bytes = match self.sources.read(file).and_then(limit) {
            Ok(bytes) => bytes,
            Err(error) if wanted.need != Need::Required && missing(&error) => return None,
            Err(error) if wanted.need == Need::Default && error.kind() == io::ErrorKind::IsADirectory => {
                return None;
            }
            Err(error) if missing(&error) => {
                refuse_file(
                    file,
                    wanted,
                    "the file does not exist",
                    "check its name, or write it",
                    report,
                );
                return None;
            }
            Err(error) => {
                let message = format!("the file cannot be read: {error}");
                refuse_file(
                    file,
                    wanted,
                    &message,
                    "make it a readable text file of at most 4 MiB",
                    report,
                );
                return None;
            }
        };
        if !self.count(bytes.len(), file, wanted, report) {
            return None;
        }
        let text: Rc<str> = text(file, &bytes, report)?.into();
        self.texts.insert(file.to_owned(), text.clone());
        Some(text)
    }

    /// The bytes of a file that a service is to see. That there are none is not what makes it no Compose file.
    pub fn bytes(&mut self, file: &Path, wanted: Wanted<'_>, report: &mut Report) -> Option<Vec<u8>> {
        self.inputs.insert(file.to_owned());
        if !self.inside(file, wanted, report) {
            return None;
        }
        let (what, hint) = match self.sources.read(file).and_then(limit) {
            Ok(bytes) if self.bytes + bytes.len() <= MAX_TEXT => {
                self.bytes += bytes.len();
                return Some(bytes);
            }
            Ok(_) => (
                "the files of this project are larger than 8 MiB in all".to_owned(),
                "mount large files with `volumes`",
            ),
            Err(error) if missing(&error) => (
                "the file does not exist".to_owned(),
                "check its name, or write it",
            ),
            Err(error) => (
                format!("the file cannot be read: {error}"),
                "make it a readable file of at most 4 MiB",
            ),
        };
        let message = format!("`{}`: `{}`: {what}", wanted.path, file.display());
        report.refuse(wanted.at, message, hint);
        None
    }

    /// The files in a directory of the host, in the order of their names: it is the host's, whoever asks. What
    /// cannot be read has none.
    pub fn list(&mut self, directory: &Path) -> Vec<PathBuf> {
        self.inputs.insert(directory.to_owned());
        let mut files = self.sources.list(directory).unwrap_or_default();
        files.sort();
        files
    }

    /// The text of a file in such a directory.
    ///
    /// # Errors
    /// It cannot be read, or is no text.
    pub fn of_host(&mut self, file: &Path) -> io::Result<String> {
        self.inputs.insert(file.to_owned());
        let bytes = self.sources.read(file).and_then(limit)?;
        String::from_utf8(bytes)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
    }

    /// Whether so many more bytes fit; reported where not. A file that is read again counts again: it is parsed
    /// again.
    fn count(&mut self, bytes: usize, file: &Path, wanted: Wanted<'_>, report: &mut Report) -> bool {
        self.bytes += bytes;
        if self.bytes > MAX_TEXT {
            let message = "the files of this project are larger than 8 MiB in all";
            let hint = "split it into projects of their own, and include each file once";
            refuse_file(file, wanted, message, hint, report);
        }
        self.bytes <= MAX_TEXT
    }

    /// Whether a source that is not trusted may name this path; reported where not.
    pub fn inside(&self, file: &Path, wanted: Wanted<'_>, report: &mut Report) -> bool {
        let Some(root) = &self.root else {
            return true;
        };
        let inside = real(self.sources, file).starts_with(root);
        if !inside {
            refuse_file(
                file,
                wanted,
                "the file is outside of the project's directory",
                "a project that comes from elsewhere may only use its own files: move it there",
                report,
            );
        }
        inside
    }
}

/// The path without symbolic links; what does not exist is below its nearest directory that does.
fn real(sources: &dyn Sources, path: &Path) -> PathBuf {
    let path = syntax::clean(path);
    for ancestor in path.ancestors() {
        if let Ok(real) = sources.real_path(ancestor) {
            return match path.strip_prefix(ancestor) {
                Ok(rest) if rest.as_os_str().is_empty() => real,
                Ok(rest) => real.join(rest),
                Err(_) => real,
            };
        }
    }
    path
}

/// A directory in the place of a name is as good as nothing there.
fn missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn limit(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    match bytes.len() as u64 {
        0..=MAX_FILE => Ok(bytes),
        large => Err(too_large(large)),
    }
}

fn refuse_file(file: &Path, wanted: Wanted<'_>, message: &str, hint: &str, report: &mut Report) {
    if wanted.path.is_empty() {
        // A file of the project itself: it is the place.
        let number = report.file(file, "");
        let at = At {
            file: number,
            ..At::default()
        };
        return report.error(at, message, hint);
    }
    let message = format!("`{}`: `{}`: {message}", wanted.path, file.display());
    report.error(wanted.at, message, hint);
}

fn text(file: &Path, bytes: &[u8], report: &mut Report) -> Option<String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let (cut, message, hint) = match str::from_utf8(bytes) {
        Ok(text) => match text.find('\0') {
            None => return Some(text.to_owned()),
            Some(cut) => (
                cut,
                "this is binary data, not YAML",
                "write the file again as text",
            ),
        },
        Err(error) => (
            error.valid_up_to(),
            "the file is not UTF-8 text",
            "save it in the encoding UTF-8",
        ),
    };
    let before = String::from_utf8_lossy(&bytes[..cut]);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let at = At {
        file: report.file(file, ""),
        line: u32::try_from(line).unwrap_or(0),
        column: u32::try_from(column).unwrap_or(0),
    };
    report.error(at, message, hint);
    None
}

//! One layer from its compressed bytes to a directory, both digests checked on the way.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io::{self, BufRead, BufReader, Read},
    os::{fd::AsFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{
    Limits,
    config::Digest,
    recipe::{self, Recorder},
    source::Section,
    tar::{Archive, Input, TarError},
    tree::{Tree, TreeError},
};
use crate::records;

pub(super) const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What `zstd -19 --long` of sane tools needs; the format allows terabytes.
const MAX_WINDOW: u64 = 128 << 20;
/// Of compressed bytes.
const BUFFER: usize = 64 << 10;
/// Layers that are unpacked at once: each has a thread, and more are no faster on a disk.
const AT_ONCE: usize = 4;
/// Directories that are being unpacked: `.new-<pid>-<number>`.
pub(super) const NEW: &str = ".new-";

#[derive(Debug, Error)]
pub enum LayerError {
    #[error("{what} should have the digest {expected} but has {found}")]
    Digest {
        what: &'static str,
        expected: String,
        found: String,
    },
    #[error("its compressed size should be {expected} bytes but is {found}")]
    Size { expected: u64, found: u64 },
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("cannot write {path}; check free space and permissions", path = path.display())]
    Store {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Where a layer comes from and what it must be.
#[derive(Debug)]
pub(super) struct Layer {
    pub section: Section,
    /// Digest and size of the bytes as stored; a `docker save` archive names none.
    pub blob: Option<(Digest, u64)>,
    /// Digest of the tar stream.
    pub diff_id: Digest,
}

/// Unpacks each into a private directory beside its target, several at once, and renames them there once all is
/// verified and on the disk; their recipes, from which the tar streams can be had again, before them. Whatever fails,
/// nothing is left. The error comes with the place of its layer among `layers`.
pub(super) fn unpack(layers: Vec<(Layer, PathBuf)>, limits: &Limits) -> Result<(), (usize, LayerError)> {
    let failed = AtomicBool::new(false);
    let mut targets = BTreeSet::new();
    let mut waiting: Vec<_> = layers
        .into_iter()
        .enumerate()
        .filter(|(_, (_, target))| targets.insert(target.clone()))
        .collect();
    waiting.reverse();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(AT_ONCE).min(waiting.len());
    let waiting = Mutex::new(waiting);
    let mut done = Vec::new();
    let work = || {
        let mut done = Vec::new();
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some((at, (layer, target))) = next else {
                return Ok(done);
            };
            match prepare(layer, &target, limits, &failed) {
                Ok(work) => done.push((at, work)),
                Err(error) => {
                    // Who is told that another has failed has nothing to tell.
                    return match failed.swap(true, Ordering::Relaxed) {
                        false => Err(Some((at, error))),
                        true => Err(None),
                    };
                }
            }
        }
    };
    let mut error = None;
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in running {
            match thread.join() {
                Ok(Ok(works)) => done.extend(works),
                Ok(Err(told)) => error = error.take().or(told),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    if let Some(error) = error {
        return Err(error);
    }
    done.sort_by_key(|(at, _)| *at);
    if let Some((at, work)) = done.first() {
        // All are on one file system.
        work.sync().map_err(|error| (*at, error))?;
    }
    for (at, work) in done {
        work.publish().map_err(|error| (at, error))?;
    }
    Ok(())
}

/// All but what makes it visible. `stop`: somebody else has failed.
pub(super) fn prepare(
    layer: Layer,
    target: &Path,
    limits: &Limits,
    stop: &AtomicBool,
) -> Result<Work, LayerError> {
    let work = Work::new(target)?;
    work.fill(layer, limits, stop)?;
    Ok(work)
}

/// Where the recipe of an unpacked layer is: `recipes/NAME` beside `layers/NAME`.
pub(super) fn recipe_of(layer: &Path) -> PathBuf {
    let images = layer.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    images.join("recipes").join(layer.file_name().unwrap_or_default())
}

/// Makes a directory whole or not at all, without a recipe. Somebody else having made it meanwhile is success.
pub(super) fn publish(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    let work = Work::new(target)?;
    fill(&work.tree())?;
    work.sync()?;
    work.publish()
}

fn store(target: &Path) -> impl Fn(io::Error) -> LayerError {
    move |source| LayerError::Store {
        path: target.to_owned(),
        source,
    }
}

/// A private directory in which a layer becomes what it will be; removed with all in it when it is dropped.
#[derive(Debug)]
pub(super) struct Work {
    pub path: PathBuf,
    target: PathBuf,
}

impl Work {
    fn new(target: &Path) -> Result<Self, LayerError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let parent = target.parent().unwrap_or(Path::new("/"));
        records::make_private(parent).map_err(store(target))?;
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{NEW}{}-{number}", std::process::id()));
        // Left by an agent that had our pid and was killed.
        let _ = fs::remove_dir_all(&path);
        let work = Work {
            path,
            target: target.to_owned(),
        };
        for path in [&work.path, &work.tree()] {
            let made = DirBuilder::new().mode(0o700).create(path);
            made.map_err(store(target))?;
        }
        Ok(work)
    }

    pub fn tree(&self) -> PathBuf {
        self.path.join("tree")
    }

    /// The whole file system at once: one fsync per file would take minutes for a distribution.
    pub fn sync(&self) -> Result<(), LayerError> {
        let synced = File::open(&self.path).and_then(|work| Ok(rustix::fs::syncfs(work)?));
        synced.map_err(store(&self.target))
    }

    /// First the recipe, then the tree to its place. They must be on the disk.
    pub fn publish(self) -> Result<(), LayerError> {
        let (written, recipe) = (recipe::written(&self.path), recipe_of(&self.target));
        if written.exists() {
            let recipes = recipe.parent().unwrap_or(Path::new("/"));
            records::make_private(recipes)
                .and_then(|()| fs::rename(written, &recipe))
                .and_then(|()| records::sync_directory(recipes))
                .map_err(store(&self.target))?;
        }
        match fs::rename(self.tree(), &self.target) {
            Err(_) if self.target.is_dir() => Ok(()),
            renamed => renamed
                .and_then(|()| records::sync_directory(self.target.parent().unwrap_or(Path::new("/"))))
                .map_err(store(&self.target)),
        }
    }

    /// Tree and recipe, both digests verified.
    fn fill(&self, layer: Layer, limits: &Limits, stop: &AtomicBool) -> Result<(), LayerError> {
        let failed = store(&self.target);
        if let Some((_, expected)) = layer.blob
            && layer.section.size() != expected
        {
            return Err(LayerError::Size {
                expected,
                found: layer.section.size(),
            });
        }
        if let Some((digest, _)) = &layer.blob {
            // A pass of its own: only bytes that are what they should be reach a decoder.
            let mut bytes = Hashing::new(layer.section.clone(), u64::MAX, stop);
            io::copy(&mut bytes, &mut io::sink()).map_err(TarError::from)?;
            verify("its compressed file", digest, &bytes.finish())?;
        }
        let recorder = File::open(&self.path).and_then(|work| Recorder::new(work.as_fd()));
        let recorder = recorder.map_err(&failed)?;
        let root = File::open(self.tree()).map_err(&failed)?;
        let most = limits.unpacked_from(layer.section.size());
        let input = BufReader::with_capacity(BUFFER, layer.section);
        let stream = Hashing::new(decompress(input).map_err(TarError::from)?, most, stop);
        // Headers are small: they are taken from a larger piece.
        let stream = BufReader::with_capacity(BUFFER, stream);
        let mut archive = Archive::new(stream, limits.entries).recorded(recorder);
        Tree::new(&root)?
            .write(&mut archive)
            .map_err(|error| match error {
                TreeError::Io { source, .. } if is_full(&source) => failed(source),
                error => error.into(),
            })?;
        let (stream, recorder) = archive.into_parts();
        verify("its content", &layer.diff_id, &stream.into_inner().finish())?;
        recorder.map_or(Ok(()), Recorder::finish).map_err(failed)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Space comes back.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn verify(what: &'static str, expected: &Digest, found: &Digest) -> Result<(), LayerError> {
    if expected == found {
        return Ok(());
    }
    Err(LayerError::Digest {
        what,
        expected: expected.to_string(),
        found: found.to_string(),
    })
}

/// By its first bytes: media types lie.
pub(super) fn decompress<R: BufRead + 'static>(mut input: R) -> io::Result<Box<dyn Read>> {
    let start = input.fill_buf()?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(MultiGzDecoder::new(input))
    } else if start.starts_with(&ZSTD_MAGIC) || is_skippable(start) {
        Box::new(Zstd::new(input))
    } else {
        Box::new(input)
    })
}

/// Whether [`decompress`] makes something else of it.
pub(super) fn is_compressed(start: &[u8]) -> bool {
    start.starts_with(&[0x1f, 0x8b]) || start.starts_with(&ZSTD_MAGIC) || is_skippable(start)
}

fn is_skippable(start: &[u8]) -> bool {
    start.len() >= 4 && start[1..4] == [0x2a, 0x4d, 0x18] && start[0] & 0xf0 == 0x50
}

/// A hash of everything that is read, up to a limit.
struct Hashing<'a, R> {
    inner: R,
    hash: Sha256,
    left: u64,
    stop: &'a AtomicBool,
}

impl<'a, R> Hashing<'a, R> {
    fn new(inner: R, limit: u64, stop: &'a AtomicBool) -> Self {
        Hashing {
            inner,
            hash: Sha256::new(),
            left: limit,
            stop,
        }
    }

    fn finish(self) -> Digest {
        Digest::from_hash(&self.hash.finalize())
    }
}

impl<R: Read> Read for Hashing<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("another layer has failed"));
        }
        let read = self.inner.read(buffer)?;
        self.left = (self.left.checked_sub(read as u64))
            .ok_or_else(|| io::Error::other("it unpacks to more bytes than a layer may have"))?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

impl<R: Read> Input for BufReader<Hashing<'_, R>> {}

/// All frames of a zstd stream, skippable ones passed over (RFC 8878, 3.1).
struct Zstd<R> {
    input: R,
    frame: FrameDecoder,
}

impl<R: BufRead> Zstd<R> {
    fn new(input: R) -> Self {
        let mut frame = FrameDecoder::new();
        frame.set_max_window_size(MAX_WINDOW);
        Zstd { input, frame }
    }

    /// Opens the next frame with content; false at the end of the stream.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.input.fill_buf()?.is_empty() {
                return Ok(false);
            }
            let mut magic = [0; 4];
            self.input.read_exact(&mut magic)?;
            if !is_skippable(&magic) {
                let source = magic.as_slice().chain(&mut self.input);
                self.frame.init(source).map_err(io::Error::other)?;
                return Ok(true);
            }
            let mut length = [0; 4];
            self.input.read_exact(&mut length)?;
            let length = u64::from(u32::from_le_bytes(length));
            if io::copy(&mut self.input.by_ref().take(length), &mut io::sink())? != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.frame.can_collect() == 0 {
            if self.frame.is_finished() {
                if !self.next_frame()? {
                    return Ok(0);
                }
            } else {
                self.frame
                    .decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(io::Error::other)?;
            }
        }
        self.frame.read(buffer)
    }
}

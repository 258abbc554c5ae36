//! The records of a recipe, written and read.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    os::fd::BorrowedFd,
    path::Path,
};

use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use rustix::fs::{Mode, OFlags};

use super::{CHUNK, Effect, MAX_PATH, RecipeError, damaged, malformed};

const MAGIC: &[u8] = b"stead recipe 1\n";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// In [`Reader::bytes`].
    Literal,
    /// At [`Reader::path`], and linked to [`Reader::target`].
    Placed(Effect),
    Content {
        start: u64,
        length: u64,
        checksum: u32,
    },
    Also {
        length: u64,
        checksum: u32,
    },
    End,
}

/// What differs from the record before is told relative to it.
#[derive(Default)]
struct Last {
    path: Vec<u8>,
    inode: u64,
}

pub(super) struct Writer {
    out: GzEncoder<File>,
    literal: Vec<u8>,
    last: Last,
}

impl Writer {
    pub fn new(work: BorrowedFd<'_>, name: &str) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(work, name, flags, Mode::RUSR | Mode::WUSR)?;
        let mut out = GzEncoder::new(File::from(file), Compression::fast());
        out.write_all(MAGIC)?;
        Ok(Writer {
            out,
            literal: Vec::with_capacity(CHUNK),
            last: Last::default(),
        })
    }

    pub fn literal(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.literal.len()));
            self.literal.extend_from_slice(now);
            bytes = later;
            if self.literal.len() == CHUNK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.literal.is_empty() {
            self.out.write_all(b"l")?;
            self.number(self.literal.len() as u64)?;
            self.out.write_all(&self.literal)?;
            self.literal.clear();
        }
        Ok(())
    }

    pub fn placed(&mut self, path: &[u8], effect: Effect, target: &[u8]) -> io::Result<()> {
        self.flush()?;
        let (letter, inode) = match effect {
            Effect::Nothing => (b'n', None),
            Effect::Dressed => (b'd', None),
            Effect::Made => (b'm', None),
            Effect::MadeOpaque => (b'q', None),
            Effect::File(inode) => (b'f', Some(inode)),
            Effect::Linked(inode) => (b'h', Some(inode)),
            Effect::Opaque => (b'o', None),
            Effect::Hidden => (b'w', None),
        };
        self.out.write_all(&[letter])?;
        self.path(path)?;
        if let Effect::Linked(_) = effect {
            self.path(target)?;
        }
        if let Some(inode) = inode {
            let step = inode.wrapping_sub(self.last.inode).cast_signed();
            // Zigzag: small steps back are small numbers too.
            self.number(((step << 1) ^ (step >> 63)).cast_unsigned())?;
            self.last.inode = inode;
        }
        Ok(())
    }

    fn path(&mut self, path: &[u8]) -> io::Result<()> {
        let pairs = path.iter().zip(&self.last.path);
        let same = pairs.take_while(|(new, old)| new == old).count();
        self.number(same as u64)?;
        self.number((path.len() - same) as u64)?;
        self.out.write_all(&path[same..])?;
        self.last.path.truncate(same);
        self.last.path.extend_from_slice(&path[same..]);
        Ok(())
    }

    pub fn content(&mut self, start: u64, length: u64, checksum: u32) -> io::Result<()> {
        self.flush()?;
        self.out.write_all(b"c")?;
        self.number(start)?;
        self.number(length)?;
        self.out.write_all(&checksum.to_le_bytes())
    }

    pub fn also(&mut self, length: u64, checksum: u32) -> io::Result<()> {
        self.flush()?;
        self.out.write_all(b"a")?;
        self.number(length)?;
        self.out.write_all(&checksum.to_le_bytes())
    }

    /// Seven bits a byte, lowest first.
    fn number(&mut self, mut number: u64) -> io::Result<()> {
        let (mut bytes, mut used) = ([0; 10], 0);
        loop {
            bytes[used] = (number & 0x7f) as u8 | if number > 0x7f { 0x80 } else { 0 };
            used += 1;
            number >>= 7;
            if number == 0 {
                return self.out.write_all(&bytes[..used]);
            }
        }
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.out.write_all(b"e")?;
        self.out.finish().map(drop)
    }
}

pub(super) struct Reader {
    input: BufReader<GzDecoder<BufReader<File>>>,
    last: Last,
    /// Of the present literal.
    pub bytes: Vec<u8>,
    /// Of the present placed entry.
    pub path: Vec<u8>,
    /// What it is another name of.
    pub target: Vec<u8>,
    ended: bool,
}

impl Reader {
    pub fn new(file: File) -> io::Result<Self> {
        let mut input = BufReader::with_capacity(CHUNK, GzDecoder::new(BufReader::new(file)));
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(malformed("it begins with other words"));
        }
        Ok(Reader {
            input,
            last: Last::default(),
            bytes: Vec::new(),
            path: Vec::new(),
            target: Vec::new(),
            ended: false,
        })
    }

    pub fn open(recipe: &Path) -> Result<Self, RecipeError> {
        let file = File::open(recipe).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => RecipeError::Absent(recipe.to_owned()),
            _ => RecipeError::Read {
                path: recipe.to_owned(),
                source,
            },
        })?;
        Reader::new(file).map_err(damaged(recipe))
    }

    pub fn next(&mut self) -> io::Result<Record> {
        if self.ended {
            return Ok(Record::End);
        }
        let mut letter = [0];
        self.input.read_exact(&mut letter)?;
        let effect = match letter[0] {
            b'l' => {
                let length = self.length(CHUNK)?;
                self.bytes.resize(length, 0);
                self.input.read_exact(&mut self.bytes)?;
                return Ok(Record::Literal);
            }
            b'c' => {
                let (start, length) = (self.number()?, self.number()?);
                return Ok(Record::Content {
                    start,
                    length,
                    checksum: self.checksum()?,
                });
            }
            b'a' => {
                let length = self.number()?;
                return Ok(Record::Also {
                    length,
                    checksum: self.checksum()?,
                });
            }
            // What gzip says at the end is read as well: that the recipe is whole.
            b'e' if self.input.fill_buf()?.is_empty() => {
                self.ended = true;
                return Ok(Record::End);
            }
            b'e' => return Err(malformed("it goes on after its end")),
            letter => letter,
        };
        self.front()?;
        self.path.clone_from(&self.last.path);
        if effect == b'h' {
            self.front()?;
            self.target.clone_from(&self.last.path);
        }
        let effect = match effect {
            b'n' => Effect::Nothing,
            b'd' => Effect::Dressed,
            b'm' => Effect::Made,
            b'q' => Effect::MadeOpaque,
            b'f' => Effect::File(self.inode()?),
            b'h' => Effect::Linked(self.inode()?),
            b'o' => Effect::Opaque,
            b'w' => Effect::Hidden,
            _ => return Err(malformed("a record of an unknown kind")),
        };
        Ok(Record::Placed(effect))
    }

    fn front(&mut self) -> io::Result<()> {
        let (same, new) = (self.length(self.last.path.len())?, self.length(MAX_PATH)?);
        self.last.path.truncate(same);
        self.last.path.resize(same + new, 0);
        self.input.read_exact(&mut self.last.path[same..])
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.input.read_exact(&mut byte)?;
            number |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(malformed("a number too large"))
    }

    fn length(&mut self, most: usize) -> io::Result<usize> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        match length <= most {
            true => Ok(length),
            false => Err(malformed("a length too large")),
        }
    }

    fn inode(&mut self) -> io::Result<u64> {
        let step = self.number()?;
        let step = (step >> 1).cast_signed() ^ -((step & 1).cast_signed());
        self.last.inode = self.last.inode.wrapping_add_signed(step);
        Ok(self.last.inode)
    }

    fn checksum(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.input.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }
}

//! A tree to a tar stream. Every file is looked at and read through one descriptor: whoever exchanges names
//! meanwhile changes what is copied, never where it is read from.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    buffer::spare_capacity,
    fs::{Dir, FileType, Mode, OFlags, Stat, fstat, fstatfs, getxattr, listxattr, openat, readlinkat},
};
use tar::{EntryType, Header};

use super::{CopyError, Tree, Warnings};
use crate::rootfs::tree;

/// Directories within each other; each holds a descriptor open.
const DEEPEST: usize = 400;
/// devpts, cgroup2, mqueue: like procfs and sysfs, what is there is the kernel's (statfs(2)).
const KERNEL: [i64; 3] = [0x1cd1, 0x6367_7270, 0x1980_0202];
/// What a header holds: a longer one goes into a record before it.
const PATH: usize = 99;
/// Likewise.
const SIZE: u64 = 0o77_777_777_777;

/// What kind of file an open descriptor is.
///
/// # Errors
/// As fstat(2).
pub fn kind(file: &OwnedFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode))
}

/// What stands at `path`, named `name` in the stream; an empty one stands for its contents.
///
/// # Errors
/// It cannot be read, or the stream not be written.
pub(super) fn pack(
    from: &Tree<'_>,
    path: &Path,
    follow: bool,
    name: &str,
    to: &mut dyn Write,
) -> Result<Warnings, CopyError> {
    let wrong = |error: rustix::io::Errno| CopyError::Path(format!("{}: {error}", path.display()));
    let follow = follow || name.is_empty() || path.as_os_str().as_bytes().ends_with(b"/");
    let flags = if follow {
        OFlags::PATH
    } else {
        OFlags::PATH | OFlags::NOFOLLOW
    };
    let file = from.open(path, flags).map_err(wrong)?;
    let mut packer = Packer {
        to,
        warnings: Vec::new(),
    };
    packer.entry(&file, Path::new(if name.is_empty() { "." } else { name }), 0)?;
    packer.to.write_all(&[0; 1024])?;
    packer.to.flush()?;
    Ok(packer.warnings)
}

struct Packer<'a> {
    to: &'a mut dyn Write,
    warnings: Warnings,
}

impl Packer<'_> {
    fn entry(&mut self, file: &OwnedFd, name: &Path, depth: usize) -> Result<(), CopyError> {
        let stat = fstat(file).map_err(io::Error::from)?;
        let mut skip = |what: &str| {
            self.warnings
                .push(format!("{}: {what} is not copied", name.display()))
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if on_kernel(file)? => skip("a file of the kernel's"),
            FileType::RegularFile => self.regular(file, name, &stat)?,
            FileType::Directory => {
                self.head(EntryType::Directory, name, &stat, 0, None, file)?;
                if on_kernel(file)? {
                    self.warnings.push(format!(
                        "{}: what the kernel shows there is not copied",
                        name.display()
                    ));
                } else if depth == DEEPEST {
                    return Err(CopyError::Path(format!(
                        "{}: too deep to be copied",
                        name.display()
                    )));
                } else {
                    self.children(file, name, depth)?;
                }
            }
            FileType::Symlink => {
                let to = readlinkat(file, "", Vec::new()).map_err(io::Error::from)?;
                self.head(EntryType::Symlink, name, &stat, 0, Some(to.as_bytes()), file)?;
            }
            FileType::Fifo => self.head(EntryType::Fifo, name, &stat, 0, None, file)?,
            FileType::Socket => skip("a socket"),
            _ => skip("a device"),
        }
        Ok(())
    }

    fn children(&mut self, directory: &OwnedFd, name: &Path, depth: usize) -> Result<(), CopyError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let wrong = |error: rustix::io::Errno| CopyError::Path(format!("{}: {error}", name.display()));
        let open = openat(directory, ".", flags, Mode::empty()).map_err(wrong)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&open).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            if ![&b"."[..], b".."].contains(&entry.file_name().to_bytes()) {
                names.push(entry.file_name().to_owned());
            }
        }
        drop(open);
        names.sort();
        for child in names {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let below: PathBuf = name.join(std::ffi::OsStr::from_bytes(child.to_bytes()));
            match openat(directory, &child, flags, Mode::empty()) {
                Ok(file) => self.entry(&file, &below, depth + 1)?,
                // Removed in this moment.
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(CopyError::Path(format!("{}: {error}", below.display()))),
            }
        }
        Ok(())
    }

    fn regular(&mut self, file: &OwnedFd, name: &Path, stat: &Stat) -> Result<(), CopyError> {
        let wrong = |error: io::Error| CopyError::Path(format!("{}: {error}", name.display()));
        // The same file, whatever has its name by now.
        let mut open = File::open(same(file.as_fd())).map_err(wrong)?;
        let size = stat.st_size as u64;
        self.head(EntryType::Regular, name, stat, size, None, file)?;
        let mut left = size;
        let mut chunk = vec![0; 128 << 10];
        while left > 0 {
            let room = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = match open.read(&mut chunk[..room]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(wrong)?,
            };
            if count == 0 {
                self.warnings.push(format!(
                    "{}: it became shorter while it was copied; zeros are at its end",
                    name.display()
                ));
                io::copy(&mut io::repeat(0).take(left), self.to)?;
                break;
            }
            self.to.write_all(&chunk[..count])?;
            left -= count as u64;
        }
        let padding = (size.wrapping_neg() % 512) as usize;
        Ok(self.to.write_all(&[0; 512][..padding])?)
    }

    fn head(
        &mut self,
        kind: EntryType,
        name: &Path,
        stat: &Stat,
        size: u64,
        link: Option<&[u8]>,
        file: &OwnedFd,
    ) -> io::Result<()> {
        let mut path = name.as_os_str().as_bytes().to_vec();
        if kind == EntryType::Directory {
            path.push(b'/');
        }
        let mut records = Vec::new();
        if path.len() > PATH {
            record(&mut records, b"path", &path);
        }
        if let Some(link) = link.filter(|link| link.len() > PATH) {
            record(&mut records, b"linkpath", link);
        }
        if size > SIZE {
            record(&mut records, b"size", size.to_string().as_bytes());
        }
        if matches!(kind, EntryType::Regular | EntryType::Directory) {
            for (key, value) in attributes(file) {
                record(&mut records, &[b"SCHILY.xattr.", key.as_slice()].concat(), &value);
            }
        }
        if !records.is_empty() {
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::XHeader);
            header.as_old_mut().name[..3].copy_from_slice(b"pax");
            header.set_size(records.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            self.to.write_all(header.as_bytes())?;
            self.to.write_all(&records)?;
            let padding = records.len().wrapping_neg() % 512;
            self.to.write_all(&[0; 512][..padding])?;
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        let cut = path.len().min(PATH);
        header.as_old_mut().name[..cut].copy_from_slice(&path[..cut]);
        if let Some(link) = link {
            let cut = link.len().min(PATH);
            header.as_old_mut().linkname[..cut].copy_from_slice(&link[..cut]);
        }
        header.set_size(if size > SIZE { 0 } else { size });
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(u64::from(stat.st_uid));
        header.set_gid(u64::from(stat.st_gid));
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        header.set_cksum();
        self.to.write_all(header.as_bytes())
    }
}

/// A path to what is open, for calls that take no O_PATH descriptor.
pub(super) fn same(file: BorrowedFd<'_>) -> PathBuf {
    Path::new("/proc/self/fd").join(file.as_raw_fd().to_string())
}

fn on_kernel(file: &OwnedFd) -> io::Result<bool> {
    let kind = fstatfs(file)?.f_type as i64;
    Ok(tree::on_kernel_filesystem(file)? || KERNEL.contains(&kind))
}

/// `LENGTH KEY=VALUE\n`, LENGTH counting all of it.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Those that people set, and file capabilities. A file system without has none.
fn attributes(file: &OwnedFd) -> Vec<(Vec<u8>, Vec<u8>)> {
    let path = same(file.as_fd());
    let mut names = Vec::with_capacity(64 << 10);
    if listxattr(&path, spare_capacity(&mut names)).is_err() {
        return Vec::new();
    }
    let names = names.split(|byte| *byte == 0);
    let wanted = names.filter(|name| name.starts_with(b"user.") || *name == b"security.capability");
    let read = wanted.filter_map(|name| {
        let mut value = Vec::with_capacity(64 << 10);
        getxattr(&path, name, spare_capacity(&mut value)).ok()?;
        Some((name.to_vec(), value))
    });
    read.collect()
}

//! Configs and secrets: in a small tmpfs that nobody has but the supervisor and the container, never on disk.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use reconciler::spec::FileSpec;
use rustix::{
    fs::{AtFlags, CWD, Gid, MemfdFlags, Mode, OFlags, Uid, chownat, fchmod, memfd_create, openat},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
};

use super::{Step, StepError};
use crate::sys::mount::{Attributes, set_attributes};

/// The ids that a sandbox has.
const IDS: u32 = 65_536;

/// What goes along with a start: the contents one after the other, and how long each is. `None`: it is not
/// known, and the supervisor has it from an earlier start.
///
/// # Errors
/// As memfd_create(2) and write(2).
pub fn bundle(files: &[FileSpec]) -> io::Result<(Vec<Option<u64>>, Option<OwnedFd>)> {
    if files.is_empty() {
        return Ok((Vec::new(), None));
    }
    let mut all = File::from(memfd_create("stead-files", MemfdFlags::CLOEXEC)?);
    let mut lengths = Vec::new();
    for file in files {
        let content = file.content.bytes();
        all.write_all(content.unwrap_or_default())?;
        lengths.push(content.map(|content| content.len() as u64));
    }
    all.rewind()?;
    Ok((lengths, Some(all.into())))
}

/// The files of one start, each by its place in the list.
pub struct Held {
    mount: OwnedFd,
    files: Vec<FileSpec>,
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }
}

impl Held {
    /// After an upgrade: a descriptor that came through, and what it was made from.
    pub fn resume(mount: OwnedFd, files: Vec<FileSpec>) -> Self {
        Held { mount, files }
    }

    /// For an upgrade.
    pub fn saved(&self) -> (i32, Vec<FileSpec>) {
        (self.mount.as_raw_fd(), self.files.clone())
    }

    /// What an earlier start was given.
    fn content(&self, digest: &str) -> Option<io::Result<Vec<u8>>> {
        let place = self.files.iter().position(|file| file.digest == digest)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mut bytes = Vec::new();
        let file = openat(&self.mount, place.to_string(), flags, Mode::empty());
        Some(file.map_err(io::Error::from).and_then(|file| {
            File::from(file).read_to_end(&mut bytes)?;
            Ok(bytes)
        }))
    }

    /// Writes the files of a start into a new tmpfs, owned as the ids of the sandbox are mapped. `along`: what
    /// [`bundle`] made.
    ///
    /// # Errors
    /// A content is not known, an owner is none of the sandbox's, or memory is short.
    pub fn new(
        files: &[FileSpec],
        id_base: u32,
        (lengths, along): (&[Option<u64>], Option<OwnedFd>),
        before: Option<&Held>,
    ) -> Result<Option<Self>, StepError> {
        if files.is_empty() {
            return Ok(None);
        }
        let mut along = along.map(File::from);
        let mut contents = Vec::new();
        for (place, file) in files.iter().enumerate() {
            let content = match (lengths.get(place), &mut along) {
                (Some(Some(length)), Some(along)) => {
                    let mut bytes = Vec::new();
                    let read = along.take(*length).read_to_end(&mut bytes);
                    read.step("read the content of", &file.name)?;
                    bytes
                }
                _ => before
                    .and_then(|before| before.content(&file.digest))
                    .ok_or_else(|| unknown(file))?
                    .step("read the content of", &file.name)?,
            };
            contents.push(content);
        }
        let mount = tmpfs(&contents).step("make a tmpfs for", "configs and secrets")?;
        for (place, (file, content)) in files.iter().zip(&contents).enumerate() {
            if file.uid >= IDS || file.gid >= IDS {
                let name = &file.name;
                return Err(StepError::spec(format!(
                    "the owner of {name} is none that a service has; write `uid` and `gid` below {IDS}"
                )));
            }
            let owner = (id_base + file.uid, id_base + file.gid);
            write(&mount, &place.to_string(), content, owner, file.mode).step("write", &file.name)?;
        }
        Ok(Some(Held {
            mount,
            files: files.to_vec(),
        }))
    }

    /// Each file as a detached mount. Called in a mount namespace of its own, in a directory of it.
    ///
    /// # Errors
    /// As move_mount(2) and open_tree(2).
    pub fn stage(&self) -> Result<Vec<OwnedFd>, StepError> {
        // Only what is attached can be cloned before kernel 6.15.
        std::fs::create_dir("files").step("make", "files")?;
        move_mount(
            &self.mount,
            "",
            CWD,
            "files",
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .step("attach", "configs and secrets")?;
        let files = self.files.iter().enumerate();
        files
            .map(|(place, file)| {
                let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                let clone = open_tree(&self.mount, place.to_string(), flags).step("clone", &file.name)?;
                let attributes = Attributes {
                    set: libc::MOUNT_ATTR_RDONLY,
                    ..Attributes::default()
                };
                set_attributes(clone.as_fd(), attributes).step("make read-only", &file.name)?;
                Ok(clone)
            })
            .collect()
    }
}

fn unknown(file: &FileSpec) -> StepError {
    StepError::spec(format!(
        "what {} holds is not known any more: it is kept nowhere but in memory; correct the manifest of the \
         project, so that it is read again",
        file.name
    ))
}

/// As large as it must be, and not swapped out where the kernel (6.4) knows how.
fn tmpfs(contents: &[Vec<u8>]) -> rustix::io::Result<OwnedFd> {
    let pages: usize = contents.iter().map(|content| content.len() / 4096 + 1).sum();
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let options = [
        ("mode", "700".to_owned()),
        ("size", ((pages + 4) * 4096).to_string()),
        ("nr_inodes", (contents.len() + 4).to_string()),
    ];
    for (key, value) in &options {
        fsconfig_set_string(context.as_fd(), *key, value.as_str())?;
    }
    match fsconfig_set_flag(context.as_fd(), "noswap") {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(error),
    }
    fsconfig_create(context.as_fd())?;
    let strict = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, strict)
}

fn write(mount: &OwnedFd, name: &str, content: &[u8], (uid, gid): (u32, u32), mode: u32) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut file = File::from(openat(mount, name, flags, Mode::from(0o600))?);
    file.write_all(content)?;
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    chownat(&file, "", uid, gid, AtFlags::EMPTY_PATH)?;
    Ok(fchmod(&file, Mode::from(mode))?)
}

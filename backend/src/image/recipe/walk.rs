//! What is in the tree of a layer, against what its stream knows of.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::fs::{AtFlags, Dir, FileType, OFlags};

use super::{
    Damage,
    assemble::{is_gone, open},
    check::{Places, attribute, note},
};

/// Finds what the stream does not know of, and directories that are not as they should be by themselves.
pub(super) fn walk(root: &OwnedFd, places: &Places, damages: &mut Vec<Damage>) -> io::Result<()> {
    // Of each directory on the way down: the length of its path, and the directories in it still to be seen.
    let mut levels: Vec<(usize, Vec<Vec<u8>>)> = Vec::new();
    let mut path = Vec::new();
    loop {
        let mut below = Vec::new();
        match open(root, &path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(directory) => below = look(&directory, &path, places, damages)?,
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        levels.push((path.len(), below));
        loop {
            let Some((length, names)) = levels.last_mut() else {
                return Ok(());
            };
            path.truncate(*length);
            match names.pop() {
                Some(name) => {
                    join(&mut path, &name);
                    break;
                }
                None => drop(levels.pop()),
            }
        }
    }
}

/// One directory; returns those in it that are known.
fn look(
    directory: &OwnedFd,
    path: &[u8],
    places: &Places,
    damages: &mut Vec<Damage>,
) -> io::Result<Vec<Vec<u8>>> {
    let ruling = places.ruling(path);
    let opaque = attribute(directory, b"trusted.overlay.opaque").map_err(io::Error::from)?;
    if opaque.is_some() != ruling.opaque {
        note(
            damages,
            path,
            match ruling.opaque {
                true => "it is not opaque any more",
                false => "it is opaque, and should not be",
            },
        );
    }
    if ruling.dressed == 0 {
        // Made because something is in it.
        let found = rustix::fs::fstat(directory)?;
        let found = (found.st_mode & 0o7777, found.st_uid, found.st_gid);
        if found != (0o755, 0, 0) {
            let (mode, uid, gid) = found;
            note(
                damages,
                path,
                &format!("its mode is {mode:o} and its owner {uid}:{gid}, not 755 and 0:0"),
            );
        }
    }
    let mut below = Vec::new();
    for entry in Dir::read_from(directory.as_fd())? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let mut own = path.to_vec();
        join(&mut own, name);
        let key = places.key(&own);
        let is_above = places.above.contains(&key);
        let ruling = places.ruling(&own);
        if !is_above && !ruling.known {
            note(damages, &own, "the layer has no such thing");
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let found = rustix::fs::statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(found.st_mode)
            }
            kind => kind,
        };
        match kind {
            FileType::Directory => below.push(name.to_vec()),
            _ if is_above && ruling.dressed == 0 => note(damages, &own, "it should be a directory"),
            _ => {}
        }
    }
    Ok(below)
}

fn join(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

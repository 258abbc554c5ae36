//! Archives of random trees as GNU tar, bsdtar and Python write them, in all their formats.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use super::*;

/// xorshift: the same trees each time.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// `plain`: nothing that old formats cannot say.
fn grow(root: &Path, seed: u64, plain: bool) {
    let mut random = Random(seed * 2 + 1);
    let mut directories = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    for number in 0..40 {
        let above = &directories[random.next(directories.len() as u64) as usize];
        let mut name = format!("{number}-").into_bytes();
        match random.next(6) {
            0 if !plain => name.extend([b'n'; 150]),
            1 if !plain => name.extend([0xc3, 0xa4, 0xff, b'\n', b'=']),
            _ => name.extend(b"name"),
        }
        let path = above.join(OsString::from_vec(name));
        match random.next(8) {
            0 | 1 => {
                fs::create_dir(&path).unwrap();
                directories.push(path.clone());
            }
            2 => symlink(if random.next(2) == 0 { "../x" } else { "/abs/olute" }, &path).unwrap(),
            3 if !files.is_empty() => {
                fs::hard_link(&files[random.next(files.len() as u64) as usize], &path).unwrap();
            }
            4 if !plain => {
                let mode = Mode::from_raw_mode(0o640);
                rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            }
            5 if !plain => {
                with_holes(&path, random.next(30));
                files.push(path.clone());
            }
            _ => {
                let size = [0, 1, 511, 512, 513, 10_000, 70_000][random.next(7) as usize];
                let content: Vec<u8> = (0..size).map(|_| random.next(256) as u8).collect();
                fs::write(&path, content).unwrap();
                files.push(path.clone());
            }
        }
        if !path.is_symlink() {
            let id = random.next(if plain { 3 } else { 3_000_000 }) as u32;
            chown(&path, Some(id), Some(id / 2)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(random.next(0o10000) as u32)).unwrap();
        }
        if path.is_file() && !path.is_symlink() {
            let time = Duration::new(random.next(2_000_000_000), random.next(1_000_000_000) as u32);
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_modified(UNIX_EPOCH + time)
                .unwrap();
        }
    }
}

/// Parts of different lengths, far apart; the last one not of whole blocks, or a hole.
fn with_holes(path: &Path, parts: u64) {
    let file = File::create(path).unwrap();
    for part in 0..parts {
        let content = vec![part as u8 + 1; 4096 * (1 + part as usize % 3)];
        file.write_all_at(&content, part * 16_384).unwrap();
    }
    if parts.is_multiple_of(2) {
        file.write_all_at(b"end", parts * 16_384).unwrap();
    } else {
        file.set_len(parts * 16_384 + 12_345).unwrap();
    }
}

const PYTHON: &str = "
import sys, tarfile
with tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=getattr(tarfile, sys.argv[1])) as tar:
    tar.add('.', arcname=sys.argv[2])
";

const FILES_FIRST: &str = "find . -depth -print0 | tar -c --format=posix --no-recursion --null -T -";

#[test]
fn a_stream_of_every_writer_is_assembled_exactly() {
    let writers: &[(&str, bool, &[&str])] = &[
        ("tar v7", true, &["tar", "-c", "--format=v7", "."]),
        ("tar ustar", true, &["tar", "-c", "--format=ustar", "."]),
        ("tar oldgnu", false, &["tar", "-c", "--format=oldgnu", "."]),
        ("tar gnu", false, &["tar", "-c", "--format=gnu", "."]),
        (
            "tar gnu, long blocks",
            false,
            &["tar", "-c", "--format=gnu", "-b", "200", "."],
        ),
        (
            "tar posix",
            false,
            &["tar", "-c", "--format=posix", "--xattrs", "."],
        ),
        ("tar posix, content first", false, &["sh", "-c", FILES_FIRST]),
        (
            "python ustar",
            true,
            &["python3", "-c", PYTHON, "USTAR_FORMAT", "."],
        ),
        ("python gnu", false, &["python3", "-c", PYTHON, "GNU_FORMAT", "/"]),
        (
            "python pax",
            false,
            &["python3", "-c", PYTHON, "PAX_FORMAT", "top"],
        ),
        ("tar gnu, sparse", false, &["tar", "-cS", "--format=gnu", "."]),
        (
            "tar sparse 0.0",
            false,
            &["tar", "-cS", "--format=posix", "--sparse-version=0.0", "."],
        ),
        (
            "tar sparse 0.1",
            false,
            &["tar", "-cS", "--format=posix", "--sparse-version=0.1", "."],
        ),
        (
            "tar sparse 1.0",
            false,
            &["tar", "-cS", "--format=posix", "--sparse-version=1.0", "."],
        ),
        ("bsdtar", false, &["bsdtar", "-c", "--format=pax", "-f", "-", "."]),
    ];
    let bsdtar = Command::new("bsdtar")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    for (writer, plain, command) in writers {
        if command[0] == "bsdtar" && bsdtar.is_err() {
            continue;
        }
        for seed in 1..=2 {
            let from = tempfile::tempdir().unwrap();
            grow(from.path(), seed, *plain);
            let mut ran = Command::new(command[0]);
            let ran = ran.args(&command[1..]).current_dir(from.path()).output().unwrap();
            assert!(
                ran.status.success(),
                "{writer}: {}",
                String::from_utf8_lossy(&ran.stderr)
            );
            let mut place = Place::new();
            let unpacked = place.unpack(&ran.stdout);
            unpacked.unwrap_or_else(|error| panic!("{writer}, seed {seed}: {error}"));
            place.assert_exact(&ran.stdout, &format!("{writer}, seed {seed}"));
        }
    }
}

#[test]
fn the_crate_tar_and_its_builder_are_a_writer_too() {
    let from = tempfile::tempdir().unwrap();
    grow(from.path(), 9, false);
    let mut builder = tar::Builder::new(Vec::new());
    builder.follow_symlinks(false);
    // It knows no FIFOs.
    let fifos = Command::new("find")
        .arg(from.path())
        .args(["-type", "p", "-delete"])
        .status();
    assert!(fifos.unwrap().success());
    builder.append_dir_all("top", from.path()).unwrap();
    let (mut place, tar) = (Place::new(), builder.into_inner().unwrap());
    place.unpack(&tar).unwrap();
    place.assert_exact(&tar, "builder");
}

#[test]
fn holes_stay_holes() {
    for version in ["gnu", "0.0", "0.1", "1.0"] {
        for parts in [0, 1, 4, 5, 26, 100] {
            let from = tempfile::tempdir().unwrap();
            let file = from.path().join("file");
            with_holes(&file, parts);
            let mut tar = Command::new("tar");
            tar.arg("-cS").current_dir(from.path());
            match version {
                "gnu" => tar.arg("--format=gnu"),
                version => tar.args(["--format=posix", "--sparse-version", version]),
            };
            let tar = tar.arg("file").output().unwrap().stdout;
            let case = format!("{version}, {parts} parts");
            let mut place = Place::new();
            place
                .unpack(&tar)
                .unwrap_or_else(|error| panic!("{case}: {error}"));
            let unpacked = place.layer.join("file");
            assert!(fs::read(&unpacked).unwrap() == fs::read(&file).unwrap(), "{case}");
            let [there, was] = [&unpacked, &file].map(|path| fs::metadata(path).unwrap().blocks());
            assert!(there <= was, "{case}: {there} blocks, {was} before");
            place.assert_exact(&tar, &case);
            if parts > 1 {
                File::options()
                    .write(true)
                    .open(&unpacked)
                    .unwrap()
                    .write_all_at(b"x", 16_384)
                    .unwrap();
                assert!(!place.check(&tar).is_empty(), "{case}: damage in a later part");
                let error = place.assemble().unwrap_err();
                assert!(
                    error.to_string().contains("file: its content has changed"),
                    "{case}: {error}"
                );
            }
        }
    }
}

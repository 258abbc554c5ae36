//! What is small to send and large to take is refused at its limit, in little memory, and leaves nothing.

use std::{
    io::{self, Seek, Write},
    process::Command,
};

use flate2::{Compression, write::GzEncoder};

use super::*;
use crate::image::testing::{gzip, layer as tar_of};

/// Which bomb a child process takes, and where.
const CASE: &str = "STEAD_TEST_BOMB";
const DIGEST: &str = "STEAD_TEST_DIGEST";
const PLACE: &str = "STEAD_TEST_PLACE";
const MEMORY: u64 = 64 << 20;
/// What a zstd block of four bytes stands for.
const BLOCK: usize = 128 << 10;

type Bomb = (
    &'static str,
    fn(&mut fs::File, Limits) -> io::Result<()>,
    &'static str,
);

/// Layers, each with a word of why it is refused.
const LAYERS: &[Bomb] = &[
    (
        "10 GiB of zeros in 10 MB of gzip",
        |to, _| zeros(to, 10 << 30),
        "more bytes",
    ),
    (
        "a file of 10 GiB in 10 MB of gzip",
        |to, _| gzip_file(to),
        "more bytes",
    ),
    (
        "100 GiB in 3 MB of zstd",
        |to, _| zstd(to, 0x58, 100 << 30),
        "more bytes",
    ),
    (
        "zstd with a window of 2 GiB",
        |to, _| zstd(to, 0xa8, 2 << 20),
        "cannot be read",
    ),
    (
        "a million attributes",
        |to, _| attributes(to, 1_000_000),
        "extension",
    ),
    (
        "attributes as long as an extension",
        |to, _| attributes(to, 30_000),
        "more attributes than",
    ),
];

/// Those that take minutes: CI lowers the limits for them, `tests/full/bombs` does not.
const LONG: &[Bomb] = &[
    ("a file of 17 GiB in 200 MB of zstd", heavy, "more bytes"),
    ("ten million empty files", entries, "entries"),
];

fn limits(case: &str) -> Limits {
    let full = Limits::default();
    if std::env::var_os("STEAD_BOMBS").is_some() || LONG.iter().all(|(name, ..)| *name != case) {
        return full;
    }
    Limits {
        entries: 3_000,
        unpacked: 24 << 20,
        ..full
    }
}

/// So many bytes, in pieces of 4 MiB.
fn zeros(to: &mut fs::File, bytes: usize) -> io::Result<()> {
    let mut piece = GzEncoder::new(Vec::new(), Compression::best());
    piece.write_all(&vec![0; 4 << 20])?;
    to.write_all(&piece.finish()?.repeat(bytes / (4 << 20)))
}

fn gzip_file(to: &mut fs::File) -> io::Result<()> {
    to.write_all(&gzip(&file_of(10 << 30))?)?;
    zeros(to, 10 << 30)
}

fn file_of(bytes: u64) -> [u8; 512] {
    let mut header = Member::new("a", 0o644, "").header();
    header.set_size(bytes);
    header.set_cksum();
    *header.as_bytes()
}

/// A frame of blocks that each are one zero so many times.
fn zstd(to: &mut fs::File, window: u8, bytes: usize) -> io::Result<()> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, window];
    let blocks = bytes / BLOCK;
    for block in 1..=blocks {
        let header = (BLOCK as u32) << 3 | 1 << 1 | u32::from(block == blocks);
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    to.write_all(&frame)
}

/// What is skipped weighs, so that the layer may be as large as any.
fn heavy(to: &mut fs::File, _: Limits) -> io::Result<()> {
    const SKIPPED: u32 = 200 << 20;
    to.write_all(&[0x50, 0x2a, 0x4d, 0x18])?;
    to.write_all(&SKIPPED.to_le_bytes())?;
    to.set_len(8 + u64::from(SKIPPED))?;
    to.seek(io::SeekFrom::End(0))?;
    // One raw block in a frame of its own.
    to.write_all(&[0x28, 0xb5, 0x2f, 0xfd, 0, 0x58, 0x01, 0x10, 0x00])?;
    to.write_all(&file_of(17 << 30))?;
    zstd(to, 0x58, 17 << 30)
}

/// What is beyond the limit is never read, and need not be of other names.
fn entries(to: &mut fs::File, limits: Limits) -> io::Result<()> {
    let mut piece = Vec::new();
    for thousand in 0..10_000 {
        if thousand <= limits.entries / 1_000 {
            let files: Vec<_> = (0..1_000)
                .map(|file| Member::new(&format!("{thousand}/{file}"), 0o644, ""))
                .collect();
            let tar = tar_of(&files)?;
            piece = gzip(&tar[..tar.len() - 1024])?;
        }
        to.write_all(&piece)?;
    }
    Ok(())
}

/// A file with so many extended attributes.
fn attributes(to: &mut fs::File, count: usize) -> io::Result<()> {
    let records: String = (0..count)
        .map(|number| format!("34 SCHILY.xattr.user.{number:010}=1\n"))
        .collect();
    let extension = Member::of(tar::EntryType::XHeader, "x", "", 0o644, records.into_bytes());
    to.write_all(&tar_of(&[extension, Member::new("a", 0o644, "")])?)
}

/// Documents, in the place of the one that is called so.
const DOCUMENTS: &[(&str, &str, &str)] = &[
    ("a manifest of 4 GB", "index.json", "more than 4194304"),
    ("a configuration of 4 GB", "config", "more than 8388608"),
    ("JSON a hundred thousand deep", "index.json", "malformed"),
    ("layers without end", "config", "layers, more than 128"),
];

fn place_bomb(case: &str, place: &Place) -> String {
    let dir = place.path("image");
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let layer = blobs.join("layer");
    fs::write(&layer, "x").unwrap();
    let mut diff_ids = vec![Digest::of(b"another").to_string()];
    let mut count = 1;
    if let Some((_, bomb, _)) = LAYERS.iter().chain(LONG).find(|(name, _, _)| *name == case) {
        bomb(&mut fs::File::create(&layer).unwrap(), limits(case)).unwrap();
    }
    if case == "layers without end" {
        (count, diff_ids) = (129, vec![diff_ids.swap_remove(0); 129]);
    }
    let config = json!({"rootfs": {"diff_ids": diff_ids}}).to_string();
    let content = fs::read(&layer).unwrap();
    let digests = [Digest::of(&content), Digest::of(config.as_bytes())];
    fs::rename(&layer, blobs.join(digests[0].hex())).unwrap();
    fs::write(blobs.join(digests[1].hex()), &config).unwrap();
    let mut size = config.len() as u64;
    if case == "a configuration of 4 GB" {
        size = 4 << 30;
        let file = fs::File::options().write(true).open(blobs.join(digests[1].hex()));
        file.unwrap().set_len(size).unwrap();
    }
    let descriptor = json!({"digest": digests[0].to_string(), "size": content.len()});
    let manifest = json!({
        "config": {"digest": digests[1].to_string(), "size": size},
        "layers": vec![descriptor; count],
    });
    let mut index = manifest.to_string();
    if case == "JSON a hundred thousand deep" {
        index = format!("{{\"annotations\": {{\"deep\": {}", "[".repeat(100_000));
    }
    fs::write(dir.join("index.json"), index).unwrap();
    if case == "a manifest of 4 GB" {
        let file = fs::File::options().write(true).open(dir.join("index.json"));
        file.unwrap().set_len(4 << 30).unwrap();
    }
    digests[1].to_string()
}

/// Peak of this process's resident memory, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Run by the test below in a process of its own; by itself it has nothing to take.
#[test]
fn sec_22_child_takes_a_bomb() {
    let (Ok(case), Ok(digest), Ok(at)) = (std::env::var(CASE), std::env::var(DIGEST), std::env::var(PLACE))
    else {
        return;
    };
    let layout = Layout::new(Some(Path::new(&at))).unwrap();
    let store = Store::with_limits(&layout, limits(&case));
    let before = peak();
    let error = store.unpack(&format!("oci:{at}/image"), &digest).unwrap_err();
    let grown = peak() - before;
    let source = std::error::Error::source(&error).map(ToString::to_string);
    let inner = std::error::Error::source(&error).and_then(std::error::Error::source);
    println!("TOOK {grown} {error}: {source:?}: {inner:?}");
}

#[test]
fn sec_22_bombs_are_refused_at_their_limits_in_little_memory_and_leave_nothing() {
    let layers = LAYERS.iter().chain(LONG).map(|(name, _, says)| (*name, *says));
    let documents = DOCUMENTS.iter().map(|(name, _, says)| (*name, *says));
    for (case, says) in layers.chain(documents) {
        let place = Place::new();
        let digest = place_bomb(case, &place);
        let ran = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "image::store::tests::bombs::sec_22_child_takes_a_bomb",
                "--nocapture",
            ])
            .env(CASE, case)
            .env(DIGEST, digest)
            .env(PLACE, place.directory.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        let Some((_, took)) = said.split_once("TOOK ") else {
            panic!("{case}: {said}{}", String::from_utf8_lossy(&ran.stderr));
        };
        let (grown, error) = took.split_once(' ').unwrap();
        println!("{case}: {grown} bytes of memory");
        assert!(error.contains(says), "{case}: {error}");
        let grown: u64 = grown.parse().unwrap();
        assert!(grown < MEMORY, "{case}: {grown} bytes of memory");
        assert_eq!(place.stored_layers(), [""; 0], "{case}");
        let recipes = fs::read_dir(place.path("state/images/recipes"));
        assert!(recipes.is_err(), "{case}: a recipe is left");
    }
}

#[test]
fn sec_22_a_layer_is_worth_a_hundred_times_what_it_weighs_and_a_gibibyte_but_no_more_than_16() {
    let limits = Limits::default();
    for (stored, most) in [
        (0, 1 << 30),
        (1 << 20, (1 << 30) + (100 << 20)),
        (1 << 30, 16 << 30),
        (u64::MAX, 16 << 30),
    ] {
        assert_eq!(limits.unpacked_from(stored), most, "{stored}");
    }
}

/// Somebody who looks at the store all the time.
#[test]
fn sec_29_nothing_of_a_layer_is_seen_before_all_of_it_is_verified() {
    let files: Vec<Member> = (0..300)
        .map(|number| Member::new(&format!("f{number}"), 0o644, vec![b'x'; 2000]))
        .collect();
    let tar = tar_of(&files).unwrap();
    let packed = gzip(&tar).unwrap();
    for (case, diff_id) in [("sound", Digest::of(&tar)), ("another", Digest::of(b"another"))] {
        let place = Place::new();
        let (layers, recipes) = (
            place.path("state/images/layers"),
            place.path("state/images/recipes"),
        );
        let target = layers.join(diff_id.hex());
        let config = json!({"rootfs": {"diff_ids": [diff_id.to_string()]}}).to_string();
        let (blob, digest) = (Digest::of(&packed), Digest::of(config.as_bytes()));
        let blobs = place.path("image/blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(blob.hex()), &packed).unwrap();
        fs::write(blobs.join(digest.hex()), &config).unwrap();
        let manifest = json!({
            "config": {"digest": digest.to_string(), "size": config.len()},
            "layers": [{"digest": blob.to_string(), "size": packed.len()}],
        });
        fs::write(place.path("image/index.json"), manifest.to_string()).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        let seen = std::thread::scope(|scope| {
            let racer = scope.spawn(|| {
                let (mut looks, mut seen) = (0, 0);
                while !done.load(std::sync::atomic::Ordering::Acquire) {
                    looks += 1;
                    if target.exists() {
                        seen += 1;
                        assert_eq!(fs::read_dir(&target).unwrap().count(), 300, "{case}");
                        assert_eq!(fs::metadata(target.join("f299")).unwrap().len(), 2000);
                        assert!(
                            recipes.join(diff_id.hex()).exists(),
                            "{case}: the recipe comes first"
                        );
                    }
                    for entry in fs::read_dir(&layers).into_iter().flatten().flatten() {
                        let name = entry.file_name().into_string().unwrap();
                        // Gone by now: then it was in nobody's way.
                        let mode = entry.metadata().map(|found| found.permissions().mode() & 0o777);
                        let private = name.starts_with(".new-") && mode.is_ok_and(|mode| mode & 0o077 == 0);
                        assert!(
                            private || name == diff_id.hex() || !entry.path().exists(),
                            "{case}: {name} is seen"
                        );
                    }
                }
                (looks, seen)
            });
            let reference = place.reference("oci", "image");
            let unpacked = place.store.unpack(&reference, &digest.to_string());
            assert_eq!(unpacked.is_ok(), case == "sound", "{case}: {unpacked:?}");
            done.store(true, std::sync::atomic::Ordering::Release);
            racer.join().unwrap()
        });
        assert!(seen.0 > 10, "{case}: it looked {} times only", seen.0);
        assert!(case == "sound" || seen.1 == 0, "{case}");
        assert_eq!(target.exists(), case == "sound");
    }
}

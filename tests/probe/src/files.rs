//! What of the tree is there, what of it can be written, and what is hidden.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use crate::{calls::errno_name, facts::read};

/// Flags of a mount that confine; the rest is of the host's file system.
const FLAGS: [&str; 5] = ["ro", "rw", "nosuid", "nodev", "noexec"];

/// What Docker hides, and what a host tells most about itself by.
const HIDDEN: [&str; 16] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
    "/sys/fs/bpf",
];

pub fn mounts() -> Vec<String> {
    let mut lines: Vec<String> = read("/proc/self/mountinfo")
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let words: Vec<&str> = left.split(' ').collect();
            let (point, options) = (words.get(4)?, words.get(5)?);
            let flags: Vec<&str> = options.split(',').filter(|flag| FLAGS.contains(flag)).collect();
            let shared = words.get(6..).is_some_and(|more| !more.is_empty());
            let kind = right.split(' ').next()?;
            let propagation = if shared { " propagated" } else { "" };
            Some(format!("mount {point} {} {kind}{propagation}", flags.join(",")))
        })
        .collect();
    lines.sort();
    lines
}

pub fn devices() -> Vec<String> {
    let mut lines = Vec::new();
    walk_devices(Path::new("/dev"), &mut lines);
    lines.sort();
    lines
}

fn walk_devices(directory: &Path, lines: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(found) = fs::symlink_metadata(&path) else {
            continue;
        };
        let kind = found.file_type();
        if kind.is_dir() {
            walk_devices(&path, lines);
        } else if kind.is_symlink() {
            let to = fs::read_link(&path).unwrap_or_default();
            lines.push(format!("device {} -> {}", path.display(), to.display()));
        } else if kind.is_char_device() || kind.is_block_device() {
            let device = found.rdev();
            let (major, minor) = (libc::major(device), libc::minor(device));
            let letter = if kind.is_block_device() { 'b' } else { 'c' };
            let mode = found.mode() & 0o7777;
            let opened = open(&path, true, true);
            lines.push(format!(
                "device {} {letter} {major}:{minor} {mode:o} {opened}",
                path.display()
            ));
        }
    }
}

/// `opens`, or why not.
pub fn open(path: &Path, reading: bool, writing: bool) -> String {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW;
    let mut options = fs::File::options();
    options.read(reading).write(writing).custom_flags(flags);
    match options.open(path) {
        Ok(_) => "opens".into(),
        Err(error) => errno_name(error.raw_os_error().unwrap_or(0)),
    }
}

pub fn hidden() -> Vec<String> {
    let mut paths: Vec<String> = HIDDEN.iter().map(ToString::to_string).collect();
    paths.extend((0..64).map(|number| format!("/sys/devices/system/cpu/cpu{number}/thermal_throttle")));
    let mut lines = Vec::new();
    for path in paths {
        let verdict = match fs::metadata(&path) {
            Err(_) => "nothing".to_owned(),
            Ok(found) if found.is_dir() => match fs::read_dir(&path).map(Iterator::count) {
                Ok(0) | Err(_) => "nothing".to_owned(),
                Ok(_) => "entries".to_owned(),
            },
            // A part is enough, and /proc/kcore has no end.
            Ok(_) => match fs::File::open(&path)
                .and_then(|mut file| std::io::Read::read(&mut file, &mut [0; 64]))
            {
                Ok(0) | Err(_) => "nothing".to_owned(),
                Ok(_) => "content".to_owned(),
            },
        };
        // Of the processors, those that have something to say.
        if !path.contains("thermal") || verdict != "nothing" {
            lines.push(format!("hidden {path} {verdict}"));
        }
    }
    lines
}

/// Every file below /proc and /sys that is there to be written and opens so; nothing is written. Those of
/// this process are of the kernel's choice.
pub fn writable() -> Vec<String> {
    let mut found = BTreeSet::new();
    for place in ["/proc", "/sys"] {
        walk(Path::new(place), &mut found);
    }
    found.into_iter().collect()
}

fn walk(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        let text = path.display().to_string();
        let number = text.strip_prefix("/proc/").and_then(|rest| {
            let first = rest.split('/').next()?;
            first.parse::<u32>().ok()
        });
        // One process is as another, and its threads are as it is.
        let own = number == Some(std::process::id());
        if (number.is_some() && !own) || text.ends_with("/task") || text.ends_with("/map_files") {
            continue;
        }
        if kind.is_dir() {
            walk(&path, found);
        } else if kind.is_file() && for_writing(&path) && open(&path, false, true) == "opens" {
            found.insert(match number {
                Some(number) => format!("host.writable {}", text.replace(&format!("/{number}/"), "/PID/")),
                None => format!("writable {text}"),
            });
        }
    }
}

/// Root opens the others, too, and cannot write them.
fn for_writing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.mode() & 0o222 != 0)
}

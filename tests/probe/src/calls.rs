//! The filter's verdict on every system call number, without any of them being carried out.
//!
//! A filter of the probe's own hands each call to a listener, which refuses it with a number no kernel uses.
//! The kernel lets a refusal of an earlier filter win, so that number means "the runtime allows it".

use std::{collections::BTreeMap, fs, io::Write};

use crate::sys;

/// The numbers looked at.
pub const LAST: u32 = 470;

/// In the sixth argument; the calls of the probe's own needs never have it.
const MARK: u64 = 0x7374_6561_6470_7262;

const ALLOWED: i32 = 3999;

/// Arguments: one that each argument rule allows, one that all of them refuse.
const ARGUMENTS: [u64; 2] = [0, 0x7e02_0063];

/// uretprobe and uprobe: newer kernels let them past every filter and look at where they are called from.
#[cfg(target_arch = "x86_64")]
const PAST_FILTERS: [u32; 2] = [335, 336];
#[cfg(not(target_arch = "x86_64"))]
const PAST_FILTERS: [u32; 0] = [];

/// Numbers and names, as they stand beside the filter.
#[cfg(target_arch = "x86_64")]
const NAMES: &str = include_str!("../../../backend/src/init/seccomp/x86_64.txt");
#[cfg(not(target_arch = "x86_64"))]
const NAMES: &str = "";

pub fn verdicts() -> Vec<String> {
    let names: BTreeMap<u32, &str> = NAMES
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?.parse().ok()?, words.next()?))
        })
        .collect();
    let calls = (0..=LAST).flat_map(|number| ARGUMENTS.map(|argument| (u64::from(number), argument)));
    let said = ask(calls.collect());
    said.chunks(ARGUMENTS.len())
        .zip(0..)
        .map(|(pair, number)| {
            let verdict = match pair {
                [one, other] if one != other => format!("argument {one} {other}"),
                _ => pair[0].clone(),
            };
            let name = names.get(&number).copied().unwrap_or("-");
            let whose = if PAST_FILTERS.contains(&number) {
                "host."
            } else {
                ""
            };
            format!("{whose}call.{number:03} {name} {verdict}")
        })
        .collect()
}

/// What the filter says to each number with that first argument.
pub fn ask(calls: Vec<(u64, u64)>) -> Vec<String> {
    let path = format!("/dev/shm/probe-{}", std::process::id());
    let mut said: Vec<String> = Vec::new();
    while said.len() < calls.len() {
        let rest = calls[said.len()..].to_vec();
        let end = sys::forked(|| match fs::File::create(&path) {
            Ok(file) => examine(rest, file),
            Err(_) => 2,
        });
        let text = fs::read_to_string(&path).unwrap_or_default();
        said.extend(text.lines().map(str::to_owned));
        match end {
            sys::End::Signal(_) => said.push("killed".into()),
            sys::End::Exit(0) => {}
            sys::End::Exit(_) => said.resize(calls.len(), "unknown".into()),
        }
    }
    let _ = fs::remove_file(path);
    said
}

/// One thread calls, this one answers.
fn examine(calls: Vec<(u64, u64)>, mut file: fs::File) -> i32 {
    let (tell, hear) = std::sync::mpsc::channel();
    let caller = std::thread::spawn(move || {
        let listener = sys::listen(MARK);
        let ready = listener.is_ok();
        if tell.send(listener.ok()).is_err() || !ready {
            return 2;
        }
        for (number, first) in calls {
            let answer = sys::call(number as _, [first, 0, 0, 0, 0, MARK]);
            let word = match answer {
                Err(ALLOWED) => "allow".to_owned(),
                Err(errno) => errno_name(errno),
                Ok(_) => "done".to_owned(),
            };
            if writeln!(file, "{word}").is_err() {
                return 2;
            }
        }
        0
    });
    let Ok(Some(listener)) = hear.recv() else {
        return 2;
    };
    std::thread::spawn(move || while sys::refuse_next(listener, ALLOWED).is_ok() {});
    caller.join().unwrap_or(2)
}

/// `EPERM`, for the numbers that answers to attacks have.
pub fn errno_name(errno: i32) -> String {
    let known = [
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::ESRCH, "ESRCH"),
        (libc::EIO, "EIO"),
        (libc::ENXIO, "ENXIO"),
        (libc::EBADF, "EBADF"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::EACCES, "EACCES"),
        (libc::EFAULT, "EFAULT"),
        (libc::EBUSY, "EBUSY"),
        (libc::EEXIST, "EEXIST"),
        (libc::ENODEV, "ENODEV"),
        (libc::EINVAL, "EINVAL"),
        (libc::ETXTBSY, "ETXTBSY"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::EROFS, "EROFS"),
        (libc::ENOSYS, "ENOSYS"),
        (libc::ELOOP, "ELOOP"),
        (libc::EPROTONOSUPPORT, "EPROTONOSUPPORT"),
        (libc::ESOCKTNOSUPPORT, "ESOCKTNOSUPPORT"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
        (libc::ENOKEY, "ENOKEY"),
    ];
    known
        .iter()
        .find(|(number, _)| *number == errno)
        .map_or_else(|| format!("E{errno}"), |(_, name)| (*name).to_owned())
}

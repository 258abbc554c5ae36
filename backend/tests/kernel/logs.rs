//! Output and exit status reach the disk, or it is said how much did not.

use std::{fs, os::fd::AsFd, path::Path};

use backend::shim::{client::Client, protocol::Run};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::host::{Host, until};

pub const TESTS: [(&str, fn()); 3] = [
    ("output_while_nobody_is_connected_is_complete", alone),
    (
        "a_full_disk_neither_blocks_a_service_nor_loses_lines_silently",
        full_disk,
    ),
    ("an_exit_record_is_written_once_there_is_space", exit_record),
];

/// A small file system on `place` for the time of `act`.
fn small(place: &Path, size: &str, act: impl FnOnce()) {
    fs::create_dir_all(place).unwrap();
    let size = format!("size={size}");
    mount(
        Some("tmpfs"),
        place,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(size.as_str()),
    )
    .unwrap();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
    umount2(place, MntFlags::MNT_DETACH).unwrap();
    result.unwrap();
}

fn grow(place: &Path) {
    let none = None::<&str>;
    mount(none, place, none, MsFlags::MS_REMOUNT, Some("size=64m")).unwrap();
}

fn alone() {
    let mut host = Host::new();
    // No agent: no ready shims, and nobody on the one that is assigned.
    let pool = host.pool.take();
    host.pool = Some(backend::shim::spawn::Pool::new(&host.mark, 0, None, None).unwrap());
    drop(pool);
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    let directory = container.assignment.directory.clone();
    container.script("sleep 0.1; for i in $(seq 5000); do echo line $i; done; printf end; exit 6");
    container.start().unwrap();
    rustix::net::shutdown(container.client.as_fd(), rustix::net::Shutdown::Both).unwrap();
    until("its end is on disk", || fs::read(directory.join("exit")).ok());
    let mut expected: Vec<String> = (1..=5000).map(|number| format!("line {number}")).collect();
    expected.push("end".into());
    assert!(container.lines() == expected);
    container.client = Client::connect(&container.assignment.socket).unwrap();
    assert_eq!(container.ended(), 6);
}

/// The numbers of `line N`, and of each note how many lines it says are missing.
fn numbers(lines: &[String]) -> (Vec<u64>, Vec<u64>) {
    let mut printed = Vec::new();
    let mut missing = Vec::new();
    for line in lines {
        match line.strip_prefix("line ") {
            Some(rest) => printed.push(rest.split(' ').next().unwrap().parse().unwrap()),
            None => {
                assert!(line.contains("No space left"), "{line:?}");
                let count = line.strip_prefix("stead: ").unwrap().split(' ').next().unwrap();
                missing.push(count.parse().unwrap());
            }
        }
    }
    (printed, missing)
}

fn full_disk() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    let logs = container.assignment.logs.clone();
    small(&logs, "128k", || {
        let filler = "x".repeat(80);
        container.script(&format!(
            "for i in $(seq 8000); do echo line $i {filler}; done; touch /tmp/through; \
             while ! test -e /tmp/on; do sleep 0.01; done; echo line 8001; echo line 8002"
        ));
        container.start().unwrap();
        until("the service prints on though nothing can be written", || {
            let (code, _) = container.exec(&["ls", "/tmp/through"], "").unwrap();
            (code == 0).then_some(())
        });
        let (printed, _) = numbers(&container.lines());
        assert!(
            (100..2000).contains(&printed.len()),
            "{} are written",
            printed.len()
        );
        grow(&logs);
        container.exec(&["touch", "/tmp/on"], "").unwrap();
        assert_eq!(container.ended(), 0);
        let (printed, missing) = numbers(&container.lines());
        assert_eq!(
            printed.len() as u64 + missing.iter().sum::<u64>(),
            8002,
            "every line is there or counted"
        );
        assert_eq!(printed[printed.len() - 2..], [8001, 8002]);
        let gaps = printed.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
        assert_eq!(
            gaps,
            missing.len(),
            "a note stands where lines are missing, and only there"
        );
    });
}

fn exit_record() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    let directory = container.assignment.directory.clone();
    small(&directory, "1m", || {
        container.script("dd if=/dev/zero of=/big bs=64k 2>/dev/null; exit 3");
        container.start().unwrap();
        assert_eq!(container.ended(), 3);
        let exit = directory.join("exit");
        assert!(!exit.exists(), "there was no space for it");
        assert!(matches!(container.state().run, Run::Exited { code: 3, .. }));
        grow(&directory);
        let text = until("the exit record is there", || fs::read_to_string(&exit).ok());
        assert!(text.contains("\"code\":3"), "{text}");
    });
}

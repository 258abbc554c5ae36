//! `blkio_config`: rates of a block device hold, change while the process runs, and are taken back.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::host::{Host, PATIENCE, cgroup};

const MIB: u64 = 1 << 20;

/// A block device of the test's own.
struct Disk(PathBuf);

impl Disk {
    fn new(host: &Host) -> Self {
        let file = host.root.join("disk");
        let size = std::fs::File::create(&file).and_then(|file| file.set_len(64 * MIB));
        size.expect("a file for the disk");
        let made = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&file)
            .output();
        let made = made.expect("losetup");
        assert!(made.status.success(), "{made:?}");
        Disk(PathBuf::from(String::from_utf8_lossy(&made.stdout).trim()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

/// How long the service takes to write or read so much, past every cache.
fn takes(host: &Host, argument: &str, mib: u64) -> Duration {
    let command = format!("dd bs=64k count={} {argument} 2>/dev/null", mib * 16);
    let since = Instant::now();
    host.stead_ok(&["exec", "case/writer", "--", "sh", "-c", &command]);
    since.elapsed()
}

fn about(found: Duration, seconds: f64) {
    let ratio = found.as_secs_f64() / seconds;
    assert!((0.8..1.2).contains(&ratio), "{found:?} instead of {seconds} s");
}

/// The file that limits how often is written, and what takes that back.
fn rule(pid: u32, disk: &Disk) -> (PathBuf, String) {
    let name = disk.0.file_name().expect("a name");
    let device = Path::new("/sys/block").join(name).join("dev");
    let device = std::fs::read_to_string(device).expect("its numbers");
    let device = device.trim();
    match cgroup::of(pid, "blkio") {
        Some((_, directory)) => (
            directory.join("blkio.throttle.write_iops_device"),
            format!("{device} 0"),
        ),
        None => {
            let (_, directory) = cgroup::of(pid, "").expect("its cgroup");
            (directory.join("io.max"), format!("{device} wiops=max"))
        }
    }
}

#[test]
fn rates_of_a_device_hold_and_change_while_the_process_runs() {
    let Some(mut host) = Host::new("blkio") else {
        return;
    };
    let disk = Disk::new(&host);
    host.start_agent();
    let image = host.busybox();
    let path = disk.0.display().to_string();
    let file = |more: &str| {
        format!(
            "services:\n  writer: {{ image: \"{image}\", command: [sleep, '1000000'], stop_signal: KILL, \
             devices: ['{path}:/dev/disk']{more} }}\n"
        )
    };
    let write = "if=/dev/zero of=/dev/disk oflag=direct";
    let read = "if=/dev/disk of=/dev/null iflag=direct";
    let limited = |key: &str, rate: &str| {
        file(&format!(
            ", blkio_config: {{ {key}: [{{ path: {path}, rate: {rate} }}] }}"
        ))
    };
    host.change("case", &limited("device_write_bps", "1mb"));
    let pid = host.running("case", "writer").pid;
    about(takes(&host, write, 4), 4.0);
    assert!(
        takes(&host, read, 4) < Duration::from_secs(1),
        "reads have no limit"
    );

    host.change("case", &limited("device_read_bps", "2mb"));
    about(takes(&host, read, 6), 3.0);
    assert!(
        takes(&host, write, 4) < Duration::from_secs(1),
        "the other one was taken back"
    );

    // 64 KiB each.
    host.change("case", &limited("device_write_iops", "32"));
    about(takes(&host, write, 6), 3.0);

    // Somebody lifts it: it is put back.
    let (rule, lifted) = rule(pid.expect("its process"), &disk);
    let held = std::fs::read_to_string(&rule).expect("the limits");
    assert!(held.contains("32"), "{held}");
    std::fs::write(&rule, lifted).expect("a limit that is lifted");
    host.wait("the limit is back", PATIENCE, || {
        (std::fs::read_to_string(&rule).ok()? == held).then_some(())
    });

    host.change("case", &file(""));
    assert!(
        takes(&host, write, 8) < Duration::from_secs(1),
        "nothing is limited"
    );
    assert_eq!(
        host.running("case", "writer").pid,
        pid,
        "and it is the same process"
    );

    let nowhere = file(", blkio_config: { device_write_bps: [{ path: /proc/version, rate: 1mb }] }");
    host.write_manifest("case", &nowhere);
    let said = host.wait("what is wrong is told", PATIENCE, || {
        let said = host.complaint("case");
        said.contains("/proc/version").then_some(said)
    });
    assert!(said.contains("is on no block device of this host"), "{said}");
    host.write_manifest("case", &file(""));
    host.finish();
}

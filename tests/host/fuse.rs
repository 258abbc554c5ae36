//! A file system that does not answer: mounted, and silent about everything but itself (fuse(4)).

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    mount::{MntFlags, MsFlags, mount, umount2},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

const GETATTR: u32 = 3;
const INIT: u32 = 26;
/// Answered by GETATTR, once the kernel is told that there is none of it.
const STATX: u32 = 52;
/// Offers that are taken: longer flags, and mounts whose ids are mapped.
const INIT_EXT: u32 = 1 << 30;
const ALLOW_IDMAP_HIGH: u32 = 1 << 8;

/// Until it is dropped.
pub struct Silent {
    place: PathBuf,
    end: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Silent {
    pub fn mount(place: &Path) -> Silent {
        fs::create_dir_all(place).expect("a mount point");
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .expect("/dev/fuse");
        fcntl(&device, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("not to block");
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
            device.as_raw_fd()
        );
        mount(
            Some("silent"),
            place,
            Some("fuse"),
            MsFlags::MS_NODEV,
            Some(options.as_str()),
        )
        .expect("the mount");
        let end = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&end);
        let server = std::thread::spawn(move || serve(device, &stop));
        Silent {
            place: place.to_owned(),
            end,
            server: Some(server),
        }
    }
}

impl Drop for Silent {
    /// Closes the connection: whoever waits is told of an error.
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
        let _ = umount2(&self.place, MntFlags::MNT_DETACH);
    }
}

fn serve(mut device: File, end: &AtomicBool) {
    let mut request = vec![0; 1 << 17];
    while !end.load(Ordering::SeqCst) {
        let mut wanted = [PollFd::new(std::os::fd::AsFd::as_fd(&device), PollFlags::POLLIN)];
        let _ = poll(&mut wanted, PollTimeout::from(50_u8));
        // Taken from the kernel, so that it cannot be taken back: that is what makes it wait for ever.
        let Ok(length) = device.read(&mut request) else {
            continue;
        };
        let word = |at: usize| u32::from_le_bytes(request[at..at + 4].try_into().expect("four bytes"));
        let node = u64::from(word(16)) | u64::from(word(20)) << 32;
        let (error, body) = match word(4) {
            STATX => (-(nix::errno::Errno::ENOSYS as i32), Vec::new()),
            INIT => (0, init(word(40 + 4))),
            GETATTR if node == 1 => (0, root_attributes()),
            _ => continue,
        };
        assert!(length >= 40, "a header");
        let mut answer = Vec::new();
        answer.extend(u32::try_from(16 + body.len()).expect("short").to_le_bytes());
        answer.extend(error.to_le_bytes());
        answer.extend(&request[8..16]);
        answer.extend(body);
        let _ = device.write_all(&answer);
    }
}

/// `struct fuse_init_out` of version 7.41 or what the kernel has.
fn init(minor: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let word = |value: u32, out: &mut Vec<u8>| out.extend(value.to_le_bytes());
    word(7, &mut out);
    word(minor, &mut out);
    word(0, &mut out);
    word(INIT_EXT, &mut out);
    // Requests in the background.
    word(12 | 9 << 16, &mut out);
    word(4096, &mut out);
    word(1, &mut out);
    word(0, &mut out);
    word(ALLOW_IDMAP_HIGH, &mut out);
    out.resize(64, 0);
    out
}

/// `struct fuse_attr_out` of an open directory, good for no time.
fn root_attributes() -> Vec<u8> {
    let mut out = vec![0; 104];
    out[16..24].copy_from_slice(&1_u64.to_le_bytes());
    out[76..80].copy_from_slice(&0o40755_u32.to_le_bytes());
    out[80..84].copy_from_slice(&2_u32.to_le_bytes());
    out
}

//! What this kernel takes for the least there is: a process in new namespaces, an overlay as its root, exec.

use std::{fs, os::unix::process::CommandExt, path::Path, process::Command};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::{chdir, pivot_root},
};

use crate::{host::Host, milliseconds, read_stamp, rig};

/// What this program is called when it is to become the floor.
pub const NAME: &str = "floor";

/// Milliseconds from the fork to the first act. It is this program that goes into the namespaces, so an exec is in it that
/// a start by a supervisor has not.
pub fn times(host: &Host, rounds: usize) -> Vec<f64> {
    let place = host.root.join("floor");
    let (image, out) = (rig::image(&place), place.join("out"));
    let own = std::env::current_exe().expect("this program");
    let mut times = Vec::new();
    for round in 0..=rounds {
        rig::forget(&out);
        let work = place.join(format!("round-{round}"));
        for directory in ["upper", "work", "root"] {
            fs::create_dir_all(work.join(directory)).expect("a directory");
        }
        let begin = milliseconds();
        let mut child = Command::new(&own)
            .arg0(NAME)
            .args([&image, &work, &out])
            .env_clear()
            .spawn()
            .expect("the process");
        let time = read_stamp(&out.join("stamp")) - begin;
        child.kill().expect("its end");
        child.wait().expect("its end");
        if round > 0 {
            times.push(time);
        }
    }
    times
}

/// The other side: in new namespaces, on an overlay of `image`, becomes the program.
pub fn become_it(image: &Path, work: &Path, out: &Path) -> std::io::Result<()> {
    let none = None::<&str>;
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET;
    unshare(flags)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let root = work.join("root");
    let options = format!(
        "lowerdir={},upperdir={work}/upper,workdir={work}/work",
        image.display(),
        work = work.display()
    );
    mount(
        Some("overlay"),
        &root,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )?;
    mount(Some(out), &root.join("out"), none, MsFlags::MS_BIND, none)?;
    chdir(&root)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    Err(Command::new("/stamp").env_clear().exec())
}

//! What shims are forked from, and what is forked from them: who is a shim, and who is none.

use std::{fs, process::Command};

use backend::{
    cgroup,
    shim::{client::Client, protocol::Request},
};

use super::host::Host;

pub const TESTS: [(&str, fn()); 2] = [
    ("what_shims_are_forked_from_is_replaced_when_it_dies", killed),
    (
        "who_holds_the_record_of_a_shim_in_its_container_is_none",
        record_in_a_payload,
    ),
];

fn killed() {
    let host = Host::new();
    let seeds = || {
        let leaves = fs::read_dir(host.cgroup().join("idle"))
            .into_iter()
            .flatten()
            .flatten();
        let leaves = leaves.filter(|leaf| leaf.file_name().to_string_lossy().contains("-seed-"));
        leaves
            .flat_map(|leaf| cgroup::pids(&leaf.path()).unwrap())
            .collect::<Vec<_>>()
    };
    let pool = host.pool.as_ref().unwrap();
    let first = pool.take().unwrap();
    let [seed] = seeds()[..] else {
        panic!("one seed: {:?}", seeds());
    };
    let status = fs::read_to_string(format!("/proc/{}/status", first.pid)).unwrap();
    let parent = format!("PPid:\t{}\n", std::process::id());
    assert!(
        status.contains(&parent),
        "a shim is a child of its agent: {status}"
    );
    let seed = nix::unistd::Pid::from_raw(seed as i32);
    nix::sys::signal::kill(seed, nix::sys::signal::Signal::SIGKILL).unwrap();
    let others: Vec<Client> = (0..3).map(|_| pool.take().unwrap()).collect();
    assert_ne!(seeds(), [seed.as_raw() as u32]);
    for mut shim in others.into_iter().chain([first]) {
        shim.order(&Request::Subscribe).unwrap();
    }
}

/// As a child of the shim does between its fork and its exec.
fn record_in_a_payload() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.script("sleep 1000");
    container.start().unwrap();
    let shim = container.client.pid;
    let record = fs::read_dir(format!("/proc/{shim}/fd"))
        .unwrap()
        .flatten()
        .find(|entry| {
            let link = fs::read_link(entry.path()).unwrap_or_default();
            link.to_string_lossy().contains("stead-record")
        });
    let record = fs::File::open(record.expect("a record").path()).unwrap();
    let mut holder = Command::new("sleep").arg("1000").stdin(record).spawn().unwrap();
    let payload = container.assignment.cgroup.join("payload/cgroup.procs");
    fs::write(payload, holder.id().to_string()).unwrap();
    assert!(cgroup::record_of(holder.id()).is_some(), "it has what a shim has");
    let found = cgroup::find_shims(&host.mark).unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(found.iter().map(|(pid, _)| *pid).collect::<Vec<_>>(), [shim]);
    let listens = cgroup::shim_listening_at(&container.assignment.socket).unwrap();
    assert_eq!(listens, Some(shim));
}

//! What shims are forked from: they are the agent's all the same, and do without it.

use std::fs;

use backend::{
    cgroup,
    shim::{client::Client, protocol::Request},
};

use super::host::Host;

pub const TESTS: [(&str, fn()); 1] = [("what_shims_are_forked_from_is_replaced_when_it_dies", killed)];

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

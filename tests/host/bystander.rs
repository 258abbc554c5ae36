//! What of a service must stay the very same while something else is broken and repaired: not only as it
//! was, but never touched.

use std::{collections::BTreeMap, fs};

use super::{
    Host,
    damage::{Damage, Reach},
    process,
    target::Target,
};

/// Numbers that the kernel gives once: whatever is made anew has another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bystander {
    process: Vec<String>,
    network: Vec<String>,
}

/// A picture of all services at one moment.
pub struct Bystanders {
    services: Vec<Bystander>,
    /// The rules of our tables with their handles, without what is in the sets.
    rules: String,
}

impl Bystanders {
    pub fn look(host: &Host, targets: &[Target]) -> Bystanders {
        let links = links(host.agent_pid());
        let rules = |family| {
            let arguments = ["-a", "-t", "list", "table", family, &host.table()];
            host.tool_reply("nft", &arguments).stdout
        };
        Bystanders {
            services: targets.iter().map(|target| look(target, &links)).collect(),
            rules: rules("inet") + &rules("bridge"),
        }
    }

    /// What is another thing now than it was `before`, of those whom the damage to `victim` does not reach.
    pub fn touched(
        &self,
        before: &Bystanders,
        targets: &[Target],
        victim: usize,
        damage: &Damage,
    ) -> Vec<String> {
        let mut touched = Vec::new();
        for (number, target) in targets.iter().enumerate() {
            let (now, was) = (&self.services[number], &before.services[number]);
            let mut check = |now: &[String], was: &[String]| {
                for (now, was) in now.iter().zip(was).filter(|(now, was)| now != was) {
                    touched.push(format!("port {}: {was} -> {now}", target.port));
                }
            };
            if number != victim {
                check(&now.process, &was.process);
            }
            if !targets[victim].within(damage.reach, target) {
                check(&now.network, &was.network);
            }
        }
        if damage.reach != Reach::Host && self.rules != before.rules {
            touched.push("the rules".to_owned());
        }
        touched
    }
}

fn look(target: &Target, links: &BTreeMap<String, String>) -> Bystander {
    let pid = target.pid;
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let namespace = |kind: &str| {
        let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap_or_default();
        link.display().to_string()
    };
    let link = |name: &str| format!("{name} has index {:?}", links.get(name));
    Bystander {
        process: vec![
            format!("process {pid} of {:?}", process::start_ticks(pid)),
            namespace("net"),
            namespace("mnt"),
            read("cgroup"),
            read("mountinfo"),
        ],
        network: vec![
            link(&target.bridge),
            link(&target.veth),
            format!("{:?}", self::links(pid)),
            read("net/route"),
            read("net/fib_trie"),
        ],
    }
}

/// The links of the namespace of a process with their indices: /proc/PID/net/igmp needs no one to enter it.
fn links(pid: u32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/igmp")).unwrap_or_default();
    let rows = text
        .lines()
        .filter(|line| line.starts_with(|first: char| first.is_ascii_digit()));
    rows.filter_map(|line| {
        let mut words = line.split_whitespace();
        let (index, name) = (words.next()?, words.next()?);
        Some((name.to_owned(), index.to_owned()))
    })
    .collect()
}

//! What somebody breaks by hand is put back, and no process notices.

use std::{
    io::BufRead,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::host::{
    HOST, Host, LOOPBACK, PATIENCE, Place,
    bystander::Bystanders,
    compose::furnished,
    damage::{Damage, ground::GROUND, network::NETWORK},
    http, promised, signal,
    target::Target,
};

const SHOP: &str = r#"services:
  web: { image: builtin:hello, ports: ["18500:8080"] }
  asker: { image: builtin:hello, ports: ["18501:8080"] }
"#;

/// Long enough for a debug build; the promise is 2 s.
const REPAIR: Duration = Duration::from_secs(2);

/// From outside, from the host by loopback, and from service to service by name.
fn works(host: &Host) -> Option<()> {
    host.get(Place::Lan, HOST, 18500, "/healthz").ok()?;
    host.get(Place::Host, LOOPBACK, 18500, "/healthz").ok()?;
    host.get(Place::Lan, HOST, 18501, "/call/web").ok().map(drop)
}

fn prepared(name: &str) -> Option<Host> {
    let mut host = Host::new(name)?;
    host.start_agent();
    host.write_manifest("shop", SHOP);
    host.converged("shop");
    host.wait("everything works", PATIENCE, || works(&host));
    Some(host)
}

fn repaired(host: &Host, what: &str, break_it: impl FnOnce()) {
    let before = host.identities("shop");
    break_it();
    let start = Instant::now();
    host.wait(
        &format!("everything works again after: {what}"),
        promised(REPAIR),
        || works(host),
    );
    eprintln!("{what}: repaired within {:?}", start.elapsed());
    host.nothing_to_do(PATIENCE);
    assert_eq!(host.identities("shop"), before, "{what} restarted something");
}

/// Two projects with three services each: one to break, a neighbour it asks, and bystanders.
fn targets(host: &Host) -> Vec<Target> {
    std::fs::create_dir(host.root.join("manifests/given")).expect("what is bound");
    let names = ["a", "b", "c"];
    for (project, first) in [("one", 18600), ("two", 18610)] {
        let services = names
            .iter()
            .zip(first..)
            .map(|(name, port)| format!("  {name}: {{ {} }}\n", furnished(port)));
        let services: String = services.collect();
        host.write_manifest(
            project,
            &format!("services:\n{services}volumes: {{ data: {{}} }}\n"),
        );
    }
    let mut targets = Vec::new();
    for (project, first) in [("one", 18600), ("two", 18610)] {
        host.converged(project);
        let services = names.iter().zip(first..);
        targets.extend(services.map(|(name, port)| Target::of(host, project, name, port)));
    }
    targets
}

/// One damage after the other, each to another service, is seen to be one, to reach nobody else, and to be
/// put right.
fn each_is_repaired(host: &Host, targets: &mut [Target], damages: &[Damage]) {
    let pictures: Vec<_> = targets.iter().map(|target| target.picture(host)).collect();
    let agent = host.agent_pid();
    for (number, damage) in damages.iter().enumerate() {
        let victim = number % targets.len();
        let target = &targets[victim];
        let bystanders = Bystanders::look(host, targets);
        // While the agent is held, nothing is repaired: the damage is real.
        signal(agent, Signal::SIGSTOP);
        let done = target.damage(host, damage);
        let broken = target.picture(host) != pictures[victim];
        let others = targets.iter().zip(&pictures);
        let touched: Vec<&Target> = others
            .filter(|(other, picture)| {
                !target.within(damage.reach, other) && other.picture(host) != **picture
            })
            .map(|(other, _)| other)
            .collect();
        signal(agent, Signal::SIGCONT);
        assert!(touched.is_empty(), "{} reaches {touched:#?}", damage.name);
        // Where its process ends, another one is the proof.
        let real = broken || damage.fatal || damage.may_be_refused();
        assert!(real, "{}: no damage", damage.name);
        let start = Instant::now();
        for (number, target) in targets.iter_mut().enumerate() {
            let fatal = number == victim && damage.fatal && done;
            assert!(
                fatal || target.unhurt(),
                "{}: {target:?} was restarted",
                damage.name
            );
            target
                .whole_again(host, &pictures[number], "b", fatal, PATIENCE)
                .unwrap_or_else(|trouble| panic!("{}: {trouble}", damage.name));
        }
        let after = Bystanders::look(host, targets);
        let touched = after.touched(&bystanders, targets, victim, damage);
        assert!(touched.is_empty(), "{}: {touched:#?}", damage.name);
        let refused = if done { "" } else { " (refused by the kernel)" };
        eprintln!("{}: repaired after {:?}{refused}", damage.name, start.elapsed());
    }
    assert!(targets.iter().all(Target::unhurt));
}

/// What somebody else has on this host, and what it looks like.
fn foreign(host: &Host) -> String {
    let look = "ip -o link show dev foreign0; ip -o addr show dev foreign0; ip route show dev foreign0; \
                head /proc/sys/net/ipv4/conf/foreign0/* /proc/sys/net/ipv4/conf/up0/*; nft list table ip foreign";
    host.tool_reply("sh", &["-c", look]).stdout
}

#[test]
fn every_damage_to_the_network_is_repaired_and_nothing_else_is_touched() {
    let Some(mut host) = Host::new("repair-network") else {
        return;
    };
    host.start_agent();
    host.tool(
        "sh",
        &[
            "-ec",
            "ip link add foreign0 type bridge; ip link set foreign0 addrgenmode none; ip addr add 10.251.0.1/24 dev foreign0; ip link set foreign0 mtu \
             1400 up; ip route add 10.252.0.0/24 via 10.251.0.9; nft add table ip foreign",
        ],
    );
    let mut targets = targets(&host);
    let before = foreign(&host);
    // One connection through each port, for the whole time.
    let streams: Vec<Stream> = targets
        .iter()
        .map(|target| {
            host.network
                .on_lan(|| Stream::open(SocketAddr::new(HOST, target.port)))
        })
        .collect();
    each_is_repaired(&host, &mut targets, NETWORK);
    for stream in streams {
        stream.lives();
    }
    assert_eq!(foreign(&host), before);
    host.nothing_to_do(PATIENCE);
    host.tool(
        "sh",
        &["-ec", "ip link del foreign0; nft delete table ip foreign"],
    );
    host.finish();
}

#[test]
fn every_damage_to_processes_cgroups_mounts_and_files_is_repaired_and_nothing_else_is_touched() {
    let Some(mut host) = Host::new("repair-everything") else {
        return;
    };
    host.start_agent();
    let mut targets = targets(&host);
    each_is_repaired(&host, &mut targets, GROUND);
    host.nothing_to_do(PATIENCE);
    host.finish();
}

/// A connection on which a line comes every 100 ms.
struct Stream(JoinHandle<Result<(), String>>, Arc<AtomicBool>);

impl Stream {
    fn open(address: SocketAddr) -> Stream {
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let mut stream = http::stream(address, "/stream").expect("a stream");
        // A repair may cost the connection a retransmission, and never more.
        let patience = Some(PATIENCE);
        stream.get_ref().set_read_timeout(patience).expect("a socket");
        Stream(
            std::thread::spawn(move || {
                let mut line = String::new();
                while !ends.load(Ordering::Relaxed) {
                    line.clear();
                    match stream.read_line(&mut line) {
                        Ok(0) => return Err("it ended".to_owned()),
                        Ok(_) => {}
                        Err(error) => return Err(error.to_string()),
                    }
                }
                Ok(())
            }),
            over,
        )
    }

    fn lives(self) {
        self.1.store(true, Ordering::Relaxed);
        let outcome = self.0.join().expect("no panic");
        assert_eq!(outcome, Ok(()), "a connection did not outlive the repairs");
    }
}

#[test]
fn a_ruleset_flushed_while_no_agent_ran_is_there_after_its_start() {
    let Some(mut host) = prepared("repair-flush") else {
        return;
    };
    let before = host.identities("shop");
    host.kill_agent();
    host.tool("nft", &["flush", "ruleset"]);
    assert!(
        host.get(Place::Lan, HOST, 18500, "/healthz").is_err(),
        "the port is gone with the rules"
    );
    host.spawn_agent(Host::binary());
    host.wait("everything works again after a flush", promised(REPAIR), || {
        works(&host)
    });
    host.nothing_to_do(PATIENCE);
    assert_eq!(host.identities("shop"), before);
    host.finish();
}

#[test]
fn an_element_removed_from_our_table_comes_back_or_cannot_be_removed() {
    let Some(host) = prepared("repair-element") else {
        return;
    };
    let elements = elements(&host);
    assert!(!elements.is_empty(), "published ports are map elements");
    for element in elements {
        let name = element["name"].to_string();
        let command = json!({ "nftables": [{ "delete": { "element": element } }] }).to_string();
        let file = host.root.join("delete.json");
        std::fs::write(&file, command).expect("a file");
        repaired(&host, &format!("nft delete element of {name}"), || {
            let reply = host.tool_reply("nft", &["-j", "-f", &file.display().to_string()]);
            // Where the kernel has owned tables that persist (6.9), nobody but the agent can.
            assert!(
                reply.code == 0
                    || reply.stderr.contains("not permitted")
                    || reply.stdout.contains("not permitted"),
                "{reply:?}"
            );
        });
    }
    host.finish();
}

/// Each element of each set and map of our `inet` table, as `nft -j` deletes it.
fn elements(host: &Host) -> Vec<Value> {
    let text = host.tool("nft", &["-j", "list", "table", "inet", &host.table()]);
    let ruleset: Value = serde_json::from_str(&text).expect("JSON of nft");
    let mut found = Vec::new();
    for object in ruleset["nftables"].as_array().into_iter().flatten() {
        let Some(set) = object.get("map").or_else(|| object.get("set")) else {
            continue;
        };
        for element in set["elem"].as_array().into_iter().flatten() {
            found.push(
                json!({ "family": "inet", "table": host.table(), "name": set["name"], "elem": [element] }),
            );
        }
    }
    found
}

//! `interface_name` and `driver_opts` of a network of a service: what its interfaces are called and set to.

use crate::host::{HOST, Host, PATIENCE, Place};

fn file(front: &str, back: &str) -> String {
    format!(
        "services:\n  web:\n    image: builtin:hello\n    ports: ['8081:8080']\n    networks:\n      back: {back}\n      \
         front: {front}\nnetworks: {{ front: null, back: null }}\n"
    )
}

fn sysctls(settings: &str) -> String {
    format!("driver_opts: {{ com.docker.network.endpoint.sysctls: '{settings}' }}")
}

struct Web(Host, u32);

impl Web {
    fn inside(&self, line: &str) -> String {
        let said = self
            .0
            .tool("nsenter", &["-t", &self.1.to_string(), "-n", "sh", "-ec", line]);
        said.trim().to_owned()
    }

    /// The interfaces by name, each with the first two numbers of its address.
    fn interfaces(&self) -> String {
        let said = self.inside("ip -o -4 address show scope global | awk '{ print $2 }' | sort");
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn setting(&self, name: &str) -> String {
        self.inside(&format!("cat /proc/sys/net/ipv4/{name}"))
    }

    fn reached(&self) {
        self.0.wait("it is reached", PATIENCE, || {
            self.0.get(Place::Lan, HOST, 8081, "/").ok().map(drop)
        });
    }
}

#[test]
fn interfaces_have_the_names_and_settings_that_are_asked_for_and_get_them_back() {
    let Some(mut host) = Host::new("interfaces") else {
        return;
    };
    host.start_agent();
    host.change("case", &file("{}", "{}"));
    let before = host.running("case", "web");
    let web = Web(host, before.pid());
    assert_eq!(web.interfaces(), "eth0 eth1");
    let log = sysctls("net.ipv4.conf.IFNAME.log_martians=1, net.ipv4.neigh.IFNAME.retrans_time_ms=333");
    for (front, back, expected) in [
        ("{ interface_name: lan }", "{}", "eth0 lan"),
        ("{ interface_name: eth0 }", "{}", "eth0 eth2"),
        (
            "{ interface_name: eth0 }",
            "{ interface_name: eth1 }",
            "eth0 eth1",
        ),
        (
            &*format!("{{ interface_name: lan.5, {log} }}"),
            "{}",
            "eth0 lan.5",
        ),
    ] {
        web.0.change("case", &file(front, back));
        assert_eq!(web.interfaces(), expected, "front: {front}, back: {back}");
        web.reached();
        let now = web.0.running("case", "web").identity();
        assert_eq!(now, before.identity(), "no process notices: {front}, {back}");
    }
    let is_set = || {
        (
            web.setting("conf/lan.5/log_martians"),
            web.setting("conf/eth0/log_martians"),
        ) == ("1".to_owned(), "0".to_owned())
            && (330..=340).contains(&web.setting("neigh/lan.5/retrans_time_ms").parse().unwrap_or(0))
    };
    assert!(is_set(), "{}", web.setting("neigh/lan.5/retrans_time_ms"));

    // As it was, whatever somebody does to it.
    for line in [
        "ip link del lan.5",
        "ip link set lan.5 down; ip link set lan.5 name wan",
        // The name may be back before it is taken.
        "ip link set eth0 down; ip link set eth0 name x; ip link set lan.5 down; ip link set lan.5 name eth0 || true",
        "echo 0 > /proc/sys/net/ipv4/conf/lan.5/log_martians",
    ] {
        web.inside(line);
        // Nobody tells of a setting: it is seen at the next look at everything.
        web.0.wait(&format!("`{line}` is undone"), 2 * PATIENCE, || {
            (web.interfaces() == "eth0 lan.5" && is_set()).then_some(())
        });
        web.reached();
        web.0.converged("case");
        assert_eq!(
            web.0.running("case", "web").identity(),
            before.identity(),
            "{line}"
        );
    }

    // What is not asked for any more is as the kernel has it.
    web.0.change("case", &file("{ interface_name: lan.5 }", "{}"));
    assert_eq!(web.setting("conf/lan.5/log_martians"), "0");

    // A setting that this kernel has not is said, not passed over.
    let nothing = sysctls("net.ipv4.conf.IFNAME.no_such_thing=1");
    web.0
        .write_manifest("case", &file(&format!("{{ {nothing} }}"), "{}"));
    web.0.wait("the setting is named", PATIENCE, || {
        web.0.complaint("case").contains("no_such_thing").then_some(())
    });
    web.0.write_manifest("case", &file("{}", "{}"));
    web.0.converged("case");
    assert_eq!(web.interfaces(), "eth0 eth1");
    web.reached();
    web.0.finish();
}

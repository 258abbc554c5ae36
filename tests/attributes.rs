//! What a manifest asks of a service is so inside of it.

use crate::host::{HOST, Host, PATIENCE, Place};

/// The attributes of a service; a command in it, and what that prints.
const ASKED: &[(&str, &str, &str)] = &[
    (
        "cap_drop: [ALL]",
        "grep CapBnd /proc/self/status",
        "CapBnd: 0000000000000000",
    ),
    (
        "cap_drop: [ALL], cap_add: [CAP_NET_BIND_SERVICE, chown]",
        "grep CapBnd /proc/self/status",
        "CapBnd: 0000000000000401",
    ),
    (
        "cap_add: [NET_ADMIN]",
        "ip link set lo mtu 1400 && cat /sys/class/net/lo/mtu",
        "1400",
    ),
    (
        "cap_drop: [NET_ADMIN]",
        "ip link set lo mtu 1400 2>&1 | grep -c permitted",
        "1",
    ),
    ("group_add: [app, 7], user: '5:6'", "id -G", "6 7 1000"),
    (
        "ulimits: { nofile: { soft: 64, hard: 128 }, nproc: 90 }",
        "echo $(ulimit -S -n) $(ulimit -H -n) $(ulimit -u)",
        "64 128 90",
    ),
    (
        "tty: true",
        "busybox readlink /proc/1/fd/0; busybox stat -c %t:%T /dev/console",
        "/dev/pts/0 88:0",
    ),
    (
        "stdin_open: true",
        "busybox readlink /proc/1/fd/0 | grep -c pipe",
        "1",
    ),
    ("user: app", "busybox readlink /proc/1/fd/0", "/dev/null"),
    ("oom_score_adj: 100", "cat /proc/self/oom_score_adj", "100"),
    (
        "read_only: true, tmpfs: [/scratch]",
        "touch /scratch/x /dev/shm/x && touch /tmp/x 2>&1 | grep -c Read-only",
        "1",
    ),
    (
        "init: true",
        "grep -c ^init /proc/1/cmdline; grep Name /proc/2/status",
        "1 Name: sleep",
    ),
    (
        "sysctls: { net.ipv4.ip_unprivileged_port_start: 0, net.core.somaxconn: 99 }",
        "cd /proc/sys/net && cat ipv4/ip_unprivileged_port_start core/somaxconn",
        "0 99",
    ),
    (
        "dns_search: [example.org, lan], dns_opt: ['timeout:1']",
        "grep -v nameserver /etc/resolv.conf",
        "search example.org lan options ndots:0 timeout:1",
    ),
    (
        "dns_search: ., dns_opt: ['ndots:2']",
        "grep -v nameserver /etc/resolv.conf",
        "options ndots:2",
    ),
    ("shm_size: 8m", "grep -c '/dev/shm.*size=8192k' /proc/mounts", "1"),
    (
        "hostname: www, domainname: example.org",
        "cat /proc/sys/kernel/domainname; grep -c 'www.example.org www$' /etc/hosts",
        "example.org 1",
    ),
    (
        "network_mode: none",
        "ls /sys/class/net; cat /proc/self/uid_map | (read a b c; test $b != 0 && echo own)",
        "lo own",
    ),
    ("network_mode: bridge", "ip -o link show up | grep -c eth0", "1"),
    (
        "network_mode: host",
        "echo $(readlink /proc/self/ns/net) $(readlink /proc/self/ns/pid | grep -c $HOST_PID) \
         $(cat /proc/self/uid_map) $HOSTNAME",
        "$HOST_NET 0 0 0 4294967295 $HOST_NAME",
    ),
    (
        "network_mode: host",
        "cat /etc/hostname; touch /sys/x 2>&1 | grep -c Read-only; mknod /n b 8 0 2>&1 | grep -c 'not permitted'",
        "$HOST_NAME 1 1",
    ),
    (
        "network_mode: host, dns: [10.9.8.7, 'fd00::7'], dns_search: [lan]",
        "cat /etc/resolv.conf",
        "nameserver 10.9.8.7 nameserver fd00::7 search lan",
    ),
    (
        "userns_mode: host",
        "cat /proc/self/uid_map; ls /sys/class/net | grep -c eth0; wget -qO- http://$HOSTNAME 2>&1 | grep -c refused",
        "0 0 4294967295 1 1",
    ),
    (
        "pid: host",
        "test -d /proc/$AGENT && readlink /proc/self/ns/pid",
        "$HOST_PID",
    ),
    (
        "ipc: host",
        "readlink /proc/self/ns/ipc; grep -c ' /dev/shm ' /proc/mounts",
        "$HOST_IPC 1",
    ),
    ("ipc: none", "ls -d /dev/shm 2>&1 | grep -c 'No such'", "1"),
    (
        "ipc: shareable",
        "touch /dev/shm/x && grep -c '/dev/shm.*size=65536k' /proc/mounts",
        "1",
    ),
    (
        "uts: host",
        "readlink /proc/self/ns/uts; hostname; hostname x 2>&1 | grep -c permitted",
        "$HOST_UTS $HOST_NAME 1",
    ),
    (
        "cgroup: host",
        "readlink /proc/self/ns/cgroup; grep -c stead- /proc/self/cgroup",
        "$HOST_CGROUP 1",
    ),
    ("extra_hosts: [db=10.9.8.7]", "grep db /etc/hosts", "10.9.8.7 db"),
    (
        "extra_hosts: ['host:host-gateway']",
        "grep -c \"^$(ip route | grep default | (read a b c d; echo $c)).host$\" /etc/hosts",
        "1",
    ),
    (
        "security_opt: [no-new-privileges]",
        "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status",
        "NoNewPrivs: 1 Seccomp: 2",
    ),
    (
        "security_opt: ['seccomp:unconfined', label=disable, apparmor=unconfined]",
        "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status",
        "NoNewPrivs: 0 Seccomp: 0",
    ),
    (
        "configs: [motd, { source: motd, target: etc/motd.d/x }]",
        "cat /motd /etc/motd.d/x; stat -c '%u:%g %a' /motd; echo x 2>&1 >/motd | grep -c Read-only",
        "hellohello0:0 444 1",
    ),
    (
        "secrets: [{ source: key, target: db/key, uid: '5', gid: '6', mode: 0440 }, key], user: '7:6'",
        "cd /run/secrets && cat db/key; stat -c '%u:%g %a' db/key key",
        "letmein5:6 440 0:0 444",
    ),
    (
        "secrets: [key]",
        "grep -cE '^none /run/secrets/key tmpfs ro,nosuid,nodev,noexec,.*size=20k,nr_inodes=5' /proc/mounts",
        "1",
    ),
    (
        "devices: ['/dev/loop0:/dev/disk:r', /dev/loop-control]",
        "cd /dev && (exec 3<disk && echo reads); (exec 3>disk) 2>&1 | grep -o 'not permitted'; (exec 3<>loop-control) && echo both",
        "reads not permitted both",
    ),
    (
        "devices: [/dev/loop0], device_cgroup_rules: ['b 7:* r'], user: '5', group_add: [6]",
        "stat -c '%u %t:%T' /dev/loop0",
        "0 7:0",
    ),
    (
        "security_opt: ['seccomp=calls.json']",
        "mkdir /tmp/x 2>&1 | grep -o 'not implemented'; ls -d /tmp; grep Seccomp: /proc/self/status",
        "not implemented /tmp Seccomp: 2",
    ),
    (
        "tmpfs: ['/one:uid=5,gid=6,mode=0750,size=64k,exec', /two]",
        "stat -c '%u:%g %a' /one /two; printf 'echo ran' >/one/x; cp /one/x /two/x; chmod +x /one/x /two/x; \
         /one/x; /two/x 2>&1 | grep -o denied; grep -c ' /one tmpfs.*size=64k' /proc/mounts",
        "5:6 750 0:0 1777 ran denied 1",
    ),
    (
        "volumes: [{ type: tmpfs, target: /one, tmpfs: { size: 64k, mode: 0700 } }]",
        "stat -c '%u:%g %a' /one; grep -c ' /one tmpfs.*noexec.*size=64k' /proc/mounts",
        "0:0 700 1",
    ),
    (
        "mac_address: 02-42-AC-11-00-05",
        "cat /sys/class/net/eth0/address",
        "02:42:ac:11:00:05",
    ),
    (
        "networks: { side: { mac_address: '02:42:ac:11:00:06' }, default: }",
        "cat /sys/class/net/eth*/address | grep -c 02:42:ac:11:00:06; ls /sys/class/net",
        "1 eth0 eth1 lo",
    ),
    (
        "privileged: true",
        "grep -c 00000000a80425fb /proc/self/status; grep Seccomp: /proc/self/status; (exec 3<>/dev/loop-control) && echo opens; \
         grep -cE '^[a-z]+ /sys(/fs/cgroup)? [a-z0-9]+ rw,' /proc/mounts; cat /proc/self/uid_map; grep -c ' /proc/' /proc/mounts",
        "0 Seccomp: 0 opens 2 0 0 4294967295 0",
    ),
    (
        "security_opt: ['systempaths=unconfined']",
        "grep -cE ' /proc/' /proc/mounts; head -c 3 /proc/interrupts | wc -c",
        "0 3",
    ),
];

/// A profile of the Engine: what makes a directory is not there.
const CALLS: &str = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
    { "names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 } ] }"#;

/// Beside the services.
const BESIDE: &str =
    "configs: { motd: { content: hello } }\nsecrets: { key: { environment: KEY } }\nnetworks: { side: }\n";
/// `$HOST_NET`: the network namespace of the host, and so on.
fn on_this_host(text: &str, agent: &str) -> String {
    let mut text = text.replace("$AGENT", agent);
    for kind in ["net", "pid", "ipc", "uts", "cgroup"] {
        let link = std::fs::read_link(format!("/proc/{agent}/ns/{kind}")).unwrap();
        text = text.replace(&format!("$HOST_{}", kind.to_uppercase()), &link.to_string_lossy());
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    text.replace("$HOST_NAME", name.trim())
}

#[test]
fn what_is_asked_of_a_service_is_so_inside() {
    let Some(mut host) = Host::new("attributes") else {
        return;
    };
    std::fs::write(host.root.join("environment"), "KEY=letmein\n").expect("variables");
    // The plan is made from a copy of the manifest elsewhere.
    for directory in ["manifests", "planned"] {
        let directory = host.root.join(directory);
        std::fs::create_dir_all(&directory).expect("a directory");
        std::fs::write(directory.join("calls.json"), CALLS).expect("a profile");
    }
    host.start_agent();
    let mut text = "services:\n".to_owned();
    for (number, (attributes, _, _)) in ASKED.iter().enumerate() {
        let image = host.busybox();
        let command = "command: [sleep, '1000000'], stop_signal: KILL";
        text.push_str(&format!(
            "  s{number}: {{ image: \"{image}\", {command}, {attributes} }}\n"
        ));
    }
    text.push_str(BESIDE);
    host.change("case", &text);
    let agent = host.agent_pid().to_string();
    for (number, (attributes, command, expected)) in ASKED.iter().enumerate() {
        let (command, expected) = (on_this_host(command, &agent), on_this_host(expected, &agent));
        let service = format!("case/s{number}");
        let reply = host.stead(&["exec", &service, "--", "sh", "-c", &command]);
        let words: Vec<&str> = reply.stdout.split_whitespace().collect();
        assert_eq!(words.join(" "), expected, "{attributes}: {reply:?}");
    }
    host.finish();
}

#[test]
fn an_edit_of_what_is_asked_restarts_that_service_and_no_other() {
    let Some(mut host) = Host::new("attributes-edit") else {
        return;
    };
    host.start_agent();
    let image = host.busybox();
    let file = |more: &str| {
        let service = format!("image: \"{image}\", command: [sleep, '1000000'], stop_signal: KILL");
        format!("services:\n  web: {{ {service}{more} }}\n  other: {{ {service} }}\n")
    };
    host.change("case", &file(""));
    let other = host.running("case", "other").identity();
    for attributes in [
        "cap_drop: [ALL]",
        "cap_drop: [MKNOD]",
        "read_only: true",
        "tty: true",
        "stdin_open: true",
        "ulimits: { core: 0 }",
    ] {
        let before = host.running("case", "web");
        host.change("case", &file(&format!(", {attributes}")));
        let now = host.running("case", "web");
        assert!(now.pid != before.pid, "{attributes}");
        assert_eq!(now.addresses, before.addresses, "{attributes}");
        assert_eq!(host.running("case", "other").identity(), other, "{attributes}");
    }
    host.finish();
}

#[test]
fn a_hardware_address_changes_under_a_process_and_its_neighbours_follow() {
    let Some(mut host) = Host::new("attributes-mac") else {
        return;
    };
    host.start_agent();
    let file =
        |more: &str| format!("services:\n  web: {{ image: 'builtin:hello', ports: ['8081:8080']{more} }}\n");
    host.change("case", &file(""));
    let web = host.running("case", "web");
    let pid = web.pid.expect("its process");
    let address = || {
        let shown = host.tool(
            "nsenter",
            &["-t", &pid.to_string(), "-n", "ip", "-o", "link", "show", "eth0"],
        );
        let words: Vec<&str> = shown.split_whitespace().collect();
        let place = words
            .iter()
            .position(|word| *word == "link/ether")
            .expect("an address");
        words[place + 1].to_owned()
    };
    let reached = || {
        host.wait("it is reached", PATIENCE, || {
            host.get(Place::Lan, HOST, 8081, "/").ok().map(drop)
        });
    };
    reached();
    let own = address();
    for (more, expected) in [
        (", mac_address: '02:42:ac:11:00:05'", "02:42:ac:11:00:05"),
        (
            ", networks: { default: { mac_address: '02:42:ac:11:00:07' } }",
            "02:42:ac:11:00:07",
        ),
        ("", own.as_str()),
    ] {
        host.change("case", &file(more));
        assert_eq!(address(), expected, "{more}");
        reached();
        assert_eq!(host.running("case", "web").identity(), web.identity(), "{more}");
    }
    host.finish();
}

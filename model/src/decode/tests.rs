//! Canonical trees to types, and what is refused of what the reference loader lets pass.

use super::*;
use crate::{types::*, yaml};

pub(crate) fn read(text: &str) -> (Project, Vec<String>) {
    let mut report = Report::default();
    report.file("compose.yaml".as_ref(), text);
    let tree = yaml::parse(text, 0).unwrap().remove(0);
    let project = decode(&tree, "/p".as_ref(), Some("/home/u".as_ref()), &mut report);
    let (diagnostics, origins) = report.finish();
    let found = diagnostics.into_iter().map(|found| {
        assert!(found.hint.is_some() && found.span.line > 0, "{}", found.message);
        assert!(found.refusal || !found.is_error(), "{}", found.message);
        found.message
    });
    let found = found.collect();
    (Project { origins, ..project }, found)
}

/// The findings about one service with an image, but for what is only not supported yet.
pub(crate) fn refused(service: &str) -> Vec<String> {
    let image = if service.starts_with("image:") {
        ""
    } else {
        "image: builtin:hello"
    };
    let (_, found) = read(&format!(
        "services:\n  web:\n    {image}\n    networks: {{ default: null }}\n    {}\nnetworks: {{ default: {{ name: d }} }}\n",
        service.replace('\n', "\n    ")
    ));
    let found = found.into_iter();
    found
        .filter(|message| !message.ends_with("not supported yet"))
        .collect()
}

#[test]
fn a_service_is_read_as_it_always_was() {
    let (project, found) = read(
        "\
name: shop
services:
  web:
    command: [a, b]
    entrypoint: null
    depends_on:
      db: { condition: service_healthy, required: true }
    environment: { A: '1', B: null, C: '' }
    healthcheck: { test: [CMD, x], timeout: 1m30s, interval: 0s, retries: 3 }
    image: oci:./image:1
    labels: { l: '' }
    networks: { default: { aliases: [www] } }
    ports:
      - { mode: ingress, target: 80, published: '8080', protocol: tcp }
      - { mode: ingress, host_ip: 127.0.0.1, target: 53, published: 8000-8010, protocol: udp }
    restart: on-failure:3
    stop_grace_period: 5s
    tmpfs: ['/t:size=64m,mode=1777']
    volumes:
      - { type: volume, source: data, target: /data/, volume: {} }
      - { type: bind, source: /a, target: /b, read_only: true, bind: { create_host_path: false } }
  db:
    command: null
    image: builtin:hello
    networks: { default: null }
networks:
  default: { name: shop_default, ipam: {} }
  unused: { name: shop_unused, ipam: {} }
volumes: { data: { name: shop_data } }
",
    );
    assert_eq!(found, [""; 0]);
    let json = serde_json::json!({
        "name": "shop",
        "services": {
            "db": { "image": "builtin:hello", "networks": { "default": {} } },
            "web": {
                "image": "oci:/p/image:1",
                "command": ["a", "b"],
                "environment": { "A": "1", "C": "" },
                "volumes": [
                    { "type": "volume", "source": "data", "target": "/data" },
                    { "type": "bind", "source": "/a", "target": "/b", "read_only": true, "bind": { "create_host_path": false } },
                    { "type": "tmpfs", "target": "/t", "tmpfs": { "size": "67108864", "mode": 1023 } },
                ],
                "networks": { "default": { "aliases": ["www"] } },
                "ports": [
                    { "mode": "ingress", "target": 80, "published": "8080", "protocol": "tcp" },
                    { "mode": "ingress", "host_ip": "127.0.0.1", "target": 53, "published": "8000-8010", "protocol": "udp" },
                ],
                "depends_on": { "db": { "condition": "service_healthy", "required": true } },
                "restart": "on-failure:3",
                "healthcheck": { "test": ["CMD", "x"], "timeout": "1m30s", "retries": 3 },
                "labels": { "l": "" },
                "stop_grace_period": "5s",
            },
        },
        "networks": { "default": { "name": "shop_default" } },
        "volumes": { "data": { "name": "shop_data" } },
    });
    assert_eq!(serde_json::to_string(&project).unwrap(), json.to_string());
    assert_eq!(
        serde_json::from_value::<Project>(json).unwrap().services,
        project.services
    );
    for (path, line) in [
        ("services.web.environment.A", 8),
        ("services.web.volumes.1", 21),
        ("services.web.volumes.2", 18),
        ("services.web.depends_on.db.condition", 7),
        ("networks.default", 27),
    ] {
        assert_eq!(project.origin(path).map(|span| span.line), Some(line), "{path}");
    }
}

#[test]
fn every_attribute_that_is_to_come_is_typed() {
    let (project, _) = read(
        "\
name: p
services:
  web:
    image: builtin:hello
    networks: { default: { ipv4_address: 10.5.0.9, mac_address: '02:42:ac:11:00:05', priority: 5 } }
    cpus: 1.5
    mem_limit: '67108864'
    cpuset: 0-3,5
    ulimits: { nofile: { soft: 1024, hard: -1 }, nproc: 10 }
    blkio_config: { weight: 300, device_read_bps: [{ Path: /dev/sda, Rate: '1048576' }] }
    cap_add: [CAP_NET_ADMIN]
    security_opt: [no-new-privileges:true]
    sysctls: { net.core.somaxconn: '1024' }
    devices: [{ source: /dev/fuse, target: /dev/fuse, permissions: rwm }]
    ipc: service:db
    extra_hosts: [a=10.0.0.1, b=host-gateway]
    secrets: [{ source: s, target: key, mode: '0440', uid: '3' }]
    configs: [{ source: c }]
    post_start: [{ command: [a], user: root }]
    platform: linux/x86_64
    pull_policy: daily
    logging: { driver: local, options: { max-size: 10m } }
    deploy: { replicas: 3, resources: { limits: { pids: 7 } }, restart_policy: { condition: on-failure, max_attempts: 2 } }
networks: { default: { name: n, ipam: { config: [{ subnet: 10.5.0.0/16, gateway: 10.5.0.1 }] } } }
secrets: { s: { name: p_s, file: /f } }
configs: { c: { name: p_c, content: text } }
",
    );
    let json = serde_json::to_value(&project).unwrap();
    let web = &json["services"]["web"];
    for (path, want) in [
        ("/cpus", serde_json::json!("1.5")),
        ("/mem_limit", serde_json::json!(67108864)),
        ("/cpuset", serde_json::json!("0-3,5")),
        (
            "/ulimits",
            serde_json::json!({ "nofile": { "soft": 1024, "hard": -1 }, "nproc": { "soft": 10, "hard": 10 } }),
        ),
        (
            "/blkio_config/device_read_bps",
            serde_json::json!({ "/dev/sda": 1048576 }),
        ),
        ("/cap_add", serde_json::json!(["NET_ADMIN"])),
        ("/security_opt", serde_json::json!(["no-new-privileges=true"])),
        ("/ipc", serde_json::json!("service:db")),
        (
            "/extra_hosts",
            serde_json::json!([{ "name": "a", "address": "10.0.0.1" }, { "name": "b" }]),
        ),
        (
            "/secrets",
            serde_json::json!([{ "source": "s", "target": "/run/secrets/key", "uid": 3, "mode": 0o440 }]),
        ),
        ("/configs", serde_json::json!([{ "source": "c", "target": "/c" }])),
        (
            "/post_start",
            serde_json::json!([{ "command": ["a"], "user": "root" }]),
        ),
        ("/platform", serde_json::json!("linux/amd64")),
        ("/pull_policy", serde_json::json!("every_24h0m0s")),
        (
            "/logging",
            serde_json::json!({ "driver": "local", "options": { "max-size": "10m" } }),
        ),
        ("/scale", serde_json::json!(3)),
        ("/pids_limit", serde_json::json!(7)),
        ("/restart", serde_json::json!("on-failure:2")),
        (
            "/networks/default",
            serde_json::json!({ "ipv4_address": "10.5.0.9", "mac_address": "02:42:ac:11:00:05", "priority": 5 }),
        ),
    ] {
        assert_eq!(web.pointer(path), Some(&want), "{path}");
    }
    assert_eq!(
        json["networks"]["default"]["subnets"],
        serde_json::json!([{ "subnet": "10.5.0.0/16", "gateway": "10.5.0.1" }])
    );
    assert_eq!(
        serde_json::from_value::<Project>(json.clone()).unwrap().services,
        project.services
    );
}

#[test]
fn what_deploy_says_in_place_of_an_attribute_has_its_own_line() {
    let (project, _) = read(
        "\
name: p
services:
  web:
    image: builtin:hello
    networks: { default: }
    x-on-unhealthy: restart
    deploy:
      replicas: 3
      resources:
        limits:
          cpus: '1.5'
          memory: '67108864'
          pids: 7
      restart_policy:
        condition: any
        delay: 5s
        max_attempts: 4
        window: 1m
networks: { default: { name: n } }
",
    );
    for (field, line) in [
        ("scale", 8),
        ("cpus", 11),
        ("mem_limit", 12),
        ("pids_limit", 13),
        ("restart", 14),
        ("x-on-unhealthy", 6),
    ] {
        let path = format!("services.web.{field}");
        assert_eq!(project.origin(&path).map(|span| span.line), Some(line), "{path}");
    }
    let container = &project.services["web"].container;
    assert_eq!(container.on_unhealthy, Some(OnUnhealthy::Restart));
    let deploy = container.deploy.as_ref().unwrap();
    assert_eq!(deploy.restart_delay, Some(Duration(5_000_000_000)));
    assert_eq!(deploy.restart_window, Some(Duration(60_000_000_000)));
    assert_eq!(deploy.restart_attempts, Some(4));
}

#[test]
fn nonsense_in_values_is_refused() {
    for (service, want) in [
        (
            "x-on-unhealthy: reboot",
            "`services.web.x-on-unhealthy`: `reboot` means nothing here",
        ),
        (
            "x-on-unhealthy: [restart]",
            "`services.web.x-on-unhealthy`: this must be a word",
        ),
        (
            "restart: sometimes",
            "`services.web.restart`: `sometimes` is not a restart policy",
        ),
        (
            "restart: on-failure:x",
            "`services.web.restart`: `on-failure:x` is not a restart policy",
        ),
        (
            "network_mode: pasta:x",
            "`services.web.network_mode`: `pasta:x` is none of the modes",
        ),
        ("pid: bridge", "`services.web.pid`: `bridge` is none of the modes"),
        (
            "stop_grace_period: '-5s'",
            "`services.web.stop_grace_period`: `-5s` is negative",
        ),
        (
            "stop_signal: SIGNOPE",
            "`services.web.stop_signal`: `SIGNOPE` is not a signal",
        ),
        ("hostname: -a", "`services.web.hostname`: `-a` is not a host name"),
        (
            "working_dir: a",
            "`services.web.working_dir`: `a` is not an absolute path",
        ),
        ("user: 'a:b:c'", "`services.web.user`: `a:b:c` is not a user"),
        (
            "image: Nginx",
            "`services.web.image`: the name of an image is written in lower case, not `Nginx`",
        ),
        (
            "healthcheck: { test: [CMD] }",
            "`services.web.healthcheck.test`: there is no command",
        ),
        (
            "healthcheck: { test: [CMD-SHELL, NONE] }",
            "`services.web.healthcheck.test`: the text `NONE` is a command",
        ),
        (
            "healthcheck: { interval: 10ns }",
            "`services.web.healthcheck.interval`: 10ns is shorter",
        ),
        (
            "ports: [{ target: 0 }]",
            "`services.web.ports[0].target`: `0` is not a port",
        ),
        (
            "ports: [{ target: 80, protocol: sctp }]",
            "`services.web.ports[0].protocol`: the protocol `sctp`",
        ),
        (
            "ports: [{ target: 80, host_ip: localhost }]",
            "`services.web.ports[0].host_ip`: `localhost` is not an IP",
        ),
        (
            "volumes: [{ type: bind, source: /run/docker.sock, target: /s }]",
            "`services.web.volumes[0]`: there is no Docker socket",
        ),
        (
            "volumes: [{ type: volume, target: 'v:/v' }]",
            "`services.web.volumes[0]`: `v:/v` starts with the letter",
        ),
        (
            "volumes: [{ type: volume, target: / }]",
            "`services.web.volumes[0]`: nothing can be mounted on `/`",
        ),
        (
            "volumes: [{ type: volume, target: a }]",
            "`services.web.volumes[0]`: the path in the container, `a`",
        ),
        (
            "volumes: [{ type: npipe, source: a, target: /a }]",
            "`services.web.volumes[0].type`: there are no volumes of the type `npipe`",
        ),
        (
            "volumes: [{ type: volume, target: /a }]\nconfigs: [{ source: c, target: a }]",
            "`services.web`: something is already mounted on `/a`",
        ),
        (
            "tmpfs: ['/t:size=x']",
            "`services.web.tmpfs[0]`: `x` is not a size",
        ),
        (
            "cap_add: [NET-ADMIN]",
            "`services.web.cap_add[0]`: `NET-ADMIN` is not a capability",
        ),
        (
            "security_opt: [unmask=all]",
            "`services.web.security_opt[0]`: `unmask=all` is not a security option",
        ),
        (
            "sysctls: { vm.swappiness: '1' }",
            "`services.web.sysctls.vm.swappiness`: `vm.swappiness` is not a setting",
        ),
        (
            "ulimits: { files: 1 }",
            "`services.web.ulimits.files`: `files` is not a limit",
        ),
        (
            "ulimits: { nofile: { soft: 5, hard: 3 } }",
            "`services.web.ulimits.nofile`: the soft limit 5 is above",
        ),
        (
            "cpuset: 3-1",
            "`services.web.cpuset`: `3-1` is not a list of processors",
        ),
        (
            "oom_score_adj: 2000",
            "`services.web.oom_score_adj`: `2000` is out of range",
        ),
        (
            "cpus: 1\ncpu_quota: 50000",
            "`services.web`: `cpus` and `cpu_quota` or `cpu_period` say the same",
        ),
        (
            "memswap_limit: 104857600",
            "`services.web`: `memswap_limit` is memory and swap together, and the memory has no limit",
        ),
        (
            "mem_limit: '-5'",
            "`services.web.mem_limit`: `-5` is out of range",
        ),
        (
            "mem_limit: '10000'",
            "`services.web`: a memory limit of 10000 bytes",
        ),
        (
            "platform: linux",
            "`services.web.platform`: `linux` is not a platform",
        ),
        (
            "pull_policy: not_always",
            "`services.web.pull_policy`: `not_always` is not a pull policy",
        ),
        (
            "mac_address: '01:00:00:00:00:01'",
            "`services.web.mac_address`: `01:00:00:00:00:01` is not a hardware",
        ),
        (
            "dns: [nope]",
            "`services.web.dns[0]`: `nope` is not an IP address",
        ),
        (
            "extra_hosts: [a=nope]",
            "`services.web.extra_hosts[0]`: `nope` is not an IP address",
        ),
        (
            "container_name: a b",
            "`services.web.container_name`: `a b` is not a container name",
        ),
        (
            "devices: [{ source: /dev/a, permissions: x }]",
            "`services.web.devices[0]`: `x` are not permissions",
        ),
        (
            "device_cgroup_rules: [nope]",
            "`services.web.device_cgroup_rules[0]`: `nope` is not a rule",
        ),
        (
            "logging: { driver: gelf }",
            "`services.web.logging.driver`: there is no log driver `gelf`",
        ),
        (
            "scale: 2\nmac_address: '02:00:00:00:00:01'",
            "`services.web.mac_address`: only one of several containers",
        ),
        (
            "deploy: { update_config: { order: start-first } }\nmac_address: '02:00:00:00:00:01'",
            "`services.web.mac_address`: the old and the new container",
        ),
        (
            "secrets: [{ source: a, mode: '999' }]",
            "`services.web.secrets[0].mode`: `999` is not a mode",
        ),
        (
            "volumes_from: ['container:x']",
            "`services.web.volumes_from[0]`: there are no containers of others",
        ),
        (
            "network_mode: host\nsysctls: { net.a: '1' }",
            "`services.web.sysctls.net.a`: the network of the host",
        ),
        (
            "network_mode: service:db\nports: [{ target: 80 }]",
            "`services.web.ports`: the network is that of `db`",
        ),
        (
            "scale: 2\nports: [{ target: 80, published: '80' }]",
            "`services.web.ports`: only one of several containers",
        ),
        (
            "deploy: { restart_policy: { condition: never } }",
            "`services.web.deploy.restart_policy.condition`: `never`",
        ),
        (
            "deploy: { mode: swarm }",
            "`services.web.deploy.mode`: `swarm` means nothing here",
        ),
    ] {
        let mut found = refused(service);
        found.retain(|message| !message.contains("without a user namespace"));
        assert!(
            found.len() == 1 && found[0].starts_with(want),
            "{service}: {found:#?}"
        );
    }
}

#[test]
fn long_names_and_values_stay_short_in_messages() {
    let (long, key) = ("x".repeat(100_000), "x".repeat(1000));
    for service in [
        format!("restart: {long}"),
        format!("cap_add: [{long}]"),
        format!("image: 'A{long}'"),
        format!("ports: [{{ target: 80, host_ip: {long} }}]"),
        format!("ulimits: {{ {key}: 1 }}"),
        format!("sysctls: {{ {key}: 1 }}"),
    ] {
        let found = refused(&service);
        assert_eq!(found.len(), 1);
        assert!(found[0].len() < 400, "{}", found[0].len());
    }
}

//! A file dropped in, its services running and reachable; the file gone, everything gone but the data.

use std::time::Duration;

use crate::host::{HOST, Host, LOOPBACK, PATIENCE, Place, compose};

#[test]
fn a_dropped_file_runs_and_is_reachable_from_everywhere_it_should_be() {
    let Some(mut host) = Host::new("dropped-file") else {
        return;
    };
    host.start_agent();
    host.write_manifest(
        "shop",
        &format!(
            "services:\n  web: {{ {} }}\n  client: {{ image: builtin:hello }}\n",
            compose::web(18080)
        ),
    );
    let web = host.running("shop", "web");
    host.running("shop", "client");

    for (from, address) in [(Place::Host, LOOPBACK), (Place::Host, HOST), (Place::Lan, HOST)] {
        let page = host.fetch(from, address, 18080, "/");
        assert!(page.contains("name: "), "{from:?} {address}: {page}");
    }
    let direct = host.fetch(Place::Host, web.address(), 8080, "/healthz");
    assert!(!direct.contains("404"), "{direct}");
    // The service itself, by the host's address: the way back through the bridge it came from.
    let hairpin = host.fetch(Place::Host, LOOPBACK, 18080, "/call/198.51.100.1:18080");
    assert!(hairpin.contains("name: "), "{hairpin}");

    let port = &web.ports[0];
    assert_eq!(
        (port.published, port.target, port.protocol.as_str()),
        (18080, 8080, "tcp")
    );
    assert_eq!(web.name, "shop-web-1");
    host.finish();
}

#[test]
fn a_published_udp_port_answers() {
    let Some(mut host) = Host::new("udp") else { return };
    host.start_agent();
    host.write_manifest(
        "echo",
        r#"services: { echo: { image: builtin:hello, command: ["--udp-echo", "7000"], ports: ["17000:7000/udp"] } }"#,
    );
    host.running("echo", "echo");
    for (address, from_lan) in [(HOST, true), (HOST, false), (LOOPBACK, false)] {
        let ask = || {
            let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).ok()?;
            socket.set_read_timeout(Some(Duration::from_millis(200))).ok()?;
            socket.send_to(b"ping", (address, 17000)).ok()?;
            let mut answer = [0; 16];
            let (length, _) = socket.recv_from(&mut answer).ok()?;
            Some(answer[..length].to_vec())
        };
        let answer = host.wait("the echo answers", PATIENCE, || match from_lan {
            true => host.network.on_lan(ask),
            false => host.network.on_host(ask),
        });
        assert_eq!(answer, b"ping", "{address}");
    }
    host.finish();
}

#[test]
fn a_removed_file_takes_everything_but_the_volume_and_the_data_is_there_again() {
    let Some(mut host) = Host::new("volume-kept") else {
        return;
    };
    host.start_agent();
    let text = format!(
        "services:\n  web: {{ {}, volumes: [\"counter:/data\"] }}\nvolumes: {{ counter: }}\n",
        compose::web(18081)
    );
    host.change("shop", &text);
    let visits = |page: &str| -> u64 {
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix("visits: "))
            .expect("a counter");
        line.trim().parse().expect("a number")
    };
    let mut last = 0;
    for _ in 0..5 {
        last = visits(&host.fetch(Place::Host, LOOPBACK, 18081, "/"));
    }
    assert!(last >= 5, "{last}");

    host.remove_manifest("shop");
    host.gone("shop");
    host.wait("its links are gone", PATIENCE, || {
        host.links().is_empty().then_some(())
    });
    assert!(
        host.get(Place::Host, LOOPBACK, 18081, "/").is_err(),
        "nobody answers any more"
    );

    host.change("shop", &text);
    let again = visits(&host.fetch(Place::Host, LOOPBACK, 18081, "/"));
    assert!(again > last, "{again} continues {last}");
    host.finish();
}

#[test]
fn a_bind_mount_shows_the_hosts_files_and_read_only_holds() {
    let Some(mut host) = Host::new("bind") else { return };
    let (open, closed) = (host.directory("open"), host.directory("closed"));
    std::fs::write(closed.join("word"), "hello").expect("a file");
    host.start_agent();
    host.write_manifest(
        "files",
        &format!(
            r#"services:
  copy:
    image: {}
    command: ["sh", "-c", "cat /closed/word > /out/word; echo x > /closed/no || echo refused > /out/refused; echo t > /scratch/t && cat /scratch/t > /out/scratch"]
    volumes:
      - "{}:/out"
      - "{}:/closed:ro"
      - {{ type: tmpfs, target: /scratch }}
"#,
            host.busybox(),
            open.display(),
            closed.display()
        ),
    );
    let copy = host.in_state("files", "copy", "exited");
    assert_eq!(copy.exit_code, Some(0));
    let read = |name: &str| std::fs::read_to_string(open.join(name)).unwrap_or_default();
    assert_eq!(
        (read("word").as_str(), read("refused").as_str()),
        ("hello", "refused\n")
    );
    assert_eq!(read("scratch"), "t\n");
    assert!(!closed.join("no").exists());
    host.finish();
}

#[test]
fn up_in_the_foreground_stops_what_it_started() {
    let Some(host) = Host::new("up") else { return };
    let project = host.directory("source/corner");
    std::fs::write(
        project.join("compose.yaml"),
        format!("services: {{ web: {{ {} }} }}\n", compose::web(18082)),
    )
    .expect("a file");
    let mut up = host.command(&["up", &project.display().to_string()]);
    up.stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut up = host.network.on_host(|| up.spawn().expect("up starts"));
    host.fetch(Place::Host, LOOPBACK, 18082, "/");
    crate::host::signal(up.id(), nix::sys::signal::Signal::SIGINT);
    let status = host.wait("up ends", PATIENCE, || up.try_wait().expect("its state"));
    assert!(status.success() || status.code() == Some(130), "{status}");
    host.wait("nothing is left", PATIENCE, || {
        host.processes().is_empty().then_some(())
    });
    assert!(project.join("compose.yaml").exists(), "the source stays");
    host.finish();
}

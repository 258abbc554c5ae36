//! The harness itself: a test host is a host, and what is left on it is seen.

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::Command,
};

use crate::host::{HOST, Host, LOOPBACK, Place, process};

#[test]
fn a_test_host_has_a_neighbour_and_an_own_loopback() {
    let Some(host) = Host::new("harness-network") else {
        return;
    };
    let listener = host
        .network
        .on_host(|| TcpListener::bind("0.0.0.0:8080").expect("a free port"));
    let server = std::thread::spawn(move || {
        for _ in 0..3 {
            let (mut connection, _) = listener.accept().expect("a connection");
            let mut request = [0; 256];
            let _ = connection.read(&mut request);
            let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n";
            connection.write_all(answer.as_bytes()).expect("an answer");
        }
    });
    for (from, address) in [(Place::Host, LOOPBACK), (Place::Host, HOST), (Place::Lan, HOST)] {
        assert_eq!(
            host.get(from, address, 8080, "/"),
            Ok("yes".to_owned()),
            "{from:?} {address}"
        );
    }
    server.join().expect("no panic");
    let refused = host
        .get(Place::Lan, LOOPBACK, 8080, "/")
        .expect_err("another loopback");
    assert!(refused.contains("connecting"), "{refused}");
}

#[test]
fn what_is_left_behind_is_seen() {
    let Some(host) = Host::new("harness-leaks") else {
        return;
    };
    assert_eq!(host.leaks(), Vec::<String>::new());
    host.tool(
        "ip",
        &[
            "link",
            "add",
            &format!("stb{}000000", host.mark()),
            "type",
            "bridge",
        ],
    );
    host.tool("nft", &["add", "table", "inet", &host.table()]);
    let place = host.directory("place");
    let mut sleeper = Command::new("sleep")
        .arg("1000000")
        .current_dir(&place)
        .spawn()
        .expect("a process");
    let leaks = host.leaks().join("\n");
    sleeper.kill().expect("kill");
    sleeper.wait().expect("its end");
    for kind in ["link stb", "nft table inet stead-", "process "] {
        assert!(leaks.contains(kind), "{kind} is missing in\n{leaks}");
    }
    assert!(!process::alive(sleeper.id()));
}

//! Real sockets: a question over UDP and TCP, a zone that changes, and name servers that do not answer.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, poll};

use super::*;

const WEB: &[u8] = b"\x12\x34\x01\x00\x00\x01\0\0\0\0\0\0\x03web\0\0\x01\0\x01";
const OUTSIDE: &[u8] = b"\x12\x35\x01\x00\x00\x01\0\0\0\0\0\0\x07example\x03org\0\0\x01\0\x01";

struct Rig {
    server: Server,
    directory: tempfile::TempDir,
    started: Instant,
}

impl Rig {
    fn new(forward: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = TcpListener::bind(udp.local_addr().unwrap()).unwrap();
        let zone = directory.path().join("a.zone");
        std::fs::write(&zone, "web 10.64.0.2\n").unwrap();
        std::fs::write(directory.path().join("resolv.conf"), "").unwrap();
        let resolver = Resolver {
            zones: vec![zone],
            forward,
        };
        let server = Server::new(udp, tcp, resolver)
            .unwrap()
            .with_resolv_conf(directory.path().join("resolv.conf"));
        Rig {
            server,
            directory,
            started: Instant::now(),
        }
    }

    /// Turns the loop as a shim does until `done` has something.
    fn until<T>(&mut self, mut done: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if let Some(value) = done() {
                return value;
            }
            let mut wanted = Vec::new();
            self.server.poll_fds(&mut wanted);
            for (fd, events) in wanted {
                let stream = nix::sys::socket::getsockname::<nix::sys::socket::SockaddrStorage>(fd);
                assert!(stream.is_ok(), "only open sockets are waited for");
                self.server.ready(fd, events);
            }
            self.server.tick(self.started.elapsed().as_millis() as u64);
            let mut none: [PollFd<'_>; 0] = [];
            let _ = poll(&mut none, 1u8);
        }
        panic!("nothing came within 5 s");
    }

    fn ask_udp(&mut self, question: &[u8]) -> Vec<u8> {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_nonblocking(true).unwrap();
        client
            .send_to(question, self.server.udp.local_addr().unwrap())
            .unwrap();
        self.until(|| {
            let mut bytes = [0; 1024];
            let length = client.recv(&mut bytes).ok()?;
            Some(bytes[..length].to_vec())
        })
    }
}

#[test]
fn a_known_name_is_answered_over_udp() {
    let reply = Rig::new(true).ask_udp(WEB);
    assert_eq!(reply[3] & 0xf, 0);
    assert!(reply.ends_with(&[10, 64, 0, 2]));
}

#[test]
fn a_new_zone_is_seen_at_the_next_question() {
    let mut rig = Rig::new(true);
    rig.ask_udp(WEB);
    let mut zone = reconciler::spec::Zone::new();
    zone.insert("web".to_owned(), BTreeSet::from([Ipv4Addr::new(10, 64, 0, 9)]));
    zone::write(&rig.directory.path().join("a.zone"), &zone).unwrap();
    assert!(rig.ask_udp(WEB).ends_with(&[10, 64, 0, 9]));
}

#[test]
fn a_known_name_is_answered_over_tcp_twice_on_one_connection() {
    let mut rig = Rig::new(true);
    let mut client = TcpStream::connect(rig.server.tcp.local_addr().unwrap()).unwrap();
    client.set_nonblocking(true).unwrap();
    for _ in 0..2 {
        client.write_all(&[0, WEB.len() as u8]).unwrap();
        client.write_all(WEB).unwrap();
        let mut reply: Vec<u8> = Vec::new();
        rig.until(|| {
            let mut bytes = [0; 1024];
            let length = client.read(&mut bytes).ok()?;
            reply.extend(&bytes[..length]);
            (reply.len() >= 2 + usize::from(reply[1])).then_some(())
        });
        assert!(reply.len() > 2);
    }
}

#[test]
fn without_a_name_server_an_outside_name_fails_at_once() {
    let reply = Rig::new(true).ask_udp(OUTSIDE);
    assert_eq!(reply[3] & 0xf, 2);
}

#[test]
fn on_internal_networks_only_an_outside_name_does_not_exist() {
    let reply = Rig::new(false).ask_udp(OUTSIDE);
    assert_eq!(reply[3] & 0xf, 3);
}

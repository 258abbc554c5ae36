//! Looks names up by itself: /etc/hosts, then the name server of /etc/resolv.conf over UDP (RFC 1035).
//!
//! A static glibc cannot be trusted with names: its resolver loads modules that need not be there.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    time::{Duration, SystemTime},
};

const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;

/// IPv4 addresses of a name, or of an address written out. Errors are sentences.
pub(super) fn lookup(name: &str) -> Result<Vec<Ipv4Addr>, String> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    let hosts = in_hosts(&fs::read_to_string("/etc/hosts").unwrap_or_default(), name);
    if !hosts.is_empty() {
        return Ok(hosts);
    }
    let servers = name_servers(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    let mut error = "no name server in /etc/resolv.conf".to_owned();
    for _ in 0..2 {
        for server in &servers {
            match ask(*server, 53, name) {
                Ok(addresses) => return Ok(addresses),
                Err(Failure::Final(why)) => return Err(why),
                Err(Failure::Server(why)) => error = why,
            }
        }
    }
    Err(error)
}

enum Failure {
    /// The name is the problem.
    Final(String),
    /// Another server, or another try, may know.
    Server(String),
}

fn ask(server: IpAddr, port: u16, name: &str) -> Result<Vec<Ipv4Addr>, Failure> {
    let failed = |why: std::io::Error| Failure::Server(format!("name server {server}: {why}"));
    let id = SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |now| (now.subsec_nanos() >> 4) as u16);
    let question = question(id, name).ok_or_else(|| Failure::Final(format!("{name} is not a name")))?;
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).map_err(failed)?;
    // Connected: the kernel drops what others send.
    socket.connect((server, port)).map_err(failed)?;
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .map_err(failed)?;
    socket.send(&question).map_err(failed)?;
    let mut buffer = [0; 4096];
    loop {
        let size = socket.recv(&mut buffer).map_err(failed)?;
        match parse(&buffer[..size], &question) {
            // Late answer to an earlier question.
            Some(Answer::Other) => {}
            Some(Answer::Addresses(addresses)) if !addresses.is_empty() => return Ok(addresses),
            Some(Answer::Addresses(_)) => return Err(Failure::Final(format!("{name} has no address"))),
            Some(Answer::Code(3)) => return Err(Failure::Final(format!("{name} is unknown"))),
            Some(Answer::Code(code)) => {
                return Err(Failure::Server(format!(
                    "name server {server} answered with code {code}"
                )));
            }
            None => {
                return Err(Failure::Server(format!(
                    "name server {server} sent a malformed answer"
                )));
            }
        }
    }
}

fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut packet = Vec::new();
    // Recursion desired, one question.
    for word in [id, 0x0100, 1, 0, 0, 0] {
        packet.extend(word.to_be_bytes());
    }
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|length| (1..64).contains(length))?;
        packet.push(length);
        packet.extend(label.as_bytes());
    }
    packet.push(0);
    for word in [TYPE_A, CLASS_IN] {
        packet.extend(word.to_be_bytes());
    }
    (packet.len() <= 12 + 255 + 4).then_some(packet)
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Addresses(Vec<Ipv4Addr>),
    /// An error code of the server; 3: no such name.
    Code(u8),
    /// Not about our question.
    Other,
}

/// `None`: malformed. Every address in the answer section counts, so that aliases need no following.
fn parse(packet: &[u8], question: &[u8]) -> Option<Answer> {
    let word = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
    let is_answer = packet.get(2)? & 0x80 != 0;
    let ours = packet
        .get(12..question.len())
        .is_some_and(|asked| asked.eq_ignore_ascii_case(&question[12..]));
    let code = packet.get(3)? & 0x0f;
    if packet[..2] != question[..2] || !is_answer || !(ours || code != 0) {
        return Some(Answer::Other);
    }
    if code != 0 {
        return Some(Answer::Code(code));
    }
    let mut at = question.len();
    let mut addresses = Vec::new();
    for _ in 0..word(6)? {
        at = skip_name(packet, at)?;
        let (kind, class, length) = (word(at)?, word(at + 2)?, usize::from(word(at + 8)?));
        let data = packet.get(at + 10..at + 10 + length)?;
        if (kind, class) == (TYPE_A, CLASS_IN) {
            addresses.push(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?));
        }
        at += 10 + length;
    }
    Some(Answer::Addresses(addresses))
}

fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            // A pointer ends the name.
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length if length & 0xc0 == 0 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

fn in_hosts(hosts: &str, name: &str) -> Vec<Ipv4Addr> {
    let lines = hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().split_whitespace());
    lines
        .filter_map(|mut words| {
            let address = words.next()?.parse().ok()?;
            words
                .any(|word| word.eq_ignore_ascii_case(name))
                .then_some(address)
        })
        .collect()
}

fn name_servers(conf: &str) -> Vec<IpAddr> {
    let servers =
        conf.lines().filter_map(
            |line| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["nameserver", address, ..] => address.parse().ok(),
                _ => None,
            },
        );
    servers.take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer a name server gives to `question`: an alias, then addresses.
    fn answer(question: &[u8], addresses: &[[u8; 4]]) -> Vec<u8> {
        let mut packet = question.to_vec();
        packet[2] = 0x81;
        packet[3] = 0x80;
        packet[7] = u8::try_from(addresses.len() + 1).unwrap();
        packet.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 4, 1, b'x', 0xc0, 12]);
        for address in addresses {
            packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            packet.extend(address);
        }
        packet
    }

    #[test]
    fn a_server_is_asked_and_its_answer_read() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            let (size, peer) = server.recv_from(&mut buffer).unwrap();
            // A stray answer first: another id.
            let mut stray = answer(&buffer[..size], &[[9, 9, 9, 9]]);
            stray[0] ^= 1;
            server.send_to(&stray, peer).unwrap();
            server
                .send_to(&answer(&buffer[..size], &[[10, 0, 0, 1], [10, 0, 0, 2]]), peer)
                .unwrap();
        });
        let Ok(addresses) = ask(Ipv4Addr::LOCALHOST.into(), port, "web") else {
            panic!("no answer");
        };
        assert_eq!(
            addresses,
            [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)]
        );
        thread.join().unwrap();
    }

    #[test]
    fn an_unknown_name_is_told_by_its_code() {
        let question = question(7, "nobody").unwrap();
        let mut packet = question.clone();
        packet[2] = 0x81;
        packet[3] = 0x83;
        assert_eq!(parse(&packet, &question), Some(Answer::Code(3)));
    }

    #[test]
    fn no_cut_and_no_flipped_byte_of_an_answer_panics() {
        let question = question(7, "web.shop").unwrap();
        let packet = answer(&question, &[[10, 0, 0, 1]]);
        for cut in 0..packet.len() {
            let _ = parse(&packet[..cut], &question);
        }
        for at in 0..packet.len() {
            for bit in 0..8 {
                let mut packet = packet.clone();
                packet[at] ^= 1 << bit;
                let _ = parse(&packet, &question);
            }
        }
    }

    #[test]
    fn names_that_are_none_are_not_asked_for() {
        for name in ["", ".", "a..b", &"x".repeat(64), &"abc.".repeat(80)] {
            assert_eq!(question(1, name), None, "{name}");
        }
    }

    #[test]
    fn hosts_and_resolv_conf_are_read_as_their_manual_pages_say() {
        let hosts = "127.0.0.1 localhost\n::1 web\n10.1.2.3\tweb.example WEB # web2\n# 10.9.9.9 web\n";
        assert_eq!(in_hosts(hosts, "web"), [Ipv4Addr::new(10, 1, 2, 3)]);
        assert!(in_hosts(hosts, "web2").is_empty());
        let conf = "# nameserver 1.1.1.1\nsearch x\nnameserver 127.0.0.11\nnameserver ::1\noptions ndots:0\n";
        assert_eq!(
            name_servers(conf),
            [
                "127.0.0.11".parse::<IpAddr>().unwrap(),
                "::1".parse::<IpAddr>().unwrap()
            ]
        );
    }

    #[test]
    fn an_address_is_its_own_answer() {
        assert_eq!(lookup("10.0.0.9"), Ok(vec![Ipv4Addr::new(10, 0, 0, 9)]));
    }
}

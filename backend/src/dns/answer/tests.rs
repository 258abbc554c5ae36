//! Which questions are answered here, which leave the host, and which get nothing.

use std::collections::BTreeMap;

use super::*;

struct Table(BTreeMap<&'static str, BTreeSet<Ipv4Addr>>);

impl Names for Table {
    fn addresses(&self, name: &str) -> Option<BTreeSet<Ipv4Addr>> {
        self.0.get(name).cloned()
    }

    fn name(&self, address: Ipv4Addr) -> Option<String> {
        let found = self
            .0
            .iter()
            .find(|(_, addresses)| addresses.contains(&address))?;
        Some((*found.0).to_owned())
    }
}

fn table() -> Table {
    let addresses = |last: &[u8]| last.iter().map(|last| Ipv4Addr::new(10, 64, 0, *last)).collect();
    Table(BTreeMap::from([
        ("web", addresses(&[2, 3])),
        ("db", addresses(&[4])),
    ]))
}

fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

fn outcome(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Answer(bytes) => format!("code {} records {}", bytes[3] & 0xf, bytes[7]),
        other => format!("{other:?}").to_lowercase(),
    }
}

#[test]
fn questions_find_their_answers() {
    const MX: u16 = 15;
    for (name, kind, forward, expected) in [
        ("web", message::A, true, "code 0 records 2"),
        ("WEB", message::A, true, "code 0 records 2"),
        ("db", message::A, false, "code 0 records 1"),
        ("db", message::AAAA, true, "code 0 records 0"),
        ("db", MX, true, "code 0 records 0"),
        ("nobody", message::A, true, "code 3 records 0"),
        ("nobody", message::A, false, "code 3 records 0"),
        ("example.org", message::A, true, "forward"),
        ("example.org", message::A, false, "code 3 records 0"),
        ("4.0.64.10.in-addr.arpa", message::PTR, true, "code 0 records 1"),
        ("9.0.64.10.in-addr.arpa", message::PTR, true, "forward"),
        ("9.0.64.10.in-addr.arpa", message::PTR, false, "code 3 records 0"),
        ("", 2, true, "forward"),
    ] {
        let verdict = answer(&question(name, kind), &table(), forward, None);
        assert_eq!(outcome(&verdict), expected, "{name} {kind} {forward}");
    }
}

#[test]
fn replicas_take_turns() {
    let mut firsts = BTreeSet::new();
    for id in 0..4 {
        let mut bytes = question("web", message::A);
        message::set_id(&mut bytes, id);
        let Verdict::Answer(reply) = answer(&bytes, &table(), true, None) else {
            panic!("not answered");
        };
        let start = bytes.len() + 12;
        firsts.insert(reply[start..start + 4].to_vec());
    }
    assert_eq!(firsts.len(), 2);
}

#[test]
fn an_answer_is_never_answered() {
    let mut bytes = question("web", message::A);
    bytes[2] |= 0x80;
    assert_eq!(answer(&bytes, &table(), true, None), Verdict::Drop);
    assert_eq!(answer(&[], &table(), true, None), Verdict::Drop);
}

//! The codec reads what a resolver sends, keeps to sizes, and survives any bytes.

use proptest::prelude::*;

use super::*;

const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\0\0\0\0\0\0\x03Web\x04shop\0\0\x01\0\x01";

#[test]
fn a_question_is_read() {
    let query = parse(QUERY).unwrap();
    assert_eq!(
        (query.id, query.name.as_str(), query.kind),
        (0x1234, "web.shop", A)
    );
    assert!(query.recursion_desired && query.internet);
    assert_eq!(query.room, 512);
}

#[test]
fn an_answer_repeats_the_question_as_it_was_asked() {
    let query = parse(QUERY).unwrap();
    let reply = answer(
        &query,
        Code::NoError,
        &[Data::Address(Ipv4Addr::new(10, 64, 0, 2))],
        512,
    );
    assert_eq!(question(&reply), question(QUERY));
    assert!(is_answer(&reply));
    let record = b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x0a\x40\0\x02";
    assert!(reply.ends_with(record), "{reply:?}");
}

#[test]
fn what_does_not_fit_is_marked_as_cut() {
    let query = parse(QUERY).unwrap();
    let many: Vec<_> = (0..100).map(|n| Data::Address(Ipv4Addr::from(n))).collect();
    let reply = answer(&query, Code::NoError, &many, 512);
    assert!(reply.len() <= 512 && reply[2] & 2 != 0);
    let whole = answer(&query, Code::NoError, &many, 65_535);
    assert!(whole[2] & 2 == 0 && whole[7] == 100);
}

#[test]
fn compression_in_a_question_is_refused() {
    let mut bytes = QUERY[..12].to_vec();
    bytes.extend(b"\xc0\x0c\0\x01\0\x01");
    assert_eq!(parse(&bytes), None);
}

#[test]
fn reverse_names_are_addresses() {
    for (name, expected) in [
        ("4.3.2.1.in-addr.arpa", Some(Ipv4Addr::new(1, 2, 3, 4))),
        ("3.2.1.in-addr.arpa", None),
        ("5.4.3.2.1.in-addr.arpa", None),
        ("256.3.2.1.in-addr.arpa", None),
        ("in-addr.arpa", None),
    ] {
        assert_eq!(reverse(name), expected, "{name}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = question(&bytes);
        if let Some(query) = parse(&bytes) {
            let _ = answer(&query, Code::NoError, &[], query.room);
        }
        let _ = refuse(&bytes, Code::FormatError);
    }

    #[test]
    fn a_cut_or_changed_question_is_survived(cut in 0..QUERY.len(), at in 0..QUERY.len(), byte in any::<u8>()) {
        let mut bytes = QUERY.to_vec();
        bytes[at] = byte;
        let _ = parse(&bytes[..cut]);
        if let Some(query) = parse(&bytes) {
            let reply = answer(&query, Code::NoSuchName, &[], query.room);
            prop_assert_eq!(question(&reply), question(&bytes));
        }
    }
}

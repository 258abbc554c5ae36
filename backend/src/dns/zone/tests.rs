//! A zone file gives back what was written, whole and name by name.

use super::*;

fn zone(count: u32) -> Zone {
    (0..count)
        .map(|n| {
            let addresses = (0..=n % 3)
                .map(|k| Ipv4Addr::from(0x0a40_0002 + n * 4 + k))
                .collect();
            (format!("name{n}"), addresses)
        })
        .collect()
}

#[test]
fn every_name_is_found_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.zone");
    for count in [0, 1, 2, 3, 100, 1000] {
        let zone = zone(count);
        write(&path, &zone).unwrap();
        assert_eq!(read(&path).unwrap().as_ref(), Some(&zone));
        let file = File::open(&path).unwrap();
        for (name, addresses) in &zone {
            assert_eq!(lookup(&file, name).unwrap().as_ref(), Some(addresses), "{name}");
        }
        for name in ["", "a", "name", "name0x", "name5000", "zzz"] {
            assert_eq!(lookup(&file, name).unwrap(), None, "{name}");
        }
    }
}

#[test]
fn an_address_has_a_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.zone");
    write(&path, &zone(10)).unwrap();
    let file = File::open(&path).unwrap();
    assert_eq!(
        name_of(&file, Ipv4Addr::new(10, 64, 0, 2)).unwrap().as_deref(),
        Some("name0")
    );
    assert_eq!(name_of(&file, Ipv4Addr::new(10, 64, 9, 2)).unwrap(), None);
}

#[test]
fn a_reader_keeps_the_old_zone_while_a_new_one_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.zone");
    write(&path, &zone(3)).unwrap();
    let old = File::open(&path).unwrap();
    write(&path, &Zone::new()).unwrap();
    assert!(lookup(&old, "name1").unwrap().is_some());
    assert!(lookup(&File::open(&path).unwrap(), "name1").unwrap().is_none());
}

#[test]
fn a_zone_that_somebody_wrote_into_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.zone");
    write(&path, &zone(3)).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let mut reversed: Vec<&str> = text.lines().collect();
    reversed.reverse();
    for damaged in [
        format!("{text}x"),
        text.replace('\n', "\n\n"),
        text.replace(' ', "  "),
        reversed.join("\n") + "\n",
    ] {
        fs::write(&path, &damaged).unwrap();
        assert_eq!(read(&path).unwrap(), None, "{damaged}");
    }
}

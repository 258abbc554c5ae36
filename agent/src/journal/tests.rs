//! The journal on disk: lines, both bounds, what a crash leaves, and other agents.

use std::{
    fs::{self, File},
    time::SystemTime,
};

use reconciler::{journal::Kind, plan::step::Cause, time::Now};

use super::{
    files::{BOUNDS, Bounds},
    *,
};

/// At this moment, and never the same as another.
fn entry(key: &str) -> Entry {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now = Now {
        boot: 0,
        wall: u64::try_from(wall.as_millis()).unwrap(),
    };
    let cause = Cause {
        field: "manifest".into(),
        old: None,
        new: None,
        span: None,
    };
    Entry::new(now, Kind::Done, None, key, cause)
}

fn keys(path: &Path) -> Vec<String> {
    read(path).unwrap().into_iter().map(|entry| entry.key).collect()
}

fn sizes(path: &Path) -> u64 {
    let files = fs::read_dir(path.parent().unwrap()).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

const SMALL: Bounds = Bounds {
    total: 4000,
    each: 1000,
    ..BOUNDS
};

#[test]
fn entries_are_lines_that_are_read_back_and_shown_to_those_who_follow() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.jsonl");
    let journal = FileJournal::open(&path).unwrap();
    let all: Vec<Entry> = (0..20)
        .map(|n| entry(&format!("container shop/web/{n}a")))
        .collect();
    all.iter().cloned().for_each(|entry| journal.record(entry));
    journal.settle();
    assert_eq!(read(&path).unwrap(), all);
    let shown: Vec<u64> = journal.since(18).iter().map(|entry| entry.number).collect();
    assert_eq!(shown, [19, 20]);
    assert!(
        read(&directory.path().join("missing/journal.jsonl"))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn all_files_together_are_bounded_also_by_the_next_agent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.jsonl");
    for agent in 0..4 {
        let mut files = Files::bounded(&path, SMALL).unwrap();
        for number in 0..30 {
            files.write(&entry(&format!("{agent}-{number}"))).unwrap();
            assert!(sizes(&path) <= SMALL.total, "{} bytes", sizes(&path));
        }
    }
    let kept = keys(&path);
    assert!(kept.len() > 10, "it is used as far as it goes: {}", kept.len());
    assert_eq!(kept.last().unwrap(), "3-29");
    let order = |key: &String| {
        let (agent, number) = key.split_once('-').unwrap();
        (agent.parse::<u32>().unwrap(), number.parse::<u32>().unwrap())
    };
    assert!(kept.is_sorted_by_key(order), "oldest first: {kept:?}");
    // An agent with a smaller bound begins by keeping to it.
    let less = Bounds { total: 1500, ..SMALL };
    Files::bounded(&path, less).unwrap();
    assert!(sizes(&path) <= 1500);
}

#[test]
fn what_is_older_than_thirty_days_goes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.jsonl");
    let mut files = Files::bounded(&path, SMALL).unwrap();
    for number in 0..10 {
        files.write(&entry(&number.to_string())).unwrap();
    }
    let old = path.with_extension("jsonl.1");
    let count = keys(&path).len();
    let ago = |days: u32| SystemTime::now() - Duration::from_secs(24 * 60 * 60) * days;
    let aged = |path: &Path, days| {
        File::options()
            .append(true)
            .open(path)
            .unwrap()
            .set_modified(ago(days))
            .unwrap()
    };
    aged(&old, 29);
    drop(files);
    let mut files = Files::bounded(&path, SMALL).unwrap();
    assert_eq!(keys(&path).len(), count);
    aged(&old, 31);
    files.prune().unwrap();
    assert!(!old.exists() && !keys(&path).is_empty());
    // Also where nothing was written for long, at the next start.
    aged(&path, 31);
    drop(files);
    Files::bounded(&path, SMALL).unwrap();
    let left: Vec<String> = keys(&path);
    assert!(
        left.len() < count && !fs::read_to_string(&path).unwrap().contains('{'),
        "{left:?}"
    );
}

#[test]
fn a_file_is_closed_a_day_after_its_first_entry() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.jsonl");
    let mut yesterday = entry("yesterday");
    yesterday.at.wall -= 25 * 60 * 60 * 1000;
    Files::open(&path).unwrap().write(&yesterday).unwrap();
    Files::open(&path).unwrap().write(&entry("today")).unwrap();
    assert!(!fs::read_to_string(&path).unwrap().contains("yesterday"));
    assert_eq!(keys(&path), ["yesterday", "today"]);
}

#[test]
fn a_line_that_a_crash_cut_off_costs_that_line_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.jsonl");
    let mut files = Files::open(&path).unwrap();
    for key in ["whole", "torn"] {
        files.write(&entry(key)).unwrap();
    }
    drop(files);
    let length = fs::metadata(&path).unwrap().len();
    for cut in 1..100 {
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(length - cut)
            .unwrap();
        assert!(keys(&path).len() <= 2);
        Files::open(&path).unwrap().write(&entry("after")).unwrap();
        let kept = keys(&path);
        assert_eq!(
            (&*kept[0], &*kept[kept.len() - 1]),
            ("whole", "after"),
            "{cut}: {kept:?}"
        );
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..usize::try_from(length).unwrap()]).unwrap();
    }
}

#[test]
fn a_value_of_any_size_is_shortened_and_its_entry_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.jsonl");
    let mut large = entry("large");
    large.cause.new = Some("ü".repeat(1_000_000));
    Files::open(&path).unwrap().write(&large).unwrap();
    assert_eq!(keys(&path), ["large"]);
    assert!(sizes(&path) < 10_000);
}

#[test]
fn journals_of_an_earlier_stead_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.jsonl");
    let line = r#"{"at":{"boot":1,"wall":2},"project":"shop","key":"container shop/web/1a","change":"create","cause":{"field":"services.web","old":null,"new":null},"error":null}"#;
    fs::write(&path, format!("{line}\n")).unwrap();
    assert_eq!(read(&path).unwrap()[0].kind, Kind::Done);
}

//! From entries to chains: what begins one, what follows from which, and what is left out.

use std::path::PathBuf;

use model::diagnostic::Span;
use reconciler::{plan::step::Class, time::Now};

use super::*;

fn cause(field: &str, old: &str, new: &str, line: u32) -> Cause {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let span = Span {
        file: PathBuf::from("/m/shop.yaml"),
        line,
        column: 1,
    };
    Cause {
        field: field.into(),
        old: given(old),
        new: given(new),
        span: (line > 0).then_some(span),
    }
}

fn entry(at: u64, kind: Kind, key: &str, cause: Cause) -> Entry {
    let now = Now { boot: at, wall: at };
    Entry::new(now, kind, Some("shop"), key, cause)
}

fn wanted(at: u64, old: &str, differences: Vec<Cause>) -> Entry {
    let mut entry = entry(at, Kind::Wanted, "shop", cause("revision", old, "b", 1));
    entry.differences = differences;
    entry
}

fn step(at: u64, key: &str, action: &str, change: Option<Class>, cause: Cause) -> Entry {
    let mut entry = entry(at, Kind::Done, key, cause);
    entry.action = Some(action.into());
    entry.change = change;
    entry
}

const WEB: &str = "container shop/web/1a";
const DB: &str = "container shop/db/1a";

/// A life of two services, in order.
fn life() -> Vec<Entry> {
    let colour = || cause("services.web.environment.A", "1", "2", 4);
    let ended = || cause("process", "", "it ended with status 3", 0);
    let mut running = step(9, DB, "stop", None, cause("services.db.image", "a", "b", 8));
    running.kind = Kind::Started;
    vec![
        wanted(
            1,
            "",
            vec![cause("services.web", "", "", 2), cause("services.db", "", "", 7)],
        ),
        entry(2, Kind::Waiting, WEB, cause("wait", "", "after db is healthy", 0)),
        step(
            3,
            DB,
            "start",
            Some(Class::Create),
            cause("services.db", "", "", 7),
        ),
        entry(4, Kind::Opened, WEB, cause("wait", "", "after db is healthy", 0)),
        step(
            5,
            WEB,
            "start",
            Some(Class::Create),
            cause("services.web", "", "", 2),
        ),
        wanted(6, "a", vec![colour(), cause("services.db.image", "a", "b", 8)]),
        entry(7, Kind::Event, DB, ended()),
        // Of an earlier cause, after a later one.
        step(8, WEB, "start", Some(Class::Restart), colour()),
        step(8, DB, "start again", None, ended()),
        running,
    ]
}

fn of(text: &str) -> Of {
    let mut parts = text.split('/').map(str::to_owned);
    Of {
        project: parts.next().expect("a project"),
        service: parts.next(),
        index: parts.next().and_then(|index| index.parse().ok()),
    }
}

/// Each chain as `head > what followed, what followed`.
fn told(entries: &[Entry], target: &str) -> Vec<String> {
    chains(entries, &of(target))
        .into_iter()
        .map(|chain| {
            let then: Vec<String> = chain.then.into_iter().map(|link| link.text).collect();
            format!("{} > {}", chain.text, then.join(", "))
        })
        .collect()
}

#[test]
fn what_followed_stands_with_its_cause_and_the_newest_cause_comes_first() {
    assert_eq!(
        told(&life(), "shop"),
        [
            "db/1: it ended with status 3 > db/1 was started again",
            "the manifest changed > web/1 was started anew, db/1: the stop goes on",
            "shop is new > web/1 waits: after db is healthy, db/1 was started, \
             web/1 waits no longer: after db is healthy, web/1 was started",
        ]
    );
}

#[test]
fn a_service_has_only_what_is_about_it() {
    assert_eq!(
        told(&life(), "shop/web"),
        [
            "shop.yaml:4  services.web.environment.A changed 1 → 2 > web/1 was started anew",
            "shop.yaml:2  services.web is new > web/1 waits: after db is healthy, \
             web/1 waits no longer: after db is healthy, web/1 was started",
        ]
    );
    assert_eq!(told(&life(), "shop/web/1"), told(&life(), "shop/web"));
    assert_eq!(told(&life(), "shop/web/2")[0].split(" > ").nth(1), Some(""));
    assert_eq!(told(&life(), "blog"), Vec::<String>::new());
}

#[test]
fn the_same_end_again_and_again_is_one_chain_with_its_count() {
    let mut entries = vec![wanted(1, "", vec![cause("services.web", "", "", 2)])];
    for at in 2..6 {
        entries.push(entry(
            at,
            Kind::Event,
            WEB,
            cause("process", "", "it ended with status 7", 0),
        ));
        entries.push(step(
            at,
            WEB,
            "start again",
            None,
            cause("process", "", "exited with 7", 0),
        ));
    }
    let found = chains(&entries, &of("shop/web"));
    assert_eq!(
        (found.len(), found[0].times, found[0].since, found[0].at),
        (2, 4, 2, 5)
    );
    assert_eq!(found[0].then.len(), 1, "what followed from the last of them");
    // Most of them were not written at all.
    let mut last = entry(
        900,
        Kind::Event,
        WEB,
        cause("process", "", "it ended with status 7", 0),
    );
    last.times = Some(64);
    entries.push(last);
    assert_eq!(chains(&entries, &of("shop/web"))[0].times, 64);
}

#[test]
fn operators_refusals_rollbacks_and_drift_begin_chains() {
    let mut refused = entry(
        2,
        Kind::Refused,
        "shop",
        cause("manifest", "", "unknown key `imag`", 3),
    );
    refused.error = Some("did you mean `image`?".into());
    let mut back = entry(
        3,
        Kind::Rollback,
        "shop",
        cause("revision", "bbbbbbbbbbbbbbbb", "aaaa", 0),
    );
    back.error = Some("web was unhealthy".into());
    let mut moved = entry(
        3,
        Kind::Rollback,
        "shop",
        cause("image", "app:1@sha256:b", "app:1@sha256:a", 0),
    );
    moved.error = Some("web was unhealthy".into());
    let drift = || cause("bridge", "", "bridge is missing", 0);
    let bridge = "network shop/shop_default";
    let entries = [
        entry(1, Kind::Intent, "shop/web", cause("operator", "", "stop", 0)),
        refused,
        back,
        moved,
        entry(4, Kind::Event, bridge, drift()),
        step(5, bridge, "make network", Some(Class::Live), drift()),
    ];
    let all = [
        "network shop_default: bridge is missing > network shop_default was put back as it should be",
        "app:1@sha256:b was taken back: web was unhealthy; app:1@sha256:a runs until the tag moves on or the manifest \
         changes > ",
        "revision bbbbbbbbbbbb was taken back: web was unhealthy; revision aaaa runs until the manifest changes > ",
        "shop.yaml:3  this manifest is not followed: unknown key `imag`; did you mean `image`? > ",
        "an operator ordered for shop/web: stop > ",
    ];
    assert_eq!(told(&entries, "shop"), all);
    assert_eq!(told(&entries, "shop/web"), all);
    assert_eq!(told(&entries, "shop/db"), all[..4]);
}

#[test]
fn a_journal_that_has_lost_its_beginning_still_tells_what_it_has() {
    let entries = [step(
        5,
        WEB,
        "start",
        Some(Class::Restart),
        cause("services.web.image", "a", "b", 2),
    )];
    assert_eq!(
        told(&entries, "shop/web"),
        ["the journal begins here > web/1 was started anew"]
    );
}

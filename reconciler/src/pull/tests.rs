//! What each policy asks for, and when.

use super::*;

fn service(policy: Option<&str>) -> Service {
    let mut value = serde_json::json!({ "image": "app:1", "networks": {} });
    if let Some(policy) = policy {
        value["pull_policy"] = policy.into();
    }
    serde_json::from_value(value).unwrap()
}

fn now(boot: u64, wall: u64) -> Now {
    Now { boot, wall }
}

#[test]
fn each_policy_says_whether_and_how_often_a_registry_is_asked() {
    const HOUR: u64 = 3_600_000;
    for (policy, may, often, at_change) in [
        (None, Ask::Missing, None, false),
        (Some("missing"), Ask::Missing, None, false),
        (Some("if_not_present"), Ask::Missing, None, false),
        (Some("never"), Ask::Never, None, false),
        (Some("always"), Ask::Missing, Some(OFTEN), true),
        (Some("daily"), Ask::Missing, Some(24 * HOUR), false),
        (Some("weekly"), Ask::Missing, Some(7 * 24 * HOUR), false),
        (Some("every_12h"), Ask::Missing, Some(12 * HOUR), false),
        (Some("every_1ms"), Ask::Missing, Some(SHORTEST), false),
    ] {
        let service = service(policy);
        let found = (ask(&service), interval(&service), at_each_change(&service));
        assert_eq!(found, (may, often, at_change), "{policy:?}");
        assert_eq!(follows(&service), often.is_some(), "{policy:?}");
    }
}

#[test]
fn only_who_follows_a_tag_takes_what_it_has_moved_to() {
    let image = |digest: &str| Image::new(digest.to_owned(), true, Default::default());
    let moved = Image {
        latest: Some(Box::new(image("new"))),
        ..image("old")
    };
    for (policy, takes) in [
        (None, "old"),
        (Some("never"), "old"),
        (Some("daily"), "new"),
        (Some("always"), "new"),
    ] {
        assert_eq!(chosen(&moved, &service(policy)).digest, takes, "{policy:?}");
        assert_eq!(chosen(&image("old"), &service(policy)).digest, "old");
    }
}

#[test]
fn of_several_wishes_for_one_name_the_stronger_counts() {
    let all = ["never", "daily", "every_12h"].map(|policy| service(Some(policy)));
    for (services, wish) in [
        (
            &all[..1],
            Wish {
                ask: Ask::Never,
                interval: None,
            },
        ),
        (
            &all[..2],
            Wish {
                ask: Ask::Missing,
                interval: Some(86_400_000),
            },
        ),
        (
            &all[..],
            Wish {
                ask: Ask::Missing,
                interval: Some(43_200_000),
            },
        ),
    ] {
        assert_eq!(wishes(services), BTreeMap::from([("app:1".to_owned(), wish)]));
    }
}

#[test]
fn a_registry_is_asked_an_interval_after_its_last_answer() {
    let answer = |at| Some(Asked { at, failed: None });
    for (asked, wall, due) in [
        (None, 0, 1000),
        (answer(50_000), 50_000, 11_000),
        (answer(50_000), 53_000, 8000),
        (answer(50_000), 60_000, 1000),
        (answer(50_000), 90_000, 1000),
        // The clock was wrong then, or is now.
        (answer(50_000), 49_999, 1000),
    ] {
        let found = Schedule::default().due("app:1", 10_000, asked.as_ref(), now(1000, wall));
        assert_eq!(found, due, "asked {asked:?}, now {wall}");
    }
    let mut schedule = Schedule::default();
    schedule.asked("app:1", 10_000, false, now(1000, 0));
    assert_eq!(
        schedule.due("app:1", 10_000, None, now(1500, 0)),
        11_000,
        "whatever was written down"
    );
    schedule.keep(|_| false);
    assert_eq!(schedule.due("app:1", 10_000, None, now(1500, 0)), 1500);
}

#[test]
fn a_registry_that_does_not_answer_is_asked_later_and_later_up_to_an_hour() {
    let mut schedule = Schedule::default();
    let mut at = 0;
    for plain in [
        60_000, 120_000, 240_000, 480_000, 960_000, 1_920_000, 3_600_000, 3_600_000,
    ] {
        schedule.asked("app:1", 86_400_000, true, now(at, 0));
        let next = schedule.due("app:1", 86_400_000, None, now(at, 0));
        assert!(
            (plain * 9 / 10..=plain * 11 / 10).contains(&(next - at)),
            "{plain}: {}",
            next - at
        );
        at = next;
    }
    schedule.asked("app:1", 5000, false, now(at, 0));
    assert_eq!(schedule.due("app:1", 5000, None, now(at, 0)), at + 5000);
    schedule.asked("app:1", 5000, true, now(at, 0));
    let next = schedule.due("app:1", 5000, None, now(at, 0)) - at;
    assert!((54_000..=66_000).contains(&next), "the count begins anew: {next}");
}

#[test]
fn edits_while_a_registry_is_down_put_off_no_question() {
    let mut schedule = Schedule::default();
    schedule.asked("app:1", 5000, true, now(0, 0));
    let next = schedule.due("app:1", 5000, None, now(0, 0));
    for edit in 1..10 {
        schedule.asked("app:1", 5000, true, now(edit * 100, 0));
    }
    assert_eq!(schedule.due("app:1", 5000, None, now(1000, 0)), next);
}

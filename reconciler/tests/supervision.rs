//! What is not known about the end of a container starts nothing that may have ended for good.

use reconciler::{
    observed::{Fact, Observed},
    plan::{self, action::Action, step::Plan},
    port::Backend,
    testing::drive::{Drive, references},
};

const BOTH: &str = "web\n  restart always\njob\n";

fn planned(drive: &Drive, change: impl FnOnce(&mut Observed)) -> Plan {
    let mut observed = drive.host.observe_all(&references(&drive.desired, &drive.memory));
    change(&mut observed);
    let now = drive.host.now();
    plan::plan(&drive.desired, &observed, &drive.memory, &Vec::new(), now)
}

fn started(plan: &Plan) -> Vec<String> {
    let starts = plan.steps.iter().filter_map(|step| match &step.action {
        Action::StartContainer { key, .. } => Some(key.to_string()),
        _ => None,
    });
    starts.collect()
}

fn unreadable(observed: &mut Observed) {
    observed.ended = Fact::Unknown("Input/output error".to_owned());
}

fn drive() -> Drive {
    let mut drive = Drive::new(1);
    drive.host.image("app:1", "sha256:aaaa", true);
    drive.file("shop", BOTH).unwrap();
    drive
}

#[test]
fn who_may_have_ended_for_good_waits_until_the_exit_records_can_be_read() {
    let drive = drive();
    let plan = planned(&drive, |_| {});
    assert_eq!(
        started(&plan),
        ["shop/job/1a", "shop/web/1a"],
        "no record of an end"
    );
    let plan = planned(&drive, unreadable);
    assert_eq!(started(&plan), ["shop/web/1a"]);
    let waiting: Vec<_> = plan.waiting.iter().map(|waiting| waiting.why.as_str()).collect();
    assert_eq!(
        waiting,
        ["the exit records could not be read: Input/output error"]
    );
}

#[test]
fn a_lost_supervisor_is_not_cleared_away_before_the_exit_records_can_be_read() {
    let mut drive = drive();
    drive.settle().unwrap();
    let keys: Vec<_> = drive.pids().into_keys().collect();
    keys.iter().for_each(|key| drive.host.lose_shim(key));
    let plan = planned(&drive, |_| {});
    assert_eq!(
        started(&plan),
        ["shop/job/1a", "shop/web/1a"],
        "no record of an end"
    );
    let plan = planned(&drive, unreadable);
    assert_eq!(started(&plan), ["shop/web/1a"]);
    let of_job = |key: &reconciler::key::Key| key.to_string() == "container shop/job/1a";
    assert!(
        plan.steps.iter().all(|step| !of_job(&step.key)),
        "{:?}",
        plan.steps
    );
}

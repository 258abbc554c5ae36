//! The same plan for people, for programs, and as a hash.

use super::*;
use crate::testing::drive::Drive;

fn drive() -> Drive {
    let drive = Drive::new(1);
    drive.host.image("app:1", "sha256:aaaa", true);
    drive
}

#[test]
fn a_plan_for_programs_counts_what_a_plan_for_people_lists() {
    let mut drive = drive();
    drive.file("shop", "web\n  volume data:/data\n").unwrap();
    let plan = drive.plan();
    let told = json(&plan);
    assert_eq!(told["hash"], hash(&plan, None));
    assert_eq!(told["summary"]["create"], plan.changes.len());
    let keys = |list: &str| {
        let list = told[list].as_array().unwrap();
        list.iter()
            .map(|one| one["key"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let text = render(&plan);
    assert!(
        keys("changes").iter().all(|key| text.contains(key.as_str())),
        "{text}"
    );
    let steps: Vec<String> = plan.steps.iter().map(|step| step.key.to_string()).collect();
    assert_eq!(keys("steps"), steps);
}

#[test]
fn the_hash_of_a_project_says_what_is_done_to_it_and_nothing_of_others() {
    let plan = |shop: &str, blog: &str| {
        let mut drive = drive();
        drive.file("shop", shop).unwrap();
        drive.file("blog", blog).unwrap();
        drive.plan()
    };
    let one = plan("web\n", "web\n");
    let other = plan("web\n", "web\n  scale 2\n");
    for (project, same) in [(Some("shop"), true), (Some("blog"), false), (None, false)] {
        let hashes = [&one, &other].map(|plan| hash(plan, project));
        assert_eq!(hashes[0] == hashes[1], same, "{project:?}");
    }
}

//! A tag that moves in its registry: who follows it has the new image, everybody else keeps what he has.

use std::fs;

use crate::{
    host::{Host, PATIENCE},
    images::{layout, layout_that},
    registry::{ADDRESS, Registry, complaint},
};

struct Moving {
    host: Host,
    registry: Registry,
}

impl Moving {
    fn new(name: &str) -> Option<Moving> {
        let host = Host::new(name)?;
        let registry = Registry::plain(&host);
        let mut moving = Moving { host, registry };
        moving.push("1");
        moving.host.start_agent();
        Some(moving)
    }

    /// Another image under the same tag. Of another place, it is another one with the same layer.
    fn push(&self, name: &str) {
        self.registry.push(
            &self.host,
            &layout(&self.host, &format!("layout-{name}")),
            "team/box:1",
            &[],
        );
    }

    /// One that runs something else.
    fn push_that(&self, name: &str, entrypoint: &[&str]) {
        let layout = layout_that(&self.host, name, entrypoint);
        self.registry.push(&self.host, &layout, "team/box:1", &[]);
    }

    fn manifest(&self, project: &str, policy: &str) {
        self.host.write_manifest(project, &service(policy));
    }

    /// Of the one instance of `project`.
    fn digest(&self, project: &str) -> Option<String> {
        let ps = self.host.stead_ok(&["--json", "ps", project]);
        let instances: serde_json::Value = serde_json::from_str(&ps).expect("JSON");
        let running = instances[0]["state"] == "running";
        running.then(|| {
            instances[0]["image_digest"]
                .as_str()
                .expect("a digest")
                .to_owned()
        })
    }

    fn runs_another(&self, project: &str, before: &str) -> String {
        self.host.wait("it runs another image", PATIENCE, || {
            self.digest(project).filter(|digest| digest != before)
        })
    }
}

fn service(policy: &str) -> String {
    format!(
        "services: {{ web: {{ image: \"{ADDRESS}/team/box:1\", pull_policy: {policy}, stop_grace_period: 0s }} }}\n"
    )
}

#[test]
fn a_tag_that_has_moved_is_followed_by_who_says_so_and_by_nobody_else() {
    let Some(mut moving) = Moving::new("tags") else {
        return;
    };
    moving.manifest("keeps", "missing");
    moving.host.converged("keeps");
    moving.manifest("follows", "every_1s");
    moving.host.converged("follows");
    let kept = moving.host.running("keeps", "web");
    let first = moving.digest("keeps").expect("it runs");
    assert_eq!(moving.digest("follows"), Some(first.clone()));

    moving.push("2");
    let second = moving.runs_another("follows", &first);
    moving.host.converged("follows");
    assert_eq!(moving.host.running("keeps", "web").identity(), kept.identity());
    let plan = moving.host.stead(&["plan", "keeps"]);
    assert_eq!(plan.code, 0, "nothing is to be done: {plan:?}");
    let told = format!(
        "tag       {ADDRESS}/team/box:1 (keeps/web) stands for {}",
        &second[..19]
    );
    assert!(plan.stdout.contains(&told), "{plan:?}");

    // Another agent, without the registry: each has what it had.
    moving.host.kill_agent();
    drop(moving.registry);
    moving.host.start_agent();
    let host = moving.host;
    host.nothing_to_do(PATIENCE);
    assert_eq!(host.running("keeps", "web").identity(), kept.identity());
    let plan = host.stead(&["plan"]);
    assert!(
        plan.stdout.contains("whether it has moved is not known"),
        "{plan:?}"
    );
    let ps = host.stead_ok(&["--json", "ps", "follows"]);
    assert!(ps.contains(&second), "{ps}");
    // What is made anew is made of the same.
    host.change("keeps", &service("missing").replace("0s", "1s"));
    assert!(host.stead_ok(&["--json", "ps", "keeps"]).contains(&first));
    host.finish();
}

#[test]
fn a_policy_of_always_asks_whenever_the_manifest_changes() {
    let Some(moving) = Moving::new("tags-always") else {
        return;
    };
    moving.manifest("shop", "always");
    moving.host.converged("shop");
    let first = moving.digest("shop").expect("it runs");
    moving.push("2");
    let journal = moving.host.journal().len();
    moving
        .host
        .write_manifest("shop", &service("always").replace("0s", "1s"));
    let second = moving.runs_another("shop", &first);
    moving.host.converged("shop");
    let recreated = moving.host.journal();
    let recreated = recreated
        .iter()
        .skip(journal)
        .filter(|done| format!("{done:?}").contains("shop/web/1"));
    assert!(
        recreated.count() <= 1,
        "changed twice: {:?}",
        moving.host.journal()
    );
    // Said once more by hand.
    moving.push("3");
    let manifest = moving.host.manifest("shop").display().to_string();
    moving.host.stead_ok(&["apply", "-f", &manifest]);
    moving.runs_another("shop", &second);
    moving.host.finish();
}

/// Healthy unless it is the second image; by a probe that the image answers.
fn watched() -> String {
    format!(
        "services:
  web:
    image: \"{ADDRESS}/team/box:1\"
    pull_policy: every_1s
    stop_grace_period: 0s
    healthcheck: {{ test: ['CMD-SHELL', 'case $$PLACE in *-2) exit 1;; esac'], interval: 200ms, retries: 2 }}
    deploy: {{ update_config: {{ order: start-first, failure_action: rollback }} }}
"
    )
}

#[test]
fn what_a_tag_has_moved_to_is_taken_back_where_it_fails_and_followed_once_it_moves_on() {
    let Some(moving) = Moving::new("tags-rollback") else {
        return;
    };
    moving.host.write_manifest("shop", &watched());
    moving.host.converged("shop");
    let first = moving.digest("shop").expect("it runs");
    let before = moving.host.running("shop", "web").identity();

    moving.push("2");
    moving
        .host
        .wait("it is said that it was taken back", PATIENCE, || {
            let told = moving.host.complaint("shop");
            (told.contains("was rolled back") && told.contains("until the tag moves on")).then_some(())
        });
    let status = moving.host.stead_ok(&["status"]);
    assert!(
        status.contains("failed   shop: ") && status.contains("was rolled back"),
        "{status}"
    );
    moving.host.wait("only the first one is there", PATIENCE, || {
        (moving.host.ps().len() == 1).then_some(())
    });
    assert_eq!(moving.host.running("shop", "web").identity(), before);
    let why = moving.host.stead_ok(&["why", "shop"]);
    assert!(
        why.contains("was taken back: web container 1 is unhealthy"),
        "{why}"
    );

    // Another agent leaves it at that.
    let mut host = moving.host;
    host.kill_agent();
    host.start_agent();
    host.wait("it is said by another agent, too", PATIENCE, || {
        host.complaint("shop").contains("was rolled back").then_some(())
    });
    assert_eq!(host.running("shop", "web").identity(), before);
    let moving = Moving {
        host,
        registry: moving.registry,
    };

    moving.push("3");
    let third = moving.runs_another("shop", &first);
    moving.host.converged("shop");
    moving.host.nothing_to_do(PATIENCE);
    assert_eq!(moving.digest("shop"), Some(third.clone()));
    // Nobody would go back to the first one any more: the name stands for the third.
    let mut host = moving.host;
    let records = host.root.join("state/records/image");
    host.wait("the name stands for the third", PATIENCE, || {
        let record = fs::read_dir(&records).ok()?.next()?.ok()?;
        let record = fs::read_to_string(record.path()).ok()?;
        (record.contains(&third) && !record.contains(&first)).then_some(())
    });
    drop(moving.registry);
    host.kill_agent();
    host.start_agent();
    host.nothing_to_do(PATIENCE);
    host.finish();
}

/// The one before it was stopped for it.
#[test]
fn what_a_tag_has_moved_to_is_taken_back_where_it_ends_or_cannot_start() {
    let Some(moving) = Moving::new("tags-ends") else {
        return;
    };
    moving.host.write_manifest(
        "shop",
        &format!(
            "services:
  web:
    image: \"{ADDRESS}/team/box:1\"
    pull_policy: every_1s
    stop_grace_period: 0s
    deploy: {{ update_config: {{ failure_action: rollback, monitor: 1s }} }}
"
        ),
    );
    moving.host.converged("shop");
    let first = moving.digest("shop").expect("it runs");
    for (name, entrypoint, said) in [
        ("ends", ["sh", "-c", "exit 3"], "ended with 3"),
        ("nothing", ["/nothing"; 3], "`/nothing` is not in the image"),
    ] {
        moving.push_that(name, &entrypoint);
        moving
            .host
            .wait("it is said why it was taken back", PATIENCE, || {
                let told = moving.host.complaint("shop");
                (told.contains("was rolled back") && told.contains(said)).then_some(())
            });
        moving.host.wait("the one before it runs again", PATIENCE, || {
            (moving.digest("shop").as_ref() == Some(&first)).then_some(())
        });
        moving.host.nothing_to_do(PATIENCE);
    }
    moving.push("better");
    moving.runs_another("shop", &first);
    moving.host.converged("shop");
    moving.host.finish();
}

#[test]
fn each_name_of_one_image_is_kept_wherever_its_own_tag_moves() {
    let Some(moving) = Moving::new("tags-names") else {
        return;
    };
    let layout = layout(&moving.host, "one");
    let names = ["team/box:a", "team/box:b"];
    for name in names {
        moving.registry.push(&moving.host, &layout, name, &[]);
    }
    for (project, name) in ["one", "two"].into_iter().zip(names) {
        let image = format!("{ADDRESS}/{name}");
        let text = format!("services: {{ web: {{ image: \"{image}\", stop_grace_period: 0s }} }}\n");
        moving.host.write_manifest(project, &text);
        moving.host.converged(project);
    }
    let first = moving.digest("two").expect("it runs");
    let other = self::layout(&moving.host, "other");
    moving.registry.push(&moving.host, &other, names[1], &[]);
    let mut host = moving.host;
    host.kill_agent();
    host.start_agent();
    host.nothing_to_do(PATIENCE);
    let shown = host.stead_ok(&["--json", "ps", "two"]);
    assert!(shown.contains(&first), "{shown}");
    host.finish();
}

#[test]
fn what_may_not_be_fetched_is_waited_for() {
    let Some(mut moving) = Moving::new("tags-never") else {
        return;
    };
    moving.manifest("shop", "never");
    complaint(&moving.host, "is not to be fetched");
    assert!(moving.digest("shop").is_none());
    // Somebody else who may fetches it.
    moving.manifest("other", "missing");
    moving.host.converged("other");
    moving.host.converged("shop");
    let digest = moving.digest("shop");
    assert_eq!(digest, moving.digest("other"));
    // Nor is it where it was damaged, until somebody says so; then it is the same, wherever the tag has moved.
    moving.host.remove_manifest("other");
    moving.host.gone("other");
    moving.push("2");
    moving.host.stop_agent();
    fs::remove_dir_all(moving.host.root.join("state/images/layers")).expect("it was there");
    moving.host.start_agent();
    complaint(&moving.host, "is not here whole, and is not to be fetched");
    moving.host.stead_ok(&["image", "verify", "--repair"]);
    moving.host.converged("shop");
    assert_eq!(moving.digest("shop"), digest);
    moving.host.finish();
}

#[test]
fn a_damaged_image_is_had_again_by_its_digest_wherever_its_tag_has_moved() {
    let Some(mut moving) = Moving::new("tags-damaged") else {
        return;
    };
    moving.manifest("shop", "missing");
    moving.host.converged("shop");
    let first = moving.digest("shop").expect("it runs");
    moving.push("2");
    moving.host.stop_agent();
    for what in ["layers", "blobs"] {
        fs::remove_dir_all(moving.host.root.join("state/images").join(what)).expect("it was there");
    }
    moving.host.start_agent();
    let layers = moving.host.root.join("state/images/layers");
    moving.host.wait("its layers are here again", PATIENCE, || {
        fs::read_dir(&layers).ok()?.next().map(drop)
    });
    moving.host.converged("shop");
    assert_eq!(moving.digest("shop"), Some(first));
    moving.host.finish();
}

//! What is asked, what the host has, and what is said of it where.

use std::{collections::BTreeMap, path::PathBuf};

use model::load::{Options, load};

use super::*;

const FILE: &str = "/p/compose.yaml";

fn project(text: &str) -> Project {
    let files: BTreeMap<PathBuf, Vec<u8>> = [(FILE.into(), text.as_bytes().to_vec())].into();
    let options = Options {
        directory: "/p".into(),
        fallback_name: "p".into(),
        ..Options::default()
    };
    let loaded = load(&files, &[FILE.into()], &options);
    loaded
        .project
        .unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))
}

/// `line:column severity: message`, one a line.
fn found(text: &str, abilities: &Abilities) -> Vec<String> {
    let found = lacking(&project(text), abilities);
    let lines = found.iter().map(|found| {
        assert_eq!(found.span.file, PathBuf::from(FILE));
        assert!(
            found.hint.as_ref().is_some_and(|hint| !hint.is_empty()),
            "{found:?}"
        );
        assert_eq!(found.refusal, found.is_error());
        let severity = if found.is_error() { "error" } else { "warning" };
        format!(
            "{}:{} {severity}: {}",
            found.span.line, found.span.column, found.message
        )
    });
    lines.collect()
}

fn missing(attributes: &[&'static str]) -> Abilities {
    let lack = |attribute: &&'static str| {
        let lack = Lack::Missing {
            what: format!("no {attribute}"),
            remedy: "boot it".into(),
        };
        (*attribute, lack)
    };
    Abilities {
        attributes: attributes.iter().map(lack).collect(),
        ..Abilities::default()
    }
}

#[test]
fn a_limit_is_refused_where_it_is_written() {
    let text = "\
services:
  web:
    image: builtin:hello
    mem_limit: 64m
    pids_limit: 50
  db:
    image: builtin:hello
    deploy:
      resources:
        limits:
          memory: 32m
  free:
    image: builtin:hello
    pids_limit: -1
";
    assert_eq!(
        found(text, &missing(&["mem_limit", "cpus"])),
        ["4:5 error: no mem_limit", "11:11 error: no mem_limit"]
    );
    assert_eq!(
        found(text, &missing(&["pids_limit"])),
        ["5:5 error: no pids_limit"]
    );
    assert!(found(text, &missing(&["cpus", "cpuset", "mem_reservation"])).is_empty());
    assert!(found(text, &Abilities::default()).is_empty());
}

#[test]
fn what_is_not_known_refuses_nothing_and_is_said() {
    let abilities = Abilities {
        attributes: [(
            "memswap_limit",
            Lack::Unknown("whether this host can limit swap: x".into()),
        )]
        .into(),
        ..Abilities::default()
    };
    let text = "services: { web: { image: 'builtin:hello', mem_limit: 64m, memswap_limit: 96m } }\n";
    assert_eq!(
        found(text, &abilities),
        ["1:60 warning: it is not known whether this host can limit swap: x"]
    );
    let unlimited = "services: { web: { image: 'builtin:hello', mem_limit: 64m, memswap_limit: -1 } }\n";
    assert!(found(unlimited, &abilities).is_empty());
}

#[test]
fn devices_need_their_filter_unless_all_of_them_are_given() {
    let text = |more: &str| {
        format!("services:\n  web:\n    image: builtin:hello\n    devices: [/dev/loop0]\n{more}")
    };
    assert_eq!(
        found(&text(""), &missing(&["devices", "device_cgroup_rules"])),
        ["4:5 error: no devices"]
    );
    assert!(found(&text("    privileged: true\n"), &missing(&["devices"])).is_empty());
}

#[test]
fn a_profile_is_one_that_is_loaded() {
    let with = |profiles| Abilities {
        profiles,
        ..Abilities::default()
    };
    let loaded = with(Fact::Known(Some(["web".to_owned()].into())));
    let (none, unread) = (
        with(Fact::Known(None)),
        with(Fact::Unknown("no securityfs".into())),
    );
    let asks =
        |options: &str| format!("services:\n  web:\n    image: builtin:hello\n    security_opt:\n{options}");
    let option = |profile: &str| format!("      - apparmor={profile}\n");
    let no = "no-new-privileges:true";
    for (options, abilities, expected) in [
        (option("web"), &loaded, None),
        (
            option("other"),
            &loaded,
            Some("5:9 error: this host has loaded no AppArmor profile `other`"),
        ),
        // The last one counts, and has its own line.
        (
            format!("      - {no}\n{}{}", option("other"), option("web")),
            &loaded,
            None,
        ),
        (
            format!("      - {no}\n{}{}", option("web"), option("other")),
            &loaded,
            Some("7:9 error: this host has loaded no AppArmor profile `other`"),
        ),
        (option("unconfined"), &none, None),
        (
            option("web"),
            &none,
            Some("5:9 error: this host has no AppArmor, and `apparmor=web` asks for it"),
        ),
        (
            option("web"),
            &unread,
            Some(
                "5:9 warning: it is not known whether this host has loaded the AppArmor profile `web`: no securityfs",
            ),
        ),
        (option(":ns:web"), &loaded, None),
        (
            format!("{}    privileged: true\n", option("other")),
            &loaded,
            None,
        ),
    ] {
        let found = found(&asks(&options), abilities);
        let expected: Vec<&str> = expected.into_iter().collect();
        assert_eq!(found, expected, "{options}");
    }
}

#[test]
fn a_service_needs_a_user_namespace_unless_it_has_that_of_the_host_or_of_another() {
    let with = |lack| Abilities {
        user_namespaces: Some(lack),
        ..Abilities::default()
    };
    let forbidden = with(Lack::Missing {
        what: "this host lets nobody make one".into(),
        remedy: "allow it".into(),
    });
    let text = "\
services:
  web:
    image: builtin:hello
  beside:
    image: builtin:hello
    network_mode: service:web
  ids: { image: 'builtin:hello', userns_mode: host }
  all: { image: 'builtin:hello', privileged: true }
  net: { image: 'builtin:hello', network_mode: host }
  pid: { image: 'builtin:hello', pid: host }
  ipc: { image: 'builtin:hello', ipc: shareable }
";
    let refused = [
        "2:3 error: this host lets nobody make one",
        "11:3 error: this host lets nobody make one",
    ];
    assert_eq!(found(text, &forbidden), refused);
    let unknown = with(Lack::Unknown("whether there is room for one".into()));
    let warned = refused.map(|line| {
        line.replace(
            "error: this host lets nobody make one",
            "warning: it is not known whether there is room for one",
        )
    });
    assert_eq!(found(text, &unknown), warned);
    assert!(found(text, &Abilities::default()).is_empty());
}

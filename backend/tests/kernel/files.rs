//! Configs and secrets: what a start was given, the next one finds again, and nobody has written it down.

use std::{fs, os::fd::AsFd};

use reconciler::spec::{Content, FileSpec};

use super::host::Host;

pub const TESTS: [(&str, fn()); 2] = [
    ("content_outlives_an_upgrade_and_is_not_sent_again", kept),
    ("files_that_cannot_be_given_are_refused_by_name", refused),
];

fn file(digest: &str, content: Option<&str>) -> FileSpec {
    FileSpec {
        name: "secrets.key".into(),
        target: "/run/secrets/key".into(),
        uid: 7,
        gid: 8,
        mode: 0o440,
        digest: digest.into(),
        content: content.map_or_else(Content::default, |text| Content::new(text.into())),
    }
}

fn kept() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.script("cat /run/secrets/key; stat -c ' %u:%g %a' /run/secrets/key");
    container.spec.files = vec![file("1", Some("canary"))];
    container.start().unwrap();
    container.ended();
    let program = fs::File::open(std::env::current_exe().unwrap()).unwrap();
    container.client.upgrade(program.as_fd()).unwrap();
    container.spec.files = vec![file("1", None)];
    container.start().unwrap();
    container.ended();
    assert_eq!(container.lines(), ["canary 7:8 440", "canary 7:8 440"]);
    assert!(!format!("{:?}", container.state()).contains("canary"));
}

fn refused() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.script("true");
    container.spec.files = vec![file("1", None)];
    let error = container.start().unwrap_err().to_string();
    assert!(error.contains("secrets.key holds is not known"), "{error}");
    container.spec.files = vec![FileSpec {
        uid: 65_536,
        ..file("1", Some("x"))
    }];
    let error = container.start().unwrap_err().to_string();
    assert!(error.contains("`uid` and `gid` below 65536"), "{error}");
    container.spec.files = vec![FileSpec {
        target: "/proc/x".into(),
        ..file("1", Some("x"))
    }];
    let error = container.start().unwrap_err().to_string();
    assert!(error.contains("nothing can be mounted at /proc/x"), "{error}");
}

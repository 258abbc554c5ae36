//! A manifest that cannot be used is named with its place and a remedy; everything else goes on.

use std::{fs, path::Path};

use serde_json::Value;

use crate::host::{HOST, Host, LOOPBACK, PATIENCE, Place, compose};

/// What is wrong, its text, and words its error must contain.
const BAD: &[(&str, &str, &[&str])] = &[
    (
        "bad YAML",
        "services:\n  web: { image: builtin:hello\n",
        &["bad.yaml"],
    ),
    (
        "an unknown key",
        "services:\n  web:\n    image: builtin:hello\n    colour: red\n",
        &["bad.yaml", "colour"],
    ),
    (
        "a key that is not supported",
        "services:\n  web:\n    image: builtin:hello\n    cgroup_parent: /x\n",
        &["bad.yaml", "cgroup_parent", "not supported"],
    ),
    (
        "a dependency cycle",
        "services:\n  a: { image: builtin:hello, depends_on: [b] }\n  b: { image: builtin:hello, depends_on: [a] }\n",
        &["bad.yaml", "depends_on"],
    ),
    (
        "a missing image",
        "services:\n  web:\n    image: rootfs:/nowhere/at/all\n",
        &["bad.yaml", "/nowhere/at/all"],
    ),
    (
        "a port that is taken",
        "services:\n  web:\n    image: builtin:hello\n    ports: [\"18601:8080\"]\n",
        &["bad.yaml", "18601"],
    ),
    ("a list", "- a\n- b\n", &["bad.yaml"]),
    ("an empty file", "", &["bad.yaml"]),
];

fn good() -> String {
    format!("services: {{ web: {{ {} }} }}\n", compose::web(18600))
}

/// Something in the status names the file, a line, and what to do.
fn is_explained(status: &Value, file: &str, line_matters: bool) -> bool {
    let diagnostics = status["diagnostics"].as_array().cloned().unwrap_or_default();
    let placed = diagnostics.iter().any(|diagnostic| {
        let here = diagnostic["file"]
            .as_str()
            .is_some_and(|path| path.ends_with(file));
        let line = diagnostic["line"].as_u64().unwrap_or(0);
        let remedy = diagnostic["hint"].as_str().is_some_and(|hint| !hint.is_empty());
        here && remedy && (line >= 1 || !line_matters)
    });
    // An error of the host is a condition whose message begins with the place.
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    placed
        || conditions.iter().any(|condition| {
            let message = condition["message"].as_str().unwrap_or_default();
            (1..100).any(|line| message.contains(&format!("{file}:{line}")))
        })
}

#[test]
fn each_bad_manifest_is_explained_and_everything_else_goes_on() {
    let Some(mut host) = Host::new("bad-manifests") else {
        return;
    };
    host.start_agent();
    host.write_manifest("good", &good());
    host.converged("good");
    let before = host.identities("good");
    let _taken = host
        .network
        .on_host(|| std::net::TcpListener::bind((HOST, 18601)).expect("a listener"));
    let _loopback = host
        .network
        .on_host(|| std::net::TcpListener::bind((LOOPBACK, 18601)).expect("a listener"));

    for (what, text, words) in BAD {
        host.write_manifest("bad", text);
        let status = host.wait(&format!("{what} is explained"), PATIENCE, || {
            let status = host.project_status("bad")?;
            let words_there = words.iter().all(|word| status.to_string().contains(word));
            let line_matters = !text.is_empty();
            (words_there && is_explained(&status, "bad.yaml", line_matters)).then_some(status)
        });
        assert_ne!(status["state"], "converged", "{what}: {status}");
        assert_eq!(host.identities("good"), before, "{what}");
        // The firewall is everybody's: while it is brought up to date, nobody is converged.
        host.converged("good");
        host.remove_manifest("bad");
        host.gone("bad");
    }
    host.fetch(Place::Host, LOOPBACK, 18600, "/");
    host.finish();
}

#[test]
fn a_good_project_made_bad_runs_on_as_it_was() {
    let Some(mut host) = Host::new("bad-edit") else {
        return;
    };
    host.start_agent();
    host.write_manifest("good", &good());
    host.converged("good");
    let before = host.identities("good");
    for (what, text, _) in BAD.iter().take(4) {
        host.write_manifest("good", text);
        host.wait(&format!("{what} is reported"), PATIENCE, || {
            let status = host.project_status("good")?;
            is_explained(&status, "good.yaml", true).then_some(())
        });
        assert_eq!(host.identities("good"), before, "{what}");
    }
    // The next agent has only the bad file, and its memory of the last good one.
    host.kill_agent();
    host.start_agent();
    host.wait("it is still reported", PATIENCE, || {
        is_explained(&host.project_status("good")?, "good.yaml", true).then_some(())
    });
    assert_eq!(host.identities("good"), before);
    host.write_manifest("good", &good());
    host.converged("good");
    assert_eq!(host.identities("good"), before);
    host.finish();
}

#[test]
fn files_that_are_no_text_do_not_stop_the_others() {
    let Some(mut host) = Host::new("bad-files") else {
        return;
    };
    host.start_agent();
    type Make = fn(&Path);
    let makers: [(&str, Make); 3] = [
        ("10 MB of zeros", |path| {
            let file = fs::File::create(path).expect("a file");
            file.set_len(10 << 20).expect("zeros");
        }),
        ("a FIFO", |path| {
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).expect("a FIFO");
        }),
        ("a dangling link", |path| {
            std::os::unix::fs::symlink("/nowhere", path).expect("a link")
        }),
    ];
    for (number, (what, make)) in makers.into_iter().enumerate() {
        make(&host.manifest("bad"));
        let project = format!("good{number}");
        host.write_manifest(
            &project,
            &format!("services: {{ web: {{ {} }} }}\n", compose::web(18610)),
        );
        host.converged(&project);
        host.wait(&format!("{what} is explained"), PATIENCE, || {
            is_explained(&host.project_status("bad")?, "bad.yaml", false).then_some(())
        });
        host.fetch(Place::Host, LOOPBACK, 18610, "/");
        host.remove_manifest(&project);
        host.remove_manifest("bad");
        host.gone(&project);
    }
    host.finish();
}

#[test]
fn a_half_written_file_is_taken_when_it_is_whole() {
    use std::io::Write;

    let Some(mut host) = Host::new("half-written") else {
        return;
    };
    host.start_agent();
    let mut file = fs::File::create(host.manifest("slow")).expect("a file");
    file.write_all(b"services:\n  web:\n    image: builtin:hello\n    ports: [\"18")
        .expect("half a file");
    file.flush().expect("half a file");
    host.wait("half a file is no project", PATIENCE, || {
        let complaint = host.complaint("slow");
        // Nothing is said before the file is closed, or that it is broken; never that it runs.
        assert!(!complaint.contains("\"converged\""), "{complaint}");
        // Half a file, should it be read, is an error; the agent answers in any case.
        matches!(host.stead(&["plan"]).code, 0 | 1).then_some(())
    });
    file.write_all(b"620:8080\"]\n").expect("the rest");
    drop(file);
    host.fetch(Place::Host, LOOPBACK, 18620, "/");
    host.converged("slow");
    host.finish();
}

//! The command line as a contract: what programs and people may rely on, to the letter.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    process::Stdio,
    sync::{Arc, Mutex},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::host::{Host, LOOPBACK, PATIENCE, Place, compose, signal};

fn keys(value: &Value) -> BTreeSet<&str> {
    let object = value.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}

fn fields(names: &'static str) -> BTreeSet<&'static str> {
    names.split_whitespace().collect()
}

#[test]
fn json_has_the_fields_of_the_contract_and_is_one_document() {
    let Some(mut host) = Host::new("contract-json") else {
        return;
    };
    host.start_agent();
    let text = format!(
        "services:\n  web: {{ {} }}\n  late: {{ image: \"builtin:hello\", depends_on: {{ web: {{ condition: service_healthy }} }} }}\n",
        compose::web(18900)
    );
    host.write_manifest("shop", &text);
    let plan = host.directory("plan").join("blog.yaml");
    fs::write(&plan, text.replace("18900", "18901")).expect("a file");
    let plan = host
        .stead(&["--json", "plan", "-f", &plan.display().to_string()])
        .json();
    assert_eq!(keys(&plan), fields("hash changes steps waiting summary tags"));
    assert_eq!(
        keys(&plan["summary"]),
        fields("create live restart recreate remove")
    );
    for change in plan["changes"].as_array().expect("changes") {
        assert_eq!(keys(change), fields("key class cause gate"));
        assert_eq!(keys(&change["cause"]), fields("field old new file line"));
    }
    for step in plan["steps"].as_array().expect("steps") {
        assert_eq!(keys(step), fields("id key action after"));
    }
    for waiting in plan["waiting"].as_array().expect("what waits") {
        assert_eq!(keys(waiting), fields("key why until"));
    }

    host.converged("shop");
    let ps = host.stead(&["ps", "--json"]).json();
    let instance = fields(
        "project service index name state health pid exit_code restarts image image_digest started_at \
         addresses ports revision intent faults hook",
    );
    for row in ps.as_array().expect("instances") {
        assert_eq!(keys(row), instance);
        for port in row["ports"].as_array().expect("ports") {
            assert_eq!(keys(port), fields("host_ip published target protocol"));
        }
    }
    host.write_manifest("bad", "services: { web: { imag: x } }\n");
    let status = host.wait("both are reported", PATIENCE, || {
        let status = host.stead(&["status", "--json"]).json();
        (status.as_array().map(Vec::len) == Some(2)).then_some(status)
    });
    let plan = host.stead(&["plan", "bad"]);
    assert!(
        plan.stderr.contains("bad.yaml:1:20: error:"),
        "what no plan can show is said beside it: {plan:?}"
    );
    assert_eq!(plan.code, 1, "an error is no plan that is done: {plan:?}");
    for row in status.as_array().expect("projects") {
        let project = fields("project source state conditions revision next_attempt diagnostics");
        assert_eq!(keys(row), project);
        assert_eq!(keys(&row["revision"]), fields("seen tried applied"));
        for condition in row["conditions"].as_array().expect("conditions") {
            assert_eq!(keys(condition), fields("type status reason message since"));
        }
        for found in row["diagnostics"].as_array().expect("diagnostics") {
            assert_eq!(keys(found), fields("file line column severity message hint"));
        }
    }
    host.finish();
}

#[test]
fn statuses_tell_what_went_wrong() {
    let Some(mut host) = Host::new("contract-status") else {
        return;
    };
    host.start_agent();
    let sick = host.directory("sick").join("compose.yaml");
    fs::write(
        &sick,
        "services: { web: { image: \"builtin:hello\" }, late: { image: \"builtin:hello\", depends_on: { web: { condition: service_completed_successfully } } } }\n",
    )
    .expect("a file");
    let sick = sick.display().to_string();
    let cases: &[(&[&str], i32, &str)] = &[
        (&[], 64, "Usage: stead"),
        (&["frobnicate"], 64, "frobnicate"),
        (&["logs", "--since", "soon", "shop"], 64, "soon"),
        (&["status", "nothere"], 1, "no project `nothere`"),
        (&["ps", "nothere"], 1, "no project `nothere`"),
        (&["plan", "nothere"], 1, "no project `nothere`"),
        (&["logs", "nothere"], 1, "no logs of nothere"),
        (&["down", "nothere"], 0, "no project `nothere`"),
        (&["exec", "nothere", "--", "true"], 1, "no instance `nothere`"),
        (&["up", "/nothere"], 1, "no project at /nothere"),
        (&["plan"], 0, ""),
        (&["plan", "-f", &sick], 2, ""),
        (
            &["apply", "-f", &sick, "--timeout", "500ms"],
            124,
            "the time is over",
        ),
        (&["down", "sick"], 0, "sick is gone"),
    ];
    for (arguments, code, said) in cases {
        let reply = host.stead(arguments);
        assert_eq!(reply.code, *code, "{arguments:?}: {reply:?}");
        assert!(reply.stderr.contains(said), "{arguments:?}: {reply:?}");
        assert!(!reply.stderr.contains('\x1b'), "no colour: {reply:?}");
    }
    // STEAD_ROOT is --root.
    let mut command = std::process::Command::new(Host::binary());
    command.env("STEAD_ROOT", &host.root).arg("status");
    let output = host.network.on_host(|| command.output().expect("it starts"));
    assert!(output.status.success(), "{output:?}");
    host.finish();
}

#[test]
fn up_says_each_thing_once_and_goes_on_when_its_port_is_free() {
    let Some(host) = Host::new("contract-up") else {
        return;
    };
    let holder = host
        .network
        .on_host(|| TcpListener::bind((LOOPBACK, 18910)).expect("a port"));
    let source = host.directory("shop");
    let text = "services:\n  web:\n    image: builtin:hello\n    environment: { GREETING: hello }\n    ports:\n      - \"18910:8080\"\n    restart: always\n";
    fs::write(source.join("compose.yaml"), text).expect("a file");
    let mut up = host.command(&["up", &source.display().to_string()]);
    up.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut up = host.network.on_host(|| up.spawn().expect("up starts"));
    let words = Arc::new(Mutex::new(String::new()));
    let (hears, stderr) = (words.clone(), up.stderr.take().expect("its words"));
    let listener = std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines() {
            *hears.lock().expect("no panic") += &(line.expect("text") + "\n");
        }
    });
    host.wait("it has tried more than once", PATIENCE, || {
        let status = host.stead(&["status", "--json"]).stdout;
        status.contains("(attempt 3)").then_some(())
    });
    drop(holder);
    let page = host.fetch(Place::Host, LOOPBACK, 18910, "/");
    assert!(page.contains("greeting: hello"), "{page}");
    host.wait("it says that it is converged", PATIENCE, || {
        words
            .lock()
            .expect("no panic")
            .contains("edits are followed")
            .then_some(())
    });
    fs::write(
        source.join("compose.yaml"),
        text.replace(": hello }", ": servus }"),
    )
    .expect("an edit");
    host.wait("the edit shows", PATIENCE, || {
        let page = host.get(Place::Host, LOOPBACK, 18910, "/").ok()?;
        page.contains("greeting: servus").then_some(())
    });
    fs::write(source.join("compose.yaml"), text.replace("ports:", "portz:")).expect("a mistake");
    host.wait("the mistake is reported", PATIENCE, || {
        host.stead(&["status"]).stdout.contains("portz").then_some(())
    });
    // What is printed is printed every 100 ms: the last of it comes with the end.
    fs::write(source.join("compose.yaml"), text).expect("the mistake is mended");
    host.converged("shop");
    signal(up.id(), Signal::SIGINT);
    listener.join().expect("it has said everything");
    let said = words.lock().expect("no panic").clone();
    assert!(up.wait().expect("its end").success(), "{said}");
    let count = |part: &str| said.lines().filter(|line| line.contains(part)).count();
    for (part, times) in [
        ("failed   container shop/web/1a", 1),
        ("compose.yaml:5:5: the host port", 1),
        ("edits are followed", 1),
        (
            "services.web.environment.GREETING changed hello → servus (compose.yaml:4)",
            1,
        ),
        ("WARN", 0),
        ("ERROR", 0),
        ("everything is gone but the volumes", 1),
    ] {
        assert_eq!(count(part), times, "{part} in\n{said}");
    }
    host.finish();
}

#[test]
fn an_agent_of_its_own_does_not_see_the_shell_and_that_is_said() {
    let Some(mut host) = Host::new("contract-shell") else {
        return;
    };
    host.start_agent();
    let source = host.directory("envy");
    let text = "services: { web: { image: \"builtin:hello\", environment: { A: \"${FOO:-none}\" } } }\n";
    fs::write(source.join("compose.yaml"), text).expect("a file");
    let mut up = host.command(&["up", "-d", &source.display().to_string()]);
    up.env("FOO", "1");
    let output = host.network.on_host(|| up.output().expect("up starts"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("FOO of this shell: the agent does not see it"),
        "{said}"
    );
    assert!(said.contains("/envy/.env"), "{said}");
    assert!(said.contains("envy is converged"), "{said}");
    let again = host.stead(&["up", "-d", &source.display().to_string()]);
    assert!(!again.stderr.contains("of this shell"), "{again:?}");
    host.stead_ok(&["down", "envy"]);
    host.finish();
}

#[test]
fn no_agent_is_left_behind_for_a_manifest_that_is_refused() {
    let Some(host) = Host::new("contract-refused") else {
        return;
    };
    let source = host.directory("bad");
    let text = "services: { web: { image: \"builtin:hello\", restart: sometimes } }\n";
    fs::write(source.join("compose.yaml"), text).expect("a file");
    let reply = host.stead(&["up", "-d", &source.display().to_string()]);
    assert_eq!(reply.code, 1, "{reply:?}");
    assert!(reply.stderr.contains("compose.yaml:1:"), "{reply:?}");
    let status = host.stead(&["status"]);
    assert_ne!(status.code, 0, "nobody answers: {status:?}");
    host.finish();
}

//! Configs and secrets: what services see of them, and where else they are: nowhere.

use std::{fs, os::unix::process::CommandExt, path::Path, process::Command, time::Duration};

use nix::sys::signal::Signal;

use crate::host::{Host, PATIENCE, signal};

/// What is looked for where it must not be.
const CANARY: &str = "c4nary-7f3a91";

fn service(host: &Host, more: &str) -> String {
    let image = host.busybox();
    format!("{{ image: \"{image}\", command: [sleep, '1000000'], stop_signal: KILL{more} }}")
}

fn read(host: &Host, service: &str, path: &str) -> String {
    host.stead(&["exec", service, "--", "cat", path]).stdout
}

/// Files below `directory` that hold the canary.
fn found(directory: &Path) -> Vec<String> {
    let output = Command::new("grep")
        .args(["-rlaF", "--devices=skip", CANARY])
        .arg(directory)
        .output()
        .expect("grep");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_secret_is_in_its_container_and_nowhere_else() {
    let Some(mut host) = Host::new("secrets") else {
        return;
    };
    let source = tempfile::tempdir().expect("a directory");
    let file = source.path().join("password");
    fs::write(&file, format!("{CANARY}-file")).expect("a secret");
    fs::write(
        host.root.join("environment"),
        format!("PASSWORD={CANARY}-variable\n"),
    )
    .expect("variables");
    host.start_agent();
    let web = service(
        &host,
        ", restart: always, secrets: [file, { source: variable, target: v, mode: 0400 }]",
    );
    let file = file.display();
    host.change(
        "shop",
        &format!(
            "services:\n  web: {web}\nsecrets:\n  file: {{ file: '{file}' }}\n  variable: {{ environment: PASSWORD }}\n"
        ),
    );
    let both = |host: &Host| {
        let (file, variable) = (
            read(host, "shop/web", "/run/secrets/file"),
            read(host, "shop/web", "/run/secrets/v"),
        );
        assert_eq!(
            (file, variable),
            (format!("{CANARY}-file"), format!("{CANARY}-variable"))
        );
    };
    both(&host);
    // A crash writes an exit record, and starts it again.
    let before = host.running("shop", "web");
    signal(before.pid(), Signal::SIGKILL);
    host.wait("it runs again", PATIENCE, || {
        let now = host.instance("shop", "web")?;
        (now.state == "running" && now.pid != before.pid).then_some(())
    });
    both(&host);

    let environment = host.root.join("environment");
    fs::remove_file(environment).expect("the variables of this test");
    assert_eq!(found(&host.root), Vec::<String>::new());
    for command in [
        &["ps", "-a"][..],
        &["--json", "ps", "-a"],
        &["--json", "status"],
        &["--json", "plan", "shop"],
        &["why", "shop/web"],
        &["logs", "shop"],
    ] {
        let reply = host.stead(command);
        assert!(!format!("{reply:?}").contains(CANARY), "{command:?}: {reply:?}");
    }
    let everything = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'";
    for user in [0, 65_534] {
        let output = Command::new("/bin/sh")
            .args(["-c", everything])
            .uid(user)
            .output();
        let text = output.expect("a shell").stdout;
        let text = String::from_utf8_lossy(&text);
        assert!(!text.contains(CANARY), "as user {user}");
    }
    host.finish();
}

#[test]
fn other_content_restarts_who_has_it_and_names_where_it_comes_from() {
    let Some(mut host) = Host::new("configs-edit") else {
        return;
    };
    let source = tempfile::tempdir().expect("a directory");
    let file = source.path().join("motd");
    fs::write(&file, "one").expect("a file");
    host.start_agent();
    let text = format!(
        "services:\n  web: {}\n  other: {}\nconfigs:\n  motd:\n    file: '{}'\n  rest: {{ content: 'a${{EMPTY:-b}}$$c' }}\n",
        service(&host, ", configs: [motd]"),
        service(&host, ", configs: [{ source: rest, target: /etc/rest.conf }]"),
        file.display(),
    );
    host.change("shop", &text);
    assert_eq!(read(&host, "shop/web", "/motd"), "one");
    assert_eq!(read(&host, "shop/other", "/etc/rest.conf"), "ab$c");
    let other = host.running("shop", "other").identity();
    let before = host.journal().len();
    fs::write(&file, "two").expect("a file");
    host.wait("the new content is there", PATIENCE, || {
        (read(&host, "shop/web", "/motd") == "two").then_some(())
    });
    host.converged("shop");
    let (_, class, cause) = &host.journal()[before];
    assert_eq!(class, "restart");
    assert!(
        cause.starts_with("services.web.configs.motd.content: ") && cause.ends_with(" at shop.yaml:5"),
        "{cause}"
    );
    assert_eq!(host.journal().len(), before + 1);
    assert_eq!(host.running("shop", "other").identity(), other);

    // Without the file, what runs stays, and it is said what is missing where.
    fs::remove_file(&file).expect("the file");
    let told = host.wait("it is told", PATIENCE, || {
        let status = host.project_status("shop")?;
        let diagnostic = status["diagnostics"].as_array()?.first()?.clone();
        diagnostic["message"]
            .as_str()?
            .contains("does not exist")
            .then_some(diagnostic)
    });
    assert_eq!(told["line"], 6, "{told}");
    assert!(
        told["file"]
            .as_str()
            .is_some_and(|file| file.ends_with("shop.yaml")),
        "{told}"
    );
    assert_eq!(read(&host, "shop/web", "/motd"), "two");
    host.finish();
}

#[test]
fn a_crash_under_a_bad_manifest_is_no_loss_of_content() {
    let Some(mut host) = Host::new("secrets-kept") else {
        return;
    };
    fs::write(host.root.join("environment"), "PASSWORD=once\n").expect("variables");
    host.start_agent();
    let web = service(&host, ", restart: always, secrets: [key]");
    host.change(
        "shop",
        &format!("services:\n  web: {web}\nsecrets: {{ key: {{ environment: PASSWORD }} }}\n"),
    );
    host.kill_agent();
    // The new agent knows the project from its records only, which do not have it.
    host.write_manifest("shop", "services: [");
    fs::remove_file(host.root.join("environment")).expect("the variables");
    host.start_agent();
    let before = host.running("shop", "web");
    signal(before.pid(), Signal::SIGKILL);
    host.wait("it runs again", Duration::from_secs(20), || {
        let now = host.instance("shop", "web")?;
        (now.state == "running" && now.pid != before.pid).then_some(())
    });
    assert_eq!(read(&host, "shop/web", "/run/secrets/key"), "once");
    host.finish();
}

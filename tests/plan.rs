//! `plan` tells the whole way beforehand, changes nothing, and is what happens.

use std::fs;

use crate::host::{Host, PATIENCE};

const GATED: &str = r#"services:
  db:
    image: builtin:hello
    healthcheck: { test: ["CMD", "/bin/hello", "--probe", "http://127.0.0.1:8080/healthz"], interval: 100ms, timeout: 2s, retries: 50 }
  api:
    image: builtin:hello
    depends_on: { db: { condition: service_healthy } }
  web:
    image: builtin:hello
    depends_on: [api]
    ports: ["18200:8080"]
    volumes: ["data:/data"]
volumes: { data: }
"#;

#[test]
fn the_first_plan_shows_the_whole_way_and_is_what_is_done() {
    let Some(mut host) = Host::new("plan-first") else {
        return;
    };
    host.start_agent();
    let (planned, plan) = host.plan_of("shop", GATED);
    let keys: Vec<&str> = planned.iter().map(|(key, _, _)| key.as_str()).collect();
    for key in [
        "container shop/db/1a",
        "container shop/api/1a",
        "container shop/web/1a",
        "network shop/shop_default",
        "volume shop/shop_data",
    ] {
        assert!(keys.contains(&key), "{key} is missing in {keys:?}");
    }
    assert!(
        planned.iter().all(|(_, class, _)| class == "create"),
        "{planned:?}"
    );
    let api = plan["changes"]
        .as_array()
        .and_then(|all| all.iter().find(|c| c["key"] == "container shop/api/1a"));
    let gate = api.map(|change| change["gate"].to_string()).unwrap_or_default();
    assert!(gate.contains("db"), "the gate of api: {gate}");
    assert_eq!(plan["summary"]["create"], planned.len());

    assert!(host.ps().is_empty(), "a plan changes nothing");
    assert!(host.links().is_empty(), "a plan changes nothing");

    host.change("shop", GATED);
    let text = host.stead(&["plan"]);
    assert_eq!(text.code, 0, "{text:?}");
    host.finish();
}

#[test]
fn dependencies_start_in_order() {
    let Some(mut host) = Host::new("plan-order") else {
        return;
    };
    host.start_agent();
    host.change("shop", GATED);
    let started = |service: &str| host.running("shop", service).identity().start_ticks;
    let (db, api, web) = (started("db"), started("api"), started("web"));
    assert!(db < api && api <= web, "{db} {api} {web}");
    assert_eq!(host.running("shop", "db").health, "healthy");
    host.finish();
}

#[test]
fn apply_does_only_the_plan_that_was_approved() {
    let Some(mut host) = Host::new("plan-hash") else {
        return;
    };
    host.start_agent();
    let source = host.directory("source/shop").join("compose.yaml");
    fs::write(&source, GATED).expect("a file");
    let path = source.display().to_string();
    let plan = host.stead(&["--json", "plan", "-f", &path]);
    assert_eq!(plan.code, 2, "{plan:?}");
    let hash = plan.json()["hash"].as_str().expect("a hash").to_owned();
    let again = host.stead(&["--json", "plan", "-f", &path]).json();
    assert_eq!(again["hash"], hash.as_str(), "the same plan has the same hash");
    let text = host.stead(&["plan", "-f", &path]);
    assert!(text.stdout.contains(&format!("plan {hash}")), "{text:?}");

    let refused = host.stead(&["apply", "-f", &path, "--plan", "000000"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(host.ps().is_empty(), "nothing was started");

    host.stead_ok(&["apply", "-f", &path, "--plan", &hash, "--timeout", "60s"]);
    host.running("shop", "web");
    host.stead_ok(&["down", "shop"]);
    host.wait("all is gone", PATIENCE, || host.ps().is_empty().then_some(()));
    assert!(source.exists(), "the source stays");
    host.finish();
}

#[test]
fn what_stead_does_not_run_is_told_in_full_and_nothing_of_it_is_applied() {
    let Some(mut host) = Host::new("plan-refused") else {
        return;
    };
    host.start_agent();
    let source = host.directory("source/shop");
    let text = "services:\n  web:\n    image: builtin:hello\n    cgroup_parent: /x\n  db:\n    image: builtin:hello\n    mem_swappiness: 5\n";
    fs::write(source.join("compose.yaml"), text).expect("a file");
    let path = source.display().to_string();
    for arguments in [&["plan", "-f", &path][..], &["apply", "-f", &path]] {
        let reply = host.stead(arguments);
        assert_eq!(reply.code, 1, "{reply:?}");
        for place in ["compose.yaml:4:5: error: ", "compose.yaml:7:5: error: "] {
            assert!(reply.stderr.contains(place), "{arguments:?}: {place}: {reply:?}");
        }
    }
    // It is a good Compose file all the same.
    let config = host.stead(&["config", "-f", &source.join("compose.yaml").display().to_string()]);
    assert!(
        config.code == 0 && config.stderr.contains("compose.yaml:4:5: warning: "),
        "{config:?}"
    );
    assert!(host.status().is_empty() && !host.manifest("shop").exists());
    host.finish();
}

/// Runs `stead` where a v1 controller is not mounted; others do not see that.
const WITHOUT_PIDS: &str =
    "#!/bin/sh\nexec unshare -m sh -c 'umount -l /sys/fs/cgroup/pids || exit 9; exec \"$0\" \"$@\"'";

/// Where there is no AppArmor; elsewhere the profile is one that nobody has loaded.
fn no_profile() -> &'static str {
    match std::path::Path::new("/sys/module/apparmor").exists() {
        true => "no AppArmor profile `stead-nowhere`",
        false => "this host has no AppArmor, and `apparmor=stead-nowhere` asks for it",
    }
}

#[test]
fn what_this_host_cannot_keep_is_refused_at_its_place_and_nothing_is_touched() {
    let Some(mut host) = Host::new("plan-host") else {
        return;
    };
    let source = host.directory("source/shop");
    let file = source.join("compose.yaml");
    let write = |more: &str| {
        let text =
            format!("services:\n  web:\n    image: builtin:hello\n{more}  db:\n    image: builtin:hello\n");
        fs::write(&file, text).expect("a file");
    };
    let path = source.display().to_string();
    let refused = format!("compose.yaml:5:9: error: {}", no_profile());
    let profile = "    security_opt:\n      - apparmor=stead-nowhere\n";
    write(profile);

    // Without an agent, with one, and by one that ends with what it was given.
    let told = |reply: &crate::host::Reply| {
        assert_eq!(reply.code, 1, "{reply:?}");
        for text in [refused.as_str(), "      - apparmor=stead-nowhere", "^", "hint: "] {
            assert!(reply.stderr.contains(text), "{text}: {reply:?}");
        }
    };
    told(&host.stead(&["plan", "-f", &path]));
    host.start_agent();
    for arguments in [
        &["plan", "-f", &path][..],
        &["apply", "-f", &path],
        &["up", "-d", &path],
    ] {
        told(&host.stead(arguments));
    }
    assert!(host.status().is_empty() && host.ps().is_empty() && host.links().is_empty());

    // What runs goes on when its manifest asks for something that cannot be kept.
    write("");
    host.stead_ok(&["apply", "-f", &path]);
    let before = host.identities("shop");
    write(profile);
    let status = host.wait("the refusal is told", PATIENCE, || {
        let status = host.project_status("shop")?;
        (status["state"] == "degraded").then_some(status)
    });
    let found = &status["diagnostics"][0];
    assert_eq!(
        (&found["line"], &found["column"]),
        (&5.into(), &9.into()),
        "{status}"
    );
    assert!(
        found["message"]
            .as_str()
            .is_some_and(|text| text.contains(no_profile())),
        "{status}"
    );
    assert!(
        found["hint"]
            .as_str()
            .is_some_and(|text| text.contains("security_opt")),
        "{status}"
    );
    assert_eq!(host.identities("shop"), before);
    let plan = host.stead(&["plan", "shop"]);
    assert!(plan.code == 1 && plan.stderr.contains(&refused), "{plan:?}");
    write("");
    host.converged("shop");
    assert_eq!(host.identities("shop"), before);
    host.finish();
}

#[test]
fn a_controller_that_is_missing_is_named_and_is_used_as_soon_as_it_is_there() {
    let Some(mut host) = Host::new("plan-controller") else {
        return;
    };
    if !std::path::Path::new("/sys/fs/cgroup/pids").exists() {
        // A host of v2 alone gives and takes no controller by a mount: the guest shows that.
        host.finish();
        return;
    }
    let wrapped = host.directory("wrapped").join("stead");
    let script = format!("{WITHOUT_PIDS} {} \"$@\"\n", Host::binary().display());
    fs::write(&wrapped, script).expect("a script");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&wrapped, executable).expect("a script that runs");
    let source = host.directory("source/shop").join("compose.yaml");
    fs::write(
        &source,
        "services:\n  web:\n    image: builtin:hello\n    pids_limit: 50\n",
    )
    .expect("a file");
    let path = source.display().to_string();
    let refused =
        "compose.yaml:4:5: error: this host cannot limit processes: it has no cgroup controller `pids`";

    let root = host.root.display().to_string();
    let wrapped_text = wrapped.display().to_string();
    let plan = host.tool_reply(&wrapped_text, &["--root", &root, "plan", "-f", &path]);
    assert!(plan.code == 1 && plan.stderr.contains(refused), "{plan:?}");
    let plan = host.stead(&["plan", "-f", &path]);
    assert_eq!(plan.code, 2, "this very host has it: {plan:?}");

    host.start_agent_from(&wrapped);
    host.write_manifest("shop", &fs::read_to_string(&source).expect("the file"));
    let status = host.wait("the refusal is told", PATIENCE, || {
        let status = host.project_status("shop")?;
        (status["state"] == "degraded").then_some(status)
    });
    assert!(
        status.to_string().contains("no cgroup controller `pids`"),
        "{status}"
    );
    assert!(host.ps().is_empty());
    let agent = host.agent_pid().to_string();
    let mount = [
        "-t",
        &agent,
        "-m",
        "mount",
        "-t",
        "cgroup",
        "-o",
        "pids",
        "pids",
        "/sys/fs/cgroup/pids",
    ];
    host.tool("nsenter", &mount);
    host.converged("shop");
    let limit = format!("/sys/fs/cgroup/pids/stead-{}/shop/web-1a/pids.max", host.mark());
    assert_eq!(fs::read_to_string(limit).expect("a limit").trim(), "50");
    host.finish();
}

#[test]
fn who_is_shown_the_hosts_own_tree_is_warned_of_what_it_then_reads() {
    let Some(mut host) = Host::new("plan-tree") else {
        return;
    };
    host.start_agent();
    let text =
        "services:\n  all:\n    image: rootfs:/\n    command: [sleep, '1000000']\n    stop_signal: KILL\n";
    let source = host.directory("source/tree").join("compose.yaml");
    fs::write(&source, text).expect("a file");
    let plan = host.stead(&["plan", "-f", &source.display().to_string()]);
    assert_eq!(plan.code, 2, "{plan:?}");
    let place =
        "compose.yaml:3:5: warning: `services.all.image` shows the service every file of the host's root";
    for text in [place, "/etc/shadow", "hint: ", "`rootfs:DIR`"] {
        assert!(plan.stderr.contains(text), "{text}: {plan:?}");
    }
    host.write_manifest("tree", text);
    host.converged("tree");
    let found = &host.project_status("tree").expect("a status")["diagnostics"][0];
    assert_eq!(
        (&found["severity"], &found["line"]),
        (&"warning".into(), &3.into()),
        "{found}"
    );
    // It is so: root inside reads what root alone reads outside, and writes nothing of it.
    let hidden = host.stead(&["exec", "tree/all", "--", "cat", "/etc/shadow"]);
    let own = fs::read_to_string("/etc/shadow").expect("the host's own");
    assert_eq!((hidden.code, &hidden.stdout), (0, &own));
    host.stead_ok(&["exec", "tree/all", "--", "sh", "-c", "echo none >/etc/shadow"]);
    assert_eq!(fs::read_to_string("/etc/shadow").expect("the host's own"), own);
    host.finish();
}

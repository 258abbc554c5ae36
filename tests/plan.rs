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
    let text = "services:\n  web:\n    image: builtin:hello\n    gpus: all\n  db:\n    image: builtin:hello\n    mem_swappiness: 5\n";
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

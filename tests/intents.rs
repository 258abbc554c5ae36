//! `stop`, `start` and `restart`: recorded, carried out, shown until cleared, and not forgotten.

use std::{fs, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::host::{Host, LOOPBACK, PATIENCE, Place, compose, promised, signal};

fn two() -> String {
    format!(
        "services:\n  web: {{ {}, restart: always }}\n  db: {{ image: \"builtin:hello\", restart: always }}\n",
        compose::web(18940)
    )
}

fn intent(host: &Host, service: &str) -> Value {
    let rows: Value = host.stead(&["--json", "ps"]).json();
    let row = rows
        .as_array()
        .and_then(|rows| rows.iter().find(|row| row["service"] == service));
    row.map_or(Value::Null, |row| row["intent"].clone())
}

fn conditions(host: &Host, kind: &str) -> Vec<String> {
    let status = host.project_status("shop").expect("its status");
    let all = status["conditions"].as_array().expect("conditions").clone();
    let all = all.iter().filter(|condition| condition["type"] == kind);
    all.map(|condition| condition["message"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn a_stopped_service_stays_stopped_until_it_is_started() {
    let Some(mut host) = Host::new("intents-stop") else {
        return;
    };
    host.start_agent();
    host.change("shop", &two());
    let before = host.identities("shop");
    let said = host.stead(&["stop", "shop/web"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("shop/web is stopped"), "{said:?}");
    assert_eq!(
        host.instance("shop", "web").map(|web| (web.state, web.pid)),
        Some(("exited".into(), None))
    );
    assert_eq!(
        (intent(&host, "web"), intent(&host, "db")),
        ("stop".into(), Value::Null)
    );
    let ps = host.stead_ok(&["ps"]);
    assert!(ps.contains("shop/web/1") && ps.contains("stopped"), "{ps}");
    let held = conditions(&host, "Intent");
    assert!(
        held.len() == 1 && held[0].contains("stead start shop/web"),
        "{held:?}"
    );

    // Neither another agent, nor an edit, nor the restart policy starts it.
    host.kill_agent();
    host.start_agent();
    host.write_manifest(
        "shop",
        &two().replace("restart: always }", "restart: always, environment: { A: b } }"),
    );
    host.wait("db has the edit", PATIENCE, || {
        host.instance("shop", "db")
            .filter(|db| db.state == "running" && db.pid() != before["db"].pid)
    });
    assert_eq!(host.instance("shop", "web").and_then(|web| web.pid), None);
    assert_eq!(conditions(&host, "Intent"), held);
    let why = host.stead_ok(&["why", "shop/web"]);
    assert!(
        why.contains("was stopped by an operator") && why.contains("an operator ordered for shop/web"),
        "{why}"
    );

    let said = host.stead(&["start", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    host.fetch(Place::Host, LOOPBACK, 18940, "/");
    assert_eq!(intent(&host, "web"), Value::Null);
    host.wait("nothing is on record", PATIENCE, || {
        conditions(&host, "Intent").is_empty().then_some(())
    });
    host.wait("its record is gone", PATIENCE, || {
        (!host.root.join("state/intents/shop").exists()).then_some(())
    });
    host.converged("shop");
    host.finish();
}

#[test]
fn a_restart_is_done_once_and_touches_nobody_else() {
    let Some(mut host) = Host::new("intents-restart") else {
        return;
    };
    host.start_agent();
    host.change("shop", &two());
    let before = host.identities("shop");
    let said = host.stead(&["--json", "restart", "shop/web"]);
    assert_eq!(said.code, 0, "{said:?}");
    let done = &said.json()[0];
    assert_eq!(
        (&done["target"], &done["done"]),
        (&"shop/web".into(), &true.into())
    );
    host.converged("shop");
    let after = host.identities("shop");
    assert_ne!(before["web"].pid, after["web"].pid);
    assert_eq!(
        before["web"].addresses, after["web"].addresses,
        "same sandbox, same address"
    );
    assert_eq!(before["db"], after["db"]);
    // It is not done again by the next agent, or after a crash.
    host.wait("nothing is on record", PATIENCE, || {
        conditions(&host, "Intent").is_empty().then_some(())
    });
    host.kill_agent();
    host.start_agent();
    host.converged("shop");
    assert_eq!(host.identities("shop"), after);
    // Who runs is left alone by `start`; all of a project can be named.
    host.stead_ok(&["start", "shop"]);
    assert_eq!(host.identities("shop"), after);
    host.stead_ok(&["stop", "shop"]);
    assert!(host.ps().iter().all(|one| one.pid.is_none()), "{:?}", host.ps());
    host.stead_ok(&["start", "shop"]);
    assert_eq!(host.identities("shop").len(), 2);
    for (arguments, said) in [
        (["stop", "shop/api"], "there is no service `shop/api`"),
        (["restart", "nothing"], "there is no project or service `nothing`"),
        (["start", "shop/web/2"], "there is no `shop/web/2`"),
    ] {
        let reply = host.stead(&arguments);
        assert!(
            reply.code == 1 && reply.stderr.contains(said),
            "{arguments:?}: {reply:?}"
        );
    }
    host.finish();
}

#[test]
fn an_order_that_was_given_while_it_could_not_be_carried_out_is_not_lost() {
    let Some(mut host) = Host::new("intents-later") else {
        return;
    };
    host.start_agent();
    host.change("shop", &two());
    host.stead_ok(&["stop", "--no-wait", "shop/db"]);
    host.kill_agent();
    host.start_agent();
    host.wait("db is stopped", PATIENCE, || {
        host.instance("shop", "db")
            .filter(|db| db.state == "exited" && db.pid.is_none())
    });
    let web = host.running("shop", "web");
    signal(web.pid(), Signal::SIGKILL);
    host.wait(
        "web is started again by its policy, and db is not",
        PATIENCE,
        || {
            host.instance("shop", "web")
                .filter(|web| web.state == "running" && web.restarts == 1)
        },
    );
    assert_eq!(host.instance("shop", "db").and_then(|db| db.pid), None);

    // A damaged record is told, and what it said is not guessed.
    let record = host.root.join("state/intents/shop/db.json");
    host.kill_agent();
    fs::write(&record, "{").expect("damage");
    host.start_agent();
    let lost = conditions(&host, "IntentLost");
    assert!(
        lost.len() == 1 && lost[0].contains("shop/db.json is damaged"),
        "{lost:?}"
    );
    host.running("shop", "db");
    host.stead_ok(&["start", "shop/db"]);
    host.wait("nothing is lost any more", PATIENCE, || {
        conditions(&host, "IntentLost").is_empty().then_some(())
    });

    // It goes with its project.
    host.stead_ok(&["stop", "shop/db"]);
    host.remove_manifest("shop");
    host.gone("shop");
    host.wait("its record is gone", PATIENCE, || {
        (!host.root.join("state/intents/shop").exists()).then_some(())
    });
    host.change("shop", &two());
    host.running("shop", "db");
    host.finish();
}

#[test]
fn a_slow_stop_delays_no_other_restart_and_no_repair() {
    let Some(mut host) = Host::new("intents-slow") else {
        return;
    };
    host.start_agent();
    let busybox = host.busybox();
    host.write_manifest(
        "slow",
        &format!(
            "services:\n  deaf:\n    image: {busybox}\n    stop_grace_period: 60s\n    command: [sh, -c, \"trap : TERM; while true; do sleep 1; done\"]\n"
        ),
    );
    host.write_manifest("shop", &two());
    for project in ["slow", "shop"] {
        host.converged(project);
    }
    let others = host.links();
    host.write_manifest(
        "blog",
        &format!("services: {{ page: {{ {} }} }}\n", compose::web(18941)),
    );
    host.converged("blog");
    host.fetch(Place::Host, LOOPBACK, 18941, "/");
    let links = host.links();
    let is_its = |link: &&String| link.starts_with("stb") && !others.contains(link);
    let bridge = links.iter().find(is_its).expect("its bridge");
    host.stead_ok(&["stop", "--no-wait", "slow/deaf"]);
    let deaf = host.in_state("slow", "deaf", "stopping");
    let web = host.running("shop", "web");
    let page = host.running("blog", "page").identity();
    signal(web.pid(), Signal::SIGKILL);
    host.tool("ip", &["link", "del", bridge]);
    // The back-off is a tenth of a second.
    host.wait("web is back", promised(Duration::from_millis(1100)), || {
        host.instance("shop", "web")
            .filter(|now| now.state == "running" && now.pid != web.pid)
    });
    host.wait("the bridge is back", promised(Duration::from_secs(1)), || {
        host.get(Place::Host, LOOPBACK, 18941, "/").ok()
    });
    let now = host.instance("slow", "deaf").expect("it is there");
    assert_eq!(now.state, "stopping", "all that while the stop was under way");
    assert_eq!(host.running("blog", "page").identity(), page);
    // The minute of grace is not waited for: it ends by itself.
    signal(deaf.pid(), Signal::SIGKILL);
    host.in_state("slow", "deaf", "exited");
    host.finish();
}

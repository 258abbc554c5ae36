//! F-26, F-28 and F-29: registries that are down, have enough of us, or move a tag. What runs does not notice.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use nix::sys::signal::Signal;

use super::{ADDRESS, Registry, lab};
use crate::{
    host::{
        Host, PATIENCE,
        registries::{answer, shelved},
        signal,
    },
    images::{layout, place, says},
};

/// So long something that is asked for ever more seldom may take to be seen again.
const AGAIN: Duration = Duration::from_secs(90);

/// Lines of the journal that speak of this.
fn told(host: &Host, of: &str) -> Vec<String> {
    let journal = fs::read_to_string(host.root.join("state/journal.jsonl")).unwrap_or_default();
    journal
        .lines()
        .filter(|line| line.contains(of))
        .map(str::to_owned)
        .collect()
}

fn complains(host: &Host, part: &str) {
    host.wait(&format!("it is said: {part}"), AGAIN, || {
        let said = host.stead(&["status", "shop"]).stdout;
        said.contains(part).then_some(())
    });
}

#[test]
fn f_26_registry_down_what_runs_and_what_is_here_does_not_notice() {
    let Some(mut host) = Host::new("registry-down") else {
        return;
    };
    let [one, two] = ["one", "two"].map(|name| layout(&host, name));
    let registry = Registry::plain(&host);
    registry.push(&host, &one, "team/box:1", &[]);
    registry.push(&host, &two, "team/box:2", &[]);
    registry.push(&host, &two, "team/box:3", &[]);
    host.start_agent();
    let service = |name: &str, tag: u32| format!("  {name}: {{ image: \"{ADDRESS}/team/box:{tag}\" }}\n");
    let mut text = format!("services:\n{}", service("web", 1));
    host.write_manifest("shop", &text);
    host.converged("shop");
    let web = host.running("shop", "web");
    // Nobody listens; then somebody swallows every packet.
    let mut registry = Some(registry);
    for (round, tag) in [("refused", 2), ("swallowed", 3)] {
        match round {
            "refused" => drop(registry.take()),
            _ => {
                let port = ADDRESS.rsplit_once(':').expect("a port").1;
                let chain = format!("type filter hook input priority 0\ntcp dport {port} drop\n");
                let rule = format!("table inet laboratory {{\nchain input {{\n{chain}}}\n}}\n");
                host.tool("nft", &[&rule]);
            }
        }
        text += &service(&format!("cached-{round}"), 1);
        text += &service(&format!("new-{round}"), tag);
        host.write_manifest("shop", &text);
        says(&host, "shop", &format!("cached-{round}"));
        let name = format!("{ADDRESS}/team/box:{tag}");
        complains(
            &host,
            if round == "refused" {
                "cannot connect to"
            } else {
                "has not answered"
            },
        );
        // Asked a few more times by now, and still told once.
        std::thread::sleep(Duration::from_secs(3));
        let lines = told(&host, &name);
        assert!((1..=3).contains(&lines.len()), "{round}: {lines:#?}");
        assert_eq!(host.running("shop", "web").identity(), web.identity(), "{round}");
        match round {
            "refused" => registry = Some(Registry::plain(&host)),
            _ => drop(host.tool("nft", &["delete", "table", "inet", "laboratory"])),
        }
        host.wait("what was missing runs", AGAIN, || {
            let instance = host.instance("shop", &format!("new-{round}"))?;
            (instance.state == "running").then_some(())
        });
    }
    host.converged("shop");
    assert_eq!(host.running("shop", "web").identity(), web.identity());
    host.finish();
}

#[test]
fn f_28_storm_of_errors_of_a_registry_is_waited_out_and_told_once() {
    let Some(mut host) = Host::new("registry-storm") else {
        return;
    };
    let place = host.directory("place");
    let shelf = lab::shelf(&host, "1", &place, &[]);
    let calm = lab::registry(&host, shelf.clone());
    let storms: Vec<_> = [429, 500, 401, 503]
        .into_iter()
        .map(|status| {
            let (shelf, asked) = (shelf.clone(), Arc::new(AtomicUsize::new(0)));
            let counter = Arc::clone(&asked);
            let server = lab::answering(&host, move |asked| {
                // Beginning with what it is: not only who is asked for the first time has enough.
                match counter.fetch_add(1, Ordering::SeqCst) < 6 {
                    true => answer(status, &[], b""),
                    false => shelved(&shelf, asked),
                }
            });
            (status, server, asked)
        })
        .collect();
    let address = |server: &crate::host::registries::Server| server.address.to_string();
    let mut all = vec![address(&calm)];
    all.extend(storms.iter().map(|(_, server, _)| address(server)));
    lab::trust(&host, &all);
    host.start_agent();
    let mut text = format!("services:\n  calm: {{ image: \"{}/app:1\" }}\n", address(&calm));
    host.write_manifest("shop", &text);
    host.converged("shop");
    let untouched = host.running("shop", "calm");
    for (status, server, _) in &storms {
        text += &format!("  s{status}: {{ image: \"{}/app:1\" }}\n", address(server));
    }
    host.write_manifest("shop", &text);
    host.wait("the storms are over", AGAIN, || {
        let calm = |status| {
            host.instance("shop", &format!("s{status}"))
                .is_some_and(|one| one.state == "running")
        };
        storms.iter().all(|(status, ..)| calm(status)).then_some(())
    });
    for (status, server, asked) in &storms {
        let lines = told(&host, &address(server));
        let lines = lines
            .iter()
            .filter(|line| line.contains("\"failed\"") || line.contains("cannot be fetched"));
        assert!(lines.count() <= 3, "{status}");
        assert!(asked.load(Ordering::SeqCst) < 30, "{status}");
    }
    assert_eq!(host.running("shop", "calm").identity(), untouched.identity());
    host.finish();
}

#[test]
fn f_29_tag_moved_what_a_name_stood_for_it_stands_for_after_everything_has_died() {
    let Some(mut host) = Host::new("registry-moved") else {
        return;
    };
    let [one, two] = ["one", "two"].map(|name| layout(&host, name));
    let registry = Registry::plain(&host);
    registry.push(&host, &one, "team/box:1", &[]);
    host.start_agent();
    let web = format!("services:\n  web: {{ image: \"{ADDRESS}/team/box:1\", environment: {{ A: b }} }}\n");
    host.write_manifest("shop", &web);
    host.converged("shop");
    let first = one.display().to_string();
    assert_eq!(place(&host, "shop", "web"), first);
    registry.push(&host, &two, "team/box:1", &[]);
    // As after a reboot: nothing of it lives.
    host.kill_agent();
    for pid in host.processes() {
        signal(pid, Signal::SIGKILL);
    }
    host.wait("everything is dead", PATIENCE, || {
        host.processes().is_empty().then_some(())
    });
    host.start_agent();
    host.converged("shop");
    assert_eq!(place(&host, "shop", "web"), first);
    // Nor does a new service, or one that is made anew, have what the tag stands for now.
    let more = format!(
        "{}  more: {{ image: \"{ADDRESS}/team/box:1\" }}\n",
        web.replace("A: b", "A: c")
    );
    host.write_manifest("shop", &more);
    says(&host, "shop", "more");
    host.converged("shop");
    for service in ["web", "more"] {
        assert_eq!(place(&host, "shop", service), first, "{service}");
    }
    host.finish();
}

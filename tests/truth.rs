//! The truth is on the host: whatever files of stead somebody deletes, what runs goes on and is known.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;

use crate::host::{HOST, Host, PATIENCE, Place, remove, signal};

const SHOP: &str = r#"services:
  web:
    image: builtin:hello
    restart: always
    ports: ["18520:8080"]
    volumes: ["data:/data"]
    networks: [default, inner]
  asker: { image: builtin:hello, restart: always, ports: ["18521:8080"], networks: [default, inner] }
  store: { image: builtin:hello, restart: always, networks: [inner] }
networks: { inner: { internal: true } }
volumes: { data: {} }
"#;

fn works(host: &Host) -> Option<()> {
    host.get(Place::Lan, HOST, 18520, "/healthz").ok()?;
    host.get(Place::Lan, HOST, 18521, "/call/web").ok()?;
    host.get(Place::Lan, HOST, 18521, "/call/store").ok().map(drop)
}

/// Running, and once restarted: a count that could be lost.
fn prepared(name: &str) -> Option<Host> {
    let mut host = Host::new(name)?;
    host.start_agent();
    host.write_manifest("shop", SHOP);
    host.converged("shop");
    let web = host.running("shop", "web").pid();
    signal(web, Signal::SIGKILL);
    host.wait("web was started again", PATIENCE, || {
        host.instance("shop", "web")
            .filter(|web| web.state == "running" && web.restarts == 1)
    });
    host.wait("everything works", PATIENCE, || works(&host));
    host.nothing_to_do(PATIENCE);
    Some(host)
}

/// Every plain file, socket or link below a directory, by its path.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            _ => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

fn contents(directory: &Path) -> BTreeMap<PathBuf, String> {
    files(directory)
        .into_iter()
        .filter_map(|path| Some((path.clone(), fs::read_to_string(&path).ok()?)))
        .collect()
}

/// With an agent that runs, and with one that comes later.
fn with_and_without_an_agent(host: &mut Host, damage: impl Fn(&Host), healed: impl Fn(&Host) -> Option<()>) {
    let before = host.identities("shop");
    assert_eq!(before.len(), 3);
    assert_eq!(before["web"].restarts, 1);
    for agent in [true, false] {
        let journal = host.journal().len();
        if !agent {
            host.kill_agent();
        }
        damage(host);
        if !agent {
            host.start_agent();
        }
        host.wait(&format!("it is whole again (agent: {agent})"), PATIENCE, || {
            healed(host)
        });
        host.wait("everything works", PATIENCE, || works(host));
        host.nothing_to_do(PATIENCE);
        assert_eq!(host.identities("shop"), before, "agent: {agent}");
        let done = host.journal().split_off(journal);
        assert!(
            done.iter().all(|(key, ..)| !key.starts_with("container")),
            "agent: {agent}: {done:?}"
        );
    }
}

#[test]
fn records_are_made_again_from_what_runs() {
    let Some(mut host) = prepared("truth-records") else {
        return;
    };
    let records = host.root.join("state/records");
    let kinds = ["network", "volume", "id-base"].map(|kind| records.join(kind));
    let read = move || kinds.each_ref().map(|kind| contents(kind));
    let before = read();
    assert_eq!(before.each_ref().map(BTreeMap::len), [2, 1, 1]);
    with_and_without_an_agent(
        &mut host,
        |_| remove(&records),
        |_| (read() == before).then_some(()),
    );
    // The volume is still one that can be given up.
    host.stead_ok(&["down", "shop", "--volumes"]);
    host.gone("shop");
    assert_eq!(files(&host.root.join("state/volumes")), Vec::<PathBuf>::new());
    host.finish();
}

#[test]
fn a_volume_lost_together_with_its_record_is_not_replaced_by_an_empty_one() {
    let Some(mut host) = prepared("truth-volume") else {
        return;
    };
    let before = host.identities("shop");
    let volumes = host.root.join("state/volumes");
    let volume = fs::read_dir(&volumes)
        .expect("volumes")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.is_dir())
        .expect("the volume");
    let aside = host.root.join("aside");
    fs::rename(&volume, &aside).expect("moved away");
    remove(&host.root.join("state/records"));
    let records = host.root.join("state/records/volume");
    host.wait("it has a record again", PATIENCE, || {
        (!files(&records).is_empty()).then_some(())
    });
    for round in ["with its agent", "with the next one"] {
        if round == "with the next one" {
            host.kill_agent();
            host.start_agent();
        }
        host.wait(
            &format!("{round} status says that it is missing"),
            PATIENCE,
            || host.complaint("shop").contains("is missing").then_some(()),
        );
        assert!(!volume.exists(), "{round}");
        assert_eq!(host.identities("shop"), before, "{round}");
    }
    host.finish();
}

#[test]
fn nothing_of_the_run_directory_is_needed() {
    let Some(mut host) = prepared("truth-run") else {
        return;
    };
    let run = host.root.join("run");
    let zones = contents(&run.join("zones"));
    assert_eq!(zones.len(), 2);
    with_and_without_an_agent(
        &mut host,
        |host| {
            for path in files(&host.root.join("run")) {
                fs::remove_file(path).expect("a file goes");
            }
        },
        |host| {
            let whole = contents(&run.join("zones")) == zones && run.join("stead.sock").exists();
            whole.then(|| host.stead(&["status", "--json"]).done())?
        },
    );
    // Control goes on without the sockets of the shims.
    assert_eq!(files(&run.join("shims")), Vec::<PathBuf>::new());
    let said = host.stead(&["exec", "shop/web", "--", "/nowhere"]);
    assert_eq!(said.code, 127, "its shim looked for the command: {said:?}");
    for path in files(&run) {
        fs::remove_file(path).expect("a file goes");
    }
    let pid = host.agent_pid();
    let second = host.stead(&["agent"]);
    assert_eq!(second.code, 1, "{second:?}");
    assert!(second.stderr.contains(&pid.to_string()), "{second:?}");
    host.wait("the agent answers again", PATIENCE, || {
        host.stead(&["status", "--json"]).done()
    });
    // Stopping is control, too.
    let text = SHOP.replace("  store: { image", "  shelf: { image");
    host.write_manifest("shop", &text);
    host.wait("the store is gone and the shelf is there", PATIENCE, || {
        (host.services() == ["shop/asker", "shop/shelf", "shop/web"].map(String::from).into()).then_some(())
    });
    host.finish();
}

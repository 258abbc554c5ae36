//! Plan stories: what is on the host and in the files, and the plan text that follows. With
//! `UPDATE_STORIES=1` the expected text is written anew, for a reviewer to read.
//!
//! A story is a list of commands; lines that start with `|` are what the command before them prints.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    net::Ipv4Addr,
    path::Path,
    sync::Arc,
};

use reconciler::{
    desired::{Intent, Target, Wish},
    key::{InstanceKey, ResourceKey, Slot},
    memory::{Barred, Good},
    observed::{Ended, Health, Instance, State},
    plan::{self, action::Action},
    port::{Backend, Retry},
    testing::{drive::Drive, sim_host::damage::Damage},
};

#[test]
fn every_story_ends_as_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories");
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 20, "only {} stories", paths.len());
    let update = std::env::var_os("UPDATE_STORIES").is_some();
    let mut wrong = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let told = tell(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        if update {
            fs::write(&path, &told).unwrap();
        } else if told != text {
            wrong.push(format!(
                "{}\n--- expected\n{text}\n--- got\n{told}",
                path.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The story with what its commands print.
fn tell(text: &str) -> Result<String, String> {
    let mut drive = Drive::new(1);
    let mut told = String::new();
    let mut lines = text.lines().filter(|line| !line.starts_with('|')).peekable();
    while let Some(line) = lines.next() {
        told.push_str(line);
        told.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut block = String::new();
        while let Some(inner) = lines.next_if(|line| line.starts_with("  ")) {
            told.push_str(inner);
            told.push('\n');
            block.push_str(&inner[2..]);
            block.push('\n');
        }
        let printed = command(&mut drive, line, &block).map_err(|why| format!("{line}: {why}"))?;
        for line in printed.lines() {
            let _ = writeln!(told, "{}", format!("| {line}").trim_end());
        }
        let violations = drive.host.world().violations.clone();
        if !violations.is_empty() {
            return Err(format!("{line}: {violations:?}"));
        }
    }
    Ok(told)
}

fn command(drive: &mut Drive, line: &str, block: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["image", reference, digest, rest @ ..] => drive.host.image(reference, digest, *rest == ["unpacked"]),
        ["tag", reference, digest] => {
            let mut world = drive.host.world();
            let tags = &mut world.registry.tags;
            tags.insert((*reference).to_owned(), (*digest).to_owned());
        }
        ["pinned"] => {
            let world = drive.host.world();
            let names = world.registry.names.iter().map(|(reference, name)| {
                let latest = name.latest.as_ref();
                let latest = latest.map_or(String::new(), |latest| {
                    format!(", and for {latest} to who follows")
                });
                format!("{reference} stands for {}{latest}\n", name.digest)
            });
            return Ok(names.collect());
        }
        ["noimage", reference] => {
            drive.host.world().images.remove(*reference);
        }
        ["file", name] => drive.file(name, block)?,
        ["gone", name] => {
            drive.desired.projects.remove(*name);
        }
        ["down", name, rest @ ..] => {
            let volumes = *rest == ["volumes"];
            let wish = Wish::Down { volumes };
            drive.desired.projects.insert((*name).to_owned(), wish);
        }
        ["hold", name] => {
            let why = "its manifest was never good".to_owned();
            drive
                .desired
                .projects
                .insert((*name).to_owned(), Wish::Hold { why });
        }
        ["incomplete"] => drive.desired.incomplete = Some("the directory cannot be read".to_owned()),
        ["unreadable", part] => {
            let part = ["networks", "volumes", "instances", "firewall", "zones"]
                .into_iter()
                .find(|known| known == part)
                .ok_or("no such part")?;
            drive.host.world().unreadable.insert(part);
        }
        ["readable"] => drive.host.world().unreadable.clear(),
        ["fail", key, times] => {
            let times = times.parse().map_err(|_| "not a number")?;
            let key = key.replace('~', " ");
            drive.host.world().failing.insert(key, (times, Retry::Again));
        }
        ["exit", key, code] => {
            let code = code.parse().map_err(|_| "not a number")?;
            drive.host.exit(&instance(key)?, code);
        }
        ["stop", target] => {
            let at = drive.host.now();
            drive
                .desired
                .intents
                .insert(self::target(target)?, Intent::Stop { at });
        }
        ["start" | "restart", target] => {
            let at = drive.host.now();
            let boot_id = drive.host.world().boot_id.clone();
            let intent = Intent::Run { boot_id, at };
            drive.desired.intents.insert(self::target(target)?, intent);
        }
        // What is left of the container is its exit record.
        ["exit-record", key, code] => {
            let key = instance(key)?;
            let code = code.parse().map_err(|_| "not a number")?;
            let seen = seen(drive, &key).ok_or("it was never started")?;
            let ended = Ended {
                container: Arc::unwrap_or_clone(seen.container.ok_or("it was never started")?),
                code,
                restarts: seen.restarts,
                died: None,
            };
            drive.host.world().ended.set(key, ended);
        }
        // As a stead wrote it that did not know this field yet.
        ["forget-field", key, field] => {
            let mut world = drive.host.world();
            let place = world.instances.get_mut(&instance(key)?);
            let shim = place.and_then(|place| place.shim.as_mut());
            let spec = shim.and_then(|shim| shim.container.as_mut());
            let spec = Arc::make_mut(spec.ok_or("it was never started")?);
            spec.fields.remove(*field).ok_or("it has no such field")?;
        }
        ["healthy", key] => drive.host.set_health(&instance(key)?, Health::Healthy),
        ["unhealthy", key] => drive.host.set_health(&instance(key)?, Health::Unhealthy),
        ["lose-shim", key] => drive.host.lose_shim(&instance(key)?),
        ["delete-bridge", key] => drive.host.delete_bridge(&resource(key)?),
        ["lose-upper", key] => {
            let lost = Damage::UpperDeleted(instance(key)?);
            drive.host.world().damage(&lost);
        }
        ["lose-layers", digest] => {
            let lost = Damage::LayersDeleted((*digest).to_owned());
            drive.host.world().damage(&lost);
        }
        ["flush"] => drive.host.flush_firewall(),
        ["reboot"] => drive.host.reboot(),
        ["new-agent"] => drive.new_agent(),
        ["advance", milliseconds] => {
            drive
                .host
                .advance(milliseconds.parse().map_err(|_| "not a number")?);
        }
        ["pass"] => {
            drive.pass();
        }
        ["single"] => {
            drive.single();
        }
        ["settle"] => drive.settle().map_err(|plan| plan::render(&plan))?,
        ["bar", name] => {
            let Some(Wish::Run { revision, .. }) = drive.desired.projects.get(*name) else {
                return Err("it does not run".to_owned());
            };
            let barred = Barred {
                revision: revision.clone(),
                why: "it failed".to_owned(),
                images: BTreeMap::new(),
            };
            drive.memory.barred.insert((*name).to_owned(), barred);
        }
        // What was good before is not known any more.
        ["no-good", name] => drop(drive.memory.good.remove(*name)),
        ["good", name] => {
            if let Some(Wish::Run { revision, project }) = drive.desired.projects.get(*name) {
                let good = Good::new(revision.clone(), project.clone(), BTreeMap::new());
                drive.memory.good.insert((*name).to_owned(), good);
            }
        }
        ["status"] => return Ok(status(drive)),
        ["pids"] => return Ok(pids(drive)),
        ["plan"] => return Ok(plan::render(&drive.plan())),
        ["steps"] => return Ok(steps(&drive.plan())),
        ["volumes"] => {
            let names = drive
                .host
                .world()
                .volumes
                .keys()
                .map(ToString::to_string)
                .collect::<Vec<_>>();
            return Ok(names.join("\n"));
        }
        ["names"] => {
            let world = drive.host.world();
            let lines = world.zones.iter().flat_map(|(network, zone)| {
                zone.iter().map(move |(name, addresses)| {
                    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                    format!("{network} {name} -> {}", addresses.join(" "))
                })
            });
            return Ok(lines.collect::<Vec<_>>().join("\n"));
        }
        // What names and host ports lead to, by instance instead of by address.
        ["serving"] => return Ok(serving(drive)),
        ["reserved"] => {
            let instances = instances(drive);
            let lines = instances.iter().flat_map(|(key, instance)| {
                let ports = instance.sandbox.ports.iter();
                ports.map(move |binding| format!("{} by {key}", binding.published))
            });
            return Ok(lines.collect::<Vec<_>>().join("\n"));
        }
        ["ports"] => {
            let world = drive.host.world();
            let ports = world.firewall.ports.iter();
            let lines = ports.map(|(key, target)| {
                format!(
                    "{}:{} -> {}:{}",
                    key.host_ip, key.published, target.address, target.port
                )
            });
            return Ok(lines.collect::<Vec<_>>().join("\n"));
        }
        ["running"] => {
            let keys: Vec<String> = drive.pids().keys().map(ToString::to_string).collect();
            return Ok(keys.join("\n"));
        }
        _ => return Err("not understood".to_owned()),
    }
    Ok(String::new())
}

/// `web is shop/web/1a`, `host port 8080 is shop/web/1a`, and what runs with which `env A`.
fn serving(drive: &Drive) -> String {
    let instances = instances(drive);
    let world = drive.host.world();
    let owner = |address: &Ipv4Addr| {
        let has = |instance: &Instance| {
            let mut endpoints = instance.sandbox.endpoints.iter();
            endpoints.any(|endpoint| endpoint.address == *address)
        };
        let found = instances.iter().find(|(_, instance)| has(instance));
        found.map_or("nobody".to_owned(), |(key, _)| key.to_string())
    };
    let mut text = String::new();
    for (key, instance) in &instances {
        let version = instance
            .container
            .as_ref()
            .and_then(|spec| spec.environment.get("A"));
        let state = match instance.state {
            State::Created => "is made".to_owned(),
            State::Running { .. } => "runs".to_owned(),
            State::Exited { code, .. } => format!("ended with {code}"),
            State::Lost => "is lost".to_owned(),
        };
        let version = version.map_or(String::new(), |version| format!(", A is {version}"));
        let _ = writeln!(text, "{key} {state}{version}");
    }
    for (network, zone) in &world.zones {
        let services = zone.iter().filter(|(name, _)| !name.contains('-'));
        for (name, addresses) in services {
            let all: Vec<String> = addresses.iter().map(owner).collect();
            let _ = writeln!(text, "{name} in {} is {}", network.name, all.join(" "));
        }
    }
    for (key, target) in &world.firewall.ports {
        let _ = writeln!(text, "host port {} is {}", key.published, owner(&target.address));
    }
    text
}

/// Each project's state, and what is wrong.
fn status(drive: &Drive) -> String {
    let mut text = String::new();
    for (name, project) in drive.status() {
        let state = serde_json::to_value(project.state).unwrap();
        let _ = writeln!(text, "{name} {}", state.as_str().unwrap_or_default());
        for failure in project.failures {
            let _ = writeln!(text, "  {}", failure.message);
        }
    }
    text
}

/// Who runs, and since which start.
fn pids(drive: &Drive) -> String {
    let lines = drive.pids().into_iter().map(|(key, pid)| {
        let restarts = seen(drive, &key).map_or(0, |seen| seen.restarts);
        format!("{key} pid {pid}, {restarts} restarts")
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn seen(drive: &Drive, key: &InstanceKey) -> Option<Instance> {
    instances(drive).remove(key)
}

fn instances(drive: &Drive) -> BTreeMap<InstanceKey, Instance> {
    let observed = drive.host.observe_all(&BTreeSet::new());
    observed.instances.known().cloned().unwrap_or_default()
}

/// `3 container shop/web/1a ensure_sandbox after 1 2`
fn steps(plan: &plan::step::Plan) -> String {
    let mut text = String::new();
    for step in &plan.steps {
        let action = serde_json::to_value(&step.action).unwrap();
        let verb = action["do"].as_str().unwrap_or_default().to_owned();
        let _ = write!(text, "{} {} {verb}", step.id, step.key);
        if let Action::StartContainer { fresh: false, .. } = step.action {
            text.push_str(" (files kept)");
        }
        if !step.after.is_empty() {
            let after: Vec<String> = step.after.iter().map(ToString::to_string).collect();
            let _ = write!(text, " after {}", after.join(" "));
        }
        if let Some(class) = step.completes {
            let _ = write!(text, " = {class:?}");
        }
        text.push('\n');
    }
    text
}

/// `shop/web`, `shop/web/2` or `shop/web/2b`: the first one in slot a where nothing else is said.
fn instance(text: &str) -> Result<InstanceKey, String> {
    let mut parts = text.splitn(3, '/');
    let (Some(project), Some(service)) = (parts.next(), parts.next()) else {
        return Err("PROJECT/SERVICE[/INDEX]".to_owned());
    };
    let place = parts.next().unwrap_or("1");
    let (index, slot) = match place.strip_suffix('b') {
        Some(index) => (index, Slot::B),
        None => (place.strip_suffix('a').unwrap_or(place), Slot::A),
    };
    Ok(InstanceKey {
        project: project.to_owned(),
        service: service.to_owned(),
        index: index.parse().map_err(|_| "not an index")?,
        slot,
    })
}

/// `shop/web` for all instances, `shop/web/2` for one.
fn target(text: &str) -> Result<Target, String> {
    let key = instance(text)?;
    let one = text.matches('/').count() == 2;
    Ok(Target {
        project: key.project,
        service: key.service,
        index: one.then_some(key.index),
    })
}

fn resource(text: &str) -> Result<ResourceKey, String> {
    let (project, name) = text.split_once('/').ok_or("PROJECT/NAME")?;
    Ok(ResourceKey {
        project: project.to_owned(),
        name: name.to_owned(),
    })
}

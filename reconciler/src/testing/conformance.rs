//! Scripted histories of one host, and what is seen of it after each step: the same words on the simulated
//! host and on a real one, or one of them is wrong.
//!
//! A history is a list of commands; indented lines belong to the command before them, and lines that start
//! with `|` are what it told: what was hinted at (`* …`), the steps that were carried out (`> …`) and what is
//! seen otherwise than before (`- …`, `+ …`). Services run `serve`, which ends as it is told, with SIGTERM unless it is `serve deaf`.

mod accidents;
mod picture;
mod simulated;
mod witness;

use std::{collections::BTreeSet, fmt::Write, fs, path::Path};

use self::witness::Witness;
use super::{drive::Drive, sim_host::damage::Damage};
use crate::{
    desired::{Intent, Target, Wish},
    key::{InstanceKey, ResourceKey},
    memory::Again,
    observed::Observed,
    plan::{self, action::Action},
    port::{Backend, HostEvent, Scope},
    spec::FirewallSpec,
};
pub use simulated::Simulated;

/// Milliseconds that a history waits at most for something that time brings.
const PATIENCE: u64 = 4_000;

/// A host, and what somebody else than stead does to it.
pub trait Hands: Backend {
    /// Brings an image into reach under a name of this host, and gives that name.
    fn image(&self, name: &str) -> Result<String, String>;

    /// Does the damage, and waits until the kernel is done with it.
    ///
    /// # Errors
    /// It cannot be done here.
    fn damage(&self, damage: &Damage) -> Result<(), String>;

    /// The first process ends with `code`, or of a lack of memory.
    ///
    /// # Errors
    /// It does not run.
    fn exit(&self, key: &InstanceKey, end: End) -> Result<(), String>;

    /// The probe of `key` succeeds or fails from now on; returns once that is known.
    ///
    /// # Errors
    /// It has none, or does not run.
    fn health(&self, key: &InstanceKey, well: bool) -> Result<(), String>;

    /// The agent is killed, and another one takes its place.
    ///
    /// # Errors
    /// None can be started.
    fn new_agent(&self) -> Result<(), String>;

    /// Off and on: what is in memory is gone, what is on the disk stays.
    ///
    /// # Errors
    /// The host does not come back.
    fn reboot(&self) -> Result<(), String>;

    fn sleep(&self, milliseconds: u64);

    /// What was hinted at since the last call. A host that hints at more than histories have tells what is
    /// `expected`, once it has hinted at it.
    fn hints(&self, expected: &BTreeSet<String>) -> BTreeSet<String>;

    /// What this host calls otherwise than histories do, and what histories say.
    fn words(&self) -> Vec<(String, String)>;

    /// Orders that no correct plan gives.
    fn violations(&self) -> Vec<String>;
}

/// How a process is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Code(i32),
    OutOfMemory,
}

/// Every history by name, with its text.
///
/// # Errors
/// They cannot be read.
pub fn histories() -> std::io::Result<Vec<(String, String)>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/histories");
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        found.push((name.into_owned(), fs::read_to_string(&path)?));
    }
    found.sort();
    Ok(found)
}

/// The history with what its commands told on this host.
///
/// # Errors
/// The command that could not be done, with what was told until then.
pub fn tell<H: Hands>(history: &str, hands: H) -> Result<String, String> {
    let mut teller = Teller {
        drive: Drive::on(Witness::new(hands), 1),
        names: picture::Names::default(),
        known: Observed::nothing_known(),
        seen: Vec::new(),
    };
    let mut told = String::new();
    let mut lines = history.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with('|') {
            continue;
        }
        told.push_str(line);
        told.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut block = String::new();
        while let Some(inner) = lines.next_if(|line| line.starts_with("  ")) {
            let _ = writeln!(told, "{inner}");
            let _ = writeln!(block, "{}", &inner[2..]);
        }
        let mut expected = BTreeSet::new();
        while let Some(answer) = lines.next_if(|line| line.starts_with('|')) {
            expected.extend(answer.strip_prefix("| * ").map(str::to_owned));
        }
        let done = teller.command(line, &block);
        // What stead itself has done is no news to it.
        if ["damage", "exit", "health"]
            .iter()
            .any(|word| line.starts_with(word))
        {
            for hint in teller.drive.host.hands.hints(&expected) {
                let _ = writeln!(told, "| * {hint}");
            }
        } else {
            teller.drive.host.hands.hints(&BTreeSet::new());
        }
        for line in teller.news().lines() {
            let _ = writeln!(told, "| {line}");
        }
        let violations = teller.drive.host.hands.violations();
        if let Some(violation) = violations.first() {
            return Err(format!("{told}\n{line}: {violation}"));
        }
        done.map_err(|why| format!("{told}\n{line}: {why}"))?;
    }
    Ok(told)
}

struct Teller<H> {
    drive: Drive<Witness<H>>,
    names: picture::Names,
    known: Observed,
    /// The picture that was told last.
    seen: Vec<String>,
}

impl<H: Hands> Teller<H> {
    fn command(&mut self, line: &str, block: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["image", name] => {
                let reference = self.hands().image(name)?;
                self.names.image(name, reference);
            }
            ["file", name] => self.drive.file(name, &self.names.manifest(block))?,
            ["gone", name] => {
                self.drive.desired.projects.remove(*name);
            }
            ["down", name, rest @ ..] => {
                let volumes = *rest == ["volumes"];
                let wish = Wish::Down { volumes };
                self.drive.desired.projects.insert((*name).to_owned(), wish);
            }
            ["twice"] => self.drive.host.twice = true,
            ["plan"] => {
                let plan = plan::render(&self.drive.plan());
                // How wide the columns are and what the hash is depends on the names of images.
                for line in plan.lines().filter(|line| !line.starts_with("plan ")) {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    self.drive.host.say(&(words.join(" ") + "\n"));
                }
            }
            ["settle"] => self.settle()?,
            ["retry"] => {
                self.try_again();
                self.settle()?;
            }
            ["stop", service] => {
                let at = self.drive.host.now();
                self.drive
                    .desired
                    .intents
                    .insert(target(service), Intent::Stop { at });
            }
            ["start" | "restart", service] => {
                let at = self.drive.host.now();
                let boot_id = self.drive.observe().boot_id;
                self.drive
                    .desired
                    .intents
                    .insert(target(service), Intent::Run { boot_id, at });
            }
            ["exit", key, "oom"] => self.hands().exit(&instance(key)?, End::OutOfMemory)?,
            ["exit", key, code] => {
                let code = code.parse().map_err(|_| "not a number")?;
                self.hands().exit(&instance(key)?, End::Code(code))?;
            }
            ["health", key, word @ ("well" | "sick")] => {
                self.hands().health(&instance(key)?, *word == "well")?;
            }
            ["agent", "anew"] => {
                self.hands().new_agent()?;
                self.drive.forget();
            }
            ["reboot"] => {
                self.hands().reboot()?;
                self.drive.forget();
            }
            ["damage", words @ ..] => {
                let damage = accidents::damage(words).ok_or("no such damage")?;
                self.hands().damage(&damage)?;
            }
            ["do", words @ ..] => {
                let action = action(words)?;
                // What comes of it is told.
                let _ = self.drive.host.apply(&action);
            }
            _ => return Err("not understood".to_owned()),
        }
        Ok(())
    }

    fn hands(&self) -> &H {
        &self.drive.host.hands
    }

    /// Passes, and the time between them, until nothing is left that time brings. A failure ends it:
    /// when it is tried again is up to `retry`.
    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..50 {
            let failures = self.drive.host.failures();
            if self.drive.pass() {
                if self.drive.host.failures() > failures {
                    return Ok(());
                }
                continue;
            }
            let now = self.drive.host.now().boot;
            let plan = self.drive.plan();
            let due = plan.waiting.iter().filter_map(|waiting| waiting.until).min();
            match due.map(|due| due.saturating_sub(now)) {
                Some(rest) if rest <= PATIENCE => self.hands().sleep(rest + 1),
                // What was due has come while it was looked at.
                None if !plan.steps.is_empty() => {}
                _ => return Ok(()),
            }
        }
        Err(format!("it never settles: {}", plan::render(&self.drive.plan())))
    }

    /// Until the last of the failures may be tried again.
    fn try_again(&mut self) {
        let failures = self.drive.memory.failures.values();
        let due = failures.filter_map(|failed| match failed.again {
            Again::At(until) => Some(until),
            Again::AfterChange | Again::Never => None,
        });
        let now = self.drive.host.now().boot;
        let rest = due.max().unwrap_or(now).saturating_sub(now);
        self.hands().sleep(rest.min(PATIENCE) + 1);
    }

    /// What was done, and what is seen otherwise than before.
    fn news(&mut self) -> String {
        let observed = self.drive.observe();
        let ordered = self.drive.host.ordered();
        let picture = self.names.picture(&observed, &ordered);
        let mut told = self.drive.host.said();
        // Who looks again at each thing by itself sees what he sees who looks at everything.
        let mut known = std::mem::replace(&mut self.known, observed.clone());
        if let Some(scope) = each(&known, &observed) {
            self.drive.host.observe(&scope, &mut known);
            known.images = observed.images;
            // Of the routes each network tells, and nothing else does.
            if scope.networks.is_empty() {
                known.routes = observed.routes;
            }
            let parts = self.names.picture(&known, &ordered);
            for line in parts.iter().filter(|line| !picture.contains(line)) {
                let _ = writeln!(told, "! seen by itself: {line}");
            }
            for line in picture.iter().filter(|line| !parts.contains(line)) {
                let _ = writeln!(told, "! not seen by itself: {line}");
            }
        }
        for line in self.seen.iter().filter(|line| !picture.contains(line)) {
            let _ = writeln!(told, "- {line}");
        }
        for line in picture.iter().filter(|line| !self.seen.contains(line)) {
            let _ = writeln!(told, "+ {line}");
        }
        self.seen = picture;
        self.names.plain(&told, &self.hands().words())
    }
}

/// A hint in words.
pub fn hint(event: &HostEvent) -> String {
    match event {
        HostEvent::Instance(key) => format!("container {key}"),
        HostEvent::Network(key) => format!("network {key}"),
        HostEvent::Volume(key) => format!("volume {key}"),
        HostEvent::Names(key) => format!("names {key}"),
        HostEvent::Firewall => "firewall".to_owned(),
        HostEvent::Images => "images".to_owned(),
        HostEvent::Lost => EVERYTHING.to_owned(),
    }
}

/// The hint to look at all there is.
pub const EVERYTHING: &str = "everything";

/// Everything that was or is there, one by one; `None`: a part is not known, and only a look at everything
/// can make it so.
fn each(before: &Observed, now: &Observed) -> Option<Scope> {
    let mut scope = Scope {
        firewall: true,
        zones: true,
        ..Scope::default()
    };
    for observed in [before, now] {
        scope.networks.extend(observed.networks.known()?.keys().cloned());
        scope.volumes.extend(observed.volumes.known()?.keys().cloned());
        scope
            .instances
            .extend(observed.instances.known()?.keys().cloned());
        scope.instances.extend(observed.ended.known()?.keys().cloned());
        scope.instances.extend(observed.remains.known()?.iter().cloned());
        observed.id_bases.known()?;
    }
    Some(scope)
}

fn target(service: &str) -> Target {
    Target {
        project: "shop".to_owned(),
        service: service.to_owned(),
        index: None,
    }
}

/// `web`, `web/2b`: an instance of the project `shop`.
fn instance(text: &str) -> Result<InstanceKey, String> {
    accidents::instance(text).ok_or_else(|| format!("no instance: {text}"))
}

fn resource(name: &str) -> ResourceKey {
    accidents::resource(name)
}

/// An order that no plan has given.
fn action(words: &[&str]) -> Result<Action, String> {
    Ok(match words {
        ["stop", key] => Action::StopContainer {
            key: instance(key)?,
            drain: 0,
        },
        ["remove", "sandbox", key] => Action::RemoveSandbox(instance(key)?),
        ["remove", "network", name] => Action::RemoveNetwork(resource(name)),
        ["remove", "volume", name] => Action::RemoveVolume(resource(name)),
        ["remove", "names", name] => Action::SyncNames {
            network: resource(name),
            zone: None,
        },
        ["remove", "firewall"] => Action::SyncFirewall(FirewallSpec::default()),
        _ => return Err("no such order".to_owned()),
    })
}

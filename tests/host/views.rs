//! What stead says about itself, typed as its command-line contract promises.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;

use super::{Host, PATIENCE, Reply, process};

/// One entry of `ps --json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Instance {
    pub project: String,
    pub service: String,
    pub index: u32,
    pub name: String,
    pub state: String,
    pub health: String,
    pub pid: Option<u32>,
    pub exit_code: Option<i32>,
    pub restarts: u32,
    pub addresses: BTreeMap<String, Vec<String>>,
    pub ports: Vec<Port>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Port {
    pub host_ip: Option<String>,
    pub published: u16,
    pub target: u16,
    pub protocol: String,
}

/// What must not change through anything but a change of the service itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub pid: u32,
    pub start_ticks: u64,
    pub addresses: BTreeMap<String, Vec<String>>,
    pub restarts: u32,
}

/// A change as printed by `plan` and as journalled: key, class, and the cause in words. Files are
/// compared by name, so that a plan may be made from a copy.
pub type Done = (String, String, String);

impl Instance {
    pub fn pid(&self) -> u32 {
        self.pid.unwrap_or_else(|| panic!("no pid: {self:?}"))
    }

    /// The only address, or the first.
    pub fn address(&self) -> std::net::IpAddr {
        let text = self.addresses.values().flatten().next();
        text.and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("no address: {self:?}"))
    }

    pub fn identity(&self) -> Identity {
        Identity {
            pid: self.pid(),
            start_ticks: process::start_ticks(self.pid())
                .unwrap_or_else(|| panic!("no such process: {self:?}")),
            addresses: self.addresses.clone(),
            restarts: self.restarts,
        }
    }
}

impl Host {
    /// `ps -a --json`: also what has exited.
    pub fn ps(&self) -> Vec<Instance> {
        let reply = self.stead(&["--json", "ps", "-a"]);
        assert_eq!(reply.code, 0, "ps: {reply:?}");
        serde_json::from_value(reply.json()).unwrap_or_else(|error| panic!("ps --json: {error}: {reply:?}"))
    }

    pub fn instance(&self, project: &str, service: &str) -> Option<Instance> {
        self.ps()
            .into_iter()
            .find(|instance| instance.project == project && instance.service == service)
    }

    /// Waits until the service is in `state`.
    pub fn in_state(&self, project: &str, service: &str, state: &str) -> Instance {
        self.wait(&format!("{project}/{service} is {state}"), PATIENCE, || {
            self.instance(project, service)
                .filter(|instance| instance.state == state)
        })
    }

    pub fn running(&self, project: &str, service: &str) -> Instance {
        self.in_state(project, service, "running")
    }

    pub fn identities(&self, project: &str) -> BTreeMap<String, Identity> {
        self.ps()
            .into_iter()
            .filter(|instance| instance.project == project && instance.state == "running")
            .map(|instance| (instance.service.clone(), instance.identity()))
            .collect()
    }

    /// `status --json`, one entry a project.
    pub fn status(&self) -> Vec<Value> {
        let reply = self.stead(&["--json", "status"]);
        assert_eq!(reply.code, 0, "status: {reply:?}");
        match reply.json() {
            Value::Array(projects) => projects,
            other => panic!("status --json is not a list: {other}"),
        }
    }

    pub fn project_status(&self, project: &str) -> Option<Value> {
        self.status()
            .into_iter()
            .find(|status| status["project"] == project)
    }

    /// Waits until there is nothing left to do for the project.
    pub fn converged(&self, project: &str) {
        self.wait(&format!("{project} is converged"), PATIENCE, || {
            self.project_status(project)
                .filter(|status| status["state"] == "converged")
                .map(drop)
                .and_then(|()| self.stead(&["plan", project]).done())
        });
    }

    pub fn gone(&self, project: &str) {
        self.wait(&format!("{project} is gone"), PATIENCE, || {
            let left = self.ps().into_iter().any(|instance| instance.project == project);
            (!left && self.project_status(project).is_none()).then_some(())
        });
    }

    /// `plan` of a manifest that is not in place: its changes, after checking the exit status.
    pub fn plan_of(&self, project: &str, text: &str) -> (Vec<Done>, Value) {
        let directory = self.root.join("planned");
        fs::create_dir_all(&directory).expect("a directory");
        let copy = directory.join(format!("{project}.yaml"));
        fs::write(&copy, text).expect("a copy");
        let reply = self.stead(&["--json", "plan", "-f", &copy.display().to_string()]);
        let plan = reply.json();
        let changes = changes(&reply, &plan);
        let expected = if changes.is_empty() { 0 } else { 2 };
        assert_eq!(reply.code, expected, "plan: {reply:?}");
        (changes, plan)
    }

    /// Plans the manifest, puts it in place, waits until converged, and checks that exactly what was
    /// planned was done, and that there is nothing more to do. Gives what was done.
    pub fn change(&self, project: &str, text: &str) -> Vec<Done> {
        let (planned, _) = self.plan_of(project, text);
        let before = self.journal().len();
        self.write_manifest(project, text);
        self.settle(project, before, planned)
    }

    /// Waits until `planned` is what the journal says since `before`.
    pub fn settle(&self, project: &str, before: usize, mut planned: Vec<Done>) -> Vec<Done> {
        planned.sort();
        let since = || {
            let mut done: Vec<Done> = self.journal().into_iter().skip(before).collect();
            done.sort();
            done
        };
        let all = super::try_wait(PATIENCE, || (since().len() >= planned.len()).then_some(()));
        assert!(all.is_some(), "planned {planned:#?}, done only {:#?}", since());
        self.converged(project);
        assert_eq!(since(), planned, "what was done is what was planned");
        planned
    }

    /// Finished changes in their order; supervision (restarts after a crash) is not among them.
    pub fn journal(&self) -> Vec<Done> {
        let text = fs::read_to_string(self.root.join("state/journal.jsonl")).unwrap_or_default();
        // The last one may be just in the writing.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .filter(|entry| entry["kind"] == "done" && entry["change"].is_string())
            .map(|entry| done(&entry["key"], &entry["change"], &entry["cause"]))
            .collect()
    }

    /// Nothing to do: status 0, and said so.
    pub fn nothing_to_do(&self, within: Duration) {
        self.wait("plan has nothing to do", within, || self.stead(&["plan"]).done());
    }

    /// Everything that `status` says about a project, as text.
    pub fn complaint(&self, project: &str) -> String {
        self.project_status(project)
            .map(|status| status.to_string())
            .unwrap_or_default()
    }

    pub fn services(&self) -> BTreeSet<String> {
        self.ps()
            .into_iter()
            .map(|instance| format!("{}/{}", instance.project, instance.service))
            .collect()
    }
}

fn changes(reply: &Reply, plan: &Value) -> Vec<Done> {
    let changes = plan["changes"]
        .as_array()
        .unwrap_or_else(|| panic!("no changes: {reply:?}"));
    changes
        .iter()
        .map(|change| done(&change["key"], &change["class"], &change["cause"]))
        .collect()
}

fn done(key: &Value, class: &Value, cause: &Value) -> Done {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let file = cause["file"]
        .as_str()
        .and_then(|path| path.rsplit('/').next())
        .unwrap_or("-");
    let cause = format!(
        "{}: {} -> {} at {file}:{}",
        text(&cause["field"]),
        text(&cause["old"]),
        text(&cause["new"]),
        cause["line"]
    );
    (text(key), text(class), cause)
}

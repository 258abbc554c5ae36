//! The loop on the simulated host, in paused time: what it does by itself, and what it says.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use reconciler::{
    converge::{self, Handle, Kept, Outside},
    desired::{Desired, Intent, Target, Wish},
    journal::{Entry, Journal, Kind},
    key::{InstanceKey, ResourceKey, Slot},
    observed::{Health, State},
    plan::step::Class,
    port::{Backend, HostEvent, Retry},
    status::{ProjectState, Status},
    testing::{manifest, sim_host::SimHost},
};

#[derive(Default)]
struct Entries(Mutex<Vec<Entry>>);

impl Journal for Entries {
    fn record(&self, entry: Entry) {
        self.0.lock().unwrap().push(entry);
    }
}

impl Entries {
    fn changes(&self) -> Vec<(String, Class)> {
        let entries = self.0.lock().unwrap();
        entries
            .iter()
            .filter(|entry| entry.error.is_none())
            .filter_map(|entry| Some((entry.key.clone(), entry.change?)))
            .collect()
    }
}

struct Agent {
    host: SimHost,
    journal: Arc<Entries>,
    handle: Handle,
}

impl Agent {
    fn on(host: SimHost, desired: Desired) -> Self {
        let journal = Arc::new(Entries::default());
        let outside = Outside {
            backend: Arc::new(host.clone()),
            journal: journal.clone(),
            ledger: Arc::new(host.clone()),
        };
        let handle = converge::start(outside, Kept::default(), desired);
        Agent {
            host,
            journal,
            handle,
        }
    }

    fn new(desired: Desired) -> Self {
        let host = SimHost::with_runtime_clock();
        host.image("app:1", "sha256:aaaa", false);
        Agent::on(host, desired)
    }

    async fn until(&mut self, what: &str, mut holds: impl FnMut(&Status) -> bool) -> Arc<Status> {
        let mut end = self.handle.status.clone();
        let wait = end.wait_for(|status| holds(status));
        if let Ok(status) = tokio::time::timeout(Duration::from_secs(600), wait).await {
            return status.unwrap().clone();
        }
        let status = self.handle.status.borrow().clone();
        panic!("never {what}: {:?}\n{:?}", status.projects, status.plan)
    }

    async fn converged(&mut self, revision: &str) -> Arc<Status> {
        let host = self.host.clone();
        self.until("converged", |status| {
            let shop = status.projects.get("shop");
            shop.is_some_and(|shop| {
                shop.state == ProjectState::Converged && shop.applied.as_deref() == Some(revision)
            }) && host.pids().len()
                == status.observed.instances.known().map_or(0, |all| {
                    all.values()
                        .filter(|one| matches!(one.state, State::Running { .. }))
                        .count()
                })
        })
        .await
    }

    fn want(&self, desired: Desired) {
        self.handle.desired.send(Arc::new(desired)).unwrap();
    }
}

fn desired(revision: &str, text: &str) -> Desired {
    let wish = Wish::Run {
        project: Arc::new(manifest::project("shop", text).unwrap()),
        revision: revision.to_owned(),
    };
    Desired {
        projects: BTreeMap::from([("shop".to_owned(), wish)]),
        incomplete: None,
        intents: BTreeMap::new(),
    }
}

fn key(service: &str) -> InstanceKey {
    InstanceKey {
        project: "shop".to_owned(),
        service: service.to_owned(),
        index: 1,
        slot: Slot::A,
    }
}

fn network() -> ResourceKey {
    ResourceKey {
        project: "shop".to_owned(),
        name: "shop_default".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_project_comes_changes_and_goes() {
    let mut agent = Agent::new(desired(
        "1",
        "web\n  port 8080:80\n  needs db\ndb\n  volume data:/data\n",
    ));
    agent.converged("1").await;
    let before = agent.host.pids();
    assert_eq!(before.len(), 2);

    agent.want(desired(
        "2",
        "web\n  env A 2\n  port 8080:80\n  needs db\ndb\n  volume data:/data\n",
    ));
    agent.converged("2").await;
    let after = agent.host.pids();
    assert_ne!(before[&key("web")], after[&key("web")]);
    assert_eq!(
        before[&key("db")],
        after[&key("db")],
        "an unaffected service keeps its process"
    );
    let last = agent.journal.changes().pop().unwrap();
    assert_eq!(last, ("container shop/web/1a".to_owned(), Class::Restart));

    agent.want(Desired::default());
    agent
        .until("gone", |status| !status.projects.contains_key("shop"))
        .await;
    let world = agent.host.world();
    assert!(world.instances.is_empty() && world.networks.is_empty() && world.zones.is_empty());
    assert_eq!(world.volumes.len(), 1, "the volume stays");
    assert_eq!(world.violations, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_follows_the_curve() {
    let mut agent = Agent::new(desired("1", "web\n  restart always\n"));
    agent.converged("1").await;
    let mut ends = Vec::new();
    for count in 1..=12 {
        let running = |status: &Status| {
            let web = status
                .observed
                .instances
                .known()
                .and_then(|all| all.get(&key("web")));
            web.is_some_and(|web| matches!(web.state, State::Running { .. }) && web.restarts == count - 1)
        };
        agent.until("running", running).await;
        let started = agent.host.world().starts.last().unwrap().1;
        ends.push(started);
        agent.host.exit(&key("web"), 1);
    }
    let last = |status: &Status| {
        let web = status
            .observed
            .instances
            .known()
            .and_then(|all| all.get(&key("web")));
        web.is_some_and(|web| web.restarts == 12)
    };
    agent.until("running", last).await;
    ends.push(agent.host.world().starts.last().unwrap().1);
    for (attempt, pair) in ends.windows(2).enumerate() {
        let exact = reconciler::backoff::delay(&key("web").to_string(), attempt as u32);
        let took = pair[1] - pair[0];
        assert!(
            (exact..=exact + 5).contains(&took),
            "restart {attempt}: {took} ms, drawn {exact} ms"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_somebody_breaks_is_put_back_without_a_restart() {
    let mut agent = Agent::new(desired("1", "web\n  port 8080:80\n"));
    agent.converged("1").await;
    let pids = agent.host.pids();
    let rules = agent.host.world().firewall.clone();
    agent.host.flush_firewall();
    agent.host.delete_bridge(&network());
    agent.host.world().zones.clear();
    agent.handle.wake.send("test".to_owned()).unwrap();
    let host = agent.host.clone();
    agent
        .until("whole", |_| {
            let world = host.world();
            world.firewall == rules
                && world.bridges.values().all(|bridge| bridge.localnet)
                && world.zones.contains_key(&network())
        })
        .await;
    agent.converged("1").await;
    assert_eq!(agent.host.pids(), pids);
    let drift: Vec<_> = agent
        .journal
        .changes()
        .into_iter()
        .filter(|(_, class)| *class == Class::Live)
        .collect();
    assert_eq!(drift.len(), 4, "{drift:?}");
}

#[tokio::test(start_paused = true)]
async fn missed_events_are_found_by_looking_again() {
    let mut agent = Agent::new(desired("1", "web\n"));
    agent.converged("1").await;
    agent.host.world().firewall = Default::default();
    let host = agent.host.clone();
    agent
        .until("repaired", |_| !host.world().firewall.networks.is_empty())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_step_is_tried_again_and_shown() {
    let host = SimHost::with_runtime_clock();
    host.image("app:1", "sha256:aaaa", true);
    host.world()
        .failing
        .insert("network shop/shop_default".to_owned(), (3, Retry::Again));
    let mut agent = Agent::on(host, desired("1", "web\n"));
    let status = agent
        .until("degraded", |status| {
            status
                .projects
                .get("shop")
                .is_some_and(|shop| shop.state == ProjectState::Degraded)
        })
        .await;
    let failure = &status.projects["shop"].failures[0];
    assert_eq!(failure.key, "network shop/shop_default");
    assert!(status.projects["shop"].next_attempt.is_some());
    let status = agent.converged("1").await;
    assert!(status.projects["shop"].failures.is_empty());
    let failed = agent
        .journal
        .0
        .lock()
        .unwrap()
        .iter()
        .filter(|entry| entry.error.is_some())
        .count();
    assert_eq!(failed, 3);
}

#[tokio::test(start_paused = true)]
async fn what_only_a_change_can_mend_waits_for_one() {
    let host = SimHost::with_runtime_clock();
    host.image("app:1", "sha256:aaaa", true);
    host.world()
        .failing
        .insert("container shop/web/1a".to_owned(), (u32::MAX, Retry::AfterChange));
    let mut agent = Agent::on(host, desired("1", "web\n"));
    agent
        .until("degraded", |status| {
            status
                .projects
                .get("shop")
                .is_some_and(|shop| shop.state == ProjectState::Degraded)
        })
        .await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    let left = agent.host.world().failing["container shop/web/1a"].0;
    assert_eq!(left, u32::MAX - 1, "it was tried once");
    agent.host.world().failing.clear();
    agent.want(desired("2", "web\n  env A 1\n"));
    agent.converged("2").await;
}

#[tokio::test(start_paused = true)]
async fn an_image_that_appears_is_found() {
    let host = SimHost::with_runtime_clock();
    let mut agent = Agent::on(host, desired("1", "web\n"));
    let status = agent
        .until("degraded", |status| {
            status
                .projects
                .get("shop")
                .is_some_and(|shop| shop.state == ProjectState::Degraded)
        })
        .await;
    let message = &status.projects["shop"].failures[0].message;
    assert!(message.contains("no such image"), "{message}");
    agent.host.image("app:1", "sha256:aaaa", false);
    agent.converged("1").await;
}

#[tokio::test(start_paused = true)]
async fn a_gate_opens_by_an_event() {
    let mut agent = Agent::new(desired("1", "web\n  needs db healthy\ndb\n  health true\n"));
    agent
        .until("waiting", |status| {
            status
                .projects
                .get("shop")
                .is_some_and(|shop| shop.state == ProjectState::Waiting)
        })
        .await;
    assert_eq!(agent.host.pids().len(), 1);
    agent.host.set_health(&key("db"), Health::Healthy);
    agent.converged("1").await;
    assert_eq!(agent.host.pids().len(), 2);
}

impl Entries {
    /// `wanted shop`, `event container shop/web/1a it ended with status 1`: all but steps.
    fn told(&self) -> Vec<String> {
        let entries = self.0.lock().unwrap();
        let steps = [Kind::Started, Kind::Done];
        let told = entries.iter().filter(|entry| !steps.contains(&entry.kind));
        told.map(|entry| {
            let text = entry.cause.new.as_deref().unwrap_or_default();
            format!("{:?} {} {text}", entry.kind, entry.key).to_lowercase()
        })
        .collect()
    }
}

#[tokio::test(start_paused = true)]
async fn wishes_waits_and_events_are_journalled_when_they_begin_and_steps_with_both_ends() {
    let mut agent = Agent::new(desired(
        "1",
        "web\n  restart always\n  needs db healthy\ndb\n  health true\n",
    ));
    agent
        .until("waiting", |status| {
            status
                .projects
                .get("shop")
                .is_some_and(|shop| shop.state == ProjectState::Waiting)
        })
        .await;
    // However long it lasts, it is told once.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    agent.host.set_health(&key("db"), Health::Healthy);
    agent.converged("1").await;
    agent.host.exit(&key("web"), 1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    agent.want(desired(
        "2",
        "web\n  restart always\n  env A 2\n  needs db healthy\ndb\n  health true\n",
    ));
    agent.converged("2").await;
    let wait = "container shop/web/1a after db is healthy";
    assert_eq!(
        agent.journal.told(),
        [
            "wanted shop 1".to_owned(),
            format!("waiting {wait}"),
            "event container shop/db/1a it became healthy".to_owned(),
            format!("opened {wait}"),
            "event container shop/web/1a it ended with status 1".to_owned(),
            "waiting container shop/web/1a exited with 1; restart 1 follows".to_owned(),
            "wanted shop 2".to_owned(),
        ]
    );
    let entries = agent.journal.0.lock().unwrap();
    let count = |kind| entries.iter().filter(|entry| entry.kind == kind).count();
    assert_eq!(count(Kind::Started), count(Kind::Done));
    let changed: Vec<&str> = entries
        .iter()
        .rfind(|entry| entry.kind == Kind::Wanted)
        .map(|entry| entry.differences.iter().map(|cause| &*cause.field).collect())
        .unwrap();
    assert_eq!(changed, ["services.web.environment.A"]);
}

#[tokio::test(start_paused = true)]
async fn an_operators_order_is_journalled_when_it_is_given_and_when_it_is_cleared() {
    let mut agent = Agent::new(desired("1", "web\n"));
    agent.converged("1").await;
    let target = Target {
        project: "shop".to_owned(),
        service: "web".to_owned(),
        index: None,
    };
    let mut stopped = desired("1", "web\n");
    let at = agent.host.now();
    stopped.intents.insert(target, Intent::Stop { at });
    agent.want(stopped.clone());
    tokio::time::sleep(Duration::from_secs(60)).await;
    agent.want(desired("1", "web\n"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let told: Vec<String> = agent
        .journal
        .told()
        .into_iter()
        .filter(|told| told.starts_with("intent"))
        .collect();
    assert_eq!(
        told,
        [
            "intent shop/web stop: not to run until `stead start`",
            "intent shop/web the stop is cleared",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn unreadable_parts_remove_nothing_and_are_read_again() {
    let mut agent = Agent::new(desired("1", "web\ndb\n"));
    agent.converged("1").await;
    let pids = agent.host.pids();
    agent.host.world().unreadable.insert("instances");
    agent.host.tell(HostEvent::Lost);
    agent
        .until("blind", |status| status.observed.instances.known().is_none())
        .await;
    agent.want(desired("2", "web\n"));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(agent.host.pids(), pids);
    agent.host.world().unreadable.clear();
    agent.converged("2").await;
    assert_eq!(agent.host.pids().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_agent_adopts_everything_and_has_nothing_to_do() {
    let wanted = || {
        desired(
            "1",
            "web\n  port 8080:80\n  port 90\n  needs db\ndb\n  volume data:/data\n",
        )
    };
    let mut agent = Agent::new(wanted());
    agent.converged("1").await;
    let (pids, done) = (agent.host.pids(), agent.host.world().done.len());
    let Agent { host, handle, .. } = agent;
    drop(handle.desired);
    handle.task.await.unwrap();
    assert_eq!(host.pids(), pids, "the end of the agent ends nothing");
    let mut next = Agent::on(host, wanted());
    let status = next.converged("1").await;
    assert!(status.plan.changes.is_empty());
    assert_eq!(next.host.pids(), pids);
    assert_eq!(next.host.world().done.len(), done);
    assert!(next.journal.changes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_something_else_undoes_for_ever_does_not_keep_the_loop_busy() {
    let mut agent = Agent::new(desired("1", "web\n"));
    agent.converged("1").await;
    let start = agent.host.world().done.len();
    for _ in 0..200 {
        agent.host.flush_firewall();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let done = agent.host.world().done.len() - start;
    assert!(done < 20, "{done} repairs in two seconds");
    agent.converged("1").await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_dies_at_any_step_is_followed_by_one_that_adopts() {
    let text = "web\n  port 8080:80\n  needs db\ndb\n  volume data:/data\n";
    for dies_after in 0..24 {
        let host = SimHost::with_runtime_clock();
        host.image("app:1", "sha256:aaaa", false);
        host.world().dies_after = Some(dies_after);
        let agent = Agent::on(host, desired("1", text));
        tokio::time::sleep(Duration::from_secs(2)).await;
        let Agent { host, handle, .. } = agent;
        drop(handle.desired);
        handle.task.await.unwrap();
        let before = host.pids();
        host.world().dies_after = None;
        let mut next = Agent::on(host, desired("1", text));
        next.converged("1").await;
        let after = next.host.pids();
        assert_eq!(after.len(), 2, "after {dies_after} phases");
        for (key, pid) in before {
            assert_eq!(after[&key], pid, "{key} after {dies_after} phases");
        }
        assert_eq!(next.host.world().violations, Vec::<String>::new());
    }
}

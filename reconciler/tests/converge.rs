//! The loop on the simulated host, in paused time: what it does by itself, and what it says.

#[path = "converge/agent.rs"]
mod agent;

use std::time::Duration;

use agent::{Agent, desired, key, network, seen};
use reconciler::{
    desired::{Desired, Intent, Target},
    journal::Kind,
    key::Key,
    observed::{Health, State},
    plan::{OPERATOR, step::Class},
    port::{Backend, HostEvent, Retry},
    status::{ProjectState, Status},
    testing::sim_host::SimHost,
};

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
async fn who_keeps_ending_is_degraded_until_it_runs() {
    let mut agent = Agent::new(desired("1", "web\n  restart always\n"));
    agent.converged("1").await;
    for count in 1..=6 {
        agent.host.exit(&key("web"), 3);
        let again = |status: &Status| {
            let web = seen(status, "web");
            web.is_some_and(|web| matches!(web.state, State::Running { .. }) && web.restarts == count)
        };
        agent.until("running again", again).await;
    }
    let status = agent.handle.status.borrow().clone();
    let shop = &status.projects["shop"];
    assert_eq!(shop.state, ProjectState::Degraded);
    assert_eq!(
        shop.failures[0].message,
        "web keeps ending: restarted 6 times in a row; see `stead logs shop web`"
    );
    let before = agent.host.world().starts.len();
    agent.converged("1").await;
    assert_eq!(agent.host.world().starts.len(), before);
}

#[tokio::test(start_paused = true)]
async fn an_unhealthy_container_is_restarted_five_times_and_then_left_alone() {
    let text = "web\n  health true\n  unhealthy restart\n";
    let mut agent = Agent::new(desired("1", text));
    agent.converged("1").await;
    for flaps in 1..=5 {
        agent.host.set_health(&key("web"), Health::Unhealthy);
        let again = |status: &Status| {
            let web = seen(status, "web");
            web.is_some_and(|web| matches!(web.state, State::Running { .. }) && web.flaps == flaps)
        };
        agent.until("started again", again).await;
    }
    let starts = |agent: &Agent| agent.host.world().starts.clone();
    let before = starts(&agent);
    for (attempt, pair) in before.windows(2).enumerate() {
        let curve = reconciler::backoff::delay(&key("web").to_string(), attempt as u32 + 7);
        let took = pair[1].1 - pair[0].1;
        assert!((curve..=curve + 5).contains(&took), "{took} ms, drawn {curve} ms");
    }
    agent.host.set_health(&key("web"), Health::Unhealthy);
    let alert = |status: &Status| status.projects["shop"].state == ProjectState::Degraded;
    let status = agent.until("degraded", alert).await;
    let message = &status.projects["shop"].failures[0].message;
    assert!(message.contains("is left alone"), "{message}");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(starts(&agent), before, "nothing starts by itself any more");
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_orders_is_done_once() {
    let text = "web\n  restart always\nmail\n";
    let mut agent = Agent::new(desired("1", text));
    agent.converged("1").await;
    let mail = agent.host.pids()[&key("mail")];
    let order = |intent| {
        let target = Target {
            project: "shop".to_owned(),
            service: "web".to_owned(),
            index: None,
        };
        let mut desired = desired("1", text);
        desired.intents.insert(target, intent);
        desired
    };
    tokio::time::advance(Duration::from_secs(5)).await;
    let at = agent.host.now();
    agent.want(order(Intent::Stop { at }));
    let stopped = |status: &Status| {
        let web = seen(status, "web");
        let shop = &status.projects["shop"];
        web.is_some_and(|web| matches!(web.state, State::Exited { .. }))
            && shop.state == ProjectState::Waiting
    };
    agent.until("stopped", stopped).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(agent.host.world().starts.len(), 2, "it stays stopped");
    for starts in 3..=4 {
        let boot_id = agent.host.world().boot_id.clone();
        let at = agent.host.now();
        agent.want(order(Intent::Run { boot_id, at }));
        let host = agent.host.clone();
        let again = |status: &Status| {
            let web = seen(status, "web");
            let running = web.is_some_and(|web| matches!(web.state, State::Running { .. }));
            running && host.world().starts.len() == starts
        };
        agent.until("started", again).await;
        agent.converged("1").await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(agent.host.world().starts.len(), starts);
    }
    assert_eq!(agent.host.pids()[&key("mail")], mail);
    let status = agent.handle.status.borrow().clone();
    assert_eq!(seen(&status, "web").map(|web| web.restarts), Some(0));
    let entries = agent.journal.0.lock().unwrap();
    let ordered = entries
        .iter()
        .filter(|entry| entry.kind == Kind::Done && entry.cause.field == OPERATOR);
    assert_eq!(
        ordered.count(),
        4,
        "a stop, a start, and a stop and a start are written down"
    );
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
    // What the image's source answers may be there before the host was looked at and a plan made.
    let status = agent
        .until("degraded, and waiting for the next look", |status| {
            status.projects.get("shop").is_some_and(|shop| {
                let mut waiting = shop.waiting.iter();
                shop.state == ProjectState::Degraded
                    && waiting.any(|one| matches!(one.key, Key::Image { .. }) && one.until.is_some())
            })
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

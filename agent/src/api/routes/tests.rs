//! The API over a real socket, with a host and a loop that are made up.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use reconciler::{
    key::{InstanceKey, Key, ResourceKey, Slot},
    observed::{Fact, Health, Instance, Observed, State as Run},
    plan::{action::Action, step::Waiting},
    port::{ActionError, HostEvent, Scope},
    spec::{Endpoint, SandboxSpec},
    status::{ProjectState, ProjectStatus},
    time::Now,
};

use super::*;
use crate::{client::Client, exit};

struct Nothing;

impl Backend for Nothing {
    fn observe(&self, _: &Scope, _: &mut Observed) {}

    fn apply(&self, _: &Action) -> Result<(), ActionError> {
        Ok(())
    }

    fn events(&self) -> mpsc::UnboundedReceiver<HostEvent> {
        mpsc::unbounded_channel().1
    }

    fn now(&self) -> Now {
        Now::default()
    }
}

fn key() -> InstanceKey {
    InstanceKey {
        project: "shop".into(),
        service: "web".into(),
        index: 1,
        slot: Slot::A,
    }
}

fn network() -> ResourceKey {
    ResourceKey {
        project: "shop".into(),
        name: "shop_default".into(),
    }
}

fn fake_status(run: Run) -> Status {
    let endpoint = Endpoint {
        network: network(),
        interface: "eth0".into(),
        name: None,
        settings: Default::default(),
        address: Ipv4Addr::new(10, 64, 0, 2),
        prefix: 20,
        gateway: None,
        mac: [2, 0, 0, 0, 0, 1],
        mac_asked: false,
    };
    let instance = Instance {
        sandbox: SandboxSpec {
            key: key(),
            id_base: 0x7000_0000,
            endpoints: vec![endpoint],
            ports: Vec::new(),
            spaces: Default::default(),
        }
        .into(),
        container: None,
        state: run,
        drift: Vec::new(),
        broken: None,
        identity: String::new(),
        joined: None,
        restarts: 3,
        streak: 0,
        flaps: 0,
        started_at: None,
        started_wall: Some(1_700_000_000_000),
        health: Health::Healthy,
        hook: None,
        faults: Vec::new(),
    };
    let waiting = Waiting {
        key: Key::Instance(key()),
        why: "restarts soon".into(),
        until: Some(5000),
    };
    let shop = ProjectStatus {
        state: ProjectState::Waiting,
        tried: Some("r2".into()),
        applied: Some("r1".into()),
        waiting: vec![waiting.clone()],
        failures: Vec::new(),
        next_attempt: Some(5000),
    };
    let mut observed = Observed::nothing_known();
    observed.instances = Fact::Known([(key(), instance)].into());
    observed.networks = Fact::Known(BTreeMap::new());
    let plan = reconciler::plan::step::Plan {
        waiting: vec![waiting],
        ..Default::default()
    };
    Status {
        projects: [("shop".to_owned(), shop)].into(),
        observed: Arc::new(observed),
        plan: Arc::new(plan),
        stopping: Default::default(),
        pass: 1,
        at: Now {
            boot: 4000,
            wall: 1_700_000_000_000,
        },
    }
}

/// An API and a client of it; commands are answered by `answer`.
async fn serve(run: Run, answer: fn(Command)) -> (tempfile::TempDir, Client, watch::Sender<Arc<Status>>) {
    let root = tempfile::tempdir().unwrap();
    let layout = Layout::new(Some(root.path())).unwrap();
    std::fs::create_dir_all(&layout.run).unwrap();
    let (sender, status) = watch::channel(Arc::new(fake_status(run)));
    let (_, report) = watch::channel(Arc::new(Report::default()));
    let (commands, mut command) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(command) = command.recv().await {
            answer(command);
        }
    });
    let client = Client::new(&layout);
    let listener = crate::api::server::bind(&layout.agent_socket()).unwrap();
    let router = router(Context {
        pulls: Arc::new(Vec::new),
        backend: Arc::new(Nothing),
        journal: Arc::new(FileJournal::open(&root.path().join("journal.jsonl")).unwrap()),
        layout: Arc::new(layout),
        status,
        report,
        commands,
        since: Arc::default(),
    });
    tokio::spawn(crate::api::server::serve(listener, router));
    (root, client, sender)
}

#[tokio::test]
async fn ps_and_status_tell_what_the_loop_knows() {
    let (_root, client, status) = serve(Run::Running { pid: 42 }, |_| {}).await;
    let rows: Vec<wire::Instance> = client.get("/v1/ps?project=shop").await.unwrap();
    let row = &rows[0];
    assert_eq!(
        (row.name.as_str(), row.state.as_str(), row.health.as_str()),
        ("shop-web-1", "running", "healthy")
    );
    assert_eq!(
        (row.pid, row.restarts, row.started_at.as_deref()),
        (Some(42), 3, Some("2023-11-14T22:13:20Z"))
    );
    assert_eq!(
        row.addresses,
        [("shop_default".to_owned(), vec!["10.64.0.2".to_owned()])].into()
    );
    let none: Vec<wire::Instance> = client.get("/v1/ps?project=other").await.unwrap();
    assert!(none.is_empty());

    let rows: Vec<wire::Project> = client.get("/v1/status").await.unwrap();
    assert_eq!(
        (rows[0].project.as_str(), rows[0].state.as_str()),
        ("shop", "waiting")
    );
    assert_eq!(rows[0].next_attempt.as_deref(), Some("2023-11-14T22:13:21Z"));
    assert_eq!(rows[0].revision.applied.as_deref(), Some("r1"));
    assert!(
        rows[0]
            .conditions
            .iter()
            .any(|c| c.kind == "Waiting" && c.message == "restarts soon")
    );

    for (run, want) in [
        (Run::Exited { code: 1, at: 0 }, "backoff"),
        (Run::Created, "created"),
        (Run::Lost, "failed"),
    ] {
        status.send_replace(Arc::new(fake_status(run)));
        let rows: Vec<wire::Instance> = client.get("/v1/ps").await.unwrap();
        assert_eq!(rows[0].state, want);
    }
}

#[tokio::test]
async fn the_documents_have_the_keys_of_the_contract() {
    let (_root, client, _status) = serve(Run::Running { pid: 42 }, |_| {}).await;
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value[0].as_object().unwrap().keys().cloned().collect()
    };
    let ps: serde_json::Value = client.get("/v1/ps").await.unwrap();
    let want = "project service index name state health pid exit_code restarts image image_digest started_at \
                addresses ports revision intent faults hook";
    assert_eq!(keys(&ps).join(" "), want);
    let status: serde_json::Value = client.get("/v1/status").await.unwrap();
    let want = "project source state conditions revision next_attempt diagnostics";
    assert_eq!(keys(&status).join(" "), want);
    assert_eq!(
        keys(&status[0]["conditions"]).join(" "),
        "type status reason message since"
    );
}

#[tokio::test]
async fn a_command_reaches_the_loop_and_a_refusal_comes_back() {
    let (_root, client, _status) = serve(Run::Created, |command| {
        if let Command::Down { projects, reply, .. } = command {
            let answer = match projects.first().map(String::as_str) {
                Some("shop") => Ok(vec!["shop goes".to_owned()]),
                _ => Err(anyhow::anyhow!("no such project; see `stead status`")),
            };
            let _ = reply.send(answer);
        }
    })
    .await;
    let down = |project: &str| wire::DownRequest {
        projects: vec![project.to_owned()],
        volumes: false,
    };
    let reply: wire::DownReply = client.post("/v1/down", &down("shop")).await.unwrap();
    assert_eq!(reply.notes, ["shop goes"]);
    let error = client
        .post::<wire::DownReply>("/v1/down", &down("none"))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "no such project; see `stead status`");
    let large = wire::DownRequest {
        projects: vec!["x".repeat(MAX_BODY + 1)],
        volumes: false,
    };
    assert!(
        client.post::<wire::DownReply>("/v1/down", &large).await.is_err(),
        "larger than 1 MiB"
    );
    let present: wire::Present = client.get("/v1/present?project=shop").await.unwrap();
    assert_eq!(present.objects.unwrap(), ["container shop/web/1a"]);
}

#[tokio::test]
async fn without_an_agent_the_status_is_69() {
    let (root, client, _status) = serve(Run::Created, |_| {}).await;
    use std::os::unix::fs::PermissionsExt;
    let socket = root.path().join("run/stead.sock");
    assert_eq!(
        std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o600
    );
    std::fs::remove_file(socket).unwrap();
    let asked = tokio::time::timeout(
        Duration::from_secs(10),
        client.get::<wire::Present>("/v1/present"),
    );
    let error = asked.await.unwrap().unwrap_err();
    assert_eq!(exit::status(&error), exit::NO_AGENT);
    assert!(error.to_string().contains("start one with"), "{error}");
}

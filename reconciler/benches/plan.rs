//! What deciding costs in processor time: a thousand services in fifty projects, on the simulated host.
//!
//! `cargo bench -p stead-reconciler --bench plan`

use std::{fmt::Write, fs, sync::Arc};

use reconciler::{
    converge::{Engine, Kept},
    desired::Desired,
    execute::{Order, Report},
    key::{InstanceKey, Slot},
    plan::{self, step::Plan},
    port::{Backend, HostEvent},
    status::{ProjectState, Status},
    testing::{drive::Drive, sim_host::SimHost},
};

const PROJECTS: usize = 50;
const SERVICES: usize = 20;
const ROUNDS: usize = 200;
/// Of the loop: each goes through a whole change.
const CHANGES: u32 = 20;

fn manifest(project: usize, env: u32) -> String {
    let mut text = String::new();
    for service in 0..SERVICES {
        let port = 10_000 + project * SERVICES + service;
        let value = if service == 0 { env } else { 0 };
        let _ = write!(
            text,
            "s{service:02}\n  env A {value}\n  env B text\n  label one two\n  restart always\n  port {port}:80\n  volume data{service}:/data\n"
        );
    }
    text
}

fn main() {
    let mut drive = Drive::new(1);
    drive.host.image("app:1", "sha256:aaaa", true);
    for project in 0..PROJECTS {
        drive
            .file(&format!("p{project:02}"), &manifest(project, 0))
            .expect("a manifest");
    }
    drive
        .settle()
        .unwrap_or_else(|plan| panic!("does not end:\n{}", plan::render(&plan)));
    let unchanged = measure(&drive);
    assert_eq!(unchanged.0, Plan::default());
    println!("plan of 1,000 unchanged services     {}", unchanged.1);
    let mut agent = Agent::new(&drive);
    agent.rest(&drive.desired);
    drive.file("p07", &manifest(7, 1)).expect("a manifest");
    let changed = measure(&drive);
    assert_eq!(changed.0.changes.len(), 1);
    println!("plan with one of 1,000 changed       {}", changed.1);

    agent.rounds.clear();
    for _ in 0..CHANGES {
        agent.hint(&drive.desired);
    }
    println!("the loop, one of 1,000 looked at     {}", agent.cost(CHANGES));
    agent.rounds.clear();
    for change in 0..CHANGES {
        drive.file("p07", &manifest(7, change + 1)).expect("a manifest");
        agent.desire(&drive.desired);
    }
    println!("the loop, one of 1,000 changed       {}", agent.cost(CHANGES));
}

fn measure(drive: &Drive) -> (Plan, String) {
    let observed = drive.observe();
    let now = drive.host.now();
    let mut last = Plan::default();
    let before = processor();
    for _ in 0..ROUNDS {
        last = plan::plan(&drive.desired, &observed, &drive.memory, &Vec::new(), now);
    }
    // Of all together: the kernel counts in ticks.
    let each = (processor() - before) / ROUNDS as f64;
    (last, format!("{each:.2} ms"))
}

/// The loop on a host that does everything at once; what the host costs is not counted.
struct Agent {
    host: SimHost,
    engine: Engine,
    /// What the outside has seen last: it keeps it until there is something newer.
    status: Arc<Status>,
    /// Milliseconds of each.
    rounds: Vec<f64>,
}

impl Agent {
    fn new(drive: &Drive) -> Agent {
        let host = drive.host.clone();
        Agent {
            engine: Engine::new(Arc::new(drive.desired.clone()), Kept::default()),
            status: Arc::new(Status::before_the_first_look(host.now())),
            host,
            rounds: Vec::new(),
        }
    }

    /// Until all is as it is wanted.
    fn rest(&mut self, desired: &Desired) {
        self.host.advance(1);
        self.engine.asked();
        self.desire(desired);
    }

    fn hint(&mut self, desired: &Desired) {
        let key = InstanceKey {
            project: "p07".into(),
            service: "s00".into(),
            index: 1,
            slot: Slot::A,
        };
        self.engine.event(HostEvent::Instance(key));
        self.run(0.0, desired);
    }

    fn desire(&mut self, desired: &Desired) {
        let desired = Arc::new(desired.clone());
        let before = processor();
        self.engine.desire(desired.clone());
        self.run(processor() - before, &desired);
    }

    fn run(&mut self, mut cost: f64, desired: &Desired) {
        loop {
            let now = self.host.now();
            let before = processor();
            let round = self.engine.round(now);
            self.status = round.status;
            cost += processor() - before;
            let reports: Vec<Report> = round
                .orders
                .into_iter()
                .map(|order| self.carry_out(order))
                .collect();
            let idle = reports.is_empty();
            let before = processor();
            for report in reports {
                self.engine.report(report, now);
            }
            self.rounds.push(cost + processor() - before);
            cost = 0.0;
            if idle {
                break;
            }
        }
        for name in desired.projects.keys() {
            assert_eq!(self.status.projects[name].state, ProjectState::Converged);
        }
    }

    fn carry_out(&self, order: Order) -> Report {
        match order {
            Order::Step {
                step, scope, before, ..
            } => {
                let result = self.host.apply(&step.action);
                let mut seen = before;
                self.host.observe(&scope, &mut seen);
                let key = step.key;
                Report::Step {
                    key,
                    result,
                    scope,
                    seen,
                }
            }
            Order::Look { scope, before } => {
                let mut seen = before;
                self.host.observe(&scope, &mut seen);
                Report::Look { scope, seen }
            }
        }
    }

    fn cost(&self, times: u32) -> String {
        let all: f64 = self.rounds.iter().sum();
        let rounds = self.rounds.len() as f64;
        format!(
            "{:.2} ms a round, {:.1} rounds, {:.2} ms in all",
            all / rounds,
            rounds / f64::from(times),
            all / f64::from(times)
        )
    }
}

/// Milliseconds this thread has had a processor: proc(5), schedstat.
fn processor() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse::<f64>().ok());
    nanoseconds.expect("nanoseconds") / 1e6
}

//! A whole life of one agent after the other on one simulated host, from one number: faults first, then
//! peace, in which everything must come to rest as the files ask. One thread, no runtime, no clock.

mod blows;
pub mod branches;
mod calls;
mod host;
mod life;
mod nemesis;
mod oracle;
mod peace;
mod queue;
pub mod trace;
mod wishes;

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    converge::Engine,
    execute::{Order, Report},
    key::InstanceKey,
    port::{HostEvent, Scope},
    status::Status,
    testing::{generate::Repertoire, sim_host::Random},
    time::Now,
};
use branches::Branches;
use calls::Call;
use host::Host;
use nemesis::{Blow, Nemesis};
use peace::Peace;
use queue::Queue;
use trace::{Lines, Trace};
use wishes::Wishes;

/// How a seed is run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub repertoire: Repertoire,
    pub lines: Lines,
}

/// What became of a seed.
#[derive(Debug)]
pub struct Outcome {
    pub seed: u64,
    /// Backend calls and mutations of the host.
    pub steps: u64,
    pub rounds: u64,
    /// Simulated milliseconds.
    pub span: u64,
    /// Two runs of a seed have the same.
    pub hash: u64,
    pub branches: Branches,
    /// What must not happen and did.
    pub failure: Option<String>,
    /// As many as were asked for.
    pub lines: Vec<String>,
}

/// What happens at a moment.
enum Event {
    /// A call of the agent goes on.
    Call {
        agent: u32,
        call: u32,
    },
    /// A report reaches the agent.
    Report {
        agent: u32,
        report: Box<Report>,
    },
    Hint {
        agent: u32,
        hint: HostEvent,
    },
    Round {
        agent: u32,
    },
    Timer {
        agent: u32,
        number: u64,
    },
    Boot {
        agent: u32,
    },
    Process {
        key: InstanceKey,
        pid: u32,
        turn: Turn,
    },
    Blow(Blow),
    /// A trouble that lasted is over.
    Over(Blow, u64),
    /// What kept this instance from being started is gone, and that can be seen.
    Allowed(InstanceKey),
    Edit(String),
    /// The source of a project can be read again.
    Unhide(String),
    Look(Progress),
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// No fault happens any more.
    Rest,
    /// It must be at rest by now.
    Deadline,
    /// It has been quiet for long enough.
    End,
}

/// What a process does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Turn {
    Exit(i32),
    Healthy,
    Unhealthy,
    /// This hook of its start, or before its stop, is over, with this.
    Started(u32, i32),
    Stopping(u32, i32),
    /// The grace of its stop is over.
    Grace,
}

/// What reaches the agent between two rounds.
enum Input {
    Desired,
    Hint(HostEvent),
    Report(Box<Report>),
    Asked,
    Timer,
}

/// One agent while it lives.
struct Agent {
    engine: Engine,
    inbox: Vec<Input>,
    round_due: bool,
    timer: u64,
    /// Asleep until then, whatever comes.
    stalled: u64,
    calls: BTreeMap<u32, Call>,
    next_call: u32,
}

pub struct Simulation {
    random: Random,
    repertoire: Repertoire,
    nemesis: Nemesis,
    host: Host,
    queue: Queue<Event>,
    /// Boot-clock milliseconds.
    now: u64,
    began: u64,
    agent: Option<Agent>,
    /// Which agent this is: what belongs to an earlier one is void.
    agents: u32,
    wishes: Wishes,
    status: Option<Arc<Status>>,
    peace: Peace,
    /// Processes whose life is laid out.
    lives: BTreeMap<InstanceKey, (u32, bool)>,
    /// And whose end is.
    ends: BTreeMap<InstanceKey, u32>,
    rounds: u64,
    steps: u64,
    trace: Trace,
    branches: Branches,
    failure: Option<String>,
}

/// Runs `seed` from its first edit to the last quiet minute.
pub fn run(seed: u64, options: Options) -> Outcome {
    let mut simulation = Simulation::new(seed, options);
    while simulation.failure.is_none() {
        let Some((at, event)) = simulation.queue.pop() else {
            break;
        };
        simulation.advance(at);
        if matches!(event, Event::Look(Progress::End)) && simulation.peace.ends(at) {
            simulation.settled();
            break;
        }
        simulation.turn(event);
        simulation.hints();
        simulation.hold();
    }
    simulation.outcome(seed)
}

impl Simulation {
    fn new(seed: u64, options: Options) -> Self {
        // Neighbouring seeds have nothing in common.
        let mut random = Random(seed.wrapping_mul(0xA24B_AED4_963E_E407) ^ 0x5EED);
        let nemesis = Nemesis::draw(&mut random, options.repertoire.intents);
        let host = Host::new();
        let wishes = Wishes::draw(&mut random, options.repertoire);
        let now = host.now().boot;
        let mut simulation = Simulation {
            random,
            repertoire: options.repertoire,
            nemesis,
            host,
            queue: Queue::new(),
            now,
            began: now,
            agent: None,
            agents: 0,
            wishes,
            status: None,
            peace: Peace::default(),
            lives: BTreeMap::new(),
            ends: BTreeMap::new(),
            rounds: 0,
            steps: 0,
            trace: Trace::new(options.lines),
            branches: Branches::default(),
            failure: None,
        };
        let agent = simulation.agents;
        simulation.queue.push(now, Event::Boot { agent });
        simulation.next_blow();
        simulation
    }

    fn advance(&mut self, at: u64) {
        let passed = at.saturating_sub(self.now);
        if passed > 0 {
            self.host.advance(passed);
            self.now = at;
        }
    }

    fn moment(&self) -> Now {
        self.host.now()
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn fail(&mut self, what: impl Into<String>) {
        if self.failure.is_none() {
            self.failure = Some(what.into());
        }
    }

    fn turn(&mut self, event: Event) {
        match event {
            Event::Call { agent, call } => {
                if agent == self.agents {
                    self.proceed(call);
                }
            }
            Event::Report { agent, report } => self.input(agent, Input::Report(report)),
            Event::Hint { agent, hint } => {
                self.trace.note(self.now, 1u8, || format!("hint {hint:?}"));
                self.input(agent, Input::Hint(hint));
            }
            Event::Round { agent } => {
                if agent == self.agents {
                    self.round();
                }
            }
            Event::Timer { agent, number } => {
                if self.agent.as_ref().is_some_and(|own| own.timer == number) {
                    self.input(agent, Input::Timer);
                }
            }
            Event::Boot { agent } => {
                if agent == self.agents && self.agent.is_none() {
                    self.boot();
                }
            }
            Event::Process { key, pid, turn } => self.live(&key, pid, turn),
            Event::Blow(blow) => {
                self.trace.note(self.now, blow, || format!("-- {blow:?}"));
                self.strike(blow);
                self.next_blow();
            }
            Event::Over(blow, which) => self.over(blow, which),
            Event::Allowed(key) => self.changes(key),
            Event::Edit(name) => self.edit(&name),
            Event::Unhide(name) => self.unhide(&name),
            Event::Look(progress) => self.look_at_peace(progress),
        }
    }

    fn next_blow(&mut self) {
        match self.nemesis.next(&mut self.random) {
            Some((wait, blow)) => self.queue.push(self.now + wait, Event::Blow(blow)),
            None => {
                let wait = 1 + self.random.below(20_000);
                self.queue.push(self.now + wait, Event::Look(Progress::Rest));
            }
        }
    }

    /// Something for the agent `which`; it goes round soon.
    fn input(&mut self, which: u32, input: Input) {
        let agents = self.agents;
        let Some(agent) = self.agent.as_mut().filter(|_| which == agents) else {
            return;
        };
        agent.inbox.push(input);
        if !agent.round_due {
            agent.round_due = true;
            let soon = self.now + self.random.below(self.nemesis.heed);
            let at = soon.max(agent.stalled);
            self.queue.push(at, Event::Round { agent: agents });
        }
    }

    /// An agent starts, the first or the next.
    fn boot(&mut self) {
        self.host.agent_starts();
        self.trace.note(self.now, 2u8, || "agent starts".to_owned());
        self.host.wants(&self.wishes.desired());
        let mut engine = Engine::new(self.wishes.desired(), self.host.kept());
        engine.look(Scope::all());
        self.agent = Some(Agent {
            engine,
            inbox: Vec::new(),
            round_due: true,
            timer: 0,
            stalled: 0,
            calls: BTreeMap::new(),
            next_call: 0,
        });
        if self.agents > 0 && !self.host.running().is_empty() {
            self.branches.reach("agent.adopts");
        }
        let agent = self.agents;
        self.queue.push(self.now, Event::Round { agent });
    }

    /// The agent is gone, at the end of this moment or in the middle of its calls.
    fn bury(&mut self) {
        let Some(agent) = self.agent.take() else {
            return;
        };
        self.cut(agent.calls);
        self.host.agent_dies();
        self.agents += 1;
        self.status = None;
    }

    fn round(&mut self) {
        let now = self.moment();
        let Some(agent) = &mut self.agent else {
            return;
        };
        agent.round_due = false;
        let mut inbox = std::mem::take(&mut agent.inbox);
        if self.nemesis.shuffled {
            for last in (1..inbox.len()).rev() {
                inbox.swap(last, self.random.below(last as u64 + 1) as usize);
            }
        }
        // The engine is the only one who has the observation, or it would be copied.
        self.status = None;
        for input in inbox {
            match input {
                Input::Desired => {
                    self.host.wants(&self.wishes.desired());
                    agent.engine.desire(self.wishes.desired());
                }
                Input::Hint(hint) => {
                    self.host.hears(&hint);
                    agent.engine.event(hint);
                }
                Input::Report(report) => {
                    self.host.reported(&report);
                    agent.engine.report(*report, now);
                }
                Input::Asked => {
                    self.host.asked();
                    agent.engine.asked();
                }
                Input::Timer => agent.engine.timeout(now),
            }
        }
        let round = agent.engine.round(now);
        self.rounds += 1;
        agent.timer += 1;
        let (number, wait) = (agent.timer, agent.engine.timer(now).as_millis() as u64);
        let agent = self.agents;
        self.queue
            .push(self.now + wait.max(1), Event::Timer { agent, number });
        for note in &round.notes {
            self.trace
                .note(self.now, 3u8, || format!("note {}", trace::note_text(note)));
            self.host.keep(note);
            self.branches.note(note);
        }
        self.branches.round(&round);
        if let Err(violation) = self.host.decided(&round, now) {
            let plan = &round.status.plan;
            self.trace.note(self.now, 9u8, || crate::plan::render(plan));
            self.fail(violation.to_string());
        }
        for order in round.orders {
            self.order(order);
        }
        self.status = Some(round.status);
        self.peace_after_round();
    }

    fn order(&mut self, order: Order) {
        let (call, text) = match order {
            Order::Step {
                step, scope, before, ..
            } => {
                self.branches.step(&step);
                self.peace.acted(&step);
                self.trace
                    .note(self.now, &step.key, || format!("order {}", calls::text(&step)));
                (Call::step(*step, scope, *before), 0)
            }
            Order::Look { scope, before } => {
                self.trace
                    .note(self.now, 4u8, || format!("look {}", calls::scope_text(&scope)));
                (Call::look(scope, *before), 1)
            }
        };
        let wait = match text {
            0 => self.latency(&call),
            _ => self.random.below(self.nemesis.pace),
        };
        let agents = self.agents;
        if let Some(agent) = &mut self.agent {
            agent.next_call += 1;
            let number = agent.next_call;
            agent.calls.insert(number, call);
            let event = Event::Call {
                agent: agents,
                call: number,
            };
            self.queue.push(self.now + wait, event);
        }
    }

    /// What the host has said since the last event is on its way.
    fn hints(&mut self) {
        while let Some(hint) = self.host.hint() {
            if Nemesis::strikes(self.nemesis.lost, &mut self.random) {
                self.branches.reach("hint.lost");
                continue;
            }
            let copies = 1 + u64::from(Nemesis::strikes(self.nemesis.doubled, &mut self.random));
            for _ in 0..copies {
                let wait = match Nemesis::strikes(self.nemesis.late, &mut self.random) {
                    true => self.random.below(20_000),
                    false => self.random.below(5),
                };
                let (agent, hint) = (self.agents, hint.clone());
                self.queue.push(self.now + wait, Event::Hint { agent, hint });
            }
        }
    }

    /// What must hold after each step of the host.
    fn hold(&mut self) {
        if let Err(violation) = self.host.holds() {
            self.fail(violation.to_string());
        }
        if self.queue.len() > 20_000 {
            self.fail("X1: what is under way grows without bound");
        }
    }

    /// What must hold at the end.
    fn settled(&mut self) {
        let now = self.moment();
        if let Some(status) = self.status.clone()
            && let Err(violation) = self.host.settled(&self.wishes.desired(), &status, now)
        {
            self.fail(violation.to_string());
        }
    }

    fn outcome(mut self, seed: u64) -> Outcome {
        self.steps += self.host.steps();
        Outcome {
            seed,
            steps: self.steps,
            rounds: self.rounds,
            span: self.now - self.began,
            hash: self.trace.hash(),
            branches: self.branches,
            failure: self.failure,
            lines: self.trace.into_lines(),
        }
    }
}

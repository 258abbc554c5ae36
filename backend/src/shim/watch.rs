//! What goes wrong with a running container: looked for while there is a reason to, told when it changes.
//!
//! A fork that is refused and memory that is out are told by the kernel. Throttling is looked for where
//! processor time is limited; a process that hangs, and zombies, while somebody asks how it is or the
//! container is to stop. Who asks is answered by a look, and told what a later one may confirm. Else nothing
//! wakes the shim.

use std::path::{Path, PathBuf};

use reconciler::{observed::Fault, spec::Limits};
use serde::{Deserialize, Serialize};

use crate::{
    cgroup::{
        self,
        limits::{
            Controllers,
            gauges::{Cpu, Gauges},
        },
    },
    stuck::{LASTS, Suspects},
};

/// Milliseconds between two looks.
const PERIOD: u64 = 800;
/// Between two looks at processes, however often somebody asks.
const LEAST: u64 = 100;
/// How long it is looked for after somebody has asked.
const ATTENTION: u64 = 4_000;
/// Between the word that memory is short and the count of whom that has killed.
const SOON: u64 = 20;
/// A count that has not come after so many looks does not come: memory was found after all.
const LOOKS: u32 = 50;
/// Microseconds in which so much processor time may be used, cgroups(7).
const CPU_PERIOD: u64 = 100_000;
/// [`Fault::word`] of [`Fault::Throttled`].
const THROTTLED: &str = "throttled";

/// What outlives an upgrade of the shim.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Kept {
    /// Killed for want of memory when this run began.
    killed: u64,
    /// The stop signal, and when it was given (boot clock).
    signalled: Option<(i32, u64)>,
    /// What came after it, once its time was over: how long that was (milliseconds).
    forced: Option<u64>,
}

impl Kept {
    /// The run was asked to end.
    pub fn is_signalled(&self) -> bool {
        self.signalled.is_some()
    }
}

#[derive(Debug, Default)]
pub struct Watch {
    pub kept: Kept,
    /// What is wrong now.
    pub faults: Vec<Fault>,
    gauges: Gauges,
    payload: PathBuf,
    limits: Limits,
    first: u32,
    refused: u64,
    suspects: Suspects,
    /// When they were looked at (boot clock).
    looked: u64,
    /// What throttling is measured from, and when that was read.
    cpu: Option<(u64, Cpu)>,
    /// Looks left for a kill that was announced.
    short: u32,
    attended: u64,
    /// What its log driver did not take: counted there, told with the others.
    unlogged: Option<Fault>,
    next: Option<u64>,
}

impl Watch {
    /// Of a run that begins.
    pub fn begin(controllers: &Controllers, instance: &Path, limits: &Limits) -> Self {
        let mut watch = Self::resume(controllers, instance, limits, Kept::default(), 0, 0);
        watch.gauges.reset_peak();
        watch.kept.killed = watch.gauges.killed();
        watch.refused = watch.gauges.refused();
        watch
    }

    /// Of a run that goes on.
    pub fn resume(
        controllers: &Controllers,
        instance: &Path,
        limits: &Limits,
        kept: Kept,
        first: u32,
        now: u64,
    ) -> Self {
        let mut watch = Watch {
            kept,
            payload: instance.join("payload"),
            first,
            ..Watch::default()
        };
        watch.limit(controllers, instance, limits, now);
        watch
    }

    /// The limits are others now.
    pub fn limit(&mut self, controllers: &Controllers, instance: &Path, limits: &Limits, now: u64) {
        let had_memory = self.gauges.kills_one();
        self.gauges = Gauges::find(controllers, instance);
        self.limits = limits.clone();
        if had_memory != self.gauges.kills_one() {
            self.kept.killed = self.kept.killed.max(self.gauges.killed());
        }
        self.cpu = self.gauges.cpu().map(|cpu| (now, cpu));
        self.plan(now);
    }

    /// The first process runs.
    pub fn runs(&mut self, first: u32, now: u64) {
        self.first = first;
        self.cpu = self.gauges.cpu().map(|cpu| (now, cpu));
        self.plan(now);
    }

    /// Somebody asks how it is. Answers whether the faults are others than before.
    pub fn attend(&mut self, now: u64) -> bool {
        self.attended = now + ATTENTION;
        self.look(now)
    }

    /// Since when something is suspected that is not certain yet (boot clock).
    pub fn suspected(&self) -> Option<u64> {
        self.suspects.suspected(self.looked)
    }

    /// So much of its output was not taken.
    pub fn logged(&mut self, unlogged: Option<&Fault>, now: u64) {
        if self.unlogged.as_ref() != unlogged {
            self.unlogged = unlogged.cloned();
            self.next = Some(self.next.map_or(now, |next| next.min(now)));
        }
    }

    /// It was asked to end.
    pub fn signalled(&mut self, signal: i32, now: u64) {
        self.kept.signalled = Some((signal, now));
        self.attended = now + ATTENTION;
        self.next = Some(now);
    }

    /// It is killed while it runs.
    pub fn forced(&mut self, now: u64) {
        if let Some((_, since)) = self.kept.signalled {
            // As a manifest says it; the rest is the way to here.
            let grace = (now.saturating_sub(since) + 50) / 100 * 100;
            self.kept.forced.get_or_insert(grace);
        }
    }

    /// Whether a look at what lasts is under way.
    fn busy(&self, now: u64) -> bool {
        now < self.attended
            || self.kept.signalled.is_some()
            || self.limits.cpu.is_some()
            || self.limits.cpu_quota.is_some()
            || self.faults.iter().any(is_looked_for)
    }

    fn plan(&mut self, now: u64) {
        let told = self.faults.iter().find(|fault| !is_looked_for(fault));
        self.next = match self.busy(now) {
            _ if told != self.unlogged.as_ref() => Some(now),
            _ if self.short > 0 => Some(now + SOON),
            true => Some(self.due(now)),
            false => None,
        };
    }

    /// When the next look says something that this one does not.
    fn due(&self, now: u64) -> u64 {
        let certain = self.suspected().map(|since| since + LASTS);
        let certain = certain.map(|at| at.max(self.looked + LEAST));
        let measured = self.cpu.map(|(since, _)| since + self.window());
        let due = certain.into_iter().chain(measured.filter(|at| *at > now));
        due.chain([now + PERIOD]).min().unwrap_or(now)
    }

    /// Milliseconds over which throttling is measured: something must have been counted in them.
    fn window(&self) -> u64 {
        PERIOD.max(cpu_period(&self.limits) / 1000)
    }

    /// The descriptors to wait for, and for what.
    pub fn poll_fds(&self) -> impl Iterator<Item = (i32, i16)> {
        let short = self.gauges.short().map(|fd| (fd, libc::POLLIN));
        // While it lasts it is looked at by the clock: a bomb would wake us a hundred times a second.
        let known = self.is_refused();
        let refusals = self.gauges.refusals().filter(|_| !known);
        short.into_iter().chain(refusals.map(|fd| (fd, libc::POLLPRI)))
    }

    fn is_refused(&self) -> bool {
        let mut faults = self.faults.iter();
        faults.any(|fault| matches!(fault, Fault::ProcessLimit { .. }))
    }

    /// One of them has something to say. Answers whether the faults are others than before.
    pub fn ready(&mut self, now: u64) -> bool {
        self.gauges.heard_short();
        if self.gauges.kills_one() {
            self.short = LOOKS;
        }
        self.look(now)
    }

    pub fn deadline(&self) -> Option<u64> {
        self.next
    }

    /// Looks. Answers whether the faults are others than before.
    pub fn look(&mut self, now: u64) -> bool {
        if self.short > 0 {
            self.short -= 1;
            if self.gauges.killed() > self.kept.killed {
                // As the v2 tree does it: a service that has lost some of its processes is none.
                let _ = cgroup::kill(&self.payload);
                self.short = 0;
            }
        }
        let refused = self.gauges.refused();
        let there = self.gauges.processes();
        let full = there.is_some_and(|there| self.limits.pids.is_some_and(|limit| there >= limit));
        let mut faults = Vec::new();
        faults.extend(at_limit(&self.limits, &self.faults, refused > self.refused, full));
        self.refused = refused;
        faults.extend(self.throttling(now));
        if now >= self.looked + LEAST {
            self.suspects.look(&self.payload, self.first, now);
            self.looked = now;
        }
        faults.extend(self.suspects.faults(self.looked));
        faults.extend(self.unlogged.clone());
        let differ = faults != self.faults;
        self.faults = faults;
        self.plan(now);
        differ
    }

    fn throttling(&mut self, now: u64) -> Option<Fault> {
        let since = self.cpu.map(|(since, _)| since);
        if since.is_some_and(|since| now < since + self.window() * 7 / 8) {
            let mut have = self.faults.iter();
            return have.find(|fault| fault.word() == THROTTLED).cloned();
        }
        let before = self.cpu.take();
        self.cpu = self.gauges.cpu().map(|cpu| (now, cpu));
        throttled(&self.limits, &self.faults, before, self.cpu)
    }

    /// It has ended with `code`: why, where that does not say it.
    pub fn end(&mut self, code: i32) -> Option<Fault> {
        self.faults.clear();
        self.unlogged = None;
        self.next = None;
        self.short = 0;
        if self.gauges.killed() > self.kept.killed {
            return Some(Fault::OutOfMemory {
                limit: self.limits.memory,
                peak: self.gauges.peak(),
            });
        }
        match (self.kept.signalled, self.kept.forced) {
            (Some((signal, _)), Some(grace)) if code == 128 + libc::SIGKILL => {
                Some(Fault::Resisted { signal, grace })
            }
            _ => None,
        }
    }
}

/// Whether it is over is seen by looking.
fn is_looked_for(fault: &Fault) -> bool {
    !matches!(fault, Fault::OutputLost { .. })
}

fn had(have: &[Fault], word: &str) -> bool {
    have.iter().any(|fault| fault.word() == word)
}

/// `refused`: a fork was, since the last look. `full`: there are as many processes as there may be.
fn at_limit(limits: &Limits, have: &[Fault], refused: bool, full: bool) -> Option<Fault> {
    let limit = limits.pids?;
    (refused || (full && had(have, "process-limit"))).then_some(Fault::ProcessLimit { limit })
}

/// Microseconds.
fn cpu_period(limits: &Limits) -> u64 {
    limits.cpu_period.unwrap_or(CPU_PERIOD).max(1)
}

/// Half of the time to be named, a quarter to stay so.
fn throttled(
    limits: &Limits,
    have: &[Fault],
    before: Option<(u64, Cpu)>,
    now: Option<(u64, Cpu)>,
) -> Option<Fault> {
    let ((since, before), (at, now)) = (before?, now?);
    let periods = now.periods.saturating_sub(before.periods);
    let throttled = now.throttled.saturating_sub(before.throttled);
    let parts = if had(have, THROTTLED) { 4 } else { 2 };
    // Those in which it wants nothing are not counted: it sleeps most of the time.
    let awake = periods * cpu_period(limits) / 1000;
    if awake * 2 < at.saturating_sub(since) || throttled * parts < periods.max(1) {
        return None;
    }
    let of_quota = |quota: u64| quota.saturating_mul(1000) / cpu_period(limits);
    Some(Fault::Throttled {
        limit: limits.cpu_quota.map(of_quota).or(limits.cpu),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_limit_is_named_while_it_is_reached() {
        let limits = Limits {
            pids: Some(64),
            ..Limits::default()
        };
        let fault = Fault::ProcessLimit { limit: 64 };
        let have = [fault.clone()];
        let cases: [(&[Fault], bool, bool, bool); 6] = [
            (&[], false, false, false),
            (&[], true, false, true),
            // At its limit, and never refused one.
            (&[], false, true, false),
            (&have, false, true, true),
            (&have, true, false, true),
            (&have, false, false, false),
        ];
        for (number, (have, refused, full, named)) in cases.into_iter().enumerate() {
            let found = at_limit(&limits, have, refused, full);
            assert_eq!(found, named.then_some(fault.clone()), "case {number}");
        }
        assert_eq!(at_limit(&Limits::default(), &[], true, true), None);
    }

    #[test]
    fn throttling_is_named_from_half_of_the_time_on() {
        let limits = Limits {
            cpu: Some(500),
            ..Limits::default()
        };
        let fault = Fault::Throttled { limit: Some(500) };
        let have = [fault.clone()];
        let cpu = |periods, throttled| Some(Cpu { periods, throttled });
        type Case<'a> = (&'a [Fault], Option<Cpu>, Option<Cpu>, bool);
        let cases: [Case<'_>; 7] = [
            (&[], None, cpu(8, 8), false),
            (&[], cpu(0, 0), cpu(8, 3), false),
            (&[], cpu(10, 0), cpu(18, 4), true),
            (&[], cpu(10, 0), cpu(13, 3), false),
            (&have, cpu(18, 4), cpu(26, 6), true),
            (&have, cpu(18, 4), cpu(26, 5), false),
            (&have, cpu(18, 4), cpu(18, 4), false),
        ];
        // One look and the next.
        let look = |limits, have, before: Option<Cpu>, now: Option<Cpu>, window| {
            let before = before.map(|cpu| (5_000, cpu));
            throttled(limits, have, before, now.map(|cpu| (5_000 + window, cpu)))
        };
        for (number, (have, before, now, named)) in cases.into_iter().enumerate() {
            let found = look(&limits, have, before, now, PERIOD);
            assert_eq!(found, named.then_some(fault.clone()), "case {number}");
        }
        let quota = Limits {
            cpu_quota: Some(5_000),
            cpu_period: Some(20_000),
            ..Limits::default()
        };
        let limit = Some(250);
        let fault = Some(Fault::Throttled { limit });
        assert_eq!(look(&quota, &[], cpu(0, 0), cpu(20, 20), PERIOD), fault);
        // The longest period there may be: one is enough, and it is waited for.
        let long = Watch {
            limits: Limits {
                cpu_quota: Some(250_000),
                cpu_period: Some(1_000_000),
                ..Limits::default()
            },
            ..Watch::default()
        };
        assert_eq!(long.window(), 1_000);
        assert_eq!(
            look(&long.limits, &[], cpu(3, 0), cpu(4, 1), long.window()),
            fault
        );
        assert_eq!(look(&long.limits, &[], cpu(3, 0), cpu(3, 0), long.window()), None);
    }

    #[test]
    fn a_kill_after_the_stop_signal_is_the_end_of_who_resisted() {
        let ended = |act: fn(&mut Watch), code| {
            let mut watch = Watch::default();
            act(&mut watch);
            watch.end(code)
        };
        let resisted = ended(
            |watch| {
                watch.signalled(15, 1_000);
                watch.forced(3_000);
                watch.forced(4_000);
            },
            137,
        );
        let expected = Fault::Resisted {
            signal: 15,
            grace: 2_000,
        };
        assert_eq!(resisted, Some(expected));
        // It ended by itself, just when it was killed; or somebody else has killed it.
        let late = |watch: &mut Watch| {
            watch.signalled(15, 0);
            watch.forced(9);
        };
        assert_eq!(ended(late, 0), None);
        assert_eq!(ended(|watch| watch.forced(9), 137), None);
        assert_eq!(ended(|watch| watch.signalled(15, 9), 143), None);
    }

    #[test]
    fn nothing_wakes_a_shim_without_a_reason() {
        let mut watch = Watch::default();
        watch.runs(u32::MAX, 0);
        assert_eq!(watch.deadline(), None);
        assert!(!watch.attend(5_000), "nothing is wrong");
        assert_eq!(watch.deadline(), Some(5_000 + PERIOD));
        watch.plan(6_000);
        assert_eq!(watch.deadline(), Some(6_000 + PERIOD));
        watch.plan(5_000 + ATTENTION);
        assert_eq!(watch.deadline(), None);
        // What is counted elsewhere is told at once, and then is no reason either.
        let lost = Fault::OutputLost {
            to: "syslog".into(),
            why: String::new(),
            least: 1,
        };
        for expected in [true, false] {
            watch.logged(Some(&lost), 10_000);
            assert_eq!(watch.deadline(), expected.then_some(10_000));
            if expected {
                assert!(watch.look(10_000));
                assert_eq!(watch.faults, std::slice::from_ref(&lost));
            }
        }
        assert!(!watch.look(20_000), "it is the same");
        watch.logged(None, 20_000);
        assert!(watch.look(20_000));
        assert_eq!((watch.faults.as_slice(), watch.deadline()), (&[][..], None));
    }
}

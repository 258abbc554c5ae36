//! What was measured, one row for each kind of damage, and which promises are broken.

use std::{collections::BTreeMap, time::Duration, time::Instant};

use super::{
    host::{damage::Damage, target::Target},
    load::Loss,
};

/// The 99th percentile of each kind is to be no more (milliseconds).
const PROMISE: f64 = 1000.0;
/// A request that began so long after a repair has nothing to do with the damage.
const AFTER: Duration = Duration::from_millis(300);

#[derive(Default)]
pub struct Row {
    /// Milliseconds, sorted when printed.
    pub times: Vec<f64>,
    /// Not repaired in time.
    pub failed: usize,
    /// The kernel did not allow it.
    pub refused: usize,
    /// Processes that are not the same any more, where none was hurt.
    pub hurt: usize,
    /// Things of bystanders that were made anew.
    pub touched: usize,
    /// Requests lost by services out of reach of the damage, and by those in its reach.
    pub bystanders: usize,
    pub lost: usize,
    /// What woke the loop first, and how often.
    wakes: BTreeMap<String, usize>,
}

/// When which damage was felt.
pub struct Window {
    pub damage: usize,
    pub begun: Instant,
    pub whole: Instant,
    pub victim: usize,
}

impl Row {
    /// `log`: what the agent has said meanwhile.
    pub fn noticed(&mut self, log: &str) {
        let wake = log.lines().find(|line| line.contains(" wake "));
        let reason = wake.and_then(|line| {
            let (_, event) = line.split_once("event=").or_else(|| line.split_once("reason="))?;
            event.split(['(', ' ']).next()
        });
        let reason = match reason.map(|reason| reason.trim_matches('"')) {
            // Not the loop's work, or nothing to be done.
            None => "-",
            Some("timer") => "look",
            Some("Lost") => "records",
            Some(reason) => reason,
        };
        *self.wakes.entry(reason.to_lowercase()).or_default() += 1;
    }

    fn at(&self, percent: usize) -> f64 {
        let last = self.times.len().saturating_sub(1);
        let time = self.times.get((last * percent).div_ceil(100));
        time.copied().unwrap_or(f64::NAN)
    }

    fn print(&self, damage: &Damage) {
        let mut wakes: Vec<(&String, &usize)> = self.wakes.iter().collect();
        wakes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let noticed: Vec<&str> = wakes.iter().take(2).map(|(reason, _)| reason.as_str()).collect();
        let note = match (self.refused > 0, damage.fatal) {
            (true, _) => "  refused by the kernel",
            (false, true) => "  (its process is hurt)",
            (false, false) => "",
        };
        println!(
            "{:<31} {:<19} {:>6.0} {:>6.0} {:>6.0} {:>6} {:>7} {:>10} {:>5} {:>8}{note}",
            damage.name,
            noticed.join(", "),
            self.at(50),
            self.at(99),
            self.at(100),
            self.failed,
            self.lost,
            self.bystanders,
            self.hurt,
            self.touched,
        );
    }
}

/// Counts each loss where it belongs; gives those that belong nowhere.
pub fn attribute(
    losses: Vec<Loss>,
    windows: &[Window],
    damages: &[&Damage],
    targets: &[Target],
    rows: &mut [Row],
) -> Vec<Loss> {
    let mut strange = Vec::new();
    for loss in losses {
        let touching = |after: Duration| {
            windows
                .iter()
                .filter(move |window| loss.start <= window.whole + after && loss.end >= window.begun)
        };
        let reaches = |window: &&Window| {
            targets[window.victim].within(damages[window.damage].reach, &targets[loss.service])
        };
        // A packet lost to one damage is missed for a second, in which others follow: the first that was
        // not repaired yet has lost it. It is a bystander's only where no damage that reaches it explains it.
        let own = touching(Duration::ZERO).find(reaches);
        if let Some(own) = own.or_else(|| touching(AFTER).rfind(reaches)) {
            rows[own.damage].lost += 1;
            continue;
        }
        let others: Vec<&Window> = touching(AFTER).collect();
        for window in &others {
            let port = targets[loss.service].port;
            eprintln!(
                "{}: bystander {port}: {}",
                damages[window.damage].name, loss.error
            );
            rows[window.damage].bystanders += 1;
        }
        if others.is_empty() {
            strange.push(loss);
        }
    }
    strange
}

pub fn print(damages: &[&Damage], rows: &mut [Row]) {
    println!(
        "{:<31} {:<19} {:>6} {:>6} {:>6} {:>6} {:>7} {:>10} {:>5} {:>8}",
        "", "woken by", "p50", "p99", "max", "not", "lost by", "lost by", "pids", "touched",
    );
    println!(
        "{:<31} {:<19} {:>6} {:>6} {:>6} {:>6} {:>7} {:>10} {:>5} {:>8}",
        "damage", "(event or look)", "ms", "ms", "ms", "whole", "victim", "bystanders", "", "",
    );
    for (damage, row) in damages.iter().zip(rows) {
        row.times.sort_by(f64::total_cmp);
        row.print(damage);
    }
}

/// What was promised and is not so.
pub fn broken(damages: &[&Damage], rows: &[Row]) -> Vec<String> {
    let mut broken = Vec::new();
    for (damage, row) in damages.iter().zip(rows) {
        let mut say = |what: String| broken.push(format!("{}: {what}", damage.name));
        if row.failed > 0 {
            say(format!("{} times not repaired", row.failed));
        }
        if row.at(99) > PROMISE {
            say(format!("repaired within {:.0} ms in 99 of 100 cases", row.at(99)));
        }
        if row.hurt > 0 {
            say(format!("{} processes restarted without need", row.hurt));
        }
        if row.touched > 0 {
            say(format!("{} things of bystanders made anew", row.touched));
        }
        if row.bystanders > 0 {
            say(format!("{} requests lost by bystanders", row.bystanders));
        }
    }
    broken
}

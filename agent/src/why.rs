//! From the journal to chains of causes: what somebody asked or what happened, and what followed from it. Pure.

mod words;

use std::fmt;

use reconciler::{
    journal::{Entry, Kind},
    plan::step::Cause,
};
use serde::Serialize;

pub use words::{clock, difference, seconds, time};

/// `PROJECT[/SERVICE[/INDEX]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Of {
    pub project: String,
    pub service: Option<String>,
    pub index: Option<u32>,
}

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.project)?;
        if let Some(service) = &self.service {
            write!(f, "/{service}")?;
        }
        self.index.map_or(Ok(()), |index| write!(f, "/{index}"))
    }
}

/// One cause and what followed from it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chain {
    /// Wall-clock milliseconds.
    pub at: u64,
    pub kind: Kind,
    /// What happened, for people.
    pub text: String,
    /// What differs, and where it stands.
    pub causes: Vec<Cause>,
    /// In the order in which it happened.
    pub then: Vec<Link>,
    /// It happened so often in a row, since this moment.
    pub times: u64,
    pub since: u64,
    #[serde(skip)]
    key: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Link {
    pub at: u64,
    pub kind: Kind,
    pub key: String,
    pub text: String,
    /// It only goes along with another step: names and rules that follow.
    pub minor: bool,
}

/// The chains that concern `of`, newest first. `entries` oldest first.
pub fn chains(entries: &[Entry], of: &Of) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    let mut running: Vec<(String, Link, usize)> = Vec::new();
    for entry in entries {
        let Some(causes) = concerns(entry, of) else {
            continue;
        };
        if begins(entry) {
            chains.push(Chain {
                at: entry.at.wall,
                kind: entry.kind,
                text: words::head(entry, &causes),
                causes,
                then: Vec::new(),
                times: entry.times.unwrap_or(1),
                since: entry.at.wall,
                key: entry.key.clone(),
            });
            continue;
        }
        // What came before the journal began had a cause, too.
        if chains.is_empty() {
            chains.push(Chain {
                at: entry.at.wall,
                kind: Kind::Event,
                text: "the journal begins here".into(),
                causes: Vec::new(),
                then: Vec::new(),
                times: 1,
                since: entry.at.wall,
                key: String::new(),
            });
        }
        let chain = belongs_to(entry, &chains);
        let link = Link {
            at: entry.at.wall,
            kind: entry.kind,
            key: entry.key.clone(),
            text: words::link(entry),
            minor: is_minor(entry),
        };
        // The end of a step tells its beginning.
        running.retain(|(key, ..)| *key != entry.key || !is_step(entry));
        if entry.kind == Kind::Started {
            running.push((entry.key.clone(), link, chain));
        } else if let Some(chain) = chains.get_mut(chain) {
            chain.then.push(link);
        }
    }
    for (_, link, chain) in running {
        if let Some(chain) = chains.get_mut(chain) {
            chain.then.push(link);
        }
    }
    chains.reverse();
    fold(chains)
}

/// The same again and again is one chain, with what followed from the last of them.
fn fold(chains: Vec<Chain>) -> Vec<Chain> {
    let mut folded: Vec<Chain> = Vec::new();
    for chain in chains {
        match folded.last_mut() {
            Some(newer)
                if newer.kind == Kind::Event && (&newer.key, &newer.text) == (&chain.key, &chain.text) =>
            {
                newer.since = chain.at;
                // An entry that stands for many has counted those before it.
                newer.times = newer.times.max(chain.times) + u64::from(chain.times == 1 && newer.times < 9);
            }
            _ => folded.push(chain),
        }
    }
    folded
}

/// Whether an entry is about `of`; of a changed manifest, what of it is.
fn concerns(entry: &Entry, of: &Of) -> Option<Vec<Cause>> {
    let mine = entry
        .project
        .as_ref()
        .is_none_or(|project| *project == of.project);
    if !mine {
        return None;
    }
    let causes = match entry.kind {
        Kind::Wanted => entry.differences.clone(),
        _ => vec![entry.cause.clone()],
    };
    let Some(service) = &of.service else {
        return Some(causes);
    };
    let field = format!("services.{service}");
    let is_of_it = |cause: &Cause| {
        let rest = cause.field.strip_prefix(&field);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    if entry.kind == Kind::Wanted {
        let own: Vec<Cause> = causes.into_iter().filter(is_of_it).collect();
        let whole = entry.cause.field != "revision";
        return (whole || !own.is_empty()).then_some(own);
    }
    if matches!(entry.kind, Kind::Refused | Kind::Rollback) {
        return Some(causes);
    }
    let (word, name) = entry.key.split_once(' ').unwrap_or(("", &entry.key));
    let parts: Vec<&str> = name.split('/').collect();
    let concerned = match (word, parts.as_slice()) {
        ("container" | "", [_, other, rest @ ..]) if word == "container" || entry.kind == Kind::Intent => {
            let index = rest.first().map(|index| index.trim_end_matches(['a', 'b']));
            let index = index.and_then(|index| index.parse::<u32>().ok());
            other == service && (of.index.is_none() || index.is_none() || of.index == index)
        }
        // What a service stands on, where it was not as it should be.
        ("network" | "volume" | "names", _) | ("", ["firewall"]) => {
            words::is_drift(&entry.cause) || is_of_it(&entry.cause)
        }
        _ => is_of_it(&entry.cause),
    };
    concerned.then_some(causes)
}

/// Something new: not a consequence of what is told already.
fn begins(entry: &Entry) -> bool {
    match entry.kind {
        Kind::Wanted | Kind::Refused | Kind::Intent | Kind::Rollback => true,
        Kind::Event => entry.cause.field != "health",
        _ => false,
    }
}

fn is_step(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::Started | Kind::Done | Kind::Failed)
}

fn is_minor(entry: &Entry) -> bool {
    let follows = matches!(entry.action.as_deref(), Some("set names" | "set firewall"));
    follows && entry.change.is_none() && entry.kind == Kind::Done
}

/// The chain an entry follows from: the latest whose cause it names, or else the latest.
fn belongs_to(entry: &Entry, chains: &[Chain]) -> usize {
    // Nothing follows from what is refused.
    let latest = chains.iter().rposition(|chain| chain.kind != Kind::Refused);
    let latest = latest.unwrap_or(chains.len().saturating_sub(1));
    if entry.kind == Kind::Opened {
        let waits = |link: &Link| link.kind == Kind::Waiting && link.key == entry.key;
        let waiting = chains.iter().rposition(|chain| chain.then.iter().any(waits));
        return waiting.unwrap_or(latest);
    }
    if !is_step(entry) {
        return latest;
    }
    let again = entry.action.as_deref() == Some("start again") && entry.change.is_none();
    let names = |cause: &Cause| {
        let (one, other) = (&cause.field, &entry.cause.field);
        let within =
            |whole: &str, part: &str| part.strip_prefix(whole).is_some_and(|rest| rest.starts_with('.'));
        one == other || within(one, other) || within(other, one)
    };
    chains
        .iter()
        .rposition(|chain| match chain.kind {
            Kind::Event if chain.key != entry.key && !chain.key.is_empty() => false,
            Kind::Event if again => true,
            Kind::Intent => entry.cause.field == "operator" || entry.cause.field == "intent",
            Kind::Wanted if chain.causes.is_empty() => !words::is_drift(&entry.cause) && !again,
            _ => chain.causes.iter().any(names),
        })
        .unwrap_or(latest)
}

#[cfg(test)]
mod tests;

//! The words for one entry of the journal.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use model::diagnostic::Span;
use reconciler::{
    journal::{Entry, Kind},
    plan::step::{Cause, Class},
};

use crate::text;

/// What stands in no manifest.
pub fn is_drift(cause: &Cause) -> bool {
    let head = cause.field.split('.').next().unwrap_or_default();
    !matches!(
        head,
        "services" | "networks" | "volumes" | "configs" | "secrets" | "manifest" | "down" | "revision"
    )
}

/// `shop.yaml:12`
pub fn place(span: &Span) -> String {
    let file = span
        .file
        .file_name()
        .unwrap_or(span.file.as_os_str())
        .to_string_lossy();
    match span.line {
        0 => file.into_owned(),
        line => format!("{file}:{line}"),
    }
}

/// The date and the time: as the clock of this host shows them.
pub fn clock(wall: u64) -> String {
    shown(wall, "%b %d %H:%M:%S")
}

/// The time of the day.
pub fn time(wall: u64) -> String {
    shown(wall, "%H:%M:%S")
}

fn shown(wall: u64, form: &str) -> String {
    let moment = i64::try_from(wall)
        .ok()
        .and_then(|wall| Timestamp::from_millisecond(wall).ok());
    moment.map_or_else(String::new, |moment| {
        moment.to_zoned(TimeZone::system()).strftime(form).to_string()
    })
}

/// The place, and what differs there.
pub fn difference(cause: &Cause) -> String {
    let class = match (&cause.old, &cause.new) {
        (None, None) => Class::Create,
        (Some(old), None) if old == "there" => Class::Remove,
        _ => Class::Restart,
    };
    let bare = Cause {
        span: None,
        ..cause.clone()
    };
    let what = text::because(Some(class), "", &bare);
    match &cause.span {
        Some(span) => format!("{}  {what}", place(span)),
        None => what,
    }
}

/// The beginning of a chain.
pub fn head(entry: &Entry, causes: &[Cause]) -> String {
    let cause = &entry.cause;
    let new = cause.new.clone().unwrap_or_default();
    let short = |revision: &Option<String>| {
        let revision = revision.as_deref().unwrap_or("-");
        revision.chars().take(12).collect::<String>()
    };
    match entry.kind {
        Kind::Wanted if cause.field != "revision" => new,
        Kind::Wanted if cause.old.is_none() => match causes {
            [one] => difference(one),
            _ => format!("{} is new", entry.key),
        },
        Kind::Wanted => match causes {
            [one] => difference(one),
            [] => "the manifest is to be followed again".into(),
            _ => "the manifest changed".into(),
        },
        Kind::Refused => {
            let place = cause
                .span
                .as_ref()
                .map(|span| format!("{}  ", place(span)))
                .unwrap_or_default();
            let hint = entry
                .error
                .as_ref()
                .map(|hint| format!("; {hint}"))
                .unwrap_or_default();
            match cause.field.as_str() {
                "plan" => format!("`apply --plan` was refused: {new}{hint}"),
                _ => format!("{place}this manifest is not followed: {new}{hint}"),
            }
        }
        Kind::Intent => format!("an operator ordered for {}: {new}", entry.key),
        Kind::Rollback if cause.field == "image" => format!(
            "{} was taken back: {}; {} runs until the tag moves on or the manifest changes",
            cause.old.as_deref().unwrap_or("the image"),
            entry.error.as_deref().unwrap_or("it failed"),
            cause.new.as_deref().unwrap_or("the one before"),
        ),
        Kind::Rollback => format!(
            "revision {} was taken back: {}; revision {} runs until the manifest changes",
            short(&cause.old),
            entry.error.as_deref().unwrap_or("it failed"),
            short(&cause.new),
        ),
        _ if matches!(cause.field.as_str(), "process" | "supervisor" | "fault") => {
            let whose = if cause.field != "supervisor" {
                ""
            } else {
                "its supervisor: "
            };
            format!("{}: {whose}{new}", subject(&entry.key))
        }
        _ if new.starts_with(&cause.field) => format!("{}: {new}", subject(&entry.key)),
        _ => format!("{}: {}: {new}", subject(&entry.key), cause.field),
    }
}

/// What followed.
pub fn link(entry: &Entry) -> String {
    let who = subject(&entry.key);
    let new = entry.cause.new.as_deref().unwrap_or_default();
    let action = entry.action.as_deref().unwrap_or_default();
    let times = match entry.times {
        Some(times) => format!(" ({times} times)"),
        None => String::new(),
    };
    let took = entry
        .took
        .filter(|took| *took >= 50)
        .map(|took| format!(", in {}", seconds(took)));
    let took = took.unwrap_or_default();
    let text = match entry.kind {
        Kind::Started => format!("{who}: {} goes on", going_on(action)),
        Kind::Done => format!("{who} {}{took}", done(entry, action)),
        Kind::Failed => {
            let error = entry.error.as_deref().unwrap_or_default();
            format!("{who}: {} failed: {error}", going_on(action))
        }
        Kind::Waiting => match entry.until {
            Some(until) => format!("{who} waits until {}: {new}", time(until)),
            None => format!("{who} waits: {new}"),
        },
        Kind::Opened => format!("{who} waits no longer: {new}"),
        _ => format!("{who}: {new}"),
    };
    format!("{text}{times}")
}

fn going_on(action: &str) -> &'static str {
    match action {
        "unpack image" => "the unpacking",
        "make network" | "make volume" | "make sandbox" => "the making",
        "remove network" | "remove volume" | "remove sandbox" => "the removal",
        "start" | "start again" => "the start",
        "stop" => "the stop",
        "update" => "the update",
        "set firewall" | "set names" => "the setting",
        _ => "the change",
    }
}

fn done(entry: &Entry, action: &str) -> &'static str {
    let repaired = is_drift(&entry.cause) && entry.cause.field != "operator";
    match (action, entry.change) {
        ("unpack image", _) => "was unpacked",
        (
            "make network" | "make volume" | "make sandbox" | "set firewall" | "set names",
            Some(Class::Live),
        ) if repaired => "was put back as it should be",
        ("make network" | "make volume", _) => "was made",
        ("make sandbox", Some(Class::Live)) => "was changed without touching its process",
        ("make sandbox", _) => "got its sandbox",
        ("remove network" | "remove volume", _) => "was removed",
        ("remove sandbox", Some(Class::Remove)) => "was removed",
        ("remove sandbox", _) => "lost its sandbox",
        ("start", Some(Class::Create)) => "was started",
        ("start", Some(Class::Recreate)) => "was started in a new sandbox",
        ("start", _) => "was started anew",
        ("start again", _) => "was started again",
        ("stop", _) => "was stopped",
        ("update", _) => "was changed without touching its process",
        ("set firewall" | "set names", _) => "followed",
        // Of an earlier stead, which told changes alone.
        (_, Some(Class::Create)) => "was made",
        (_, Some(Class::Remove)) => "was removed",
        _ => "was changed",
    }
}

/// `container shop/web/1a` is `web/1`.
fn subject(key: &str) -> String {
    let (word, name) = key.split_once(' ').unwrap_or(("", key));
    let rest = name.split_once('/').map_or(name, |(_, rest)| rest);
    match word {
        "container" => rest.strip_suffix('a').unwrap_or(rest).to_owned(),
        "names" => format!("names of {rest}"),
        "" if key == "firewall" => "the firewall".to_owned(),
        "" => key.to_owned(),
        word => format!("{word} {rest}"),
    }
}

/// `0.3 s`, `12 s`, `3 min`
pub fn seconds(milliseconds: u64) -> String {
    let time = Duration::from_millis(milliseconds);
    match time.as_secs() {
        0..=9 => format!("{:.1} s", time.as_secs_f64()),
        10..=119 => format!("{} s", time.as_secs()),
        120..=7199 => format!("{} min", time.as_secs() / 60),
        7200..=172_799 => format!("{} h", time.as_secs() / 3600),
        _ => format!("{} days", time.as_secs() / 86_400),
    }
}

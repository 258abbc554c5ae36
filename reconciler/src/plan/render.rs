//! The plan for people and for programs, and the hash that names it.

use std::fmt::Write;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::step::{Cause, Change, Class, Plan, Waiting};

/// Longer values are cut in the text for people.
const WIDTH: usize = 60;

/// What `plan HASH` prints: over the changes that manifests cause in `project` (`None`: all), never
/// over supervision, times or pids. Twelve hexadecimal digits.
pub fn hash(plan: &Plan, project: Option<&str>) -> String {
    let mut hasher = Sha256::new();
    for change in changes(plan, project).filter(|change| from_manifest(&change.cause)) {
        let cause = &change.cause;
        let parts = [
            change.key.to_string(),
            word(change.class).to_owned(),
            cause.field.clone(),
            format!("{:?}", cause.old),
            format!("{:?}", cause.new),
        ];
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
    }
    hasher
        .finalize()
        .iter()
        .take(6)
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn changes<'p>(plan: &'p Plan, project: Option<&'p str>) -> impl Iterator<Item = &'p Change> {
    plan.changes
        .iter()
        .filter(move |change| project.is_none() || change.key.project() == project)
}

/// Causes that stand in a manifest, or in its absence; the others are the host's doing.
pub(crate) fn from_manifest(cause: &Cause) -> bool {
    let head = cause.field.split('.').next().unwrap_or_default();
    matches!(head, "services" | "networks" | "volumes" | "manifest" | "down")
}

/// One change a line, then what waits, a summary and the hash; `nothing to do` when there is nothing.
pub fn render(plan: &Plan) -> String {
    let mut text = String::new();
    // A gate is told with the change that it holds back.
    let told = |waiting: &&Waiting| {
        let gate = |change: &Change| change.gate.as_ref() == Some(&waiting.why);
        plan.changes
            .iter()
            .any(|change| change.key == waiting.key && gate(change))
    };
    let waiting: Vec<&Waiting> = plan.waiting.iter().filter(|waiting| !told(waiting)).collect();
    let keys = plan.changes.iter().map(|change| &change.key);
    let keys = keys.chain(waiting.iter().map(|waiting| &waiting.key));
    let width = keys.map(|key| key.to_string().len()).max().unwrap_or(0);
    for change in &plan.changes {
        let key = change.key.to_string();
        let mut why = because(Some(change.class), &key, &change.cause);
        if let Some(gate) = &change.gate {
            let _ = write!(why, "; {gate}");
        }
        text.push_str(&line(word(change.class), &key, width, &why));
    }
    for waiting in waiting {
        text.push_str(&line("waiting", &waiting.key.to_string(), width, &waiting.why));
    }
    let counts: Vec<String> = [
        (Class::Create, "to create"),
        (Class::Live, "to change live"),
        (Class::Restart, "to restart"),
        (Class::Recreate, "to recreate"),
        (Class::Remove, "to remove"),
    ]
    .into_iter()
    .filter_map(|(class, text)| {
        let count = count(plan, class);
        (count > 0).then(|| format!("{count} {text}"))
    })
    .collect();
    if counts.is_empty() {
        text.push_str("nothing to do\n");
    } else {
        let _ = writeln!(text, "{}", counts.join(", "));
    }
    let _ = writeln!(text, "plan {}", hash(plan, None));
    text
}

/// One line as `plan` and the progress show it: a word, what it is about, and why.
pub fn line(word: &str, key: &str, width: usize, why: &str) -> String {
    format!("{word:<8} {key:<width$}   {why}\n")
}

/// Why something is done: `services.web.environment.A changed 1 → 2 (compose.yaml:7)`. `key` in its text
/// form; `class` is `None` for supervision.
pub fn because(class: Option<Class>, key: &str, cause: &Cause) -> String {
    let Cause {
        field,
        old,
        new,
        span,
    } = cause;
    let mut text = match (class, old, new) {
        (None, _, Some(new)) => cut(new),
        (Some(Class::Create), None, Some(_)) if key.starts_with("image ") => {
            format!("{field} is not unpacked yet")
        }
        (Some(Class::Create), None, Some(new)) => format!("{field} is {new}"),
        (Some(Class::Create), ..) => format!("{field} is new"),
        (Some(Class::Remove), Some(old), Some(new)) => format!("{field} changed {} → {}", cut(old), cut(new)),
        (Some(Class::Remove), _, Some(new)) => format!("{field} {new}"),
        (Some(Class::Remove), ..) if field == "down" => "it is taken down".to_owned(),
        (Some(Class::Remove), ..) if field == "manifest" => "its manifest is gone".to_owned(),
        (Some(Class::Remove), ..) => format!("{field} is gone"),
        (_, Some(old), Some(new)) => format!("{field} changed {} → {}", cut(old), cut(new)),
        (_, Some(old), None) => format!("{field} removed, was {}", cut(old)),
        (_, None, Some(new)) if from_manifest(cause) => format!("{field} set to {}", cut(new)),
        (_, None, Some(new)) => format!("{field}: {new}"),
        (_, None, None) => format!("{field} changed"),
    };
    if let Some(span) = span {
        let file = span.file.file_name().map_or_else(
            || span.file.display().to_string(),
            |name| name.to_string_lossy().into_owned(),
        );
        let _ = match span.line {
            0 => write!(text, " ({file})"),
            line => write!(text, " ({file}:{line})"),
        };
    }
    text
}

fn cut(value: &str) -> String {
    let value = value
        .escape_debug()
        .to_string()
        .replace("\\\"", "\"")
        .replace("\\'", "'");
    if value.chars().count() <= WIDTH {
        return value;
    }
    value.chars().take(WIDTH - 1).chain(['…']).collect()
}

/// The class as it is printed everywhere.
pub fn word(class: Class) -> &'static str {
    match class {
        Class::Create => "create",
        Class::Live => "live",
        Class::Restart => "restart",
        Class::Recreate => "recreate",
        Class::Remove => "remove",
    }
}

fn count(plan: &Plan, class: Class) -> usize {
    plan.changes.iter().filter(|change| change.class == class).count()
}

/// `plan --json`: hash, changes, steps, waiting, summary.
pub fn json(plan: &Plan) -> Value {
    let changes: Vec<Value> = plan
        .changes
        .iter()
        .map(|change| {
            let span = change.cause.span.as_ref();
            json!({
                "key": change.key.to_string(),
                "class": word(change.class),
                "cause": {
                    "field": change.cause.field,
                    "old": change.cause.old,
                    "new": change.cause.new,
                    "file": span.map(|span| &span.file),
                    "line": span.map(|span| span.line),
                },
                "gate": change.gate,
            })
        })
        .collect();
    let steps: Vec<Value> = plan
        .steps
        .iter()
        .map(|step| {
            json!({
                "id": step.id,
                "key": step.key.to_string(),
                "action": step.action,
                "after": step.after,
            })
        })
        .collect();
    let waiting: Vec<Value> = plan
        .waiting
        .iter()
        .map(|waiting| json!({"key": waiting.key.to_string(), "why": waiting.why, "until": waiting.until}))
        .collect();
    json!({
        "hash": hash(plan, None),
        "changes": changes,
        "steps": steps,
        "waiting": waiting,
        "summary": {
            "create": count(plan, Class::Create),
            "live": count(plan, Class::Live),
            "restart": count(plan, Class::Restart),
            "recreate": count(plan, Class::Recreate),
            "remove": count(plan, Class::Remove),
        },
    })
}

#[cfg(test)]
mod tests;

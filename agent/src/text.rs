//! The doors of `model` and `reconciler` that turn projects and plans into text.

use std::path::Path;

use model::{
    diagnostic::{Diagnostic, Severity},
    types::Project,
};
use reconciler::plan::step::Plan;
use serde_json::{Value, json};

/// The files of this host.
pub struct Disk;

impl model::source::Sources for Disk {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        std::fs::read(path)
    }
}

pub fn project_name(text: &str) -> String {
    text.to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '_' || *c == '-')
        .collect::<String>()
        .trim_start_matches(['_', '-'])
        .to_owned()
}

pub fn revision(project: &Project) -> String {
    let text = serde_json::to_string(project).unwrap_or_default();
    backend::names::short_hash(text.as_bytes())
}

pub fn diagnostic(diagnostic: &Diagnostic, _colour: bool) -> String {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let span = &diagnostic.span;
    let mut text = format!(
        "{}:{}:{}: {severity}: {}",
        span.file.display(),
        span.line,
        span.column,
        diagnostic.message
    );
    if let Some(hint) = &diagnostic.hint {
        text.push_str(&format!("\n  hint: {hint}"));
    }
    text
}

pub fn project_yaml(project: &Project) -> String {
    project_json(project)
}

pub fn project_json(project: &Project) -> String {
    serde_json::to_string_pretty(project).unwrap_or_default()
}

pub fn plan_text(plan: &Plan, hash: &str) -> String {
    let mut text = String::new();
    for change in &plan.changes {
        text.push_str(&format!("{}  {:?}  ({})\n", change.key, change.class, change.cause.field));
    }
    text.push_str(&format!("plan {hash}\n"));
    text
}

pub fn plan_json(plan: &Plan, hash: &str) -> Value {
    json!({"hash": hash, "changes": plan.changes, "steps": plan.steps, "waiting": plan.waiting})
}

pub fn plan_hash(plan: &Plan, project: Option<&str>) -> String {
    reconciler::plan::hash(plan, project)
}

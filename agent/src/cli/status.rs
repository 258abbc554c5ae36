//! `stead status`: how far each project is, and what it waits for.

use super::{Global, known, print, print_json, progress::reasons};
use crate::{
    api::wire::{Condition, Diagnostic, LAST_GOOD, Project},
    client::encode,
    render,
};

#[derive(Debug, clap::Args)]
pub struct Status {
    /// Only this one.
    project: Option<String>,
}

impl Status {
    pub async fn run(&self, global: &Global) -> anyhow::Result<u8> {
        let query = self
            .project
            .as_ref()
            .map(|project| format!("?project={}", encode(project)));
        let rows: Vec<Project> = global
            .client()?
            .get(&format!("/v1/status{}", query.unwrap_or_default()))
            .await?;
        if let Some(project) = self.project.as_ref().filter(|_| rows.is_empty()) {
            return Err(known::no_project(project));
        }
        if global.json {
            print_json(&rows)?;
        } else {
            print(&text(&rows, render::colour_out()))?;
        }
        Ok(0)
    }
}

fn text(rows: &[Project], colour: bool) -> String {
    let short = |revision: &Option<String>| match revision {
        Some(revision) => revision.chars().take(12).collect(),
        None => "-".to_owned(),
    };
    let head = [
        "PROJECT",
        "STATE",
        "SEEN",
        "TRIED",
        "APPLIED",
        "NEXT ATTEMPT",
        "SOURCE",
    ];
    let cells = |row: &Project| {
        vec![
            row.project.clone(),
            row.state.clone(),
            short(&row.revision.seen),
            short(&row.revision.tried),
            short(&row.revision.applied),
            row.next_attempt.clone().unwrap_or_else(|| "-".into()),
            row.source
                .as_ref()
                .map(|source| source.display().to_string())
                .unwrap_or_default(),
        ]
    };
    let mut text = render::table(&head, &rows.iter().map(cells).collect::<Vec<_>>(), colour);
    for row in rows {
        text.push_str(&notes(row));
    }
    text
}

/// What stands behind the state, one a line.
fn notes(row: &Project) -> String {
    let mut text = String::new();
    for condition in &row.conditions {
        // The diagnostics below say what is wrong with the manifest; a line of its own is for the rest.
        let own = match condition.kind.as_str() {
            "ManifestValid" => row.diagnostics.is_empty(),
            "Waiting" | "Failed" | "Fault" => false,
            _ => true,
        };
        if own && !condition.message.is_empty() {
            text.push_str(&format!("  {}\n", condition.message));
        }
    }
    for (word, key, why) in reasons(row) {
        text.push_str(&format!("  {word:<8} {key}: {why}\n"));
    }
    for fault in row
        .conditions
        .iter()
        .filter(|condition| condition.kind == "Fault")
    {
        text.push_str(&format!("  {:<8} {}: {}\n", "fault", fault.reason, fault.message));
    }
    for diagnostic in &row.diagnostics {
        text.push_str(&format!("{}\n", line(diagnostic)));
    }
    let kept = |condition: &Condition| condition.message.ends_with(LAST_GOOD);
    if !row.diagnostics.is_empty() && row.conditions.iter().any(kept) {
        text.push_str(&format!("  {LAST_GOOD}\n"));
    }
    if text.is_empty() {
        text
    } else {
        format!("\n{}:\n{text}", row.project)
    }
}

pub fn line(diagnostic: &Diagnostic) -> String {
    let position = match diagnostic.line {
        0 => String::new(),
        line => format!(":{line}:{}", diagnostic.column),
    };
    let hint = diagnostic
        .hint
        .as_ref()
        .map(|hint| format!("\n    hint: {hint}"))
        .unwrap_or_default();
    let file = diagnostic.file.display();
    format!(
        "  {file}{position}: {}: {}{hint}",
        diagnostic.severity, diagnostic.message
    )
}

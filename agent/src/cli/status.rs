//! `stead status`: how far each project is, and what it waits for.

use super::{Global, print, print_json};
use crate::{
    api::wire::{Diagnostic, Project},
    client::encode,
    render,
};

#[derive(Debug, clap::Args)]
pub struct Status {
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
    for condition in row
        .conditions
        .iter()
        .filter(|condition| !condition.message.is_empty())
    {
        let what = condition.kind.to_lowercase();
        // The diagnostics below say it better.
        if what != "manifestvalid" || row.diagnostics.is_empty() {
            text.push_str(&format!("  {what} {}: {}\n", condition.reason, condition.message));
        }
    }
    for diagnostic in &row.diagnostics {
        text.push_str(&format!("{}\n", line(diagnostic)));
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

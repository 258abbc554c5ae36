//! Manifests that are not followed, for the journal: each of their errors once, when it appears. Pure.

use model::diagnostic::Diagnostic;
use reconciler::{
    journal::{Entry, Kind},
    plan::step::Cause,
    time::Now,
};

use crate::intake::Report;

/// Errors of `report` that `before` had not, and manifests that are good again.
pub fn of_manifests(before: &Report, report: &Report, now: Now) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (name, seen) in &report.projects {
        let known: &[Diagnostic] = before
            .projects
            .get(name)
            .map_or(&[], |before| before.diagnostics.as_slice());
        let is_known = |found: &&Diagnostic| {
            let like = |known: &Diagnostic| known.span == found.span && known.message == found.message;
            !known.iter().any(like)
        };
        let errors = seen.diagnostics.iter().filter(|found| found.is_error());
        for found in errors.filter(is_known) {
            let cause = Cause {
                field: "manifest".into(),
                old: None,
                new: Some(found.message.clone()),
                span: Some(found.span.clone()),
            };
            let mut entry = Entry::new(now, Kind::Refused, Some(name), name, cause);
            entry.error.clone_from(&found.hint);
            entries.push(entry);
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{intake::Seen, source::error_at};

    fn report(errors: &[&str]) -> Report {
        let file = std::path::Path::new("/m/shop.yaml");
        let found = errors.iter().map(|error| error_at(file, *error, "a remedy"));
        let seen = Seen {
            source: file.into(),
            manifest: None,
            revision: None,
            project: None,
            diagnostics: found.collect(),
            down: false,
        };
        Report {
            projects: [("shop".to_owned(), seen)].into(),
            ..Report::default()
        }
    }

    #[test]
    fn an_error_is_told_when_it_appears_and_not_at_each_reading() {
        let told = |before: &[&str], now: &[&str]| {
            let entries = of_manifests(&report(before), &report(now), Now::default());
            let texts = entries.into_iter().filter_map(|entry| entry.cause.new);
            texts.collect::<Vec<_>>()
        };
        assert_eq!(told(&[], &["one", "two"]), ["one", "two"]);
        assert_eq!(told(&["one"], &["one", "two"]), ["two"]);
        assert!(told(&["one"], &["one"]).is_empty() && told(&["one"], &[]).is_empty());
        assert_eq!(
            of_manifests(&Report::default(), &report(&["one"]), Now::default()).len(),
            1
        );
    }
}

//! What this host cannot keep of a manifest that is good anywhere else.

use std::sync::Arc;

use model::{diagnostic::Diagnostic, types::Project};
use reconciler::{ability, observed::Abilities};

use super::{Intake, cache::Entry};
use crate::source::line_of;

/// The host that manifests are held against.
#[derive(Default)]
pub struct Measure {
    /// As they were last looked at.
    abilities: Abilities,
    /// Some manifest asks for what those do not have.
    pub(super) wants_more: bool,
}

impl Intake {
    /// What manifests are measured against from now on.
    pub fn set_abilities(&mut self, abilities: Abilities) {
        self.measure.abilities = abilities;
    }

    /// Whether the manifests as they were last read would mean something else on a host with these.
    pub fn would_gain(&self, abilities: impl FnOnce() -> Abilities) -> bool {
        self.measure.wants_more && abilities() != self.measure.abilities
    }

    pub fn wants_more(&self) -> bool {
        self.measure.wants_more
    }

    /// The project, unless this host lacks something that it asks for; and all findings.
    pub(super) fn measured(&self, entry: &Entry) -> (Option<(Arc<Project>, String)>, Vec<Diagnostic>) {
        let mut diagnostics = entry.diagnostics.clone();
        let Some((project, _)) = &entry.good else {
            return (None, diagnostics);
        };
        let mut lacking = ability::lacking(project, &self.measure.abilities);
        for lack in &mut lacking {
            lack.source_line = line_of(&lack.span);
        }
        let refused = lacking.iter().any(Diagnostic::is_error);
        diagnostics.append(&mut lacking);
        (entry.good.clone().filter(|_| !refused), diagnostics)
    }
}

#[cfg(test)]
mod tests {
    use reconciler::observed::Lack;

    use super::{
        super::tests::{GOOD, Host, wish},
        *,
    };

    #[test]
    fn what_the_host_cannot_keep_leaves_the_last_good_version_until_it_can() {
        const LIMITED: &str =
            "services:\n  web:\n    image: 'builtin:hello'\n    hostname: better\n    pids_limit: 5\n";
        let mut host = Host::new();
        host.write("shop.yaml", GOOD);
        host.read();
        let missing = Lack::Missing {
            what: "this host cannot limit processes".into(),
            remedy: "boot one that can".into(),
        };
        let lacking = Abilities {
            attributes: [("pids_limit", missing)].into(),
            ..Abilities::default()
        };
        host.intake.set_abilities(lacking.clone());
        assert!(
            !host.read().1.projects["shop"].diagnostics[..]
                .iter()
                .any(Diagnostic::is_error)
        );
        assert!(
            !host.intake.would_gain(Abilities::default),
            "nobody asks for what is missing"
        );
        host.write("shop.yaml", LIMITED);
        host.write("new.yaml", LIMITED);
        let (desired, report) = host.read();
        assert_eq!(wish(&desired, "shop"), "run -");
        assert_eq!(wish(&desired, "new"), "hold");
        let seen = &report.projects["shop"];
        let found = &seen.diagnostics[0];
        assert_eq!((found.span.line, found.span.column), (5, 5));
        assert_eq!(found.source_line.as_deref(), Some("    pids_limit: 5"));
        assert!(seen.revision.is_none());
        // The file is the same, and the host is not.
        assert!(host.intake.would_gain(Abilities::default) && !host.intake.would_gain(|| lacking));
        host.intake.set_abilities(Abilities::default());
        let (desired, report) = host.read();
        assert_eq!(wish(&desired, "shop"), "run better");
        assert!(report.projects["shop"].diagnostics.is_empty());
    }
}

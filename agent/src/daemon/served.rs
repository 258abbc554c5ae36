//! Orders of an operator that are carried out are forgotten.

use reconciler::{desired::Intent, status::Status};

use super::Reader;
use crate::{api::views, intake::Report, orders};

impl Reader {
    /// Whether there is an order that is to be forgotten once it is carried out.
    pub(super) fn owes(&self) -> bool {
        let runs = |intent: &Intent| matches!(intent, Intent::Run { .. });
        let down = self.intake.down();
        self.intake.intents().values().any(runs)
            || down.keys().any(|project| !self.intake.has_manifest(project))
    }

    /// A `down` whose manifest is gone has served its purpose once nothing of it is left.
    pub(super) fn forget_what_is_down(&mut self, status: &Status) {
        let done: Vec<String> = self
            .intake
            .down()
            .iter()
            .filter(|(project, _)| !self.intake.has_manifest(project))
            .filter(|(project, volumes)| {
                views::objects(&status.observed, project, **volumes).is_some_and(|left| left.is_empty())
            })
            .map(|(project, _)| project.clone())
            .collect();
        for project in done {
            if let Err(error) = self.intake.set_down(&project, None) {
                tracing::error!(
                    project,
                    error = format!("{error:#}"),
                    "cannot clear the recorded `down`"
                );
            }
        }
    }

    /// An order to run is done once everything it names was started after it. Whether there was one.
    pub(super) fn forget_what_is_started(&mut self, status: &Status, report: &Report) -> bool {
        let left = orders::pending(report, &status.observed);
        if left.len() >= self.intake.intents().len() {
            return false;
        }
        if let Err(error) = self.intake.set_intents(left) {
            tracing::error!(error = format!("{error:#}"), "cannot clear an order that is done");
        }
        true
    }
}

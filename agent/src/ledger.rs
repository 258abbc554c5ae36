//! The loop's ledger on disk: the last converged revision of each project, and revisions that were taken back.

use std::path::PathBuf;

use backend::layout::Layout;
use reconciler::{
    converge::Kept,
    memory::{Barred, Good},
    port::Ledger,
};

use crate::intake::store;

/// `state/projects/<name>/{good,barred}.json`
pub struct FileLedger {
    projects: PathBuf,
}

impl FileLedger {
    pub fn new(layout: &Layout) -> Self {
        FileLedger {
            projects: layout.state.join("projects"),
        }
    }

    /// What the forerunner of this agent kept.
    ///
    /// # Errors
    /// The directory cannot be read, or a newer stead wrote there.
    pub fn kept(&self) -> anyhow::Result<Kept> {
        store::kept(&self.projects)
    }
}

impl Ledger for FileLedger {
    fn good(&self, name: &str, good: &Good) {
        if let Err(error) = store::write_good(&self.projects, name, good) {
            tracing::warn!(
                project = name,
                error = format!("{error:#}"),
                "a rollback would not find this revision"
            );
        }
    }

    fn barred(&self, name: &str, barred: Option<&Barred>) {
        if let Err(error) = store::write_barred(&self.projects, name, barred) {
            tracing::warn!(
                project = name,
                error = format!("{error:#}"),
                "the next agent would try this revision again"
            );
        }
    }
}

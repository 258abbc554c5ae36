//! Which revision of a project was good, and which is barred: what the ledger is told.

use super::{
    Engine, Note,
    images::{images_of, with_instances},
};
use crate::{
    desired::Wish,
    memory::{Barred, Good},
    plan::step::Plan,
    pull,
};

impl Engine {
    /// `name` is converged at `revision`, with the images that it has now.
    pub(super) fn note_good(&mut self, name: &str, revision: &str) {
        let Some(Wish::Run { project, .. }) = self.desired.projects.get(name) else {
            return;
        };
        let before = self.memory.good.get(name);
        let known = before.filter(|good| good.revision == revision);
        if known.is_some_and(|good| pull::are_those(&good.images, with_instances(project), &self.observed)) {
            return;
        }
        let images = pull::digests(with_instances(project), &self.observed);
        // Of two digests of one name, only one is noted.
        if known.is_some_and(|good| good.images == images) {
            return;
        }
        self.proven |= before.is_some_and(|good| good.images != images);
        let good = Good::new(revision.to_owned(), project.clone(), images);
        self.memory.good.insert(name.to_owned(), good.clone());
        self.notes.push(Note::Good {
            project: name.to_owned(),
            good,
        });
    }

    /// What was taken back is tried again where it is another by now. False: nothing.
    pub(super) fn unbar(&mut self) -> bool {
        let over = self.memory.unbar(&self.desired, &self.observed);
        for project in &over {
            self.touched.project(project);
            self.notes.push(Note::Barred {
                project: project.clone(),
                barred: None,
            });
        }
        !over.is_empty()
    }

    /// Takes back what `plan` says has failed. False: nothing.
    pub(super) fn roll_back(&mut self, plan: &Plan) -> bool {
        let taken = self.memory.roll_back(plan);
        for (project, barred) in &taken {
            let (revision, why) = (&barred.revision, &barred.why);
            let images = Barred::named(&barred.images);
            tracing::warn!(project, revision, images, why, "rolled back");
            self.outdate(project);
            if let Some(good) = self.memory.good.get(project) {
                self.dirty.add_images(images_of(&good.project));
            }
            self.notes.push(Note::Barred {
                project: project.clone(),
                barred: Some(barred.clone()),
            });
        }
        if !taken.is_empty() {
            self.follow();
        }
        !taken.is_empty()
    }
}

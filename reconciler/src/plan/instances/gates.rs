//! What an instance waits for before it starts: its dependencies, each as its condition says.

use model::types::{self, Condition};

use super::{Ground, Instances};
use crate::{
    gate::{self, Dependency, Gate},
    key::Key,
    plan::{
        draft::{Draft, Ready},
        spaces,
        step::Class,
        verdict::{Course, Verdict},
        wanted::{Member, Wanted},
    },
};

/// What a service that is to start waits for.
#[derive(Default)]
pub(super) struct Gates {
    /// Of two slots of a dependency, the new one counts; otherwise the one that serves.
    anew: bool,
    pub(super) needs: Vec<Ready>,
    /// Why nothing starts in this pass.
    pub(super) closed: Option<String>,
    texts: Vec<String>,
}

impl Gates {
    pub(super) fn of(
        draft: &Draft<'_>,
        ground: &Ground<'_>,
        instances: &Instances,
        wanted: Wanted<'_>,
        anew: bool,
    ) -> Gates {
        let mut gates = Gates {
            anew,
            ..Gates::default()
        };
        for (name, on) in &wanted.service.depends_on {
            gates.dependency(draft, ground, instances, wanted, name, on);
        }
        gates
    }

    /// Every instance of the dependency must be as the condition says. One that fails holds nobody who
    /// does not require it.
    fn dependency(
        &mut self,
        draft: &Draft<'_>,
        ground: &Ground<'_>,
        instances: &Instances,
        wanted: Wanted<'_>,
        name: &str,
        on: &types::Dependency,
    ) {
        let text = gate::text(name, on.condition);
        let mut needs = Vec::new();
        let mut closed = None;
        for place in ground.wants.of(&wanted.project.name, name) {
            let Some(member) = ground.wants.instances.get(place) else {
                continue;
            };
            let key = &member.key;
            let passed_over = match self.anew {
                true => ground.wants.replaced.contains_key(key),
                false => ground.wants.pairs.get(key).is_some_and(|pair| !pair.flipped),
            };
            let Some(verdict) = ground.verdicts.get(place).filter(|_| !passed_over) else {
                continue;
            };
            // Who restarts with it does so once, after the last one is what it shall be; and that an earlier
            // version has come to its end says nothing.
            let whole = spaces::restarts_with(wanted.service, name, on)
                || on.condition == Condition::CompletedSuccessfully;
            if self.anew && whole && ground.wants.held.contains_key(key) {
                closed = closed.or(Some(format!("after {name} is updated")));
                continue;
            }
            match gate::gate(on.condition, dependency(draft, ground, (place, member), verdict)) {
                Gate::Open => {}
                Gate::OnStart => match instances.starts.get(place).copied().flatten() {
                    Some(Ready::Blocked) | None => closed = closed.or(Some(text.clone())),
                    Some(ready) => needs.push(ready),
                },
                Gate::Shut => closed = closed.or(Some(text.clone())),
                Gate::Stuck(_) if !on.required => return,
                Gate::Stuck(why) => closed = Some(why),
            }
        }
        if closed.is_some() {
            needs.push(Ready::Blocked);
        }
        if !needs.is_empty() {
            self.texts.push(text);
        }
        self.needs.extend(needs);
        self.closed = self.closed.take().or(closed);
    }

    pub(super) fn text(&self) -> Option<String> {
        (!self.texts.is_empty()).then(|| self.texts.join(", "))
    }
}

fn dependency<'g>(
    draft: &Draft<'g>,
    ground: &'g Ground<'_>,
    (place, member): (usize, &'g Member<'_>),
    verdict: &'g Verdict<'g>,
) -> Dependency<'g> {
    let key = &member.key;
    let failed = match (&verdict.target, ground.allocation.sandboxes.get(place)) {
        (Err(why), _) | (_, Some(Err(why))) => Some(why),
        _ => {
            let failed = draft.memory.held(&Key::Instance(key.clone()), draft.now);
            failed.map(|failed| &failed.message)
        }
    };
    // Stopped by an operator, it is not replaced before it is started.
    let class = verdict.change.as_ref().map(|(class, _)| *class);
    let outdated =
        verdict.stopped.is_some() && class >= Some(Class::Restart) && !planted!("stopped-counts-as-replaced");
    Dependency {
        project: &key.project,
        name: &key.service,
        seen: member.seen,
        changing: verdict.starts() || outdated,
        last: verdict.course == Course::Rest,
        hooked: verdict
            .target
            .as_ref()
            .is_ok_and(|target| !target.post_start.is_empty() && !planted!("hooks-ignored")),
        ended: verdict.ended,
        stopped: verdict.stopped.as_deref(),
        failed: failed.map(String::as_str),
    }
}

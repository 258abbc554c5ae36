//! What `plan` prints: the same pure plan as the loop's, on a look at the host of its own.

use std::collections::{BTreeMap, BTreeSet};

use backend::layout::Layout;
use model::types::Service;
use reconciler::{
    converge::Kept,
    desired::{Desired, Wish},
    key::Key,
    memory::Memory,
    observed::{Fact, Image, Observed},
    plan::step::Plan,
    port::{Ask, Backend, Scope},
    pull,
};

use crate::{
    api::wire::PlanReply,
    environment, host,
    intake::{Intake, Report, store},
    source::{Snapshot, directory},
    text,
};

pub mod tags;

pub struct Planned {
    pub plan: Plan,
    pub hash: String,
    pub tags: Vec<tags::Tag>,
}

impl Planned {
    pub fn reply(self, diagnostics: Vec<String>, failed: bool) -> PlanReply {
        let mut plan = text::plan_json(&self.plan);
        plan["tags"] = serde_json::json!(self.tags);
        PlanReply {
            changes: self.plan.changes.len(),
            text: format!("{}{}", tags::render(&self.tags), text::plan_text(&self.plan)),
            plan,
            hash: self.hash,
            diagnostics,
            failed,
            wrong: false,
        }
    }
}

/// Images by their reference, as somebody has seen them.
pub type Images = BTreeMap<String, Fact<Image>>;

/// Looks at the host and plans for `projects` (none: all), knowing what an agent noted (`kept`). Blocks, and as long
/// as the sources of their images do: those of the others are as `seen` says.
pub fn plan(
    backend: &dyn Backend,
    desired: &Desired,
    projects: &BTreeSet<String>,
    seen: Images,
    kept: Kept,
) -> Planned {
    let mut observed = Observed {
        images: seen,
        ..Observed::nothing_known()
    };
    let scope = Scope {
        images: images(desired, projects),
        ..Scope::all()
    };
    backend.observe(&scope, &mut observed);
    let mut memory = Memory::from(kept);
    memory.unbar(desired, &observed);
    let whole = reconciler::plan::plan(desired, &observed, &memory, &Vec::new(), backend.now());
    let plan = narrow(whole, projects);
    let hash = text::plan_hash(&plan, None);
    let services =
        services(desired, projects).map(|(project, name, service)| (format!("{project}/{name}"), service));
    let tags = tags::tags(services, &observed.images);
    Planned { plan, hash, tags }
}

/// Whoever wants a plan wants to know also whether a tag has moved.
fn images(desired: &Desired, projects: &BTreeSet<String>) -> BTreeMap<String, Ask> {
    let wishes = pull::wishes(services(desired, projects).map(|(_, _, service)| service));
    let asked = wishes.into_iter().map(|(reference, wish)| match wish.ask {
        Ask::Never => (reference, Ask::Never),
        Ask::Missing | Ask::Anew => (reference, Ask::Anew),
    });
    asked.collect()
}

/// Those of `projects` (none: of all), each with the name of its project and its own.
fn services<'d>(
    desired: &'d Desired,
    projects: &BTreeSet<String>,
) -> impl Iterator<Item = (&'d String, &'d String, &'d Service)> {
    let wanted = desired.projects.iter();
    let wanted = wanted.filter(|(name, _)| projects.is_empty() || projects.contains(*name));
    wanted.flat_map(|(name, wish)| {
        let project = match wish {
            Wish::Run { project, .. } => Some(project),
            _ => None,
        };
        let services = project.into_iter().flat_map(|project| &project.services);
        services.map(move |(service_name, service)| (name, service_name, service))
    })
}

/// The part that concerns these projects; what belongs to all stays.
fn narrow(mut plan: Plan, projects: &BTreeSet<String>) -> Plan {
    if !projects.is_empty() {
        let concerns = |key: &Key| key.project().is_none_or(|project| projects.contains(project));
        plan.changes.retain(|change| concerns(&change.key));
        plan.steps.retain(|step| concerns(&step.key));
        plan.waiting.retain(|waiting| concerns(&waiting.key));
    }
    plan
}

/// Without an agent: everything read here, nothing written.
pub fn in_process(
    layout: &Layout,
    paths: &[std::path::PathBuf],
    projects: &[String],
) -> anyhow::Result<PlanReply> {
    let mut intake = Intake::open(layout, environment::of(layout)?, BTreeMap::new())?;
    intake.set_abilities(host::abilities());
    let mut snapshot = Snapshot::default();
    directory::Directory::new(layout.manifests.clone()).scan(&mut snapshot);
    // Never set up: there is nothing, and nothing is wrong with that.
    if !layout.manifests.exists() && !layout.state.exists() {
        snapshot.unknown.clear();
    }
    let (desired, report) = intake.take(&snapshot, &mut BTreeSet::new());
    let (desired, looked) = crate::daemon::commands::look(&intake, &desired, paths)?.parts();
    let mut names: BTreeSet<String> = projects.iter().cloned().collect();
    names.extend(looked.iter().map(|looked| looked.name.clone()));
    let known = if paths.is_empty() {
        seen(&report, &names)
    } else {
        Vec::new()
    };
    let wrong = known.iter().any(model::diagnostic::Diagnostic::is_error);
    let diagnostics = known
        .iter()
        .chain(looked.iter().flat_map(|looked| &looked.diagnostics))
        .map(|diagnostic| text::diagnostic(diagnostic, false))
        .collect();
    let failed = looked.iter().any(|looked| looked.good.is_none());
    if failed {
        return Ok(Planned {
            plan: Plan::default(),
            hash: String::new(),
            tags: Vec::new(),
        }
        .reply(diagnostics, true));
    }
    let backend = host::open_to_look(layout)?;
    let kept = store::kept(&layout.state.join("projects"))?;
    let reply = plan(&*backend, &desired, &names, Images::new(), kept).reply(diagnostics, false);
    Ok(PlanReply { wrong, ..reply })
}

/// What is wrong with these projects (none: all) as they were last read.
pub fn seen(report: &Report, names: &BTreeSet<String>) -> Vec<model::diagnostic::Diagnostic> {
    report
        .projects
        .iter()
        .filter(|(name, _)| names.is_empty() || names.contains(*name))
        .flat_map(|(_, seen)| seen.diagnostics.clone())
        .collect()
}

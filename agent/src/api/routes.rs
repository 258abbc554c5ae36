//! What can be asked.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use backend::layout::Layout;
use model::diagnostic::Diagnostic;
use reconciler::{
    observed::State as Running,
    port::{Attention, Backend},
    status::Status,
};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot, watch};

use super::{since::Since, views, wire};
use crate::{
    daemon::commands::{Command, Look},
    host,
    intake::{Report, store},
    journal::{FileJournal, Numbered},
    planning, text,
};

const MAX_BODY: usize = 1024 * 1024;

/// What the routes answer from.
#[derive(Clone)]
pub struct Context {
    pub layout: Arc<Layout>,
    pub backend: Arc<dyn Backend>,
    pub pulls: host::Pulls,
    pub journal: Arc<FileJournal>,
    pub status: watch::Receiver<Arc<Status>>,
    pub report: watch::Receiver<Arc<Report>>,
    pub commands: mpsc::Sender<Command>,
    pub since: Arc<Mutex<Since>>,
}

/// How long what has changed is left to change further before it is noted.
const NOTICE: Duration = Duration::from_millis(100);
/// Milliseconds after which what a supervisor suspects is certain, with some to spare.
const CERTAIN: u64 = 1_000;
/// From one question whether it is so to the next.
const AGAIN: Duration = Duration::from_millis(100);

/// Notes when conditions change, also while nobody asks.
pub async fn notice(mut context: Context) {
    loop {
        let status = Arc::clone(&context.status.borrow());
        projects(&context, &status);
        let noted = tokio::time::Instant::now();
        let changed = tokio::select! {
            changed = context.status.changed() => changed,
            changed = context.report.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        // At once, where it is long since the last: nobody is woken twice for one change.
        tokio::time::sleep_until(noted + NOTICE).await;
    }
}

fn projects(context: &Context, status: &Status) -> Vec<wire::Project> {
    let mut rows = views::projects(status, &context.report.borrow());
    for row in &mut rows {
        let resisting = views::faults::resisting(&row.project, status, context.backend.now());
        row.conditions.extend(resisting);
    }
    let mut since = context.since.lock().unwrap_or_else(PoisonError::into_inner);
    since.fill(&mut rows, context.backend.now().wall);
    rows
}

pub fn router(context: Context) -> Router {
    Router::new()
        .route("/v1/ps", get(ps))
        .route("/v1/status", get(status))
        .route("/v1/plan", get(plan_of_projects).post(plan))
        .route("/v1/apply", post(apply))
        .route("/v1/look", post(looked))
        .route("/v1/down", post(down))
        .route("/v1/end", post(end))
        .route("/v1/order", post(order))
        .route("/v1/orders", get(orders))
        .route("/v1/present", get(present))
        .route("/v1/journal", get(journal))
        .route("/v1/pulls", get(pulls))
        .route("/v1/settle", get(settle))
        .route("/v1/instances", get(instances))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(context)
}

#[derive(Deserialize)]
struct Of {
    project: Option<String>,
    #[serde(default)]
    volumes: bool,
    #[serde(default)]
    after: u64,
}

/// 422: what was asked cannot be done; the text says why and what to do.
struct Refused(wire::Problem);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (StatusCode::UNPROCESSABLE_ENTITY, Json(self.0)).into_response()
    }
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        Refused(wire::Problem {
            error: format!("{error:#}"),
            diagnostics: Vec::new(),
        })
    }
}

/// What is known, with what the supervisors say just now. What they only suspect is waited for, so that who asks
/// once is told as much as who asks again and again.
async fn attended(context: &Context, project: Option<&str>) -> Arc<Status> {
    let ask = async || {
        let (backend, project) = (Arc::clone(&context.backend), project.map(str::to_owned));
        let ask = tokio::task::spawn_blocking(move || backend.attend(project.as_deref()));
        ask.await.unwrap_or_default()
    };
    let mut attention = ask().await;
    let asked = context.backend.now().boot;
    let lasts = |attention: &Attention| attention.suspected.is_some_and(|since| since <= asked);
    while lasts(&attention) && context.backend.now().boot < asked + CERTAIN {
        tokio::time::sleep(AGAIN).await;
        attention = ask().await;
    }
    views::faults::told(&context.status.borrow(), attention)
}

async fn ps(State(context): State<Context>, Query(of): Query<Of>) -> Json<Vec<wire::Instance>> {
    let status = attended(&context, of.project.as_deref()).await;
    let mut rows = views::instances(&status, &context.report.borrow());
    rows.retain(|row| of.project.as_ref().is_none_or(|project| *project == row.project));
    Json(rows)
}

async fn status(State(context): State<Context>, Query(of): Query<Of>) -> Json<Vec<wire::Project>> {
    let status = attended(&context, of.project.as_deref()).await;
    let mut rows = projects(&context, &status);
    rows.retain(|row| of.project.as_ref().is_none_or(|project| *project == row.project));
    Json(rows)
}

async fn journal(State(context): State<Context>, Query(of): Query<Of>) -> Json<Vec<Numbered>> {
    let mut entries = context.journal.since(of.after);
    entries.retain(|entry| {
        of.project.is_none() || entry.entry.project.is_none() || entry.entry.project == of.project
    });
    Json(entries)
}

async fn pulls(State(context): State<Context>) -> Json<Vec<host::Progress>> {
    Json((context.pulls)())
}

/// Once what was recorded is in the journal's file.
async fn settle(State(context): State<Context>) -> Json<()> {
    let journal = Arc::clone(&context.journal);
    // A file that lags behind is still a journal.
    let _ = tokio::task::spawn_blocking(move || journal.settle()).await;
    Json(())
}

async fn present(State(context): State<Context>, Query(of): Query<Of>) -> Json<wire::Present> {
    let status = context.status.borrow();
    Json(wire::Present {
        objects: views::objects(&status.observed, &of.project.unwrap_or_default(), of.volumes),
    })
}

async fn instances(State(context): State<Context>, Query(of): Query<Of>) -> Json<Vec<wire::Place>> {
    let status = context.status.borrow();
    let known = status.observed.instances.known().into_iter().flatten();
    let wanted = known.filter(|(key, _)| of.project.as_ref().is_none_or(|project| *project == key.project));
    Json(
        wanted
            .map(|(key, instance)| wire::Place {
                project: key.project.clone(),
                service: key.service.clone(),
                index: key.index,
                running: matches!(instance.state, Running::Running { .. }),
                socket: host::shim_socket(&context.layout, key),
                logs: context.layout.logs(key),
            })
            .collect(),
    )
}

async fn plan_of_projects(
    State(context): State<Context>,
    Query(of): Query<Of>,
) -> Result<Json<wire::PlanReply>, Refused> {
    let projects = of.project.into_iter().collect();
    let request = wire::PlanRequest {
        paths: Vec::new(),
        projects,
    };
    plan(State(context), Json(request)).await
}

async fn plan(
    State(context): State<Context>,
    Json(request): Json<wire::PlanRequest>,
) -> Result<Json<wire::PlanReply>, Refused> {
    let nothing_named = request.paths.is_empty();
    let look = look(&context, request.paths).await?;
    let mut projects: BTreeSet<String> = request.projects.into_iter().collect();
    projects.extend(look.looked.iter().map(|looked| looked.name.clone()));
    // Of what is there already: a bad manifest is not in the plan, so that must be said beside it.
    let known = match nothing_named {
        true => planning::seen(&context.report.borrow(), &projects),
        false => Vec::new(),
    };
    let wrong = known.iter().any(model::diagnostic::Diagnostic::is_error);
    let diagnostics = look.looked.iter().flat_map(|looked| &looked.diagnostics);
    let diagnostics = known
        .iter()
        .chain(diagnostics)
        .map(|diagnostic| text::diagnostic(diagnostic, false))
        .collect();
    let failed = look.looked.iter().any(|looked| looked.good.is_none());
    let planned = planned(&context, look, projects).await?;
    let reply = planned.reply(diagnostics, failed);
    Ok(Json(wire::PlanReply { wrong, ..reply }))
}

async fn planned(
    context: &Context,
    look: Look,
    projects: BTreeSet<String>,
) -> anyhow::Result<planning::Planned> {
    let backend = Arc::clone(&context.backend);
    let seen = context.status.borrow().observed.images.clone();
    let kept = context.layout.state.join("projects");
    let plan = move || {
        let kept = store::kept(&kept)?;
        Ok(planning::plan(&*backend, &look.desired, &projects, seen, kept))
    };
    tokio::task::spawn_blocking(plan).await?
}

async fn apply(
    State(context): State<Context>,
    Json(request): Json<wire::ApplyRequest>,
) -> Result<Json<wire::ApplyReply>, Refused> {
    let look = look(&context, request.paths.clone()).await?;
    let all: Vec<Diagnostic> = look
        .looked
        .iter()
        .flat_map(|looked| looked.diagnostics.clone())
        .collect();
    let diagnostics: Vec<String> = all
        .iter()
        .map(|diagnostic| text::diagnostic(diagnostic, false))
        .collect();
    if look.looked.iter().any(|looked| looked.good.is_none()) {
        return Err(Refused(wire::Problem {
            error: "nothing was applied: correct the errors and try again".into(),
            diagnostics,
        }));
    }
    if let Some(wanted) = request.plan {
        let projects = look.looked.iter().map(|looked| looked.name.clone()).collect();
        let hash = planned(&context, look, projects).await?.hash;
        if hash != wanted {
            let error = format!(
                "nothing was applied: the plan is now {hash}, not {wanted}; look at it with `stead plan`"
            );
            return Err(anyhow::anyhow!(error).into());
        }
    }
    let applied = ask(&context, |reply| Command::Apply {
        paths: request.paths,
        reply,
    })
    .await?;
    Ok(Json(wire::ApplyReply { applied, diagnostics }))
}

/// What is at these paths: projects and revisions; those with errors only as diagnostics.
async fn looked(
    State(context): State<Context>,
    Json(request): Json<wire::PlanRequest>,
) -> Result<Json<wire::ApplyReply>, Refused> {
    let looked = look(&context, request.paths).await?.looked;
    let diagnostics = looked.iter().flat_map(|looked| &looked.diagnostics);
    let diagnostics = diagnostics
        .map(|diagnostic| text::diagnostic(diagnostic, false))
        .collect();
    let good = looked
        .into_iter()
        .filter_map(|looked| Some((looked.name, looked.good?.1)));
    Ok(Json(wire::ApplyReply {
        applied: good.collect(),
        diagnostics,
    }))
}

async fn end(
    State(context): State<Context>,
    Json(request): Json<wire::EndRequest>,
) -> Result<Json<()>, Refused> {
    let projects = request.projects;
    ask(&context, |reply| Command::End { projects, reply }).await?;
    Ok(Json(()))
}

async fn down(
    State(context): State<Context>,
    Json(request): Json<wire::DownRequest>,
) -> Result<Json<wire::DownReply>, Refused> {
    let notes = ask(&context, |reply| Command::Down {
        projects: request.projects,
        volumes: request.volumes,
        reply,
    })
    .await?;
    Ok(Json(wire::DownReply { notes }))
}

/// What is on record now for those who were named.
async fn order(
    State(context): State<Context>,
    Json(request): Json<wire::OrderRequest>,
) -> Result<Json<Vec<wire::Ordered>>, Refused> {
    let targets = ask(&context, |reply| Command::Order {
        order: request.order,
        targets: request.targets,
        reply,
    })
    .await?;
    let status = context.status.borrow();
    Ok(Json(views::ordered(
        &status,
        &context.report.borrow(),
        Some(&targets),
    )))
}

/// Everything that is on record.
async fn orders(State(context): State<Context>) -> Json<Vec<wire::Ordered>> {
    Json(views::ordered(
        &context.status.borrow(),
        &context.report.borrow(),
        None,
    ))
}

async fn look(context: &Context, paths: Vec<PathBuf>) -> anyhow::Result<Look> {
    ask(context, |reply| Command::Look { paths, reply }).await
}

async fn ask<T>(
    context: &Context,
    command: impl FnOnce(oneshot::Sender<anyhow::Result<T>>) -> Command,
) -> anyhow::Result<T> {
    let (sender, receiver) = oneshot::channel();
    let ended = "the agent is ending; try again when it is back";
    context
        .commands
        .send(command(sender))
        .await
        .map_err(|_| anyhow::anyhow!(ended))?;
    receiver.await.map_err(|_| anyhow::anyhow!(ended))?
}

#[cfg(test)]
mod tests;

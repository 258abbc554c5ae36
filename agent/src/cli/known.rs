//! Projects that somebody names: whether there is one of that name.

use anyhow::bail;

use crate::{
    api::wire::{Present, Project},
    client::{Client, encode},
};

/// Every one of `names` is a project the agent knows.
///
/// # Errors
/// The first that is not, with the remedy.
pub async fn demand(client: &Client, names: &[String]) -> anyhow::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let all: Vec<Project> = client.get("/v1/status").await?;
    match names
        .iter()
        .find(|name| !all.iter().any(|project| project.project == **name))
    {
        Some(name) => bail!(no_project(name)),
        None => Ok(()),
    }
}

/// Whether a project has a manifest, or anything on the host (`volumes`: volumes count).
pub async fn is_there(client: &Client, name: &str, volumes: bool) -> anyhow::Result<bool> {
    let all: Vec<Project> = client.get("/v1/status").await?;
    if all.iter().any(|project| project.project == name) {
        return Ok(true);
    }
    let path = format!("/v1/present?project={}&volumes={volumes}", encode(name));
    let present: Present = client.get(&path).await?;
    Ok(present.objects.is_none_or(|objects| !objects.is_empty()))
}

pub fn no_project(name: &str) -> anyhow::Error {
    anyhow::anyhow!("there is no project `{name}`; `stead status` shows those there are")
}

//! The configs and secrets of a service: where they go, and what they hold.

use model::types::{FileMount, FileSource, Project, Service};

use crate::spec::{ContainerSpec, FileSpec};

/// Everybody may read, as in Compose.
const MODE: u32 = 0o444;

/// Each config and secret of a service: its section, where it goes, what it is.
fn mounts<'a>(
    project: &'a Project,
    service: &'a Service,
) -> impl Iterator<Item = (&'static str, &'a FileMount, &'a FileSource)> {
    let configs = service.container.configs.iter();
    let configs = configs.filter_map(|mount| Some(("configs", mount, project.configs.get(&mount.source)?)));
    let secrets = service.container.secrets.iter();
    configs.chain(secrets.filter_map(|mount| Some(("secrets", mount, project.secrets.get(&mount.source)?))))
}

/// Fields of a service that say what its configs and secrets hold: other content is another container.
pub fn digests<'a>(project: &'a Project, service: &'a Service) -> impl Iterator<Item = (String, &'a str)> {
    mounts(project, service).filter_map(|(section, mount, source)| {
        let digest = source.digest.as_deref()?;
        Some((format!("{section}.{}.content", mount.source), digest))
    })
}

/// Without their content, which only a start needs.
pub fn files(project: &Project, service: &Service) -> Vec<FileSpec> {
    let files = mounts(project, service);
    files
        .map(|(section, mount, source)| FileSpec {
            name: format!("{section}.{}", mount.source),
            target: mount.target.clone(),
            uid: mount.uid.unwrap_or(0),
            gid: mount.gid.unwrap_or(0),
            mode: mount.mode.unwrap_or(MODE),
            digest: source.digest.clone().unwrap_or_default(),
            content: source.value.clone(),
        })
        .collect()
}

/// Adds what is known of the content of `spec`, which may have been read back from a record.
pub fn furnish(project: &Project, service: &Service, spec: &mut ContainerSpec) {
    for file in &mut spec.files {
        let digest = Some(file.digest.as_str());
        let mut sources = mounts(project, service).map(|(_, _, source)| source);
        if let Some(source) = sources.find(|source| source.digest.as_deref() == digest) {
            file.content = source.value.clone();
        }
    }
}

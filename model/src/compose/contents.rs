//! What configs and secrets hold: read with everything else, so that all of it is of one moment.

use std::collections::BTreeSet;

use super::{
    files::{Need, Wanted},
    loading::{Environment, Loading},
};
use crate::{
    fingerprint,
    source::Sources,
    syntax::seccomp,
    tree::{At, Node},
    types::{Content, FileMount, FileSource, Project, SecurityOption},
};

impl Loading<'_> {
    /// Fills in what the configs and secrets that some service has hold. `canonical`: where each is written.
    pub fn contents(&mut self, project: &mut Project, canonical: &Node, environment: &Environment) {
        let services = || project.services.values().map(|service| &service.container);
        let configs = used(services().flat_map(|container| &container.configs));
        let secrets = used(services().flat_map(|container| &container.secrets));
        let name = project.name.clone();
        for (section, sources, used) in [
            ("configs", &mut project.configs, configs),
            ("secrets", &mut project.secrets, secrets),
        ] {
            for (key, source) in sources.iter_mut().filter(|(key, _)| used.contains(*key)) {
                let at = |field: &str| {
                    let written = canonical.get(section).and_then(|section| section.get(key));
                    let value = written.and_then(|written| written.get(field));
                    value.map_or_else(At::default, |value| value.at)
                };
                let path = format!("{section}.{key}");
                if let Some(bytes) = self.content(source, &path, &at, environment) {
                    source.digest = Some(fingerprint::content(&format!("{name}.{path}"), &bytes));
                    source.value = Content::new(bytes);
                }
            }
        }
    }

    /// Reads the seccomp profiles of services, which are below the project's directory.
    pub fn profiles_of_calls(&mut self, project: &mut Project, canonical: &Node) {
        for (name, service) in &mut project.services {
            let options = service.security.security_opt.iter().enumerate();
            let mut named = options.filter_map(|(place, option)| match option {
                SecurityOption::Seccomp(file) => Some((place, file)),
                _ => None,
            });
            // The last of several counts.
            let Some((place, file)) = named.next_back() else {
                continue;
            };
            if matches!(file.as_str(), "builtin" | "unconfined") {
                continue;
            }
            let keys = ["services", name.as_str(), "security_opt"];
            let written = keys.iter().try_fold(canonical, |node, key| node.get(key));
            let written = written.and_then(|list| list.items().get(place));
            let path = format!("services.{name}.security_opt[{place}]");
            let wanted = Wanted {
                at: written.map_or_else(At::default, |option| option.at),
                path: &path,
                need: Need::Required,
            };
            let file = self.options.directory.join(file);
            let Some(bytes) = self.files.bytes(&file, wanted, &mut self.report) else {
                continue;
            };
            match seccomp::parse(&bytes) {
                Ok(profile) => service.security.seccomp_profile = Some(profile),
                Err(why) => {
                    let message = format!("`{path}`: `{}` is no seccomp profile: {why}", file.display());
                    let hint = "write one as the Engine has them, or `seccomp=builtin`";
                    self.report.refuse(wanted.at, message, hint);
                }
            }
        }
    }

    fn content(
        &mut self,
        source: &FileSource,
        path: &str,
        at: &dyn Fn(&str) -> At,
        environment: &Environment,
    ) -> Option<Vec<u8>> {
        // Of a config the value is its content already.
        if let Some(content) = &source.content {
            return Some(content.clone().into_bytes());
        }
        if let Some(file) = &source.file {
            let path = format!("{path}.file");
            let wanted = Wanted {
                at: at("file"),
                path: &path,
                need: Need::Required,
            };
            return self.files.bytes(file, wanted, &mut self.report);
        }
        let name = source.environment.as_ref()?;
        let value = environment.get(name);
        if value.is_none() {
            let message = format!("`{path}.environment`: the variable `{name}` is not set");
            let hint =
                "set it in `.env` or in the agent's environment file, or give the content with `file:`";
            self.report.refuse(at("environment"), message, hint);
        }
        value.map(|value| value.clone().into_bytes())
    }
}

impl Project {
    /// Reads what configs and secrets held when the project was kept, where that can be found again: never
    /// what another file holds by now.
    pub fn find_contents(&mut self, sources: &dyn Sources) {
        let name = self.name.clone();
        let configs = self.configs.iter_mut().map(|found| ("configs", found));
        let secrets = self.secrets.iter_mut().map(|found| ("secrets", found));
        for (section, (key, source)) in configs.chain(secrets) {
            let Some(digest) = &source.digest else {
                continue;
            };
            let bytes = match (&source.content, &source.file) {
                (Some(content), _) => Some(content.clone().into_bytes()),
                (None, Some(file)) => sources.read(file).ok(),
                (None, None) => None,
            };
            let whose = format!("{name}.{section}.{key}");
            if let Some(bytes) = bytes.filter(|bytes| fingerprint::content(&whose, bytes) == *digest) {
                source.value = Content::new(bytes);
            }
        }
    }
}

fn used<'a>(mounts: impl Iterator<Item = &'a FileMount>) -> BTreeSet<String> {
    mounts.map(|mount| mount.source.clone()).collect()
}

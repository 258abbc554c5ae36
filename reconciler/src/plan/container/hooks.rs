//! The commands that a service has run in its containers around their life.

use model::types::{Hook, Service};

use super::rights;
use crate::spec::{HookSpec, OciHook};

pub fn hooks(service: &Service, hooks: &[Hook]) -> Vec<HookSpec> {
    let hook = |hook: &Hook| HookSpec {
        argv: hook.command.clone(),
        environment: hook.environment.clone(),
        user: hook.user.clone().unwrap_or_default(),
        working_dir: hook.working_dir.as_ref().map(Into::into),
        // Refused where the manifest is read, unless the ids are those of the host.
        rights: hook.privileged.then(|| Box::new(rights::privileged(service))),
    };
    hooks.iter().map(hook).collect()
}

/// What devices of vendors want to be run.
pub fn of_vendors(service: &Service) -> Vec<OciHook> {
    let edits = service.security.edits.as_deref();
    edits.map(|edits| edits.hooks.clone()).unwrap_or_default()
}

//! The commands of `pre_start` as services of their own, which run once and which their service waits for.
//!
//! All that plans and runs services knows jobs already: one that is to end before another one starts, once for
//! what it is. So a hook is the service that it belongs to, with another command, and with nothing that is about
//! being reached or being kept running.

use std::collections::BTreeMap;

use crate::{
    diagnostic::Span,
    types::{Condition, Dependency, Healthcheck, Hook, Namespace, Project, RestartPolicy, Service},
};

/// The service that the hook at place `index`, from 0, is.
pub(crate) fn name(service: &str, index: usize) -> String {
    format!("{service}.pre_start-{}", index + 1)
}

/// Adds the services that are hooks. `origins`: where they are written.
pub fn derive(project: &mut Project, origins: &mut BTreeMap<String, Span>) {
    let mut derived = Vec::new();
    for (of, service) in &mut project.services {
        let hooks = std::mem::take(&mut service.container.pre_start);
        let mut before: Vec<(String, Dependency)> = Vec::new();
        for (index, hook) in hooks.iter().enumerate() {
            let mut runner = runner(of, service, hook);
            runner.depends_on.values_mut().for_each(|on| on.restart = false);
            runner.depends_on.extend(before.iter().cloned());
            let name = name(of, index);
            if let Some(span) = origins.get(&format!("services.{of}.pre_start.{index}")).cloned() {
                origins.insert(format!("services.{name}"), span);
            }
            let done = Dependency {
                condition: Condition::CompletedSuccessfully,
                required: true,
                restart: false,
            };
            before.push((name.clone(), done));
            derived.push((name, runner));
        }
        // Each waits for all before it: of what a service has been before, the last may have run and the first not.
        service.depends_on.extend(before);
        service.container.pre_start = hooks;
    }
    project.services.extend(derived);
}

fn runner(of: &str, service: &Service, hook: &Hook) -> Service {
    let mut runner = service.clone();
    runner.image = hook.image.clone().unwrap_or_else(|| service.image.clone());
    runner.command = Some(hook.command.clone());
    runner.environment.extend(hook.environment.clone());
    runner.user = hook.user.clone().or(runner.user);
    runner.working_dir = hook.working_dir.clone().or(runner.working_dir);
    runner.security.privileged |= hook.privileged;
    let own_name = runner.namespaces.network_mode.is_none() && runner.namespaces.uts.is_none();
    if own_name {
        runner.hostname.get_or_insert_with(|| of.to_owned());
    }
    // What fails is tried again where the service would be.
    runner.restart = match service.restart {
        RestartPolicy::No => RestartPolicy::No,
        _ => RestartPolicy::OnFailure(None),
    };
    // Not reached by anybody, and not lent.
    runner.ports.clear();
    for attachment in runner.networks.values_mut() {
        attachment.aliases.clear();
        attachment.ipv4_address = None;
        attachment.ipv6_address = None;
        attachment.mac_address = None;
    }
    runner.names.container_name = None;
    runner.names.mac_address = None;
    if runner.namespaces.ipc == Some(Namespace::Shareable) {
        runner.namespaces.ipc = None;
    }
    // Its mounts are those of the service.
    runner.volumes.clear();
    runner.healthcheck = Some(Healthcheck {
        test: Some(vec!["NONE".to_owned()]),
        ..Healthcheck::default()
    });
    runner.labels.clear();
    let container = &mut runner.container;
    container.pre_start_of = Some(of.to_owned());
    container.annotations.clear();
    container.volumes_from.clear();
    container.post_start.clear();
    container.pre_stop.clear();
    container.tty = false;
    container.stdin_open = false;
    container.deploy = None;
    container.build = None;
    container.on_unhealthy = None;
    container.scale = match container.scale {
        Some(scale) if hook.per_replica || scale == 0 => Some(scale),
        _ => None,
    };
    runner
}

#[cfg(test)]
mod tests;

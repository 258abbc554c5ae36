//! What a service shares with the host or with another service, and what it cannot have then.

use crate::{
    report::Report,
    types::{Mount, Namespace, Service},
};

pub(super) fn check(service: &Service, path: &str, report: &mut Report) {
    host_ids(service, path, report);
    host_names(service, path, report);
    shared_mounts(service, path, report);
    match &service.namespaces.network_mode {
        Some(Namespace::Service(other) | Namespace::Container(other)) => {
            joined(service, other, path, report);
        }
        Some(Namespace::None) if !service.ports.is_empty() => report.refuse(
            report.at(&format!("{path}.ports")),
            format!("`{path}.ports`: there is no network of its own to publish ports of"),
            "remove the ports, or `network_mode`",
        ),
        Some(Namespace::Host) if !service.ports.is_empty() => report.warning(
            report.at(&format!("{path}.ports")),
            format!("`{path}.ports` has no effect: the network is that of the host"),
            "remove the ports",
        ),
        _ => {}
    }
}

/// Who shares these with the host has its ids: a user namespace does not rule what it did not make.
fn host_ids(service: &Service, path: &str, report: &mut Report) {
    let Some(field) = host(service) else { return };
    let path = format!("{path}.{field}");
    report.warning(
        report.at(&path),
        format!(
            "`{path}: host` runs the service without a user namespace: its root is the host's, held \
             back by capabilities and the list of system calls alone"
        ),
        "remove it if the service works without",
    );
}

/// The attribute by which the service has no user namespace.
pub(super) fn host(service: &Service) -> Option<&'static str> {
    let spaces = &service.namespaces;
    let all = [
        ("userns_mode", &spaces.userns_mode),
        ("network_mode", &spaces.network_mode),
        ("ipc", &spaces.ipc),
        ("pid", &spaces.pid),
    ];
    let mut hosts = all
        .into_iter()
        .filter(|(_, space)| **space == Some(Namespace::Host));
    hosts.next().map(|(field, _)| field)
}

/// With a user namespace, mounts of a container on the host would belong to ids that nobody there has, and its
/// root could cover what the host has below.
fn shared_mounts(service: &Service, path: &str, report: &mut Report) {
    let spaces = &service.namespaces;
    let host = [
        &spaces.userns_mode,
        &spaces.network_mode,
        &spaces.ipc,
        &spaces.pid,
    ];
    if service.security.privileged || host.contains(&&Some(Namespace::Host)) {
        return;
    }
    for (place, mount) in service.volumes.iter().enumerate() {
        if let Mount::Bind {
            propagation: Some(propagation),
            ..
        } = mount
            && propagation.is_shared()
        {
            report.refuse(
                report.at(&format!("{path}.volumes.{place}")),
                format!(
                    "`{path}.volumes[{place}]`: with this propagation, what the container mounts would appear on \
                     the host, which a container with a user namespace of its own must not do"
                ),
                "write `rslave`: the container sees what the host mounts; or add `userns_mode: host`",
            );
        }
    }
}

/// The host's name is not a service's to change.
fn host_names(service: &Service, path: &str, report: &mut Report) {
    if service.namespaces.uts != Some(Namespace::Host) {
        return;
    }
    let names = [
        ("hostname", service.hostname.is_some()),
        ("domainname", service.names.domainname.is_some()),
    ];
    for (field, _) in names.into_iter().filter(|(_, given)| *given) {
        let path = format!("{path}.{field}");
        report.refuse(
            report.at(&path),
            format!("`{path}`: the name is that of the host, which a service does not change"),
            "remove it, or `uts: host`",
        );
    }
}

/// Who joins the network of another has no addresses, ports and names of its own.
fn joined(service: &Service, other: &str, path: &str, report: &mut Report) {
    let names = &service.names;
    let of_network = service
        .security
        .sysctls
        .keys()
        .any(|name| name.starts_with("net."));
    let own = [
        ("ports", !service.ports.is_empty(), "publish the ports there"),
        ("hostname", service.hostname.is_some(), "name it there"),
        (
            "extra_hosts",
            !names.extra_hosts.is_empty(),
            "list the hosts there",
        ),
        ("dns", !names.dns.is_empty(), "name the servers there"),
        (
            "dns_search",
            !names.dns_search.is_empty(),
            "list the domains there",
        ),
        ("dns_opt", !names.dns_opt.is_empty(), "list the options there"),
        (
            "mac_address",
            names.mac_address.is_some(),
            "set the address there",
        ),
        ("links", !names.links.is_empty(), "list the links there"),
        ("sysctls", of_network, "set those of `net.*` there"),
    ];
    for (field, _, hint) in own.into_iter().filter(|(_, given, _)| *given) {
        let path = format!("{path}.{field}");
        report.refuse(
            report.at(&path),
            format!("`{path}`: the network is that of `{other}`, and so is this"),
            format!("{hint}, at `{other}`"),
        );
    }
}

//! Files of /etc that stead writes for a container.

use std::{
    fs::{self, File},
    io::Write,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::MetadataExt,
    path::Path,
};

use reconciler::spec::{ContainerSpec, Space};

use super::{
    Step, StepError,
    stage::{lender, set_mode},
};
use crate::shim::protocol::Assignment;

/// By their names in its directory and in /etc.
pub const GENERATED: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// Where [`GENERATED`] are: who joins the network of another has its files.
pub fn directory(assignment: &Assignment) -> &Path {
    match assignment.sandbox.spaces.network {
        Space::Joined => lender(assignment),
        Space::Own | Space::Host => &assignment.directory,
    }
}

/// Writes one of [`GENERATED`] that is missing.
///
/// # Errors
/// The directory cannot be written.
pub fn restore(assignment: &Assignment, container: &ContainerSpec, name: &str) -> Result<(), StepError> {
    match directory(assignment).join(name).exists() {
        true => Ok(()),
        false => generate(assignment, container, name),
    }
}

/// Writes one of [`GENERATED`].
///
/// # Errors
/// The directory cannot be written.
pub fn generate(assignment: &Assignment, container: &ContainerSpec, name: &str) -> Result<(), StepError> {
    let of_host = match assignment.sandbox.spaces.network {
        Space::Own => false,
        Space::Host => true,
        Space::Joined => return Ok(()),
    };
    let text = match name {
        "hosts" if of_host => hosts_of_host(container),
        "hostname" if container.hostname.is_empty() => {
            let own = nix::unistd::gethostname().step("read", "the host's name")?;
            format!("{}\n", own.to_string_lossy())
        }
        "resolv.conf" if of_host => resolv_conf_of_host(container),
        "hosts" => {
            let mut hosts = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
            let endpoints = &assignment.sandbox.endpoints;
            let own = match container.domainname.as_str() {
                "" => container.hostname.clone(),
                domain => format!("{0}.{domain} {0}", container.hostname),
            };
            for endpoint in endpoints {
                hosts.push_str(&format!("{}\t{own}\n", endpoint.address));
            }
            let gateway = endpoints.iter().find_map(|endpoint| endpoint.gateway);
            for host in &container.extra_hosts {
                let address = host.address.or(gateway.map(IpAddr::V4)).ok_or_else(|| {
                    StepError::spec(format!(
                        "`extra_hosts` cannot say where {} is: the service has no network that leads to the \
                         host; write an address, or give it one that is not internal",
                        host.name
                    ))
                })?;
                hosts.push_str(&format!("{address}\t{}\n", host.name));
            }
            hosts
        }
        "hostname" => format!("{}\n", container.hostname),
        _ => resolv_conf(&container.dns_search, &container.dns_opt),
    };
    let path = assignment.directory.join(name);
    // A file made anew is the dearest of all that a restart would write.
    let is = fs::read_to_string(&path).is_ok_and(|is| is == text);
    if is && fs::symlink_metadata(&path).is_ok_and(|file| file.mode() == libc::S_IFREG | 0o644) {
        return Ok(());
    }
    let mut file = File::create(&path).step("write", path.display())?;
    file.write_all(text.as_bytes()).step("write", path.display())?;
    set_mode(&path, 0o644)
}

/// What the host calls by name, and what the service adds. A host that has no such file is no obstacle.
fn hosts_of_host(container: &ContainerSpec) -> String {
    let mut hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    if !hosts.is_empty() && !hosts.ends_with('\n') {
        hosts.push('\n');
    }
    for host in &container.extra_hosts {
        let address = host.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        hosts.push_str(&format!("{address}\t{}\n", host.name));
    }
    hosts
}

/// The host's own, with its servers; what the service says of the rest comes instead.
fn resolv_conf_of_host(container: &ContainerSpec) -> String {
    let (search, options) = (&container.dns_search, &container.dns_opt);
    let own = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let replaced = |line: &&str| {
        let word = line.split_whitespace().next();
        let instead = (word == Some("nameserver") && !container.dns.is_empty())
            || (word == Some("search") && !search.is_empty())
            || (word == Some("options") && !options.is_empty());
        !instead
    };
    let mut text: String = own
        .lines()
        .filter(replaced)
        .flat_map(|line| [line, "\n"])
        .collect();
    for server in &container.dns {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !search.is_empty() && *search != ["."] {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

/// resolv.conf(5) with the resolver of the sandbox. Names are complete, unless `options` say otherwise.
fn resolv_conf(search: &[String], options: &[String]) -> String {
    let mut text = String::from("nameserver 127.0.0.11\n");
    if !search.is_empty() && search != ["."] {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    text.push_str("options");
    if !options.iter().any(|option| option.starts_with("ndots:")) {
        text.push_str(" ndots:0");
    }
    for option in options {
        text.push_str(&format!(" {option}"));
    }
    text.push('\n');
    text
}

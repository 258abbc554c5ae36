//! Every attribute of the Compose Specification, and whether stead honours it. One table: it drives the
//! messages of the loader and can be printed as documentation.

use std::{collections::BTreeMap, sync::LazyLock};

/// What happens to an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    Supported,
    /// Accepted without an effect, with a warning.
    Ignored,
    /// Accepted without an effect and without a word, because it means nothing on one host.
    Silent,
    /// Known to Compose; an error until stead honours it.
    NotYet,
}

/// One attribute. `path` has `*` for names and list positions; everything below an attribute that is not
/// supported shares its fate. `hint` says what to do instead.
#[derive(Debug, Clone, Copy)]
pub struct Attribute {
    pub path: &'static str,
    pub support: Support,
    pub hint: &'static str,
}

/// What to do where the table has no better advice.
const REMOVE: &str = "remove it, or keep this project on Docker Compose until stead supports it";

/// One attribute of a section (`services.*`; empty: the top level).
pub(crate) fn find(section: &str, name: &str) -> Option<&'static Attribute> {
    static BY_PATH: LazyLock<BTreeMap<&str, &Attribute>> = LazyLock::new(|| {
        ATTRIBUTES
            .iter()
            .map(|attribute| (attribute.path, attribute))
            .collect()
    });
    // A dot would reach into the section below.
    match (section, name) {
        (_, name) if name.contains('.') => None,
        ("", name) => BY_PATH.get(name).copied(),
        _ => BY_PATH.get(format!("{section}.{name}").as_str()).copied(),
    }
}

/// The attributes below a section (`services.*`; empty: the top level), by name.
pub(crate) fn below(section: &str) -> impl Iterator<Item = (&'static str, &'static Attribute)> {
    ATTRIBUTES.iter().filter_map(move |attribute| {
        let name = if section.is_empty() {
            attribute.path
        } else {
            attribute.path.strip_prefix(section)?.strip_prefix('.')?
        };
        (!name.contains('.')).then_some((name, attribute))
    })
}

/// The name that was probably meant, if some name is close.
pub(crate) fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Long texts are no typing errors, and the distance is quadratic.
    if wrong.len() > 64 {
        return None;
    }
    let wrong = wrong.to_lowercase().replace('-', "_");
    names
        .map(|name| (distance(&wrong, name), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

/// Edits between two texts, a swap of neighbours counting as one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(rows[i - 2][j - 2] + 1);
            }
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

const fn yes(path: &'static str) -> Attribute {
    Attribute {
        path,
        support: Support::Supported,
        hint: "",
    }
}

const fn silent(path: &'static str) -> Attribute {
    Attribute {
        path,
        support: Support::Silent,
        hint: "",
    }
}

const fn ignored(path: &'static str, hint: &'static str) -> Attribute {
    Attribute {
        path,
        support: Support::Ignored,
        hint,
    }
}

const fn not_yet(path: &'static str, hint: &'static str) -> Attribute {
    Attribute {
        path,
        support: Support::NotYet,
        hint,
    }
}

/// The table, ordered as the specification is: top level, services, networks, volumes.
#[rustfmt::skip]
pub const ATTRIBUTES: &[Attribute] = &[
    yes("name"),
    yes("services"),
    yes("networks"),
    yes("volumes"),
    ignored("version", "it has no meaning any more; remove it"),
    not_yet("include", "copy the services into this file, or make the other file a project of its own"),
    not_yet("configs", "mount the file with `volumes` and `:ro`"),
    not_yet("secrets", "mount the file with `volumes` and `:ro`"),
    not_yet("models", "remove it: there is no model runner here"),
    not_yet("services.*.annotations", REMOVE),
    not_yet("services.*.attach", "remove it"),
    not_yet("services.*.blkio_config", REMOVE),
    not_yet("services.*.build", "build the image with another tool and name it: `image: oci:DIR` or `image: oci-archive:FILE`"),
    not_yet("services.*.cap_add", REMOVE),
    not_yet("services.*.cap_drop", REMOVE),
    not_yet("services.*.cgroup", REMOVE),
    not_yet("services.*.cgroup_parent", REMOVE),
    yes("services.*.command"),
    not_yet("services.*.configs", "mount the file with `volumes` and `:ro`"),
    not_yet("services.*.container_name", "remove it: the container is named `<project>-<service>-1`, and other services reach it by the service name"),
    not_yet("services.*.cpu_count", "remove it: it is for Windows"),
    not_yet("services.*.cpu_percent", "remove it: it is for Windows"),
    not_yet("services.*.cpu_period", REMOVE),
    not_yet("services.*.cpu_quota", REMOVE),
    not_yet("services.*.cpu_rt_period", REMOVE),
    not_yet("services.*.cpu_rt_runtime", REMOVE),
    not_yet("services.*.cpu_shares", REMOVE),
    not_yet("services.*.cpus", REMOVE),
    not_yet("services.*.cpuset", REMOVE),
    not_yet("services.*.credential_spec", "remove it: it is for Windows"),
    yes("services.*.depends_on"),
    not_yet("services.*.deploy", "remove it; one instance of each service runs"),
    not_yet("services.*.develop", "remove it: it is for `docker compose watch`"),
    not_yet("services.*.device_cgroup_rules", REMOVE),
    not_yet("services.*.devices", REMOVE),
    not_yet("services.*.dns", REMOVE),
    not_yet("services.*.dns_opt", REMOVE),
    not_yet("services.*.dns_search", REMOVE),
    not_yet("services.*.domainname", REMOVE),
    yes("services.*.entrypoint"),
    not_yet("services.*.env_file", "move the variables into `environment`, or into `.env` and write `NAME:` there"),
    yes("services.*.environment"),
    not_yet("services.*.expose", "remove it: every port is open to the services of the same network"),
    not_yet("services.*.extends", "copy the attributes, or share them through a YAML anchor (`&name`, `<<: *name`)"),
    not_yet("services.*.external_links", "attach both services to one network instead"),
    not_yet("services.*.extra_hosts", "remove it, or put the names into the image"),
    not_yet("services.*.gpus", "remove it"),
    not_yet("services.*.group_add", REMOVE),
    yes("services.*.healthcheck"),
    yes("services.*.hostname"),
    yes("services.*.image"),
    not_yet("services.*.init", "remove it, or start the program through an init of the image"),
    not_yet("services.*.ipc", REMOVE),
    not_yet("services.*.isolation", "remove it: it is for Windows"),
    not_yet("services.*.label_file", REMOVE),
    yes("services.*.labels"),
    not_yet("services.*.links", "remove it: services of one network reach each other by name; order them with `depends_on`"),
    not_yet("services.*.logging", "remove it: logs are kept, and rotated by size"),
    not_yet("services.*.mac_address", REMOVE),
    not_yet("services.*.mem_limit", REMOVE),
    not_yet("services.*.mem_reservation", REMOVE),
    not_yet("services.*.mem_swappiness", "remove it: cgroup v2 has no such setting"),
    not_yet("services.*.memswap_limit", REMOVE),
    not_yet("services.*.models", "remove it: there is no model runner here"),
    not_yet("services.*.network_mode", "attach the service to `networks` instead"),
    yes("services.*.networks"),
    not_yet("services.*.oom_kill_disable", "remove it: cgroup v2 has no such setting"),
    not_yet("services.*.oom_score_adj", REMOVE),
    not_yet("services.*.pid", REMOVE),
    not_yet("services.*.pids_limit", REMOVE),
    not_yet("services.*.platform", "remove it; the image must be made for this machine"),
    yes("services.*.ports"),
    not_yet("services.*.post_start", REMOVE),
    not_yet("services.*.pre_start", REMOVE),
    not_yet("services.*.pre_stop", REMOVE),
    not_yet("services.*.privileged", "remove it; most images run without"),
    not_yet("services.*.profiles", "remove it, or move the service into a manifest of its own"),
    not_yet("services.*.provider", "remove it, or run what it provides as a service"),
    not_yet("services.*.pull_policy", "remove it; nothing is pulled yet"),
    not_yet("services.*.pull_refresh_after", REMOVE),
    not_yet("services.*.read_only", "remove it; mount what must not change with `:ro`"),
    yes("services.*.restart"),
    not_yet("services.*.runtime", "remove it: stead runs the containers itself"),
    not_yet("services.*.scale", "remove it; one instance of each service runs"),
    not_yet("services.*.secrets", "mount the file with `volumes` and `:ro`"),
    not_yet("services.*.security_opt", REMOVE),
    not_yet("services.*.shm_size", REMOVE),
    not_yet("services.*.stdin_open", REMOVE),
    yes("services.*.stop_grace_period"),
    yes("services.*.stop_signal"),
    not_yet("services.*.storage_opt", REMOVE),
    not_yet("services.*.sysctls", REMOVE),
    yes("services.*.tmpfs"),
    not_yet("services.*.tty", REMOVE),
    not_yet("services.*.ulimits", REMOVE),
    not_yet("services.*.use_api_socket", "remove it: there is no Docker socket here"),
    yes("services.*.user"),
    not_yet("services.*.userns_mode", REMOVE),
    not_yet("services.*.uts", REMOVE),
    yes("services.*.volumes"),
    not_yet("services.*.volumes_from", "list the same `volumes` here"),
    yes("services.*.working_dir"),
    yes("services.*.healthcheck.test"),
    yes("services.*.healthcheck.interval"),
    yes("services.*.healthcheck.timeout"),
    yes("services.*.healthcheck.retries"),
    yes("services.*.healthcheck.disable"),
    not_yet("services.*.healthcheck.start_period", "raise `retries` so that the first probes may fail"),
    not_yet("services.*.healthcheck.start_interval", "remove it; `interval` counts from the start"),
    yes("services.*.depends_on.*.condition"),
    yes("services.*.depends_on.*.required"),
    yes("services.*.depends_on.*.restart"),
    yes("services.*.networks.*.aliases"),
    not_yet("services.*.networks.*.ipv4_address", REMOVE),
    not_yet("services.*.networks.*.ipv6_address", REMOVE),
    not_yet("services.*.networks.*.link_local_ips", REMOVE),
    not_yet("services.*.networks.*.mac_address", REMOVE),
    not_yet("services.*.networks.*.priority", REMOVE),
    not_yet("services.*.networks.*.gw_priority", REMOVE),
    not_yet("services.*.networks.*.interface_name", REMOVE),
    not_yet("services.*.networks.*.driver_opts", REMOVE),
    yes("services.*.ports.*.target"),
    yes("services.*.ports.*.published"),
    yes("services.*.ports.*.host_ip"),
    yes("services.*.ports.*.protocol"),
    silent("services.*.ports.*.mode"),
    silent("services.*.ports.*.app_protocol"),
    silent("services.*.ports.*.name"),
    yes("services.*.volumes.*.type"),
    yes("services.*.volumes.*.source"),
    yes("services.*.volumes.*.target"),
    yes("services.*.volumes.*.read_only"),
    yes("services.*.volumes.*.bind"),
    yes("services.*.volumes.*.volume"),
    yes("services.*.volumes.*.tmpfs"),
    silent("services.*.volumes.*.consistency"),
    not_yet("services.*.volumes.*.image", REMOVE),
    yes("services.*.volumes.*.bind.create_host_path"),
    ignored("services.*.volumes.*.bind.selinux", "it has no effect here"),
    not_yet("services.*.volumes.*.bind.propagation", "remove it; mounts are `rprivate`"),
    not_yet("services.*.volumes.*.bind.recursive", "remove it"),
    yes("services.*.volumes.*.volume.nocopy"),
    not_yet("services.*.volumes.*.volume.labels", "remove it"),
    not_yet("services.*.volumes.*.volume.subpath", "mount the whole volume"),
    yes("services.*.volumes.*.tmpfs.size"),
    yes("services.*.volumes.*.tmpfs.mode"),
    yes("networks.*.name"),
    yes("networks.*.driver"),
    yes("networks.*.internal"),
    not_yet("networks.*.external", "remove it: every project has networks of its own"),
    not_yet("networks.*.ipam", "remove it: addresses are chosen automatically and stay"),
    not_yet("networks.*.driver_opts", REMOVE),
    not_yet("networks.*.attachable", REMOVE),
    not_yet("networks.*.enable_ipv4", REMOVE),
    not_yet("networks.*.enable_ipv6", REMOVE),
    not_yet("networks.*.labels", REMOVE),
    yes("volumes.*.name"),
    yes("volumes.*.driver"),
    not_yet("volumes.*.external", "remove it; a volume with the same `name` is found again"),
    not_yet("volumes.*.driver_opts", "mount the directory as a bind volume instead"),
    not_yet("volumes.*.labels", REMOVE),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_names_every_attribute_once_and_says_what_to_do() {
        let mut seen = BTreeSet::new();
        for attribute in ATTRIBUTES {
            assert!(seen.insert(attribute.path), "{} is there twice", attribute.path);
            let needs_hint = matches!(attribute.support, Support::NotYet | Support::Ignored);
            assert_eq!(needs_hint, !attribute.hint.is_empty(), "{}", attribute.path);
        }
        assert_eq!(
            below("services.*").count(),
            93,
            "attributes of a service in the schema of compose-go"
        );
        assert_eq!(below("").count(), 9);
        assert!(find("", "services").is_some() && find("services.*", "image").is_some());
        assert!(find("services.*", "healthcheck.test").is_none() && find("", "image").is_none());
    }

    #[test]
    fn a_typing_error_finds_the_name_that_was_meant() {
        let names = || below("services.*").map(|(name, _)| name);
        for (wrong, want) in [
            ("imagee", Some("image")),
            ("iamge", Some("image")),
            ("enviroment", Some("environment")),
            ("working-dir", Some("working_dir")),
            ("Ports", Some("ports")),
            ("depends", Some("depends_on")),
            ("completely_other", None),
        ] {
            assert_eq!(nearest(wrong, names()), want, "{wrong}");
        }
    }
}

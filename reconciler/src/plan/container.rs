//! From a service and its image to the process that runs: argv, environment, mounts, probe, signals,
//! with the defaults of Docker.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use model::{
    fields::{self, Fields},
    types::{Duration, Namespace, Project, Service},
};

use super::{
    images, spaces,
    step::Class,
    wanted::{self, Wanted},
};
use crate::{
    compare::{self, Difference},
    derive,
    key::InstanceKey,
    observed::{Image, ImageConfig, Observed},
    spec::{ContainerSpec, DeviceSpec, HealthSpec, HostName, Limits, LogSettings, NodeLike, SHM_SIZE},
};

mod files;
mod hooks;
mod mounts;
mod rights;

pub use files::furnish;

/// The field that the digest of its image is recorded as.
const DIGEST: &str = "image.digest";
/// What Docker gives a process whose image says nothing.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SIGTERM: i32 = 15;
const GRACE: u64 = 10_000;
const INTERVAL: u64 = 30_000;
const RETRIES: u32 = 3;
const START_INTERVAL: u64 = 5_000;

/// The fields that are compared, without `image.digest` and the revisions of dependencies. `depends_on` is
/// recorded for the order of stops after the manifest is gone.
pub fn compared<'a>(project: &'a Project, name: &str, service: &Service) -> Cow<'a, Fields> {
    let flat = project.fields(name).map(Cow::Borrowed);
    let mut fields = flat.unwrap_or_else(|| Cow::Owned(fields::fields(service)));
    for key in wanted::mounted(service) {
        if let Some(name) = wanted::renamed(project, key) {
            let field = format!("volumes.{key}.name");
            fields.to_mut().insert(field, name.to_owned());
        }
    }
    // What is mounted from another service is this one's, too.
    for from in &service.container.volumes_from {
        let theirs = project.fields(&from.service).into_iter().flatten();
        let theirs = theirs.filter(|(field, _)| field.split('.').next() == Some("volumes"));
        for (field, value) in theirs {
            let field = format!("volumes_from.{}.{field}", from.service);
            fields.to_mut().insert(field, value.clone());
        }
    }
    // A hook runs again before each new version of its service.
    if let Some(of) = &service.container.pre_start_of
        && let Some(theirs) = project.services.get(of)
        && !planted!("prepared-once-for-all")
    {
        let revision = revision(&compared(project, of, theirs));
        fields
            .to_mut()
            .insert("pre_start_of.revision".to_owned(), revision);
    }
    for (field, digest) in files::digests(project, service) {
        fields.to_mut().insert(field, digest.to_owned());
    }
    fields
}

/// What the containers of a service shall be.
pub struct Looks<'a> {
    /// What is compared, with the revisions of the dependencies that are followed.
    pub fields: Cow<'a, Fields>,
    /// Of the image; `None`: it is not known.
    digest: Option<&'a str>,
}

impl Looks<'_> {
    fn whole(&self) -> Fields {
        let mut fields = self.fields.clone().into_owned();
        fields.extend(self.digest.map(|digest| (DIGEST.to_owned(), digest.to_owned())));
        fields
    }

    /// How what was recorded of a container differs. While it is not known what a dependency is about to be,
    /// or what the image is, the container stays as it is.
    pub fn difference(&self, wanted: Wanted<'_>, have: &Fields) -> Option<Difference> {
        let rest = have.iter().filter(|(field, _)| *field != DIGEST);
        if self.digest == have.get(DIGEST).map(String::as_str) && rest.eq(self.fields.iter()) {
            return None;
        }
        let mut want = self.whole();
        keep_unknown_revisions(wanted, have, &mut want);
        let ignored = self.digest.is_none().then_some(DIGEST);
        compare::compare(have, &want, ignored.as_slice())
    }

    /// The fields of a container that takes the place of one with `have`.
    pub fn after(&self, wanted: Wanted<'_>, have: Option<&Fields>) -> Fields {
        let mut fields = self.fields.clone().into_owned();
        if let Some(have) = have {
            keep_unknown_revisions(wanted, have, &mut fields);
        }
        fields
    }
}

fn keep_unknown_revisions(wanted: Wanted<'_>, have: &Fields, fields: &mut Fields) {
    for name in restarts_with(wanted.project, wanted.service) {
        let field = revision_field(name);
        if let (false, Some(had)) = (fields.contains_key(&field), have.get(&field)) {
            fields.insert(field, had.clone());
        }
    }
}

/// By project and service.
pub type AllLooks<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Looks<'a>>>;

/// What the containers of each service shall be. A revision that is not known, for want of an image, is left
/// out.
pub fn all_compared<'a>(order: &[(&'a str, Wanted<'a>)], observed: &'a Observed) -> AllLooks<'a> {
    let mut all = AllLooks::new();
    let mut revisions: BTreeMap<(&str, &str), String> = BTreeMap::new();
    let followed: BTreeSet<(&str, &str)> = order
        .iter()
        .flat_map(|(_, wanted)| {
            let on = wanted
                .service
                .depends_on
                .iter()
                .filter(|(name, on)| spaces::restarts_with(wanted.service, name, on));
            on.map(|(name, _)| (wanted.project.name.as_str(), name.as_str()))
        })
        .collect();
    for (name, wanted) in order {
        let Wanted { project, service } = *wanted;
        let mut fields = compared(project, name, service);
        for on in restarts_with(project, service) {
            if let Some(revision) = revisions.get(&(project.name.as_str(), on)) {
                fields.to_mut().insert(revision_field(on), revision.clone());
            }
        }
        let key = (project.name.as_str(), *name);
        let image = images::resolve(observed, service).ok();
        let looks = Looks {
            fields,
            digest: image.map(|image| image.digest.as_str()),
        };
        // Nobody looks at the image of a service without instances, unless another one has the same.
        if looks.digest.is_some() && wanted::scale(service) > 0 && followed.contains(&key) {
            revisions.insert(key, revision(&looks.whole()));
        }
        all.entry(key.0).or_default().insert(key.1, looks);
    }
    all
}

/// The field that makes a service restart with `dependency`: the revision of what that runs.
pub fn revision_field(dependency: &str) -> String {
    format!("depends_on.{dependency}.revision")
}

/// The services that `service` is restarted with, directly or through others: each has its own revision, so
/// that one more of them restarts nobody.
fn restarts_with<'a>(project: &'a Project, service: &'a Service) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut next = vec![service];
    while let Some(service) = next.pop() {
        for (on, _) in service
            .depends_on
            .iter()
            .filter(|(name, on)| spaces::restarts_with(service, name, on))
        {
            if found.insert(on.as_str()) {
                next.extend(project.services.get(on));
            }
        }
    }
    found
}

/// What of `fields` a process is made from of its own, as a short name.
pub fn revision(fields: &Fields) -> String {
    let mut text = String::new();
    for (field, value) in fields {
        let own = !(field.starts_with("depends_on.") && field.ends_with(".revision"));
        if own && compare::class(field) >= Some(Class::Restart) {
            text.push_str(&format!("{} {field} {} {value}\n", field.len(), value.len()));
        }
    }
    derive::short(&text, 8)
}

/// The services that a recorded one depended on.
pub fn dependencies(fields: &Fields) -> impl Iterator<Item = &str> {
    fields
        .keys()
        .filter_map(|field| field.strip_prefix("depends_on.")?.strip_suffix(".condition"))
}

/// The container of `service` from `image`. The error says what to change in the manifest.
pub fn container(
    project: &Project,
    key: &InstanceKey,
    service: &Service,
    mut fields: Fields,
    image: &Image,
    observed: &Observed,
) -> Result<ContainerSpec, String> {
    let config = &image.config;
    fields.insert(DIGEST.to_owned(), image.digest.clone());
    let hostname = hostname(project, &key.service, service);
    let signal = service
        .stop_signal
        .as_deref()
        .or(config.stop_signal.as_deref())
        .filter(|text| !text.is_empty());
    let stop_signal = match signal {
        Some(text) => signal_number(text).ok_or_else(|| {
            format!("there is no signal {text}; write `stop_signal` like SIGINT, USR1, RTMIN+3 or a number")
        })?,
        None => SIGTERM,
    };
    let argv = argv(service, config);
    if argv.is_empty() {
        return Err("neither the service nor its image says what to run; set `command`".to_owned());
    }
    Ok(ContainerSpec {
        image_digest: image.digest.clone(),
        argv,
        environment: environment(service, config, &hostname),
        user: service.user.clone().unwrap_or_else(|| config.user.clone()),
        working_dir: working_dir(service, config),
        mounts: mounts::with_edits(mounts::mounts(project, key, service, config, observed)?, service),
        health: health(service, config),
        restart: service.restart,
        stop_signal,
        stop_grace: service.stop_grace_period.map_or(GRACE, |grace| grace.as_millis()),
        limits: limits(service),
        rights: rights::rights(service),
        init: service.container.init,
        tty: service.container.tty,
        logging: logging(key, service),
        stdin_open: service.container.stdin_open,
        read_only: service.security.read_only,
        shm_size: match service.namespaces.ipc {
            Some(Namespace::None) => 0,
            _ => service.resources.shm_size.unwrap_or(SHM_SIZE),
        },
        domainname: service.names.domainname.clone().unwrap_or_default(),
        dns: service.names.dns.clone(),
        links: links(service),
        dns_search: service.names.dns_search.clone(),
        dns_opt: service.names.dns_opt.clone(),
        sysctls: service.security.sysctls.clone(),
        extra_hosts: extra_hosts(service),
        files: files::files(project, service),
        devices: devices(service),
        device_rules: service.security.device_cgroup_rules.clone(),
        post_start: hooks::hooks(service, &service.container.post_start),
        pre_stop: hooks::hooks(service, &service.container.pre_stop),
        oci_hooks: hooks::of_vendors(service),
        hostname,
        fields,
    })
}

/// What was refused before does not come here.
fn logging(key: &InstanceKey, service: &Service) -> LogSettings {
    let name = format!("{}-{}-{}", key.project, key.service, key.index);
    let asked = service.container.logging.as_ref();
    let settings = asked.and_then(|logging| logging.settings(&name, &service.image).ok());
    settings.unwrap_or_default()
}

/// Empty: that of the host. Who shares the network of another has its name, too.
fn hostname(project: &Project, name: &str, service: &Service) -> String {
    let spaces = &service.namespaces;
    let shared = match &spaces.network_mode {
        Some(Namespace::Service(other)) => project.services.get_key_value(other),
        _ => None,
    };
    match (&service.hostname, shared) {
        (Some(hostname), _) => hostname.clone(),
        (None, Some((other, lender))) => lender.hostname.clone().unwrap_or_else(|| other.clone()),
        _ if [&spaces.network_mode, &spaces.uts].contains(&&Some(Namespace::Host)) => String::new(),
        _ => name.to_owned(),
    }
}

fn extra_hosts(service: &Service) -> Vec<HostName> {
    let own = service.names.extra_hosts.iter();
    own.map(|host| HostName {
        name: host.name.clone(),
        address: host.address,
    })
    .collect()
}

fn links(service: &Service) -> BTreeMap<String, String> {
    let links = service.names.links.iter();
    links
        .map(|link| (link.alias.to_ascii_lowercase(), link.service.to_ascii_lowercase()))
        .filter(|(alias, service)| alias != service)
        .collect()
}

fn devices(service: &Service) -> Vec<DeviceSpec> {
    let edits = service.security.edits.as_deref();
    let of_vendors = edits.map(|edits| {
        edits.nodes.iter().map(|node| DeviceSpec {
            source: node.source.clone(),
            target: node.target.clone(),
            access: node.access.clone(),
            like: node.like.clone(),
        })
    });
    // As CDI has it, a node of a vendor takes the place of another one.
    let replaced = |target: &Path| {
        let nodes = edits.map(|edits| &edits.nodes[..]).unwrap_or_default();
        nodes.iter().any(|node| node.target == target)
    };
    let devices = service.security.devices.iter();
    devices
        .filter(|device| !replaced(&device.target))
        .map(|device| DeviceSpec {
            source: device.source.clone(),
            target: device.target.clone(),
            access: device.permissions.clone(),
            like: NodeLike::default(),
        })
        .chain(of_vendors.into_iter().flatten())
        .collect()
}

fn limits(service: &Service) -> Limits {
    let resources = &service.resources;
    Limits {
        memory: resources.mem_limit,
        // The kernel takes no less than a thousandth.
        cpu: resources.cpus.map(|cpus| (cpus.0 / 1_000_000).max(1)),
        pids: resources.pids_limit.and_then(|pids| u64::try_from(pids).ok()),
        memory_reservation: resources.mem_reservation,
        memory_swap: resources.memswap_limit,
        cpu_quota: resources.cpu_quota,
        cpu_period: resources.cpu_period,
        cpu_shares: resources.cpu_shares,
        cpuset: resources.cpuset.as_ref().map(ToString::to_string),
        block: resources.blkio_config.clone(),
    }
}

fn argv(service: &Service, config: &ImageConfig) -> Vec<String> {
    let (entrypoint, image_command) = match &service.entrypoint {
        Some(entrypoint) => (entrypoint, &[][..]),
        None => (&config.entrypoint, &config.command[..]),
    };
    let command = service.command.as_deref().unwrap_or(image_command);
    entrypoint.iter().chain(command).cloned().collect()
}

fn environment(service: &Service, config: &ImageConfig, hostname: &str) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
    if !hostname.is_empty() {
        environment.insert("HOSTNAME".to_owned(), hostname.to_owned());
    }
    environment.extend(config.environment.clone());
    environment.extend(service.environment.clone());
    if let Some(edits) = &service.security.edits {
        environment.extend(edits.environment.clone());
    }
    environment
}

fn working_dir(service: &Service, config: &ImageConfig) -> PathBuf {
    let text = service.working_dir.as_deref().unwrap_or(&config.working_dir);
    Path::new("/").join(text)
}

/// Values left open are the image's one by one, then the engine's.
fn health(service: &Service, config: &ImageConfig) -> Option<HealthSpec> {
    let (own, image) = (service.healthcheck.as_ref(), config.healthcheck.as_ref());
    let test = own
        .and_then(|own| own.test.as_ref())
        .or(image.map(|image| &image.test))?;
    let argv = match test.first()?.as_str() {
        "CMD" => test[1..].to_vec(),
        "CMD-SHELL" => {
            let mut argv = vec!["/bin/sh".to_owned(), "-c".to_owned()];
            argv.extend_from_slice(&test[1..]);
            argv
        }
        _ => return None,
    };
    let pick = |own: Option<u64>, image: Option<u64>| {
        own.filter(|time| *time > 0)
            .or(image.filter(|time| *time > 0))
            .unwrap_or(INTERVAL)
    };
    let start = |own: Option<Duration>, image: Option<u64>| {
        let own = own.map(|time| time.as_millis());
        own.filter(|time| *time > 0).or(image).unwrap_or(0)
    };
    let start_period = start(
        own.and_then(|own| own.start_period),
        image.map(|image| image.start_period),
    );
    let start_interval = start(
        own.and_then(|own| own.start_interval),
        image.map(|image| image.start_interval),
    );
    let interval = pick(
        own.and_then(|own| own.interval).map(|time| time.as_millis()),
        image.map(|image| image.interval),
    );
    let start_interval = match start_interval {
        0 => interval.min(START_INTERVAL),
        given => given,
    };
    (!argv.is_empty()).then(|| HealthSpec {
        argv,
        interval,
        timeout: pick(
            own.and_then(|own| own.timeout).map(|time| time.as_millis()),
            image.map(|image| image.timeout),
        ),
        retries: own
            .and_then(|own| own.retries)
            .filter(|retries| *retries > 0)
            .or(image.map(|image| image.retries).filter(|retries| *retries > 0))
            .unwrap_or(RETRIES),
        start_period,
        start_interval,
    })
}

/// `SIGINT`, `int`, `2`, `RTMIN+3`, `SIGRTMAX-1`. Numbers as on Linux x86-64 and aarch64, signal(7);
/// the real-time signals as the C libraries hand them out, 34 to 64.
pub fn signal_number(text: &str) -> Option<i32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let valid = |number: i32| (1..=64).contains(&number).then_some(number);
    if let Ok(number) = text.parse::<i32>() {
        return valid(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return real_time(34, rest);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return real_time(64, rest);
    }
    let name = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        name => name,
    };
    let index = NAMES.iter().position(|known| *known == name)?;
    i32::try_from(index + 1).ok()
}

fn real_time(from: i32, rest: &str) -> Option<i32> {
    let offset = if rest.is_empty() {
        0
    } else {
        rest.parse::<i32>().ok()?
    };
    let number = from.checked_add(offset)?;
    (34..=64).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests;

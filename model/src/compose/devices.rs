//! Devices of vendors: which of them a service asks for, and what the specification files of this host (Container
//! Device Interface) say that they bring.

use std::path::PathBuf;

use super::loading::Loading;
use crate::{
    canonical,
    syntax::{
        cdi::{self, Brought, Specification},
        cut,
    },
    tree::{At, Node},
    types::{DeviceRequest, Edits, Project, Security},
    yaml,
};

/// Where the files are by the specification; what stands in a later directory wins.
pub const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// The vendor that is meant where several make GPUs.
const NVIDIA: &str = "nvidia.com";
const GPU: &str = "gpu";
/// The name of all devices together, where a file has one.
const ALL: &str = "all";

/// A device by its full name.
type Name = (String, String, String);

/// Why a device cannot be had, and what to do.
struct Problem {
    what: String,
    hint: String,
}

/// The files of this host.
struct Registry {
    directories: Vec<PathBuf>,
    /// With the place of its directory, and the file.
    files: Vec<(usize, PathBuf, Specification)>,
    /// Files that are none, and why.
    broken: Vec<String>,
}

impl Loading<'_> {
    /// Fills in what the devices that services ask for bring. Nothing is looked for where nobody asks.
    pub fn devices_of_vendors(&mut self, project: &mut Project, canonical: &Node) {
        let asks =
            |security: &Security| !(security.vendor_devices.is_empty() && security.requests.is_empty());
        if !project.services.values().any(|service| asks(&service.security)) {
            return;
        }
        let registry = self.registry();
        for (name, service) in &mut project.services {
            let security = &mut service.security;
            if !asks(security) {
                continue;
            }
            let mut edits = Edits::default();
            let mut applied = Vec::new();
            let mut seen = Vec::new();
            for (path, at, asked) in asked(name, security, canonical) {
                let names = match asked {
                    Asked::Name(text) => registry.named(&text).map(|name| vec![name]),
                    Asked::Request(request) => registry.requested(&request),
                };
                let found = names.and_then(|names| {
                    for name in names {
                        if !seen.contains(&name) {
                            registry.add(&name, &mut edits, &mut applied)?;
                            seen.push(name);
                        }
                    }
                    Ok(())
                });
                if let Err(Problem { what, hint }) = found {
                    self.report.refuse(at, format!("`{path}`: {what}"), hint);
                }
            }
            security.edits = Some(Box::new(edits));
        }
    }

    fn registry(&mut self) -> Registry {
        let directories: Vec<PathBuf> = match &self.options.device_directories {
            Some(directories) => directories.clone(),
            None => DIRECTORIES.map(PathBuf::from).to_vec(),
        };
        let (mut files, mut broken) = (Vec::new(), Vec::new());
        for (place, directory) in directories.iter().enumerate() {
            for file in self.files.list(directory) {
                let kind = file.extension().and_then(|extension| extension.to_str());
                if !matches!(kind, Some("json" | "yaml" | "yml")) {
                    continue;
                }
                let read = self.files.of_host(&file).map_err(|error| error.to_string());
                let parsed = read.and_then(|text| parse(&text)).and_then(cdi::parse);
                match parsed {
                    Ok(specification) => files.push((place, file, specification)),
                    Err(why) => broken.push(format!("{} is none: {why}", file.display())),
                }
            }
        }
        Registry {
            directories,
            files,
            broken,
        }
    }
}

/// JSON is YAML, too.
fn parse(text: &str) -> Result<serde_json::Value, String> {
    if let Ok(json) = serde_json::from_str(text) {
        return Ok(json);
    }
    let documents = yaml::parse(text, 0).map_err(|error| error.message)?;
    match &documents[..] {
        [document] => Ok(canonical::plain_json(document)),
        _ => Err("it is not one document".to_owned()),
    }
}

enum Asked {
    Name(String),
    Request(DeviceRequest),
}

/// What a service asks for, and where that is written.
fn asked(name: &str, security: &Security, canonical: &Node) -> Vec<(String, At, Asked)> {
    let list = |keys: &[&str]| {
        let service = ["services", name]
            .iter()
            .try_fold(canonical, |node, key| node.get(key));
        let list = keys.iter().try_fold(service?, |node, key| node.get(key))?;
        let items = list.items().iter().enumerate();
        let path = format!("services.{name}.{}", keys.join("."));
        let items = items.map(|(place, item)| (format!("{path}[{place}]"), item));
        Some(items.collect::<Vec<_>>())
    };
    let devices = list(&["devices"]).unwrap_or_default();
    let source = |item: &Node| {
        item.get("source")
            .and_then(|source| source.as_text().map(str::to_owned))
    };
    let mut devices = devices
        .into_iter()
        .filter(|(_, item)| source(item).is_some_and(|source| !source.starts_with('/')));
    let mut all: Vec<(String, At, Asked)> = Vec::new();
    for device in &security.vendor_devices {
        let (path, at) = match devices.next() {
            Some((path, item)) => (path, item.at),
            None => (format!("services.{name}.devices"), At::default()),
        };
        all.push((path, at, Asked::Name(device.clone())));
    }
    let gpus = list(&["gpus"]).unwrap_or_default();
    let reserved = list(&["deploy", "resources", "reservations", "devices"]).unwrap_or_default();
    let mut places = gpus.into_iter().chain(reserved);
    for request in &security.requests {
        let (path, at) = match places.next() {
            Some((path, item)) => (path, item.at),
            None => (format!("services.{name}.gpus"), At::default()),
        };
        all.push((path, at, Asked::Request(request.clone())));
    }
    all
}

impl Registry {
    /// A device by its full name.
    fn named(&self, text: &str) -> Result<Name, Problem> {
        match cdi::qualified(text) {
            Some((vendor, class, name)) => Ok((vendor.to_owned(), class.to_owned(), name.to_owned())),
            None => Err(Problem {
                what: format!("`{}` is no name of a device", cut(text)),
                hint: "write it like `vendor.com/class=name`".to_owned(),
            }),
        }
    }

    /// The devices that a request means.
    fn requested(&self, request: &DeviceRequest) -> Result<Vec<Name>, Problem> {
        let full: Vec<Name> = request
            .device_ids
            .iter()
            .filter_map(|id| self.named(id).ok())
            .collect();
        if full.len() == request.device_ids.len() && !full.is_empty() {
            return Ok(full);
        }
        if request.driver.as_deref() == Some("cdi") {
            return Err(Problem {
                what: "the driver `cdi` takes devices by their names".to_owned(),
                hint: "write them like `device_ids: [vendor.com/class=name]`".to_owned(),
            });
        }
        let (vendor, class) = self.kind(request)?;
        let name = |name: &str| (vendor.clone(), class.clone(), name.to_owned());
        if !request.device_ids.is_empty() {
            let ids = request.device_ids.iter();
            return Ok(ids
                .map(|id| self.named(id).unwrap_or_else(|_| name(id)))
                .collect());
        }
        let mut names: Vec<&str> = self
            .files
            .iter()
            .filter(|(_, _, file)| file.vendor == vendor && file.class == class)
            .flat_map(|(_, _, file)| file.devices.keys().map(String::as_str))
            .collect();
        names.sort_unstable();
        names.dedup();
        let Some(count) = request.count else {
            return Ok(match names.contains(&ALL) {
                true => vec![name(ALL)],
                false => names.into_iter().map(name).collect(),
            });
        };
        // The same device may stand there by its number and by its serial.
        let mut numbered: Vec<(u32, &str)> = names
            .iter()
            .filter_map(|name| Some((name.parse().ok()?, *name)))
            .collect();
        numbered.sort_unstable();
        let single: Vec<&str> = match numbered.is_empty() {
            true => names.into_iter().filter(|name| *name != ALL).collect(),
            false => numbered.into_iter().map(|(_, name)| name).collect(),
        };
        let there = single.len();
        match usize::try_from(count).ok().filter(|count| *count <= there) {
            Some(count) => Ok(single.into_iter().take(count).map(name).collect()),
            None => Err(Problem {
                what: format!("it wants {count} devices of `{vendor}/{class}`, and this host has {there}"),
                hint: "ask for fewer, or for `all`".to_owned(),
            }),
        }
    }

    /// Vendor and class of what a request wants.
    fn kind(&self, request: &DeviceRequest) -> Result<(String, String), Problem> {
        let wants = |class: &str| request.capabilities.iter().any(|one| one == class);
        let is_driver = |vendor: &str| match request.driver.as_deref() {
            None => true,
            Some(driver) => {
                vendor == driver
                    || vendor
                        .strip_prefix(driver)
                        .is_some_and(|rest| rest.starts_with('.'))
            }
        };
        let mut kinds: Vec<(&str, &str)> = self
            .files
            .iter()
            .map(|(_, _, file)| (file.vendor.as_str(), file.class.as_str()))
            .filter(|(vendor, class)| is_driver(vendor) && wants(class))
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        let preferred = kinds.iter().find(|kind| **kind == (NVIDIA, GPU));
        match (preferred, &kinds[..]) {
            (Some((vendor, class)), _) | (None, [(vendor, class)]) => {
                Ok(((*vendor).to_owned(), (*class).to_owned()))
            }
            (None, []) => {
                let driver = request.driver.as_deref();
                let vendor = match driver {
                    Some("nvidia") => NVIDIA,
                    Some(driver) => driver,
                    None if wants(GPU) => NVIDIA,
                    None => "*",
                };
                let class = request.capabilities.first().map_or(GPU, String::as_str);
                Err(self.nobody(&format!("a device of `{}/{}`", cut(vendor), cut(class))))
            }
            (None, several) => {
                let several: Vec<String> = several
                    .iter()
                    .map(|(vendor, class)| format!("`{vendor}/{class}`"))
                    .collect();
                Err(Problem {
                    what: format!("{} are all meant", several.join(" and ")),
                    hint: "say which with `driver: VENDOR`, or name devices in `devices`".to_owned(),
                })
            }
        }
    }

    /// No file has it: where they were looked for, and how to make one.
    fn nobody(&self, what: &str) -> Problem {
        let directories: Vec<String> = self
            .directories
            .iter()
            .map(|directory| directory.display().to_string())
            .collect();
        let broken = self.broken.iter().map(|why| format!("; {why}"));
        Problem {
            what: format!(
                "no CDI file in {} describes {what}{}",
                directories.join(" or "),
                broken.collect::<String>()
            ),
            hint: "let the vendor's tool write one, like `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`"
                .to_owned(),
        }
    }

    /// Adds what a device brings, and what its file brings with any of its devices.
    fn add(&self, name: &Name, edits: &mut Edits, applied: &mut Vec<PathBuf>) -> Result<(), Problem> {
        let (vendor, class, device) = name;
        let shown = format!("{vendor}/{class}={device}");
        let mut having: Vec<(usize, &PathBuf, &Specification, &Brought)> = self
            .files
            .iter()
            .filter(|(_, _, file)| file.vendor == *vendor && file.class == *class)
            .filter_map(|(place, path, file)| Some((*place, path, file, file.devices.get(device)?)))
            .collect();
        let last = having.iter().map(|(place, ..)| *place).max();
        having.retain(|(place, ..)| Some(*place) == last);
        let (path, file, brought) = match &having[..] {
            [] => return Err(self.nobody(&format!("`{}`", cut(&shown)))),
            [(_, path, file, brought)] => (*path, *file, *brought),
            [(_, one, ..), (_, other, ..), ..] => {
                return Err(Problem {
                    what: format!(
                        "`{shown}` stands in {} and in {}, and neither wins",
                        one.display(),
                        other.display()
                    ),
                    hint: "remove one of them".to_owned(),
                });
            }
        };
        let first = !applied.contains(path);
        let all = first.then_some(&file.any).into_iter().chain([brought]);
        for brought in all {
            if let Some(why) = brought.refused.first() {
                return Err(Problem {
                    what: format!("`{shown}` of {} cannot be had: {why}", path.display()),
                    hint: "write a file without it, or name nodes and mounts in `devices` and `volumes`"
                        .to_owned(),
                });
            }
            append(edits, &brought.edits);
        }
        if first {
            applied.push(path.clone());
        }
        Ok(())
    }
}

/// What comes later at the same place wins.
fn append(edits: &mut Edits, more: &Edits) {
    edits.environment.extend(more.environment.clone());
    for node in &more.nodes {
        edits.nodes.retain(|other| other.target != node.target);
        edits.nodes.push(node.clone());
    }
    for mount in &more.mounts {
        edits.mounts.retain(|other| other.target != mount.target);
        edits.mounts.push(mount.clone());
    }
    // Each is run, also one that another device has brought already.
    edits.hooks.extend(more.hooks.clone());
    for group in &more.groups {
        if !edits.groups.contains(group) {
            edits.groups.push(*group);
        }
    }
}

#[cfg(test)]
mod tests;

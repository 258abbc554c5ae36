//! Specification files of the Container Device Interface: JSON or YAML to devices and what they bring. What would
//! be understood half is refused.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

use super::cut;
use crate::types::{EditMount, EditNode, Edits, NodeLike, OciHook, OciMoment, Propagation, Recursive};

/// The versions of the interface that are known.
const VERSIONS: [&str; 9] = [
    "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.0.1", "1.1.0",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    cdi_version: String,
    kind: String,
    #[serde(default)]
    #[allow(dead_code, reason = "for people")]
    annotations: Option<BTreeMap<String, String>>,
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Option<WrittenEdits>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Device {
    name: String,
    #[serde(default)]
    #[allow(dead_code, reason = "for people")]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    container_edits: Option<WrittenEdits>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WrittenEdits {
    env: Option<Vec<String>>,
    device_nodes: Option<Vec<Node>>,
    net_devices: Option<Vec<serde_json::Value>>,
    mounts: Option<Vec<Mount>>,
    hooks: Option<Vec<Hook>>,
    intel_rdt: Option<serde_json::Value>,
    additional_gids: Option<Vec<u32>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Node {
    path: String,
    host_path: String,
    r#type: String,
    major: i64,
    minor: i64,
    file_mode: Option<u32>,
    permissions: String,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Mount {
    host_path: String,
    container_path: String,
    r#type: String,
    options: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Hook {
    hook_name: String,
    path: String,
    args: Option<Vec<String>>,
    env: Option<Vec<String>>,
    timeout: Option<i64>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Specification {
    pub vendor: String,
    pub class: String,
    pub devices: BTreeMap<String, Brought>,
    /// With any of them.
    pub any: Brought,
}

/// What a device brings, and what of it cannot be had here: told when the device is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Brought {
    pub edits: Edits,
    pub refused: Vec<String>,
}

/// Reads a file. `yaml`: JSON of what a YAML file says.
///
/// # Errors
/// Why it is none, in words.
pub(crate) fn parse(json: serde_json::Value) -> Result<Specification, String> {
    let written: Written = serde_json::from_value(json).map_err(|error| cut(&error.to_string()))?;
    let version = written.cdi_version.trim_start_matches('v');
    if !VERSIONS.contains(&version) {
        return Err(format!("the version `{}` of CDI is not known here", cut(version)));
    }
    let (vendor, class) = kind(&written.kind).ok_or_else(|| {
        format!(
            "`{}` is no kind of devices: write `VENDOR/CLASS`",
            cut(&written.kind)
        )
    })?;
    if written.devices.is_empty() {
        return Err("it has no devices".to_owned());
    }
    let mut devices = BTreeMap::new();
    for device in written.devices {
        let name = device.name;
        if !is_device_name(&name) {
            return Err(format!("`{}` is no name of a device", cut(&name)));
        }
        let brought = brought(device.container_edits.unwrap_or_default())
            .map_err(|why| format!("device `{}`: {why}", cut(&name)))?;
        if devices.insert(name.clone(), brought).is_some() {
            return Err(format!("the device `{}` stands there twice", cut(&name)));
        }
    }
    Ok(Specification {
        vendor: vendor.to_owned(),
        class: class.to_owned(),
        devices,
        any: brought(written.container_edits.unwrap_or_default())?,
    })
}

/// `VENDOR/CLASS=NAME` in its parts.
pub(crate) fn qualified(text: &str) -> Option<(&str, &str, &str)> {
    let (kind_of, name) = text.split_once('=')?;
    let (vendor, class) = kind(kind_of)?;
    is_device_name(name).then_some((vendor, class, name))
}

fn kind(text: &str) -> Option<(&str, &str)> {
    let (vendor, class) = text.split_once('/')?;
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.ends_with(|c: char| c.is_ascii_alphanumeric())
            && name
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || b"_-.".contains(&c))
    };
    (is_name(vendor) && is_name(class)).then_some((vendor, class))
}

fn is_device_name(name: &str) -> bool {
    let ends = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .iter()
            .all(|c| c.is_ascii_alphanumeric() || b"_-.:".contains(c))
}

fn brought(written: WrittenEdits) -> Result<Brought, String> {
    let mut found = Brought::default();
    for variable in written.env.into_iter().flatten() {
        let (name, value) = variable
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| format!("`{}` is no variable", cut(&variable)))?;
        let variables = &mut found.edits.environment;
        variables.insert(name.to_owned(), value.to_owned());
    }
    for node in written.device_nodes.into_iter().flatten() {
        found.edits.nodes.push(node_of(node)?);
    }
    for mount in written.mounts.into_iter().flatten() {
        match mount_of(mount)? {
            Ok(mount) => found.edits.mounts.push(mount),
            Err(why) => found.refused.push(why),
        }
    }
    for hook in written.hooks.into_iter().flatten() {
        found.edits.hooks.push(hook_of(hook)?);
    }
    if written.intel_rdt.is_some() {
        let why = "it wants a class of cache and memory bandwidth (intelRdt), which stead does not set";
        found.refused.push(why.to_owned());
    }
    if written.net_devices.is_some_and(|devices| !devices.is_empty()) {
        let why = "it wants interfaces of the host (netDevices), which stead does not move";
        found.refused.push(why.to_owned());
    }
    let groups = written.additional_gids.into_iter().flatten();
    found.edits.groups = groups.filter(|group| *group != 0).collect();
    Ok(found)
}

fn hook_of(hook: Hook) -> Result<OciHook, String> {
    let moment = OciMoment::parse(&hook.hook_name).ok_or_else(|| {
        let known = OciMoment::ALL.map(|(name, _)| name).join(", ");
        format!("`{}` is no kind of hook; there are {known}", cut(&hook.hook_name))
    })?;
    if !hook.path.starts_with('/') {
        return Err(format!("`{}` is no absolute path of a hook", cut(&hook.path)));
    }
    let env = hook.env.unwrap_or_default();
    if let Some(wrong) = env.iter().find(|variable| !variable.contains('=')) {
        return Err(format!("`{}` is no variable", cut(wrong)));
    }
    let timeout = hook.timeout.map(|seconds| match u32::try_from(seconds) {
        Ok(seconds @ 1..) => Ok(seconds),
        _ => Err(format!(
            "a hook cannot have a timeout of {seconds} s; give it one or more"
        )),
    });
    Ok(OciHook {
        moment,
        path: hook.path.into(),
        args: hook.args.unwrap_or_default(),
        env,
        timeout: timeout.transpose()?,
    })
}

fn node_of(node: Node) -> Result<EditNode, String> {
    let absolute = |path: &str| {
        let is = path.starts_with('/');
        is.then(|| PathBuf::from(path))
            .ok_or_else(|| format!("`{}` is no path of a device", cut(path)))
    };
    let target = absolute(&node.path)?;
    let source = match node.host_path.as_str() {
        "" => target.clone(),
        path => absolute(path)?,
    };
    let access = match node.permissions.as_str() {
        "" => "rwm",
        "none" => "",
        other if other.bytes().all(|c| b"rwm".contains(&c)) => other,
        other => return Err(format!("`{}` are not permissions of a device", cut(other))),
    };
    let part =
        |number: i64| u32::try_from(number).map_err(|_| format!("`{number}` is no number of a device"));
    let number = match (node.r#type.as_str(), node.major, node.minor) {
        ("" | "b" | "c" | "u", 0, 0) | ("", ..) => None,
        ("b", major, minor) => Some(('b', part(major)?, part(minor)?)),
        ("c" | "u", major, minor) => Some(('c', part(major)?, part(minor)?)),
        (other, ..) => return Err(format!("devices of the type `{}` are not known here", cut(other))),
    };
    Ok(EditNode {
        source,
        target,
        access: access.to_owned(),
        like: NodeLike {
            number,
            mode: node.file_mode.map(|mode| mode & 0o777),
            uid: node.uid,
            gid: node.gid,
        },
    })
}

/// The inner error is a mount that others may make, and stead does not.
fn mount_of(mount: Mount) -> Result<Result<EditMount, String>, String> {
    let (source, target) = (mount.host_path, mount.container_path);
    if !source.starts_with('/') || !target.starts_with('/') {
        return Err(format!(
            "the mount of `{}` on `{}` has a path that is not absolute",
            cut(&source),
            cut(&target)
        ));
    }
    let mut found = EditMount {
        source: source.into(),
        target: target.into(),
        ..EditMount::default()
    };
    if !matches!(mount.r#type.as_str(), "" | "none" | "bind") {
        return Ok(Err(format!(
            "it wants a file system of the type `{}` at {}",
            cut(&mount.r#type),
            found.target.display()
        )));
    }
    for option in mount.options.into_iter().flatten() {
        match option.as_str() {
            "ro" => found.read_only = true,
            "rw" => found.read_only = false,
            "bind" => found.recursive = Recursive::Disabled,
            "rbind" => found.recursive = Recursive::Enabled,
            "slave" | "rslave" => found.propagation = Propagation::RSlave,
            "shared" | "rshared" => found.propagation = Propagation::RShared,
            "private" | "rprivate" => found.propagation = Propagation::RPrivate,
            // `nodev` is every mount; the others take nothing from who asks for the device.
            "nodev" | "nosuid" | "noexec" | "noatime" | "nodiratime" | "relatime" | "strictatime" => {}
            // What is the case anyway.
            "suid" | "exec" | "atime" | "defaults" | "async" => {}
            other => {
                return Ok(Err(format!(
                    "it wants the option `{}` for the mount at {}",
                    cut(other),
                    found.target.display()
                )));
            }
        }
    }
    Ok(Ok(found))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_is_read_with_all_it_brings() {
        let found = parse(json!({
            "cdiVersion": "0.7.0",
            "kind": "vendor.com/net-1",
            "annotations": { "a": "b" },
            "containerEdits": { "env": ["ANY=1"] },
            "devices": [{
                "name": "0:1",
                "containerEdits": {
                    "env": ["ONE=a=b"],
                    "deviceNodes": [
                        { "path": "/dev/one", "hostPath": "/dev/vendor/1", "permissions": "rw", "uid": 5, "fileMode": 0o100640 },
                        { "path": "/dev/two", "type": "c", "major": 10, "minor": 200, "permissions": "none" },
                    ],
                    "mounts": [
                        { "hostPath": "/lib/a", "containerPath": "/lib/b", "options": ["ro", "nosuid", "nodev", "bind"] },
                        { "hostPath": "/tmp", "containerPath": "/x", "type": "tmpfs" },
                    ],
                    "hooks": [{ "hookName": "createContainer", "path": "/usr/bin/vendor-hook",
                        "args": ["vendor-hook", "links", "--link", "a::b", "--link", "c::d"], "env": ["A=1"], "timeout": 5 }],
                    "additionalGids": [0, 7],
                    "intelRdt": { "closID": "x" },
                },
            }],
        }))
        .unwrap();
        assert_eq!(
            (found.vendor.as_str(), found.class.as_str()),
            ("vendor.com", "net-1")
        );
        assert_eq!(found.any.edits.environment["ANY"], "1");
        let Brought { edits, refused } = &found.devices["0:1"];
        assert_eq!(edits.environment["ONE"], "a=b");
        assert_eq!(edits.groups, [7]);
        let [one, two] = &edits.nodes[..] else {
            panic!("{edits:?}")
        };
        assert_eq!(
            (one.source.to_str(), one.target.to_str()),
            (Some("/dev/vendor/1"), Some("/dev/one"))
        );
        assert_eq!(
            (one.access.as_str(), one.like.mode, one.like.uid),
            ("rw", Some(0o640), Some(5))
        );
        assert_eq!((two.access.as_str(), two.like.number), ("", Some(('c', 10, 200))));
        assert_eq!(edits.mounts.len(), 1);
        assert!(edits.mounts[0].read_only && edits.mounts[0].recursive == Recursive::Disabled);
        let [hook] = &edits.hooks[..] else {
            panic!("{edits:?}")
        };
        assert_eq!(
            (hook.moment, hook.timeout, hook.env.len()),
            (OciMoment::CreateContainer, Some(5), 1)
        );
        assert_eq!(
            hook.to_string(),
            "createContainer hook `/usr/bin/vendor-hook links --link a::b …`"
        );
        assert_eq!(refused.len(), 2);
        assert!(refused[0].contains("`tmpfs`"), "{refused:?}");
        assert!(refused[1].contains("intelRdt"), "{refused:?}");
    }

    #[test]
    fn what_is_no_specification_is_told() {
        let file = |version: &str, kind: &str, device: serde_json::Value| json!({ "cdiVersion": version, "kind": kind, "devices": [device] });
        let fine = json!({ "name": "a" });
        for (json, want) in [
            (json!({}), "missing field"),
            (
                json!({ "cdiVersion": "1.0.0", "kind": "a/b", "devices": [] }),
                "no devices",
            ),
            (
                json!({ "cdiVersion": "1.0.0", "kind": "a/b", "devices": [fine], "more": 1 }),
                "unknown field",
            ),
            (file("2.0.0", "a/b", fine.clone()), "the version `2.0.0`"),
            (file("1.0.0", "a", fine.clone()), "no kind of devices"),
            (file("1.0.0", "1a/b", fine.clone()), "no kind of devices"),
            (file("1.0.0", "a/b-", fine.clone()), "no kind of devices"),
            (
                file("1.0.0", "a/b", json!({ "name": "-a" })),
                "no name of a device",
            ),
            (
                file(
                    "1.0.0",
                    "a/b",
                    json!({ "name": "a", "containerEdits": { "env": ["=x"] } }),
                ),
                "no variable",
            ),
            (
                file(
                    "1.0.0",
                    "a/b",
                    json!({ "name": "a", "containerEdits": { "deviceNodes": [{ "path": "dev" }] } }),
                ),
                "no path of a device",
            ),
            (
                file(
                    "1.0.0",
                    "a/b",
                    json!({ "name": "a", "containerEdits": { "mounts": [{ "hostPath": "x", "containerPath": "/x" }] } }),
                ),
                "not absolute",
            ),
        ] {
            let error = parse(json.clone()).unwrap_err();
            assert!(error.contains(want), "{json}: {error}");
        }
        let hook = json!({ "hookName": "createContainer", "path": "/bin/hook" });
        for (key, value, want) in [
            (
                "hookName",
                json!("later"),
                "no kind of hook; there are prestart, createRuntime",
            ),
            ("path", json!("bin/hook"), "no absolute path of a hook"),
            ("env", json!(["A"]), "no variable"),
            ("timeout", json!(0), "a timeout of 0 s"),
            ("timeout", json!(-1), "a timeout of -1 s"),
        ] {
            let mut hook = hook.clone();
            hook[key] = value;
            let device = json!({ "name": "a", "containerEdits": { "hooks": [hook] } });
            let error = parse(file("1.0.0", "a/b", device)).unwrap_err();
            assert!(error.contains(want), "{key}: {error}");
        }
        assert_eq!(qualified("v.com/c=n:1"), Some(("v.com", "c", "n:1")));
        for text in ["/dev/a=b", "v.com=n", "v.com/c", "v.com/c=", "v.com/c=n/"] {
            assert_eq!(qualified(text), None, "{text}");
        }
    }
}

//! What a service may do.

use std::{collections::BTreeMap, path::PathBuf};

use super::{Reader, value::Place};
use crate::{
    syntax::{cdi, cut},
    types::{Device, DeviceRequest, Security, SecurityOption},
};

impl Reader<'_> {
    pub(super) fn security(&mut self, place: &Place) -> Security {
        const CAPABILITY: &str = "write a name of capabilities(7) like `NET_ADMIN`, or `ALL`";
        if place.flag("privileged")
            && let Some(at) = place.get("privileged")
        {
            self.report.warning(
                at.node.at,
                format!("`{}`: whoever is root in it is root of this host", at.path),
                "most images run with some of `cap_add`, `devices` and `security_opt`",
            );
        }
        let (devices, vendor_devices) = self.devices(place);
        Security {
            privileged: place.flag("privileged"),
            read_only: place.flag("read_only"),
            cap_add: self.all_parsed(place, "cap_add", CAPABILITY),
            cap_drop: self.all_parsed(place, "cap_drop", CAPABILITY),
            security_opt: self.security_options(place),
            seccomp_profile: None,
            group_add: place.words("group_add"),
            sysctls: self.sysctls(place),
            devices,
            vendor_devices,
            requests: self.device_requests(place),
            edits: None,
            device_cgroup_rules: self.device_rules(place),
        }
    }

    fn security_options(&mut self, place: &Place) -> Vec<SecurityOption> {
        const OPTION: &str = "write `no-new-privileges:true`, `seccomp=…`, `apparmor=…`, `label=disable` or `systempaths=unconfined`";
        let options: Vec<SecurityOption> = self.all_parsed(place, "security_opt", OPTION);
        for item in place.list("security_opt") {
            let text = item.scalar().unwrap_or_default();
            if let Ok(SecurityOption::Label(label)) = text.parse()
                && label != "disable"
            {
                let what = format!("`{}`: labels of SELinux are not supported yet", cut(&text));
                self.refuse(&item, what, "remove it, or write `label=disable`");
            }
        }
        options
    }

    /// Only what belongs to a namespace of the container.
    fn sysctls(&mut self, place: &Place) -> BTreeMap<String, String> {
        let mut sysctls = BTreeMap::new();
        let host_network = place.word("network_mode").as_deref() == Some("host");
        for (name, _, value) in place.get("sysctls").iter().flat_map(Place::entries) {
            let known = |c: u8| c.is_ascii_alphanumeric() || b"._-/".contains(&c);
            let own = name.starts_with("net.")
                || name.starts_with("fs.mqueue.")
                || name.starts_with("kernel.msg")
                || name.starts_with("kernel.shm")
                || name == "kernel.sem";
            let inside = !name.split(['.', '/']).any(str::is_empty);
            if !own || !inside || !name.bytes().all(known) {
                let what = format!("`{}` is not a setting of one container", cut(name));
                let hint = "only `net.*`, `kernel.msg*`, `kernel.sem`, `kernel.shm*` and `fs.mqueue.*` are; set others on the host";
                self.refuse(&value, what, hint);
            } else if host_network && name.starts_with("net.") {
                let what = "the network of the host is not to be changed by a service";
                self.refuse(&value, what, "remove it, or `network_mode: host`");
            } else {
                sysctls.insert(name.to_owned(), value.scalar().unwrap_or_default());
            }
        }
        sysctls
    }

    /// Nodes of the host, and devices of vendors by name.
    fn devices(&mut self, place: &Place) -> (Vec<Device>, Vec<String>) {
        let (mut devices, mut named) = (Vec::new(), Vec::new());
        for item in place.list("devices") {
            let source = item.word("source").unwrap_or_default();
            let target = item.word("target").unwrap_or_else(|| source.clone());
            // A name may have a colon in it, which the short form takes for the end of the source.
            let whole = match target == source || target.starts_with('/') {
                true => source.clone(),
                false => format!("{source}:{target}"),
            };
            if cdi::qualified(&whole).is_some() {
                named.push(whole);
                continue;
            }
            let permissions = item.word("permissions").unwrap_or_else(|| "rwm".to_owned());
            let known = permissions.bytes().all(|c| b"rwm".contains(&c)) && permissions.len() <= 3;
            if !known {
                let what = format!("`{}` are not permissions of a device", cut(&permissions));
                self.refuse(&item, what, "write `r`, `w` and `m`, like `rwm`");
            }
            if !source.starts_with('/') || !target.starts_with('/') {
                let what = format!("`{}` is not the path of a device", cut(&source));
                self.refuse(
                    &item,
                    what,
                    "write it like `/dev/fuse`, or `vendor.com/class=name`",
                );
            }
            devices.push(Device {
                source: PathBuf::from(source),
                target: PathBuf::from(target),
                permissions,
            });
        }
        (devices, named)
    }

    /// Devices by what they can do. Those of `gpus` are GPUs.
    fn device_requests(&mut self, place: &Place) -> Vec<DeviceRequest> {
        let reserved = ["resources", "reservations"]
            .iter()
            .try_fold(place.get("deploy"), |place, key| Some(place?.get(key)))
            .flatten();
        let gpus = place.list("gpus").into_iter().map(|item| (item, true));
        let reserved = reserved.map(|place| place.list("devices")).unwrap_or_default();
        let mut requests = Vec::new();
        for (item, is_gpu) in gpus.chain(reserved.into_iter().map(|item| (item, false))) {
            let mut capabilities = item.words("capabilities");
            if is_gpu && !capabilities.iter().any(|one| one == "gpu") {
                capabilities.insert(0, "gpu".to_owned());
            }
            let device_ids = item.words("device_ids");
            let all = matches!(item.word("count").as_deref(), None | Some("all" | "-1"));
            requests.push(DeviceRequest {
                driver: item.word("driver"),
                count: match all || !device_ids.is_empty() {
                    true => None,
                    false => self.number(&item, "count", 1..=1024),
                },
                device_ids,
                capabilities,
            });
        }
        requests
    }

    /// `TYPE MAJOR:MINOR PERMISSIONS`, as in the devices cgroup of Linux.
    fn device_rules(&mut self, place: &Place) -> Vec<String> {
        let number = |text: &str| text == "*" || text.parse::<u32>().is_ok();
        let valid = |rule: &str| {
            let words: Vec<&str> = rule.split_whitespace().collect();
            let [kind, device, permissions] = words.as_slice() else {
                return false;
            };
            matches!(*kind, "a" | "b" | "c")
                && device
                    .split_once(':')
                    .is_some_and(|(major, minor)| number(major) && number(minor))
                && (1..=3).contains(&permissions.len())
                && permissions.bytes().all(|c| b"rwm".contains(&c))
        };
        let mut rules = Vec::new();
        for item in place.list("device_cgroup_rules") {
            let text = item.scalar().unwrap_or_default();
            if valid(&text) {
                rules.push(text);
            } else {
                let what = format!("`{}` is not a rule", cut(&text));
                self.refuse(&item, what, "write it like `c 1:3 rwm`");
            }
        }
        rules
    }
}

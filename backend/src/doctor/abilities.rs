//! What this host cannot keep of what manifests ask, as the agent's intake wants to know it.

use std::{collections::BTreeSet, io};

use reconciler::observed::{Abilities, Fact, Lack};

use super::Host;
use crate::cgroup::{
    devices,
    limits::{Controllers, kept},
};

/// Looks anew each time. Never fails: what cannot be read is unknown.
pub fn abilities() -> Abilities {
    let mut attributes = match Controllers::find() {
        Ok(controllers) => controllers.lacks(),
        Err(error) => kept::unknown(&format!("whether this host can limit anything: {error}")),
    };
    if let Err(error) = devices::probe() {
        let lack = no_filter(&error);
        attributes.insert("devices", lack.clone());
        attributes.insert("device_cgroup_rules", lack);
    }
    Abilities {
        attributes,
        profiles: profiles(&Host::here()),
    }
}

fn no_filter(error: &io::Error) -> Lack {
    match error.kind() {
        io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {
            Lack::Unknown(format!("whether this host can limit devices: {error}"))
        }
        _ => Lack::Missing {
            what: format!("this host cannot limit devices: it takes no filter for them ({error})"),
            remedy: "boot a kernel with CONFIG_CGROUP_BPF".to_owned(),
        },
    }
}

/// The profiles of AppArmor that are loaded; `None`: there is no AppArmor.
pub(super) fn profiles(host: &Host) -> Fact<Option<BTreeSet<String>>> {
    const LIST: &str = "sys/kernel/security/apparmor/profiles";
    if !host.has("sys/kernel") {
        return Fact::Unknown("/sys is not mounted".to_owned());
    }
    match host.read("sys/module/apparmor/parameters/enabled") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Fact::Known(None),
        Ok(text) if text.trim() == "N" => return Fact::Known(None),
        Err(error) => return Fact::Unknown(error.to_string()),
        Ok(_) => {}
    }
    match host.read(LIST) {
        // `NAME (MODE)`, and a name may have blanks.
        Ok(text) => Fact::Known(Some(
            text.lines()
                .filter_map(|line| Some(line.rsplit_once(" (")?.0.to_owned()))
                .collect(),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Fact::Unknown("securityfs is not mounted on /sys/kernel/security".to_owned())
        }
        Err(error) => Fact::Unknown(format!("/{LIST}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn no_apparmor_is_told_from_one_that_cannot_be_looked_at() {
        let root = tempfile::tempdir().unwrap();
        let host = Host {
            root: root.path().to_owned(),
        };
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert!(matches!(profiles(&host), Fact::Unknown(_)));
        write("sys/kernel/mm/x", "");
        assert_eq!(profiles(&host), Fact::Known(None));
        write("sys/module/apparmor/parameters/enabled", "N\n");
        assert_eq!(profiles(&host), Fact::Known(None));
        write("sys/module/apparmor/parameters/enabled", "Y\n");
        assert!(matches!(profiles(&host), Fact::Unknown(why) if why.contains("securityfs")));
        write(
            "sys/kernel/security/apparmor/profiles",
            "docker-default (enforce)\n/usr/bin/man (complain)\nwith a blank (kill)\n",
        );
        let names = ["/usr/bin/man", "docker-default", "with a blank"];
        assert_eq!(
            profiles(&host),
            Fact::Known(Some(names.map(str::to_owned).into()))
        );
    }
}

//! The settings below /proc/sys/net that open doors, each after the rules that guard it.

use std::{collections::BTreeSet, fs, io, sync::MutexGuard};

use reconciler::{key::ResourceKey, spec::FirewallSpec};

use super::{Family, Firewall, FirewallError, Making, PoisonError, names, ruleset, sysctl};

impl Firewall {
    /// Stead turned forwarding on since this boot: it was noted, or, should somebody have removed the
    /// note, the rules in force say so.
    pub(super) fn turned_on(&self) -> bool {
        self.noted()
            || self.table(Family::Inet).is_ok_and(|found| {
                found.is_some_and(|found| {
                    found
                        .chains
                        .values()
                        .flatten()
                        .any(|rule| rule == ruleset::STRICT)
                })
            })
    }

    fn noted(&self) -> bool {
        fs::read_to_string(&self.marker).is_ok_and(|noted| noted == boot_id())
    }

    /// Before forwarding is turned on, write down that it was off: then the rules that keep foreign
    /// packets from being forwarded are in force first.
    pub(super) fn note_forwarding(&self) -> Result<(), FirewallError> {
        if self.noted() {
            return Ok(());
        }
        if !self.turned_on() && self.get(sysctl::IP_FORWARD.to_owned())?.as_deref() != Some("0") {
            return Ok(());
        }
        let write = || {
            if let Some(directory) = self.marker.parent() {
                fs::create_dir_all(directory)?;
            }
            crate::records::replace(&self.marker, boot_id().as_bytes())
        };
        write().map_err(|source| FirewallError::Marker {
            path: self.marker.clone(),
            source,
        })
    }

    /// Settings that open doors, after the rules that guard them.
    pub(super) fn apply_settings(&self, spec: &FirewallSpec) -> Result<(), FirewallError> {
        self.set(sysctl::IP_FORWARD.to_owned(), "1")?;
        spec.networks.keys().try_for_each(|key| self.open_bridge(key))
    }

    /// To be held from before a bridge is made until it is open.
    pub fn making(&self, network: &ResourceKey) -> Making<'_> {
        self.lock_making().insert(network.clone());
        Making(self, network.clone())
    }

    pub(super) fn lock_making(&self) -> MutexGuard<'_, BTreeSet<ResourceKey>> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A bridge that was made anew has the settings of none. Where its guards are not in force yet, it
    /// stays shut until they are.
    ///
    /// # Errors
    /// The kernel could not be asked, or refused.
    pub fn open(&self, network: &ResourceKey) -> Result<(), FirewallError> {
        let _turn = self.flags.lock().unwrap_or_else(PoisonError::into_inner);
        let skeleton = ruleset::skeleton(&self.mark, self.turned_on());
        let kernel = self.read(&skeleton)?;
        let guarded = |elements| {
            let spec = ruleset::spec_from(&self.mark, elements);
            spec.networks.contains_key(network)
        };
        if kernel.drift.is_empty() && kernel.elements.as_ref().is_some_and(guarded) {
            self.open_bridge(network)?;
        }
        Ok(())
    }

    fn open_bridge(&self, network: &ResourceKey) -> Result<(), FirewallError> {
        for (setting, _) in self.bridge_settings(network) {
            self.set(setting, "1")?;
        }
        Ok(())
    }

    pub(super) fn settings_drift(&self, spec: &FirewallSpec) -> Result<Vec<String>, FirewallError> {
        let mut drift = Vec::new();
        if !spec.networks.is_empty() && self.get(sysctl::IP_FORWARD.to_owned())?.as_deref() == Some("0") {
            drift.push("net.ipv4.ip_forward is off".to_owned());
        }
        let making = self.lock_making();
        for key in spec.networks.keys().filter(|key| !making.contains(*key)) {
            for (setting, name) in self.bridge_settings(key) {
                if self.get(setting)?.as_deref() == Some("0") {
                    drift.push(format!("{name} is off on the bridge of {key}"));
                }
            }
        }
        Ok(drift)
    }

    /// What must be on for a bridge, and the last word of its name.
    fn bridge_settings(&self, network: &ResourceKey) -> [(String, &'static str); 2] {
        let bridge = names::bridge(&self.mark, network);
        ["forwarding", "route_localnet"].map(|name| (sysctl::of_link("ipv4", &bridge, name), name))
    }

    /// `None`: there is no such setting, for the link is missing.
    pub(super) fn get(&self, setting: String) -> Result<Option<String>, FirewallError> {
        let path = sysctl::path(&setting);
        match self
            .home
            .at_home(move || sysctl::read(&setting))
            .and_then(|value| value)
        {
            Ok(value) => Ok(Some(value)),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FirewallError::Sysctl { path, source }),
        }
    }

    /// A link that is missing is made, and its settings set, by somebody else later.
    pub(super) fn set(&self, setting: String, value: &'static str) -> Result<(), FirewallError> {
        let path = sysctl::path(&setting);
        match self
            .home
            .at_home(move || sysctl::set(&setting, value))
            .and_then(|done| done)
        {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(FirewallError::Sysctl { path, source })
            }
            _ => Ok(()),
        }
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

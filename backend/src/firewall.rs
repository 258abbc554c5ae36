//! The firewall of one root: reads what the kernel holds, and makes it what the spec says.

pub mod conntrack;
pub mod encode;
pub(crate) mod kernel;
pub mod rule;
pub mod ruleset;
mod settings;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use nix::{errno::Errno, sys::socket::SockProtocol};
use reconciler::{
    key::ResourceKey,
    observed,
    spec::{FirewallSpec, Protocol},
};

use self::{
    conntrack::Stale,
    encode::{Family, TABLE_OWNER, TABLE_PERSIST, Transaction},
    kernel::Found,
    ruleset::{Elements, Table},
};
use crate::{
    names,
    net::{
        home::Home,
        netlink::{Netlink, NetlinkError},
        route, sysctl,
    },
};

#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    #[error("cannot open a netfilter socket; stead needs root and a kernel with nf_tables")]
    Open(#[source] NetlinkError),
    #[error("cannot enter the network namespace of the host")]
    Home(#[source] io::Error),
    #[error("cannot read the rules in table {table}; `nft list ruleset` may say why")]
    Read {
        table: String,
        #[source]
        source: NetlinkError,
    },
    #[error("cannot write the rules in table {table}; `nft list ruleset` shows what is in force")]
    Write {
        table: String,
        #[source]
        source: NetlinkError,
    },
    #[error("table {table} is held by another process: stop the other stead of this root")]
    Held { table: String },
    #[error("cannot set {}; is /proc/sys writable?", path.display())]
    Sysctl {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot keep {}, the note that stead turned forwarding on", path.display())]
    Marker {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot forget old UDP flows")]
    Conntrack(#[source] NetlinkError),
    #[error("cannot count the connections of a service that is to be stopped")]
    Connections(#[source] NetlinkError),
}

/// Holds the socket that owns both tables.
#[derive(Debug)]
pub struct Firewall {
    mark: String,
    table: String,
    /// Exists when stead turned ip_forward on; holds the boot id.
    marker: PathBuf,
    home: Home,
    nft: Netlink,
    route: Netlink,
    /// Flags this kernel takes; one change at a time.
    flags: Mutex<u32>,
    /// Networks whose bridge is being made: until it is open it has the settings of none.
    making: Mutex<BTreeSet<ResourceKey>>,
}

/// While it lives, nobody finds fault with the settings of the bridge.
#[must_use]
pub struct Making<'a>(&'a Firewall, ResourceKey);

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.lock_making().remove(&self.1);
    }
}

/// Both tables as the kernel has them.
struct Kernel {
    tables: BTreeMap<Family, Found>,
    /// `None`: a table or a set is missing.
    elements: Option<Elements>,
    drift: Vec<String>,
}

impl Firewall {
    /// For the network namespace of the calling thread. `marker`: a file in the run directory that
    /// remembers that stead turned forwarding on.
    ///
    /// Tables of an earlier stead of this root are taken over as they are.
    ///
    /// # Errors
    /// Not root, or no nf_tables in this kernel.
    pub fn new(mark: &str, marker: &Path) -> Result<Self, FirewallError> {
        let firewall = Firewall {
            mark: mark.to_owned(),
            table: names::table(mark),
            marker: marker.to_owned(),
            home: Home::here().map_err(FirewallError::Home)?,
            nft: Netlink::open(SockProtocol::NetlinkNetFilter).map_err(FirewallError::Open)?,
            route: Netlink::open(SockProtocol::NetlinkRoute).map_err(FirewallError::Open)?,
            flags: Mutex::new(TABLE_OWNER | TABLE_PERSIST),
            making: Mutex::default(),
        };
        firewall.adopt()?;
        Ok(firewall)
    }

    /// The netlink address of the socket that changes the tables: events that name it are our own.
    pub fn port(&self) -> u32 {
        self.nft.port()
    }

    /// What is in force, and what of it is not as stead made it.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn observe(&self) -> Result<observed::Firewall, FirewallError> {
        let _turn = self.flags.lock().unwrap_or_else(PoisonError::into_inner);
        let skeleton = ruleset::skeleton(&self.mark, self.turned_on());
        let kernel = self.read(&skeleton)?;
        let spec = match &kernel.elements {
            Some(elements) if kernel.drift.is_empty() => ruleset::spec_from(&self.mark, elements),
            _ => FirewallSpec::default(),
        };
        let mut drift = kernel.drift;
        if let Some(elements) = &kernel.elements
            && drift.is_empty()
        {
            if ruleset::elements(&self.mark, &spec) != *elements {
                drift.push("a set holds elements that are not stead's, or misses some".to_owned());
            }
            drift.extend(self.settings_drift(&spec)?);
        }
        Ok(observed::Firewall { spec, drift })
    }

    /// Makes the tables say what the spec says, in one transaction; an empty spec removes them.
    ///
    /// # Errors
    /// The kernel refused, or another process holds the tables. Nothing is half done.
    pub fn sync(&self, spec: &FirewallSpec) -> Result<(), FirewallError> {
        if spec.networks.is_empty() && spec.ports.is_empty() {
            return self.release();
        }
        let mut flags = self.flags.lock().unwrap_or_else(PoisonError::into_inner);
        self.note_forwarding()?;
        let skeleton = ruleset::skeleton(&self.mark, self.turned_on());
        let kernel = self.read(&skeleton)?;
        let wanted = ruleset::elements(&self.mark, spec);
        let before = match &kernel.elements {
            Some(present) if kernel.drift.is_empty() => {
                self.change(&kernel, present, &wanted)?;
                present.clone()
            }
            _ => {
                self.replace(&kernel, &skeleton, &wanted, &mut flags)?;
                Elements::new()
            }
        };
        self.apply_settings(spec)?;
        self.forget(&stale(&before, &wanted))
    }

    /// Removes both tables, and turns forwarding off again when stead had turned it on.
    ///
    /// # Errors
    /// The kernel refused, or another process holds the tables.
    pub fn release(&self) -> Result<(), FirewallError> {
        let _turn = self.flags.lock().unwrap_or_else(PoisonError::into_inner);
        if self.turned_on() {
            self.set(sysctl::IP_FORWARD.to_owned(), "0")?;
        }
        let skeleton = ruleset::skeleton(&self.mark, self.turned_on());
        if let Some(elements) = self.read(&skeleton)?.elements {
            // Doors close before their guards go.
            for key in ruleset::spec_from(&self.mark, &elements).networks.keys() {
                let localnet = sysctl::of_link("ipv4", &names::bridge(&self.mark, key), "route_localnet");
                self.set(localnet, "0")?;
            }
        }
        match fs::remove_file(&self.marker) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(FirewallError::Marker {
                    path: self.marker.clone(),
                    source,
                });
            }
            _ => {}
        }
        let mut transaction = Transaction::default();
        let mut any = false;
        for family in [Family::Inet, Family::Bridge] {
            if let Some(found) = self.table(family)? {
                self.take(&mut transaction, family, &found);
                transaction.delete_table(family, &self.table);
                any = true;
            }
        }
        if any { self.commit(transaction) } else { Ok(()) }
    }

    /// Takes over tables whose owner is gone, so that nobody can flush them any more.
    fn adopt(&self) -> Result<(), FirewallError> {
        let mut transaction = Transaction::default();
        let mut any = false;
        for family in [Family::Inet, Family::Bridge] {
            if let Some(found) = self.table(family)?
                && found.owned()
                && found.owner == 0
            {
                self.take(&mut transaction, family, &found);
                any = true;
            }
        }
        if any { self.commit(transaction) } else { Ok(()) }
    }

    /// An orphaned table becomes ours by naming it with the flags it has.
    fn take(&self, transaction: &mut Transaction, family: Family, found: &Found) {
        if found.owned() && found.owner == 0 {
            transaction.add_table(family, &self.table, found.flags, None);
        }
    }

    fn table(&self, family: Family) -> Result<Option<Found>, FirewallError> {
        kernel::table(&self.nft, family, &self.table).map_err(|source| self.unreadable(source))
    }

    fn read(&self, skeleton: &[Table]) -> Result<Kernel, FirewallError> {
        let note = ruleset::fingerprint(skeleton);
        let mut tables = BTreeMap::new();
        let mut drift = Vec::new();
        for wanted in skeleton {
            match self.table(wanted.family)? {
                None => drift.push(format!("table {:?} {} is missing", wanted.family, self.table)),
                Some(found) => {
                    drift.extend(found.differences(wanted, &note));
                    tables.insert(wanted.family, found);
                }
            }
        }
        // Neither is there: that is no damage, but how a host without stead looks.
        if tables.is_empty() {
            drift.clear();
        }
        let elements = if tables.len() == skeleton.len() {
            kernel::elements(&self.nft, &self.table, skeleton).map_err(|source| self.unreadable(source))?
        } else {
            None
        };
        if elements.is_none() && tables.len() == skeleton.len() {
            drift.push("a set is missing".to_owned());
        }
        Ok(Kernel {
            tables,
            elements,
            drift,
        })
    }

    /// Only elements differ: those are taken out and put in.
    fn change(&self, kernel: &Kernel, present: &Elements, wanted: &Elements) -> Result<(), FirewallError> {
        let mut transaction = Transaction::default();
        let mut any = false;
        for (family, found) in &kernel.tables {
            any |= found.owned() && found.owner == 0;
            self.take(&mut transaction, *family, found);
        }
        for ((family, set), wanted) in wanted {
            let empty = BTreeSet::new();
            let present = present.get(&(*family, *set)).unwrap_or(&empty);
            let gone: Vec<_> = present
                .difference(wanted)
                .map(|element| encode::Element {
                    data: None,
                    comment: None,
                    ..element.clone()
                })
                .collect();
            let new: Vec<_> = wanted.difference(present).cloned().collect();
            transaction.delete_elements(*family, &self.table, set, &gone);
            transaction.add_elements(*family, &self.table, set, &new);
            any |= !gone.is_empty() || !new.is_empty();
        }
        if any { self.commit(transaction) } else { Ok(()) }
    }

    /// Everything anew, in one step: there is no moment without rules.
    fn replace(
        &self,
        kernel: &Kernel,
        skeleton: &[Table],
        wanted: &Elements,
        flags: &mut u32,
    ) -> Result<(), FirewallError> {
        let build = |flags: u32| {
            let note = ruleset::fingerprint(skeleton);
            let mut transaction = Transaction::default();
            for table in skeleton {
                if let Some(found) = kernel.tables.get(&table.family) {
                    self.take(&mut transaction, table.family, found);
                    transaction.delete_table(table.family, &self.table);
                }
                transaction.add_table(table.family, &self.table, flags, Some(&note));
                for set in &table.sets {
                    transaction.add_set(table.family, &self.table, set);
                    if let Some(elements) = wanted.get(&(table.family, set.name)) {
                        let elements: Vec<_> = elements.iter().cloned().collect();
                        transaction.add_elements(table.family, &self.table, set.name, &elements);
                    }
                }
                for (chain, rules) in &table.chains {
                    transaction.add_chain(table.family, &self.table, chain);
                    for rule in rules {
                        transaction.add_rule(table.family, &self.table, chain.name, rule.note, |bytes| {
                            rule.encode(bytes);
                        });
                    }
                }
            }
            transaction
        };
        match self.nft.request(&build(*flags).finish()) {
            Ok(_) => Ok(()),
            // Before Linux 6.9 a table cannot outlive its owner; repair by event must do there.
            Err(error) if *flags != 0 && (error.is(Errno::EOPNOTSUPP) || error.is(Errno::EINVAL)) => {
                self.commit(build(0))?;
                *flags = 0;
                Ok(())
            }
            Err(source) => Err(self.refused(source)),
        }
    }

    fn commit(&self, transaction: Transaction) -> Result<(), FirewallError> {
        self.nft
            .request(&transaction.finish())
            .map(drop)
            .map_err(|source| self.refused(source))
    }

    fn refused(&self, source: NetlinkError) -> FirewallError {
        let table = self.table.clone();
        if source.is(Errno::EPERM) {
            FirewallError::Held { table }
        } else {
            FirewallError::Write { table, source }
        }
    }

    fn unreadable(&self, source: NetlinkError) -> FirewallError {
        FirewallError::Read {
            table: self.table.clone(),
            source,
        }
    }

    /// TCP connections through host ports that one of `addresses` answers and neither side has ended.
    ///
    /// # Errors
    /// The table of connections cannot be read.
    pub fn connections(&self, addresses: &BTreeSet<Ipv4Addr>) -> Result<usize, FirewallError> {
        conntrack::open(&self.nft, addresses).map_err(FirewallError::Connections)
    }

    fn forget(&self, stale: &Stale) -> Result<(), FirewallError> {
        // Looking through the table of connections takes 10 ms even when it is empty.
        let flows = || self.get("netfilter/nf_conntrack_count".to_owned());
        if stale.is_empty() || flows()?.as_deref() == Some("0") {
            return Ok(());
        }
        let local: BTreeSet<Ipv4Addr> = route::addresses(&self.route)
            .map_err(FirewallError::Conntrack)?
            .into_iter()
            .map(|address| address.address)
            .collect();
        conntrack::forget(&self.nft, stale, &local)
            .map(drop)
            .map_err(FirewallError::Conntrack)
    }
}

/// The UDP flows a change of elements makes wrong.
fn stale(before: &Elements, after: &Elements) -> Stale {
    let mut stale = Stale::default();
    let empty = BTreeSet::new();
    for set in ["ports", "any_ports"] {
        let before = before.get(&(Family::Inet, set)).unwrap_or(&empty);
        let after = after.get(&(Family::Inet, set)).unwrap_or(&empty);
        for (key, _) in before.symmetric_difference(after).filter_map(ruleset::port_from) {
            if key.protocol == Protocol::Udp {
                stale.published.insert((key.host_ip, key.published));
            }
        }
    }
    let endpoints = (Family::Bridge, "endpoints");
    let before = before.get(&endpoints).unwrap_or(&empty);
    let after = after.get(&endpoints).unwrap_or(&empty);
    stale.addresses = before
        .difference(after)
        .filter_map(|element| {
            element
                .key
                .last_chunk::<4>()
                .map(|octets| Ipv4Addr::from(*octets))
        })
        .collect();
    stale
}

#[cfg(test)]
mod tests;

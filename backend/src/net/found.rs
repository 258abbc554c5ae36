//! Networks read back from their bridges, for when their records are gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use reconciler::key::ResourceKey;

use super::{Net, NetError, route};
use crate::names;

impl Net {
    /// The bridges of this root: whose each is, and its address with the prefix length, if it has one.
    /// `known`: whose a bridge may be, should it have lost its alias.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn found_networks(
        &self,
        known: &BTreeSet<ResourceKey>,
    ) -> Result<BTreeMap<ResourceKey, Option<(Ipv4Addr, u8)>>, NetError> {
        let links: Vec<route::Link> = self
            .links()?
            .into_iter()
            .filter(|link| link.is_bridge && self.is_ours(link))
            .collect();
        if links.is_empty() {
            return Ok(BTreeMap::new());
        }
        let addresses = route::addresses(&self.route).map_err(NetError::Read)?;
        let mut found = BTreeMap::new();
        for link in links {
            let Some(key) = self.key_of(&link, known) else {
                continue;
            };
            let own = addresses.iter().find(|address| address.link == link.index);
            found.insert(key, own.map(|address| (address.address, address.prefix)));
        }
        Ok(found)
    }

    /// The alias says it; the name, which is derived from the key, must agree.
    fn key_of(&self, link: &route::Link, known: &BTreeSet<ResourceKey>) -> Option<ResourceKey> {
        let said = link
            .alias
            .strip_prefix(&self.alias(""))
            .and_then(|text| text.split_once('/'))
            .map(|(project, name)| ResourceKey {
                project: project.to_owned(),
                name: name.to_owned(),
            });
        said.iter()
            .chain(known)
            .find(|key| names::bridge(&self.mark, key) == link.name)
            .cloned()
    }
}

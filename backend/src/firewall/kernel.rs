//! What the kernel holds of our tables, read over netlink.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    encode::{
        self, Attributes, Family, GETCHAIN, GETRULE, GETSETELEM, GETTABLE, TABLE_DORMANT, TABLE_OWNER,
        comment_text, find, kind,
    },
    ruleset::{Elements, Table},
};
use crate::net::netlink::{Netlink, NetlinkError};

/// One of our tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub flags: u32,
    /// Port of the socket that owns it; 0: nobody does right now.
    pub owner: u32,
    /// See `ruleset::fingerprint`.
    pub note: Option<String>,
    /// Chains with the comments of their rules, in order.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Chains that drop what no rule accepts.
    pub dropping: BTreeSet<String>,
}

/// `None`: there is no such table.
pub fn table(nft: &Netlink, family: Family, name: &str) -> Result<Option<Found>, NetlinkError> {
    let answers = nft.dump(kind(GETTABLE), &[family as u8, 0, 0, 0])?;
    let number = |bytes: Option<&[u8]>| {
        bytes
            .and_then(|value| value.first_chunk::<4>())
            .map_or(0, |value| u32::from_be_bytes(*value))
    };
    let Some(mut found) = answers.iter().find_map(|answer| {
        let body = answer.body.get(4..)?;
        (encode::text(body, 1)? == name).then(|| Found {
            flags: number(find(body, 2)),
            owner: number(find(body, 7)),
            note: find(body, 6).and_then(comment_text).map(str::to_owned),
            chains: BTreeMap::new(),
            dropping: BTreeSet::new(),
        })
    }) else {
        return Ok(None);
    };
    for answer in nft.dump(kind(GETCHAIN), &[family as u8, 0, 0, 0])? {
        let Some(body) = answer.body.get(4..) else {
            continue;
        };
        if let (Some(table), Some(chain)) = (encode::text(body, 1), encode::text(body, 3))
            && table == name
        {
            found.chains.insert(chain.to_owned(), Vec::new());
            if drops(body) {
                found.dropping.insert(chain.to_owned());
            }
        }
    }
    let mut request = Vec::new();
    encode::family_header(&mut request, family);
    request.text(1, name);
    for answer in nft.dump(kind(GETRULE), &request)? {
        let Some(body) = answer.body.get(4..) else {
            continue;
        };
        if let (Some(table), Some(chain)) = (encode::text(body, 1), encode::text(body, 2))
            && table == name
        {
            let note = find(body, 7)
                .and_then(comment_text)
                .unwrap_or("(without a comment)");
            found
                .chains
                .entry(chain.to_owned())
                .or_default()
                .push(note.to_owned());
        }
    }
    Ok(Some(found))
}

/// A chain on a hook whose policy is NF_DROP.
fn drops(chain: &[u8]) -> bool {
    find(chain, 5) == Some(&[0; 4])
}

impl Found {
    /// Somebody holds the table: only that socket may change it.
    pub fn owned(&self) -> bool {
        self.flags & TABLE_OWNER != 0
    }

    /// How it differs from the skeleton, for people.
    pub fn differences(&self, wanted: &Table, note: &str) -> Vec<String> {
        let mut differences: Vec<String> = self
            .dropping
            .iter()
            .map(|chain| format!("chain {chain} drops what no rule accepts"))
            .collect();
        if self.flags & TABLE_DORMANT != 0 {
            differences.push("the rules are switched off".to_owned());
        }
        let rules: BTreeMap<&str, Vec<&str>> = wanted
            .chains
            .iter()
            .map(|(chain, rules)| (chain.name, rules.iter().map(|rule| rule.note).collect()))
            .collect();
        for (chain, wanted) in &rules {
            match self.chains.get(*chain) {
                None => differences.push(format!("chain {chain} is missing")),
                Some(found) => {
                    for rule in wanted
                        .iter()
                        .filter(|rule| !found.iter().any(|note| note == *rule))
                    {
                        differences.push(format!("rule “{rule}” is missing from chain {chain}"));
                    }
                    if differences.is_empty() && found != wanted {
                        differences.push(format!("chain {chain} has rules that are not stead's"));
                    }
                }
            }
        }
        for chain in self
            .chains
            .keys()
            .filter(|chain| !rules.contains_key(chain.as_str()))
        {
            differences.push(format!("chain {chain} is not stead's"));
        }
        if differences.is_empty() && self.note.as_deref() != Some(note) {
            differences.push("the rules are of another version of stead".to_owned());
        }
        differences
    }
}

/// The elements of every set of the skeleton; `None`: a set is missing.
pub fn elements(nft: &Netlink, name: &str, tables: &[Table]) -> Result<Option<Elements>, NetlinkError> {
    let mut all = Elements::new();
    for table in tables {
        for set in &table.sets {
            let mut request = Vec::new();
            encode::family_header(&mut request, table.family);
            request.text(1, name);
            request.text(2, set.name);
            let answers = match nft.dump(kind(GETSETELEM), &request) {
                Ok(answers) => answers,
                Err(error) if error.is(nix::errno::Errno::ENOENT) => return Ok(None),
                Err(error) => return Err(error),
            };
            all.insert(
                (table.family, set.name),
                answers
                    .iter()
                    .flat_map(|answer| encode::decode_elements(&answer.body))
                    .collect(),
            );
        }
    }
    Ok(Some(all))
}

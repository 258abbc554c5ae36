//! `user: name[:group]` looked up in the image's own passwd(5) and group(5).

use std::{os::fd::BorrowedFd, path::Path};

use crate::rootfs::{StepError, tree};

/// Who a process runs as. Ids as inside the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, sorted.
    pub groups: Vec<u32>,
    pub home: String,
}

/// Ids a sandbox maps.
const IDS: u32 = 65_536;

/// Reads the two files (regular, at most 1 MiB) and looks `user` up. `more`: supplementary groups beside
/// those of the user, names or numbers.
///
/// # Errors
/// A file cannot be read, or the user or a group is unknown.
pub fn look_up(root: BorrowedFd<'_>, user: &str, more: &[String]) -> Result<Account, StepError> {
    let read = |name: &str| {
        let unreadable = |error| {
            StepError::spec(format!(
                "/etc/{name} of the image cannot be read: {error}; mend the image"
            ))
        };
        let path = Path::new("etc").join(name);
        Ok::<_, StepError>(
            tree::read_small(root, &path)
                .map_err(unreadable)?
                .unwrap_or_default(),
        )
    };
    resolve(user, more, &read("passwd")?, &read("group")?)
}

fn resolve(user: &str, more: &[String], passwd: &str, group: &str) -> Result<Account, StepError> {
    let (name, wanted_group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = name.parse::<u32>().ok();
    let entry = passwd
        .lines()
        // No further than what is looked at: a line may be all colons.
        .map(|line| line.splitn(7, ':').collect::<Vec<_>>())
        .find(|fields| {
            fields.len() >= 6
                && (fields[0] == name || number.is_some_and(|number| fields[2].parse() == Ok(number)))
        });
    let entry_name = entry.as_ref().map(|fields| fields[0]);
    let uid = match (&entry, number) {
        (_, Some(number)) => number,
        (Some(fields), None) => fields[2].parse().map_err(|_| unknown("user", name))?,
        (None, None) => return Err(unknown("user", name)),
    };
    let mut gid = entry
        .as_ref()
        .and_then(|fields| fields[3].parse().ok())
        .unwrap_or(0);
    let groups = || {
        group
            .lines()
            .map(|line| line.splitn(5, ':').collect::<Vec<_>>())
            .filter(|fields| fields.len() >= 3)
    };
    let mut supplementary = Vec::new();
    let number_of = |wanted: &str| match wanted.parse::<u32>() {
        Ok(number) => Some(number),
        Err(_) => groups()
            .find(|fields| fields[0] == wanted)
            .and_then(|fields| fields[2].parse().ok()),
    };
    if let Some(wanted) = wanted_group.filter(|text| !text.is_empty()) {
        gid = number_of(wanted).ok_or_else(|| unknown("group", wanted))?;
    } else if let Some(member) = entry_name {
        supplementary = groups()
            .filter(|fields| {
                fields
                    .get(3)
                    .is_some_and(|list| list.split(',').any(|one| one == member))
            })
            .filter_map(|fields| fields[2].parse().ok())
            .filter(|id| *id < IDS)
            .collect();
    }
    for wanted in more {
        let number = number_of(wanted).ok_or_else(|| unknown("group", wanted))?;
        if number >= IDS {
            return Err(StepError::spec(format!(
                "group `{wanted}` has an id above 65535, and a project has 65,536 ids; use a smaller one"
            )));
        }
        supplementary.push(number);
    }
    // The primary group, too, as Docker has it: a set-group-id program must not lose it.
    supplementary.push(gid);
    supplementary.sort_unstable();
    supplementary.dedup();
    if uid >= IDS || gid >= IDS {
        return Err(StepError::spec(format!(
            "user `{user}` has an id above 65535, and a project has 65,536 ids; use a smaller one"
        )));
    }
    let home = entry
        .map(|fields| fields[5])
        .filter(|home| !home.is_empty())
        .unwrap_or("/");
    Ok(Account {
        uid,
        gid,
        groups: supplementary,
        home: home.to_owned(),
    })
}

fn unknown(kind: &str, name: &str) -> StepError {
    let file = if kind == "user" { "passwd" } else { "group" };
    StepError::spec(format!(
        "the {kind} `{name}` is not in the image's /etc/{file}; correct `user` or `group_add`, or write a number"
    ))
}

#[cfg(test)]
mod tests;

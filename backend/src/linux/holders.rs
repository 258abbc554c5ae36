//! Which images the containers of a root are made of, from the host's own marks and the disk: for who has no agent
//! to ask, and must know of every one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use thiserror::Error;

use super::adopt::directories;
use crate::{
    cgroup,
    image::store::Use,
    layout::{Layout, instance_name},
    names,
    shim::record,
};

/// A supervisor that is just being made, or goes, is one or is gone after so many looks.
const LOOKS: usize = 10;
const BETWEEN: Duration = Duration::from_millis(50);

#[derive(Debug, Error)]
pub enum HoldersError {
    #[error("it is not known what containers there are: cannot read {path}", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "it is not known what {path} was made of, because that cannot be understood. Start that container again, or remove its project",
        path = path.display()
    )]
    Damaged { path: PathBuf },
    #[error(
        "it is not known what {instance} is made of: process {pid} has no supervisor. Start the agent, which ends it"
    )]
    Lost { instance: String, pid: u32 },
}

/// What containers need, running or not; projects are not asked.
///
/// # Errors
/// Something that may be a container cannot be read.
pub fn holders(layout: &Layout) -> Result<Use, HoldersError> {
    let mut used = Use::default();
    let mut look = running(layout, &mut used);
    for _ in 1..LOOKS {
        if !matches!(look, Err(HoldersError::Lost { .. })) {
            break;
        }
        thread::sleep(BETWEEN);
        look = running(layout, &mut used);
    }
    look?;
    ended(layout, &mut used)?;
    Ok(used)
}

/// Wherever in the tree of cgroups: an agent of systemd has another place there than a command that is typed.
fn running(layout: &Layout, used: &mut Use) -> Result<(), HoldersError> {
    let own = names::cgroup(&layout.mark);
    let (mut lives, mut told) = (BTreeMap::new(), BTreeSet::new());
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| HoldersError::Read { path, source }
    };
    let processes = Path::new("/proc");
    for process in fs::read_dir(processes).map_err(read(processes))? {
        let process = process.map_err(read(processes))?.path();
        let pid = process.file_name().and_then(|name| name.to_str()?.parse().ok());
        let Some(pid): Option<u32> = pid else {
            continue;
        };
        let place = process.join("cgroup");
        let groups = match fs::read_to_string(&place) {
            Ok(groups) => groups,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(read(&place)(error)),
        };
        let Some((instance, leaf)) = place_of(&groups, &own) else {
            continue;
        };
        if leaf != "payload"
            && let Some(record) = cgroup::record_of(pid).filter(|record| record.mark == layout.mark)
        {
            told.insert(format!("{}/{}", record.key.project, instance_name(&record.key)));
            let title = format!(
                "{}/{}/{}",
                record.key.project, record.key.service, record.key.index
            );
            if let Some(container) = record.container {
                used.digests
                    .entry(container.image_digest)
                    .or_default()
                    .insert(title);
            }
            let grounds = record.ground.directories.into_iter();
            used.grounds
                .extend(grounds.map(|directory| (directory.device, directory.inode)));
        } else if !is_dead(&process) {
            lives.insert(instance, pid);
        }
    }
    match lives.into_iter().find(|(instance, _)| !told.contains(instance)) {
        Some((instance, pid)) => Err(HoldersError::Lost { instance, pid }),
        None => Ok(()),
    }
}

/// `PROJECT/INSTANCE` and the leaf, of a process that lives in one; those that are kept ready live in none.
fn place_of(groups: &str, own: &str) -> Option<(String, String)> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mut parts = path.split('/').skip_while(|part| *part != own).skip(1);
    let (project, instance) = (parts.next()?, parts.next()?);
    // `idle/NUMBER` has no third part that is a leaf of an instance.
    let leaf = parts.next()?;
    (project != "idle").then(|| (format!("{project}/{instance}"), leaf.to_owned()))
}

/// It has ended and waits for its parent, or is gone.
fn is_dead(process: &Path) -> bool {
    let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

fn is_gone(error: &io::Error) -> bool {
    // ESRCH: it ended after its file was opened.
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Those of which there is a directory and an exit record.
fn ended(layout: &Layout, used: &mut Use) -> Result<(), HoldersError> {
    let containers = layout.state.join("containers");
    let listed = |path: &Path| {
        let path = path.to_owned();
        directories(&path).map_err(|error| HoldersError::Read {
            source: io::Error::other(error),
            path,
        })
    };
    for project in listed(&containers)? {
        let of_project = containers.join(&project);
        for name in listed(&of_project)? {
            let directory = of_project.join(&name);
            let path = directory.join(record::EXIT);
            match record::read_exit(&directory) {
                Ok(Some(exit)) => {
                    let title = format!("{}/{}/{}", exit.key.project, exit.key.service, exit.key.index);
                    used.digests
                        .entry(exit.container.image_digest)
                        .or_default()
                        .insert(title);
                }
                Ok(None) if path.exists() => return Err(HoldersError::Damaged { path }),
                Ok(None) => {}
                Err(source) => return Err(HoldersError::Read { path, source }),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::place_of;

    #[test]
    fn a_process_of_an_instance_is_told_by_its_cgroup() {
        let own = "stead-0a1b2c";
        for (groups, expected) in [
            (
                "0::/stead-0a1b2c/shop/web-1a/shim\n",
                Some(("shop/web-1a", "shim")),
            ),
            (
                "4:cpu:/x\n0::/system.slice/stead.service/stead-0a1b2c/shop/web-1a/payload/own\n",
                Some(("shop/web-1a", "payload")),
            ),
            ("0::/stead-0a1b2c/idle/7/shim\n", None),
            ("0::/stead-0a1b2c/seed\n", None),
            ("0::/stead-ffffff/shop/web-1a/shim\n", None),
            ("0::/\n", None),
        ] {
            let expected = expected.map(|(instance, leaf)| (instance.to_owned(), leaf.to_owned()));
            assert_eq!(place_of(groups, own), expected, "{groups}");
        }
    }
}

//! Volumes, tmpfs and borrowed volumes of a service.

use std::path::{Path, PathBuf};

use super::{Reader, value::Place};
use crate::{
    syntax::{self, cut, size},
    types::{Mount, Propagation, Recursive, VolumesFrom},
};

/// Where Docker listens; there is nothing to find here.
const DOCKER_SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/run/docker.sock"];

const SIZE_HINT: &str = "write bytes, or a number with a unit, like `64m`";
/// The last id that a container has.
const MOST_ID: u32 = 65_535;
const MODE_HINT: &str = "write permissions in octal, like `01777`";

impl Reader<'_> {
    /// Volumes first, then what `tmpfs` names. Each has an origin by its place in this list.
    pub(super) fn mounts(&mut self, place: &Place) -> Vec<Mount> {
        let mut mounts = Vec::new();
        let list = format!("{}.volumes", place.path);
        for volume in place.list("volumes") {
            let mount = self.mount(&volume);
            if mount.is_some() {
                self.report
                    .origin(format!("{list}.{}", mounts.len()), volume.node.at);
            }
            mounts.extend(mount);
        }
        if let Some(tmpfs) = place.get("tmpfs")
            && !self.report.origins.contains_key(&list)
        {
            let at = self.report.at(&tmpfs.path);
            self.report.origin(list.clone(), at);
        }
        for tmpfs in place.list("tmpfs") {
            let mount = self.tmpfs(&tmpfs);
            if mount.is_some() {
                self.report
                    .origin(format!("{list}.{}", mounts.len()), tmpfs.node.at);
            }
            mounts.extend(mount);
        }
        mounts
    }

    fn mount(&mut self, place: &Place) -> Option<Mount> {
        let kind = place.word("type").unwrap_or_default();
        let source = place.word("source");
        let read_only = place.flag("read_only");
        let target = self.target(place, &place.word("target").unwrap_or_default());
        match kind.as_str() {
            "volume" => {
                let options = place.get("volume");
                Some(Mount::Volume {
                    source,
                    target: target?,
                    read_only,
                    nocopy: options.as_ref().is_some_and(|options| options.flag("nocopy")),
                    subpath: options.and_then(|options| self.subpath(&options)),
                })
            }
            "bind" => {
                let Some(source) = source else {
                    self.refuse(
                        place,
                        "a bind mount has no `source`",
                        "add the path on the host: `source: ./data`",
                    );
                    return None;
                };
                let source = syntax::clean(Path::new(&source));
                if DOCKER_SOCKETS.iter().any(|socket| source == Path::new(socket)) {
                    let hint = "remove this volume; what needs Docker's API cannot run on stead";
                    self.refuse(place, "there is no Docker socket here", hint);
                    return None;
                }
                if !source.is_absolute() {
                    let what = format!(
                        "the source `{}` is not a path of this host",
                        cut(&source.to_string_lossy())
                    );
                    self.refuse(place, what, "start it with `/`, `./` or `~/`");
                    return None;
                }
                let options = place.get("bind");
                let kept = options.as_ref().and_then(|bind| bind.get("create_host_path"));
                const HINT: &str = "write `rprivate`, `rslave` or `rshared`";
                let propagation = options
                    .as_ref()
                    .and_then(|bind| self.named(bind, "propagation", HINT));
                let recursive = options.and_then(|bind| self.recursive(&bind, read_only, propagation));
                Some(Mount::Bind {
                    source,
                    target: target?,
                    read_only,
                    create_host_path: kept.is_none_or(|kept| kept.scalar().as_deref() != Some("false")),
                    propagation,
                    recursive: recursive.unwrap_or_default(),
                })
            }
            "tmpfs" => {
                let options = place.get("tmpfs");
                let size = options.as_ref().and_then(|tmpfs| self.bytes(tmpfs, "size"));
                let mode = options.and_then(|tmpfs| self.number(&tmpfs, "mode", 0..=0o7777));
                let target = target?;
                Some(Mount::Tmpfs {
                    target,
                    size,
                    mode,
                    uid: None,
                    gid: None,
                    exec: false,
                })
            }
            other => {
                let what = match other {
                    "image" => "volumes from images are not supported yet".to_owned(),
                    _ => format!("there are no volumes of the type `{}` here", cut(other)),
                };
                let place = place.get("type").unwrap_or_else(|| place.clone());
                self.refuse(&place, what, "use `bind`, `volume` or `tmpfs`");
                None
            }
        }
    }

    /// As the Engine has it: who speaks of writing to mounts below speaks of a bind that cannot be written.
    fn recursive(
        &mut self,
        place: &Place,
        read_only: bool,
        propagation: Option<Propagation>,
    ) -> Option<Recursive> {
        const HINT: &str = "write `enabled`, `disabled`, `writable` or `readonly`";
        let recursive: Recursive = self.named(place, "recursive", HINT)?;
        let place = place.get("recursive")?;
        let word = match recursive {
            Recursive::Enabled | Recursive::Disabled => return Some(recursive),
            Recursive::Writable => "writable",
            Recursive::Readonly => "readonly",
        };
        if !read_only {
            let what = format!("`{word}` is about a bind that is read-only, and this one is not");
            self.refuse(&place, what, "write `read_only: true`, or remove it");
        } else if recursive == Recursive::Readonly && !propagation.unwrap_or_default().is_private() {
            let what = "mounts that the host makes later would not be read-only";
            self.refuse(
                &place,
                what,
                "write `propagation: rprivate`, or `recursive: enabled`",
            );
        }
        Some(recursive)
    }

    fn subpath(&mut self, place: &Place) -> Option<String> {
        let text = place.word("subpath")?;
        let inside = Path::new(&text).components().all(|part| {
            matches!(
                part,
                std::path::Component::Normal(_) | std::path::Component::CurDir
            )
        });
        if !inside {
            let what = format!("`{}` does not stay inside the volume", cut(&text));
            let place = place.get("subpath")?;
            self.refuse(&place, what, "write a relative path without `..`");
            return None;
        }
        Some(text)
    }

    /// `PATH[:OPTION,…]`.
    fn tmpfs(&mut self, place: &Place) -> Option<Mount> {
        let text = place.scalar()?;
        let (target, options) = text.split_once(':').unwrap_or((&text, ""));
        let (mut size, mut mode, mut uid, mut gid, mut exec) = (None, None, None, None, false);
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=').unwrap_or((option, "")) {
                // What a tmpfs of a container is anyway.
                ("rw" | "nosuid" | "nodev" | "async" | "relatime", "") => {}
                ("exec" | "noexec", "") => exec = option == "exec",
                (name @ ("uid" | "gid"), value) => {
                    let id = value.parse::<u32>().ok().filter(|id| *id <= MOST_ID);
                    if id.is_none() {
                        let what = format!("`{}` is not an id", cut(value));
                        self.refuse(place, what, "write a number from 0 to 65535");
                    }
                    *(if name == "uid" { &mut uid } else { &mut gid }) = id;
                }
                ("size", value) => match size::bytes(value) {
                    Ok(bytes) => size = Some(bytes),
                    Err(_) => self.refuse(place, format!("`{}` is not a size", cut(value)), SIZE_HINT),
                },
                ("mode", value) => {
                    mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777);
                    if mode.is_none() {
                        self.refuse(place, format!("`{}` is not a mode", cut(value)), MODE_HINT);
                    }
                }
                (other, _) => {
                    let what = format!("the option `{}` is not supported yet", cut(other));
                    self.refuse(
                        place,
                        what,
                        "remove it; there are `size=`, `mode=`, `uid=`, `gid=` and `exec`",
                    );
                }
            }
        }
        let target = self.target(place, target)?;
        Some(Mount::Tmpfs {
            target,
            size,
            mode,
            uid,
            gid,
            exec,
        })
    }

    /// An absolute path in the container, cleaned.
    pub(super) fn target(&mut self, place: &Place, text: &str) -> Option<PathBuf> {
        let target = syntax::clean(Path::new(text));
        let drive = matches!(text.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
        if target.is_absolute() && target.parent().is_some() {
            return Some(target);
        }
        let shown = cut(text);
        let (what, hint) = if target.is_absolute() {
            (
                "nothing can be mounted on `/`".to_owned(),
                "mount on a directory below `/`",
            )
        } else if drive {
            let what = format!("`{shown}` starts with the letter of a Windows drive");
            (what, "give the volume a name of two letters or more")
        } else if text.is_empty() {
            (
                "there is no path in the container".to_owned(),
                "add it: `target: /data`",
            )
        } else {
            let what = format!("the path in the container, `{shown}`, is not absolute");
            (what, "start it with `/`")
        };
        self.refuse(place, what, hint);
        None
    }

    /// `SERVICE[:ro]`; containers of others are not to be had.
    pub(super) fn volumes_from(&mut self, place: &Place) -> Vec<VolumesFrom> {
        let mut all = Vec::new();
        for item in place.list("volumes_from") {
            let text = item.scalar().unwrap_or_default();
            let (service, mode) = match text.split_once(':') {
                Some((service, mode)) => (service, Some(mode)),
                None => (text.as_str(), None),
            };
            let what = match mode {
                None | Some("rw" | "ro") if service != "container" => {
                    all.push(VolumesFrom {
                        service: service.to_owned(),
                        read_only: mode == Some("ro"),
                    });
                    continue;
                }
                _ if service == "container" => "there are no containers of others here".to_owned(),
                _ => format!("`{}` is not `ro` or `rw`", cut(mode.unwrap_or_default())),
            };
            self.refuse(&item, what, "write `SERVICE` or `SERVICE:ro`");
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use crate::decode::tests::refused;

    #[test]
    fn options_of_mounts_that_mean_nothing_are_refused_where_they_stand() {
        for (service, want) in [
            (
                "volumes: [{ type: bind, source: /a, target: /b, bind: { propagation: shared } }]",
                "`services.web.volumes[0]`: with this propagation, what the container mounts would appear",
            ),
            (
                "volumes: [{ type: bind, source: /a, target: /b, bind: { propagation: nope } }]",
                "`services.web.volumes[0].bind.propagation`: `nope`",
            ),
            (
                "volumes: [{ type: bind, source: /a, target: /b, bind: { recursive: writable } }]",
                "`services.web.volumes[0].bind.recursive`: `writable` is about a bind that is read-only",
            ),
            (
                "volumes: [{ type: bind, source: /a, target: /b, read_only: true, bind: { recursive: readonly, propagation: rslave } }]",
                "`services.web.volumes[0].bind.recursive`: mounts that the host makes later",
            ),
            (
                "tmpfs: ['/run:uid=70000']",
                "`services.web.tmpfs[0]`: `70000` is not an id",
            ),
        ] {
            let found = refused(service);
            assert!(
                found.len() == 1 && found[0].starts_with(want),
                "{service}: {found:#?}"
            );
        }
    }
}

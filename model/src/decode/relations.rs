//! What a service waits for, and whose namespaces it shares.

use std::collections::BTreeMap;

use super::{Reader, value::Place};
use crate::types::{Condition, Dependency, Namespace, Namespaces};

impl Reader<'_> {
    pub(super) fn dependencies(&mut self, place: &Place) -> BTreeMap<String, Dependency> {
        let mut dependencies = BTreeMap::new();
        let Some(place) = place.get("depends_on") else {
            return dependencies;
        };
        const HINT: &str = "write `service_started`, `service_healthy` or `service_completed_successfully`";
        for (name, _, place) in place.entries() {
            let required = place.get("required").and_then(|required| required.scalar());
            let dependency = Dependency {
                condition: self
                    .named(&place, "condition", HINT)
                    .unwrap_or(Condition::Started),
                required: required.as_deref() != Some("false"),
                restart: place.flag("restart"),
            };
            dependencies.insert(name.to_owned(), dependency);
        }
        dependencies
    }

    pub(super) fn namespaces(&mut self, place: &Place) -> Namespaces {
        use Namespace::{Bridge, Container, Host, None, Private, Service};
        Namespaces {
            network_mode: self.namespace(
                place,
                "network_mode",
                |mode| matches!(mode, Bridge | Host | None | Service(_) | Container(_)),
                "write `host`, `none`, `bridge`, `service:NAME` or `container:NAME`",
            ),
            ipc: self.namespace(
                place,
                "ipc",
                |mode| !matches!(mode, Bridge),
                "write `private`, `shareable`, `none`, `host`, `service:NAME` or `container:NAME`",
            ),
            pid: self.namespace(
                place,
                "pid",
                |mode| matches!(mode, Private | Host | Service(_) | Container(_)),
                "write `host`, `service:NAME` or `container:NAME`",
            ),
            uts: self.namespace(place, "uts", |mode| *mode == Host, "write `host`, or remove it"),
            userns_mode: self.namespace(
                place,
                "userns_mode",
                |mode| *mode == Host,
                "write `host`, or remove it",
            ),
            cgroup: self.namespace(
                place,
                "cgroup",
                |mode| matches!(mode, Private | Host),
                "write `private` or `host`",
            ),
        }
    }

    /// `private` is what a service has anyway, and counts as nothing said.
    fn namespace(
        &mut self,
        place: &Place,
        key: &str,
        takes: impl Fn(&Namespace) -> bool,
        hint: &str,
    ) -> Option<Namespace> {
        let mode: Namespace = self.parsed(place, key, hint)?;
        if !takes(&mode) {
            let what = format!("`{mode}` is none of the modes that Docker knows");
            self.refuse(&place.get(key)?, what, hint);
            return None;
        }
        Some(mode).filter(|mode| *mode != Namespace::Private)
    }
}

//! Whether a host port of a service may be somebody else's.

use super::Judge;
use crate::testing::generate::{Port, Service};

impl Judge<'_> {
    /// Another one may hold a host port of it, or a second of its own kind.
    pub(super) fn clashes(&self, name: &str, service: &Service) -> bool {
        let mine: Vec<&Port> = service
            .ports
            .iter()
            .filter(|port| port.published.is_some())
            .collect();
        if mine.is_empty() {
            return false;
        }
        let overlaps = |port: &Port| {
            mine.iter().any(|own| match (own.published, port.published) {
                (Some(own_range), Some(range)) => {
                    own.udp == port.udp && own_range.0 <= range.1 && range.0 <= own_range.1
                }
                _ => false,
            })
        };
        if service.scale > 1 || mine.len() > 1 {
            return true;
        }
        let elsewhere = self.wishes.files.iter().any(|(other, file)| {
            let good = self
                .kept
                .good
                .get(other)
                .and_then(|good| self.wishes.version(other, &good.revision));
            let shapes = [Some(&file.shape), good];
            shapes
                .into_iter()
                .flatten()
                .flat_map(|shape| &shape.services)
                .any(|one| (other != name || one.name != service.name) && one.ports.iter().any(overlaps))
        });
        let held = self.instances.iter().any(|(key, instance)| {
            (key.project != name || key.service != service.name)
                && instance.sandbox.ports.iter().any(|binding| {
                    mine.iter().any(|own| {
                        own.published
                            .is_some_and(|(first, last)| (first..=last).contains(&binding.published))
                    })
                })
        });
        elsewhere
            || held
            || self.wishes.foreign.iter().any(|foreign| {
                mine.iter().any(|own| {
                    own.published
                        .is_some_and(|(first, last)| (first..=last).contains(foreign))
                })
            })
    }
}

//! Published ports of a service.

use std::collections::BTreeSet;

use super::{Reader, value::Place};
use crate::{
    support::cut,
    syntax::port::{self, ParsePortError},
    types::{Protocol, PublishedPort},
};

impl Reader<'_> {
    /// In the order of the file; what is there twice counts once.
    pub(super) fn ports(&mut self, place: &Place) -> Vec<PublishedPort> {
        let mut seen = BTreeSet::new();
        let mut ports = Vec::new();
        for place in place.list("ports") {
            if let Some(port) = self.port(&place)
                && seen.insert(port.clone())
            {
                ports.push(port);
            }
        }
        ports
    }

    fn port(&mut self, place: &Place) -> Option<PublishedPort> {
        let target = self.read(place, "target", port::range);
        let published = self.read(place, "published", port::published);
        let host_ip = self.read(place, "host_ip", port::address);
        let protocol = self.read(place, "protocol", port::protocol);
        Some(PublishedPort {
            target: target?.first,
            published: published.flatten(),
            host_ip,
            protocol: protocol.unwrap_or(Protocol::Tcp),
        })
    }

    fn read<T>(
        &mut self,
        place: &Place,
        key: &str,
        read: impl Fn(&str) -> Result<T, ParsePortError>,
    ) -> Option<T> {
        let text = place.word(key)?;
        match read(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                let hint = match &error {
                    ParsePortError::Address(_) => "write an address like `127.0.0.1` or `::1`, not a name",
                    ParsePortError::Protocol(_) | ParsePortError::UnsupportedProtocol(_) => {
                        "write `tcp` or `udp`, or leave it out for tcp"
                    }
                    _ => "write a number from 1 to 65535, for the host also a range like `8000-8010`",
                };
                let what = read(&cut(&text)).err().unwrap_or(error);
                self.refuse(&place.get(key)?, what, hint);
                None
            }
        }
    }
}

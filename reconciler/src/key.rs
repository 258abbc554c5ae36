//! The identity of everything the plan speaks about, and its text form.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Two places for one instance: a start-first update builds the other slot beside the running one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    A,
    B,
}

/// One running copy of a service. Text form: `shop/web/1a`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceKey {
    pub project: String,
    pub service: String,
    /// Counts from 1.
    pub index: u32,
    pub slot: Slot,
}

/// A network or a named volume. `name` is the full name on the host (`shop_default`). Text: `shop/shop_default`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResourceKey {
    pub project: String,
    pub name: String,
}

/// What a change or a step is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Key {
    /// An image reference as written, in the project that wants it.
    Image {
        project: String,
        reference: String,
    },
    Network(ResourceKey),
    Volume(ResourceKey),
    Instance(InstanceKey),
    /// Names that resolve inside a network.
    Names(ResourceKey),
    /// The firewall of this root: isolation, masquerade, published ports.
    Firewall,
}

impl Key {
    /// The project a key belongs to; the firewall belongs to all.
    pub fn project(&self) -> Option<&str> {
        match self {
            Key::Image { project, .. } => Some(project),
            Key::Network(key) | Key::Volume(key) | Key::Names(key) => Some(&key.project),
            Key::Instance(key) => Some(&key.project),
            Key::Firewall => None,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Slot::A => "a",
            Slot::B => "b",
        })
    }
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}{}", self.project, self.service, self.index, self.slot)
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Image { project, reference } => write!(f, "image {project}/{reference}"),
            Key::Network(key) => write!(f, "network {key}"),
            Key::Volume(key) => write!(f, "volume {key}"),
            Key::Instance(key) => write!(f, "container {key}"),
            Key::Names(key) => write!(f, "names {key}"),
            Key::Firewall => f.write_str("firewall"),
        }
    }
}

//! The attributes outside services.

use super::{Attribute, REMOVE, ignored, not_yet, rejected, silent, yes};

pub(super) const TOP: &[Attribute] = &[
    yes("name"),
    ignored("version", "it has no meaning any more; remove it"),
    yes("include"),
    yes("services"),
    yes("networks"),
    yes("volumes"),
    yes("configs"),
    yes("secrets"),
    rejected(
        "models",
        "remove it, and run the model as a service: there is no model runner here",
    ),
    yes("include.*.path"),
    yes("include.*.project_directory"),
    yes("include.*.env_file"),
];

const STORE: &str = "remove it, and give the content with `file:` or `environment:`: there is no store of other programs here";
const SWARM: &str = "remove it: it is for Docker Swarm";

#[rustfmt::skip]
pub(super) const BELOW: &[Attribute] = &[
    yes("networks.*.name"),
    not_yet("networks.*.driver", "remove it, or write `driver: bridge`").but(&["bridge", "default"]),
    not_yet("networks.*.driver_opts", REMOVE),
    yes("networks.*.ipam"),
    not_yet("networks.*.ipam.driver", "remove it, or write `driver: default`").but(&["default"]),
    not_yet("networks.*.ipam.config", "remove it: addresses are chosen automatically and stay"),
    not_yet("networks.*.ipam.config.*.subnet", ""),
    not_yet("networks.*.ipam.config.*.ip_range", ""),
    not_yet("networks.*.ipam.config.*.gateway", ""),
    not_yet("networks.*.ipam.config.*.aux_addresses", ""),
    ignored("networks.*.ipam.options", "remove it: how addresses are chosen has no options here"),
    not_yet("networks.*.external", "remove it: every project has networks of its own").but(&["false"]),
    not_yet("networks.*.external.name", ""),
    yes("networks.*.internal"),
    silent("networks.*.attachable"),
    not_yet("networks.*.enable_ipv4", "remove it: every network has IPv4").but(&["true"]),
    not_yet("networks.*.enable_ipv6", REMOVE).but(&["false"]),
    yes("networks.*.labels"),
    yes("volumes.*.name"),
    rejected("volumes.*.driver", "remove it, or write `driver: local`").but(&["local", "default"]),
    not_yet("volumes.*.driver_opts", "mount the directory as a bind volume instead"),
    not_yet("volumes.*.external", "remove it; a volume with the same `name` is found again").but(&["false"]),
    not_yet("volumes.*.external.name", ""),
    yes("volumes.*.labels"),
    yes("configs.*.name"),
    yes("configs.*.file"),
    yes("configs.*.environment"),
    yes("configs.*.content"),
    not_yet("configs.*.external", STORE).but(&["false"]),
    not_yet("configs.*.external.name", ""),
    yes("configs.*.labels"),
    rejected("configs.*.template_driver", SWARM),
    yes("secrets.*.name"),
    yes("secrets.*.file"),
    yes("secrets.*.environment"),
    not_yet("secrets.*.external", STORE).but(&["false"]),
    not_yet("secrets.*.external.name", ""),
    yes("secrets.*.labels"),
    rejected("secrets.*.driver", STORE),
    rejected("secrets.*.driver_opts", STORE),
    rejected("secrets.*.template_driver", SWARM),
    rejected("models.*.name", ""),
    rejected("models.*.model", ""),
    rejected("models.*.context_size", ""),
    rejected("models.*.runtime_flags", ""),
];

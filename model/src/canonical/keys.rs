//! Which values of the canonical model stand for "not set", by key (Compose Specification, all attributes).

/// What a value of the canonical model is to its reader.
pub(super) enum Kind {
    /// Empty text, zero, false and an empty list say nothing.
    Plain,
    /// Said even when it is zero, false or empty.
    Kept,
    /// True says nothing.
    OptOut,
    /// An amount of bytes, as text; zero says nothing.
    Bytes,
    /// A duration, as text; zero says nothing.
    Duration,
    /// The user's own; nothing in it is touched.
    Free,
    /// A list or a mapping with the user's keys, all of whose values are alike.
    Each(&'static Kind),
    /// A mapping with the keys of Compose. Those that are not listed are [`Kind::Plain`].
    Struct(&'static [(&'static str, Kind)]),
    /// As [`Kind::Struct`]; JSON writes its keys with a capital.
    Capitals(&'static [(&'static str, Kind)]),
}

impl Kind {
    /// The kind of the value below `key`.
    pub fn of(&self, key: &str) -> &Kind {
        match self {
            Kind::Each(kind) => kind,
            Kind::Struct(_) | Kind::Capitals(_) if key.starts_with("x-") => &Kind::Free,
            Kind::Struct(keys) | Kind::Capitals(keys) => keys
                .iter()
                .find(|(name, _)| *name == key)
                .map_or(&Kind::Plain, |(_, kind)| kind),
            _ => &Kind::Free,
        }
    }
}

pub(super) static MODEL: Kind = Kind::Struct(&[
    ("services", Kind::Each(&SERVICE)),
    ("networks", Kind::Each(&NETWORK)),
    ("volumes", Kind::Each(&RESOURCE)),
    ("secrets", Kind::Each(&RESOURCE)),
    ("configs", Kind::Each(&RESOURCE)),
    ("models", Kind::Each(&EMPTY)),
]);

static EMPTY: Kind = Kind::Struct(&[]);

static RESOURCE: Kind = Kind::Struct(&[("labels", Kind::Free), ("driver_opts", Kind::Free)]);

static NETWORK: Kind = Kind::Struct(&[
    ("labels", Kind::Free),
    ("driver_opts", Kind::Free),
    ("enable_ipv4", Kind::Kept),
    ("enable_ipv6", Kind::Kept),
    ("ipam", IPAM),
]);

const IPAM: Kind = Kind::Struct(&[("options", Kind::Free), ("config", Kind::Each(&POOL))]);

static POOL: Kind = Kind::Struct(&[("aux_addresses", Kind::Free)]);

static SERVICE: Kind = Kind::Struct(&[
    ("annotations", Kind::Free),
    ("attach", Kind::Kept),
    ("blkio_config", BLKIO),
    ("build", BUILD),
    ("command", Kind::Kept),
    ("configs", Kind::Each(&GRANT)),
    ("credential_spec", Kind::Struct(&[])),
    ("depends_on", Kind::Each(&DEPENDENCY)),
    ("deploy", DEPLOY),
    ("develop", DEVELOP),
    ("devices", Kind::Each(&EMPTY)),
    ("entrypoint", Kind::Kept),
    ("env_file", Kind::Each(&ENV_FILE)),
    ("environment", Kind::Free),
    ("extends", Kind::Struct(&[])),
    ("gpus", Kind::Each(&DEVICE)),
    ("healthcheck", HEALTH),
    ("init", Kind::Kept),
    ("labels", Kind::Free),
    ("log_opt", Kind::Free),
    ("logging", Kind::Struct(&[("options", Kind::Free)])),
    ("mem_limit", Kind::Bytes),
    ("mem_reservation", Kind::Bytes),
    ("mem_swappiness", Kind::Bytes),
    ("memswap_limit", Kind::Bytes),
    ("models", Kind::Each(&EMPTY)),
    ("networks", Kind::Each(&ATTACHMENT)),
    ("ports", Kind::Each(&EMPTY)),
    ("post_start", Kind::Each(&HOOK)),
    ("pre_start", Kind::Each(&HOOK)),
    ("pre_stop", Kind::Each(&HOOK)),
    ("provider", Kind::Struct(&[("options", Kind::Free)])),
    ("scale", Kind::Kept),
    ("secrets", Kind::Each(&GRANT)),
    ("shm_size", Kind::Bytes),
    ("stop_grace_period", Kind::Kept),
    ("storage_opt", Kind::Free),
    ("sysctls", Kind::Free),
    ("ulimits", Kind::Each(&EMPTY)),
    ("volumes", Kind::Each(&MOUNT)),
]);

const BLKIO: Kind = Kind::Struct(&[
    ("device_read_bps", Kind::Each(&RATE)),
    ("device_read_iops", Kind::Each(&RATE)),
    ("device_write_bps", Kind::Each(&RATE)),
    ("device_write_iops", Kind::Each(&RATE)),
    ("weight_device", Kind::Each(&RATE)),
]);

static RATE: Kind = Kind::Capitals(&[("path", Kind::Kept), ("rate", Kind::Kept), ("weight", Kind::Kept)]);

const BUILD: Kind = Kind::Struct(&[
    ("additional_contexts", Kind::Free),
    ("args", Kind::Free),
    ("labels", Kind::Free),
    ("secrets", Kind::Each(&GRANT)),
    ("shm_size", Kind::Bytes),
    ("ulimits", Kind::Each(&EMPTY)),
]);

static GRANT: Kind = Kind::Struct(&[("mode", Kind::Kept)]);

static DEPENDENCY: Kind = Kind::Struct(&[("required", Kind::Kept)]);

const DEPLOY: Kind = Kind::Struct(&[
    ("labels", Kind::Free),
    ("placement", PLACEMENT),
    ("replicas", Kind::Kept),
    ("resources", RESOURCES),
    ("restart_policy", RESTART),
    ("rollback_config", UPDATE),
    ("update_config", UPDATE),
]);

const PLACEMENT: Kind = Kind::Struct(&[("preferences", Kind::Each(&EMPTY))]);

const RESOURCES: Kind = Kind::Struct(&[("limits", AMOUNTS), ("reservations", AMOUNTS)]);

const AMOUNTS: Kind = Kind::Struct(&[
    ("devices", Kind::Each(&DEVICE)),
    ("generic_resources", Kind::Free),
    ("memory", Kind::Bytes),
]);

static DEVICE: Kind = Kind::Struct(&[("options", Kind::Free)]);

const RESTART: Kind = Kind::Struct(&[
    ("delay", Kind::Kept),
    ("max_attempts", Kind::Kept),
    ("window", Kind::Kept),
]);

const UPDATE: Kind = Kind::Struct(&[
    ("delay", Kind::Duration),
    ("monitor", Kind::Duration),
    ("parallelism", Kind::Kept),
]);

const DEVELOP: Kind = Kind::Struct(&[("watch", Kind::Each(&TRIGGER))]);

static TRIGGER: Kind = Kind::Struct(&[("action", Kind::Kept), ("exec", HOOK_VALUE), ("path", Kind::Kept)]);

static HOOK: Kind = HOOK_VALUE;

const HOOK_VALUE: Kind = Kind::Struct(&[("command", Kind::Kept), ("environment", Kind::Free)]);

static ENV_FILE: Kind = Kind::Struct(&[("required", Kind::OptOut)]);

const HEALTH: Kind = Kind::Struct(&[
    ("interval", Kind::Kept),
    ("retries", Kind::Kept),
    ("start_interval", Kind::Kept),
    ("start_period", Kind::Kept),
    ("timeout", Kind::Kept),
]);

static ATTACHMENT: Kind = Kind::Struct(&[("driver_opts", Kind::Free)]);

static MOUNT: Kind = Kind::Struct(&[
    ("bind", Kind::Struct(&[("create_host_path", Kind::OptOut)])),
    ("image", Kind::Struct(&[])),
    ("tmpfs", Kind::Struct(&[("size", Kind::Bytes)])),
    ("volume", Kind::Struct(&[("labels", Kind::Free)])),
]);

//! The table: a service.

use super::{
    build::{BUILD, DEVELOP},
    deploy::{DEPLOY, GPUS},
    mounts::{DEVICES, GRANTS, MOUNTS, PORTS},
    network::ATTACHMENTS,
    parts::*,
};
use crate::shape::{Form, Keys, Object, Pattern, Shape, Zero};

const AT_LEAST_0: Shape = Shape::OneOf(&[
    Shape::Text,
    Shape::Integer {
        min: Some(0),
        max: None,
    },
]);
const PERCENT: Shape = Shape::OneOf(&[
    Shape::Text,
    Shape::Integer {
        min: Some(0),
        max: Some(100),
    },
]);
const OOM_SCORE: Shape = Shape::OneOf(&[
    Shape::Text,
    Shape::Integer {
        min: Some(-1000),
        max: Some(1000),
    },
]);
const DEPENDENCIES: Shape = Shape::OneOf(&[UNIQUE_TEXTS, names(Keys::Names, &Shape::Object(&DEPENDENCY))]);
const ENV_FILES: Shape = Shape::OneOf(&[
    Shape::Text,
    list(&Shape::OneOf(&[Shape::Text, Shape::Object(&ENV_FILE)])),
]);
const MODELS: Shape = Shape::OneOf(&[
    UNIQUE_TEXTS,
    names(
        Keys::LooseNames,
        &Shape::OneOf(&[Shape::Object(&MODEL_USE), Shape::Null]),
    ),
]);
const TEXT_OR_LIST: Shape = Shape::OneOf(&[Shape::Text, TEXTS]);
const UNIQUE_SCALARS: Shape = unique(&NUMBER_OR_TEXT);
const EXTENDED: Shape = Shape::OneOf(&[Shape::Text, Shape::Object(&EXTENDS)]);

const CONTAINER_NAME: Pattern = Pattern {
    regex: "[a-zA-Z0-9][a-zA-Z0-9_.-]+",
    holds: |text| {
        let rest = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        let pairs = text.as_bytes().windows(2);
        pairs.into_iter().any(|pair| match pair {
            [first, second] => first.is_ascii_alphanumeric() && rest(*second),
            _ => false,
        })
    },
    hint: "a name has at least two letters, digits, `_`, `.` or `-`, and begins with a letter or digit",
};

const PULL_POLICY: Pattern = Pattern {
    regex: "always|never|build|if_not_present|missing|refresh|daily|weekly|every_([0-9]+[wdhms])+",
    holds: |text| {
        const WORDS: [&str; 8] = [
            "always",
            "never",
            "build",
            "if_not_present",
            "missing",
            "refresh",
            "daily",
            "weekly",
        ];
        WORDS.iter().any(|word| text.contains(word))
            || text.split("every_").skip(1).any(|period| {
                let unit = period.trim_start_matches(|c: char| c.is_ascii_digit());
                unit.len() < period.len() && unit.starts_with(['w', 'd', 'h', 'm', 's'])
            })
    },
    hint: "write `always`, `never`, `missing`, `build`, `daily`, `weekly` or `every_12h`",
};

/// One service.
#[rustfmt::skip]
pub const SERVICE: Object = object(&[
    field("develop", DEVELOP, Form::Parts, "What to do while the sources change"),
    field("deploy", DEPLOY, Form::Parts, "How many instances run, with which resources, and how they are replaced"),
    labels("annotations", "Annotations of the container"),
    field("attach", BOOL_OR_TEXT, Form::Bool(Zero::Keep), "Whether `up` in the foreground shows the output"),
    field("build", BUILD, Form::Parts, "How the image is built from sources"),
    section("blkio_config", &BLKIO, "Shares and limits of block devices"),
    texts("cap_add", "Capabilities beyond the usual ones, like `NET_ADMIN`, or `ALL`"),
    texts("cap_drop", "Usual capabilities to be without, or `ALL`"),
    choice("cgroup", &["host", "private"], "Which control group namespace the container is in"),
    text("cgroup_parent", "Control group above that of the container"),
    field("command", COMMAND, Form::Words, "Arguments of the entrypoint, instead of those of the image"),
    field("configs", GRANTS, Form::Parts, "Configs of the top level that the service may read"),
    field("container_name", Shape::Pattern(&CONTAINER_NAME), Form::Text(Zero::Omit), "Name of the container, instead of one made from project and service"),
    field("cpu_count", AT_LEAST_0, Form::Int(Zero::Omit), "Number of processors (Windows)").cast(),
    field("cpu_percent", PERCENT, Form::Float, "Share of the processors, 0 to 100 (Windows)")
        .hint("write a whole number from 0 to 100").cast(),
    int("cpu_shares", "Weight against other containers when processors are busy; 1024 is usual").cast(),
    int("cpu_quota", "Microseconds of processor time in each period").cast(),
    int("cpu_period", "Length of the period of `cpu_quota`, in microseconds").cast(),
    int("cpu_rt_period", "Length of the period of the real-time scheduler, in microseconds").cast(),
    int("cpu_rt_runtime", "Microseconds of real-time scheduling in each period").cast(),
    field("cpus", NUMBER_OR_TEXT, Form::Float, "Number of processors at most, also a fraction: `0.5`").cast(),
    text("cpuset", "Which processors may be used, like `0-3` or `0,1`"),
    section("credential_spec", &CREDENTIALS, "Managed service account (Windows)"),
    field("depends_on", DEPENDENCIES, Form::Parts, "Services that are started before this one"),
    texts("device_cgroup_rules", "Rules for which devices may be used, like `c 1:3 mr`"),
    field("devices", DEVICES, Form::Parts, "Devices of the host: `SOURCE[:TARGET[:rwm]]`"),
    field("dns", TEXT_OR_TEXTS, Form::Texts, "Name servers"),
    texts("dns_opt", "Options of the resolver, like `ndots:1`"),
    field("dns_search", TEXT_OR_TEXTS, Form::Texts, "Domains in which short names are looked up"),
    text("domainname", "Domain name of the container"),
    field("entrypoint", COMMAND, Form::Words, "The program, instead of that of the image"),
    field("env_file", ENV_FILES, Form::Parts, "Files with variables; `environment` wins over them"),
    field("label_file", TEXT_OR_LIST, Form::Texts, "Files with labels; `labels` wins over them"),
    variables("environment", "Variables of the container; one without a value has that of the project"),
    field("expose", UNIQUE_SCALARS, Form::Texts, "Ports that the service listens at, for people; opens nothing"),
    field("extends", EXTENDED, Form::Parts, "Another service whose attributes this one begins with"),
    section("provider", &PROVIDER, "A program outside that provides the service"),
    texts("external_links", "Containers outside the project, with an alias"),
    field("extra_hosts", HOSTS, Form::Hosts, "Host names and addresses for `/etc/hosts`"),
    field("gpus", GPUS, Form::Parts, "GPUs that the service may use, or `all`"),
    field("group_add", UNIQUE_SCALARS, Form::Texts, "Further groups of the user"),
    section("healthcheck", &HEALTHCHECK, "How to see whether the service works"),
    text("hostname", "Host name of the container"),
    text("image", "The image: `[HOST/]NAME[:TAG][@DIGEST]`"),
    field("init", BOOL_OR_TEXT, Form::Bool(Zero::Keep), "Run a small init that reaps processes and passes signals on").cast(),
    text("ipc", "Which IPC namespace the container is in"),
    text("isolation", "Isolation technology of the container (Windows)"),
    labels("labels", "Labels of the container"),
    texts("links", "Services that are reached by a further name: `SERVICE[:ALIAS]`"),
    section("logging", &LOGGING, "Where the output goes"),
    text("mac_address", "Hardware address of the container's interface"),
    bytes("mem_limit", "Memory at most: `512m`"),
    field("mem_reservation", INT_OR_TEXT, Form::Bytes(Zero::Omit), "Memory that is guaranteed: `256m`"),
    field("mem_swappiness", INT_OR_TEXT, Form::Bytes(Zero::Omit), "How readily memory is swapped out, 0 to 100")
        .hint("write a whole number from 0 to 100"),
    bytes("memswap_limit", "Memory and swap together at most; -1 is no limit"),
    text("network_mode", "`bridge`, `host`, `none`, `service:NAME` or `container:NAME`, instead of `networks`"),
    field("models", MODELS, Form::Parts, "Language models that the service uses"),
    field("networks", ATTACHMENTS, Form::Parts, "Networks that the service is in; `default` if nothing is said"),
    switch("oom_kill_disable", "Do not kill the container when memory runs out").cast(),
    field("oom_score_adj", OOM_SCORE, Form::Int(Zero::Omit), "How likely the container is killed when memory runs out, -1000 to 1000").cast(),
    field("pid", Shape::OneOf(&[Shape::Text, Shape::Null]), Form::Text(Zero::Omit), "Which process namespace the container is in: `host` or `service:NAME`"),
    int("pids_limit", "Number of processes and threads at most; -1 is no limit").cast(),
    text("platform", "Platform of the image, like `linux/arm64`"),
    field("ports", PORTS, Form::Parts, "Ports that are open to the outside: `[[IP:]HOST:]CONTAINER[/PROTOCOL]`")
        .hint("write a port or two, for example `\"8080:80\"`"),
    field("pre_start", list(&Shape::Object(&PRE_START)), Form::Parts, "Commands that are run in containers of their own before the service starts"),
    field("post_start", list(&Shape::Object(&HOOK)), Form::Parts, "Commands that are run in the container after it started"),
    field("pre_stop", list(&Shape::Object(&HOOK)), Form::Parts, "Commands that are run in the container before it is stopped"),
    switch("privileged", "Run with all capabilities and devices, unprotected").cast(),
    texts("profiles", "The service is part of the project only if one of these is active"),
    field("pull_policy", Shape::Pattern(&PULL_POLICY), Form::Text(Zero::Omit), "When the image is fetched"),
    text("pull_refresh_after", "How old an image may be before it is fetched again").form(Form::Dropped),
    switch("read_only", "The container's own filesystem cannot be written").cast(),
    text("restart", "What happens after an exit: `no`, `always`, `unless-stopped` or `on-failure[:N]`"),
    text("runtime", "The runtime that runs the container"),
    field("scale", INT_OR_TEXT, Form::Int(Zero::Keep), "Number of instances").cast(),
    texts("security_opt", "Security options, like `no-new-privileges:true`"),
    bytes("shm_size", "Size of `/dev/shm`; 64m if nothing is said"),
    field("secrets", GRANTS, Form::Parts, "Secrets of the top level that the service may read"),
    labels("sysctls", "Kernel parameters of the container"),
    switch("stdin_open", "Keep the standard input open").cast(),
    duration("stop_grace_period", "Time between the stop signal and `SIGKILL`; 10s if nothing is said"),
    text("stop_signal", "Signal that asks the container to stop; `SIGTERM` if nothing is said"),
    field("storage_opt", names(Keys::Any, &Shape::Any), Form::Strings, "Options of the container's filesystem"),
    field("tmpfs", TEXT_OR_TEXTS, Form::Texts, "Filesystems in memory: `PATH[:OPTIONS]`"),
    switch("tty", "Give the program a terminal").cast(),
    field("ulimits", ULIMITS, Form::Ulimits, "Resource limits: one number, or `soft` and `hard`").cast(),
    field("use_api_socket", Shape::Bool, Form::Bool(Zero::Omit), "Give the service access to the container engine"),
    text("user", "User and group in the container: `USER[:GROUP]`, names or numbers as text"),
    text("uts", "Which UTS namespace the container is in"),
    text("userns_mode", "Which user namespace the container is in"),
    field("volumes", MOUNTS, Form::Parts, "Volumes and directories: `[SOURCE:]TARGET[:OPTIONS]`"),
    texts("volumes_from", "Services or containers whose volumes are mounted, too"),
    text("working_dir", "Directory in which the program starts"),
]);

#[rustfmt::skip]
const BLKIO: Object = closed(&[
    field("device_read_bps", list(&Shape::Object(&THROTTLE)), Form::Parts, "Bytes read each second"),
    field("device_read_iops", list(&Shape::Object(&THROTTLE)), Form::Parts, "Reads each second"),
    field("device_write_bps", list(&Shape::Object(&THROTTLE)), Form::Parts, "Bytes written each second"),
    field("device_write_iops", list(&Shape::Object(&THROTTLE)), Form::Parts, "Writes each second"),
    field("weight", INT_OR_TEXT, Form::Uint(16, Zero::Omit), "Weight against other containers, 10 to 1000"),
    field("weight_device", list(&Shape::Object(&WEIGHT)), Form::Parts, "Weights on single devices"),
]);

#[rustfmt::skip]
const THROTTLE: Object = closed(&[
    text("path", "The device, like `/dev/sda`").form(Form::Text(Zero::Always)),
    field("rate", INT_OR_TEXT, Form::Bytes(Zero::Always), "The limit, each second"),
]);

#[rustfmt::skip]
const WEIGHT: Object = closed(&[
    text("path", "The device, like `/dev/sda`").form(Form::Text(Zero::Always)),
    field("weight", INT_OR_TEXT, Form::Uint(16, Zero::Always), "The weight, 10 to 1000"),
]);

#[rustfmt::skip]
const CREDENTIALS: Object = object(&[
    text("config", "Config that holds the specification"),
    text("file", "File that holds the specification"),
    text("registry", "Registry key that holds the specification"),
]);

#[rustfmt::skip]
const DEPENDENCY: Object = object(&[
    switch("restart", "Restart this service when the other one was restarted or replaced").cast(),
    field("required", Shape::Bool, Form::Bool(Zero::Always), "Whether it is an error if the other service is not active").cast(),
    choice("condition", &["service_started", "service_healthy", "service_completed_successfully"], "What to wait for"),
])
.requires(&["condition"]);

#[rustfmt::skip]
const ENV_FILE: Object = closed(&[
    text("path", "The file"),
    text("format", "`raw` takes values literally; without it Compose's rules apply")
        .hint("write `format: raw`, or remove it"),
    field("required", BOOL_OR_TEXT, Form::OptOut, "Whether it is an error if the file is missing"),
])
.requires(&["path"]);

#[rustfmt::skip]
const EXTENDS: Object = closed(&[
    text("service", "The other service"),
    text("file", "The file that has it, if it is another one"),
])
.requires(&["service"]);

#[rustfmt::skip]
const PROVIDER: Object = object(&[
    text("type", "The program, or the name of a plugin"),
    field("options", names(Keys::LooseLine, &PROVIDER_OPTION), Form::Lists, "Options of the program"),
])
.requires(&["type"]);

const PROVIDER_SCALAR: Shape = Shape::OneOf(&[Shape::Text, Shape::Number, Shape::Bool]);
const PROVIDER_OPTION: Shape =
    Shape::OneOf(&[Shape::Text, Shape::Number, Shape::Bool, list(&PROVIDER_SCALAR)]);

#[rustfmt::skip]
const HEALTHCHECK: Object = object(&[
    switch("disable", "No healthcheck, also none of the image").cast(),
    duration("interval", "Time between two probes; 30s if nothing is said"),
    field("retries", NUMBER_OR_TEXT, Form::Uint(64, Zero::Keep), "Failures in a row until the service is unhealthy; 3 if nothing is said").cast(),
    field("test", TEXT_OR_LIST, Form::Test, "The probe: a shell command, or a list that begins with `CMD`, `CMD-SHELL` or `NONE`"),
    duration("timeout", "Time that a probe may take; 30s if nothing is said"),
    duration("start_period", "Time after the start in which failures do not count"),
    duration("start_interval", "Time between two probes in the start period"),
]);

#[rustfmt::skip]
const LOGGING: Object = object(&[
    text("driver", "What takes the output"),
    field("options", names(Keys::LooseLine, &Shape::OneOf(&[Shape::Text, Shape::Number, Shape::Null])), Form::Labels, "Options of the driver"),
]);

#[rustfmt::skip]
const MODEL_USE: Object = object(&[
    text("endpoint_var", "Variable that gets the address of the model"),
    text("model_var", "Variable that gets the name of the model"),
]);

/// A command that is run in a container that runs.
#[rustfmt::skip]
pub const HOOK: Object = object(&[
    field("command", COMMAND, Form::Words, "The command"),
    text("user", "User that runs it, instead of that of the container"),
    switch("privileged", "Run it with all capabilities"),
    text("working_dir", "Directory in which it starts"),
    variables("environment", "Variables of the command"),
])
.requires(&["command"]);

#[rustfmt::skip]
const PRE_START: Object = object(&[
    field("command", COMMAND, Form::Words, "The command; without it that of the image"),
    text("image", "The image; that of the service if nothing is said"),
    text("user", "User that runs it"),
    switch("privileged", "Run it with all capabilities"),
    text("working_dir", "Directory in which it starts"),
    variables("environment", "Further variables, which win over those of the service"),
    switch("per_replica", "Run it for each instance instead of once"),
]);

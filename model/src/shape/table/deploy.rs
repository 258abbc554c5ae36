//! The table: how many instances run, with which resources, and how they are replaced.

use super::parts::*;
use crate::shape::{Form, Object, Shape, Zero};

pub const DEPLOY: Shape = Shape::OneOf(&[Shape::Object(&DEPLOYMENT), Shape::Null]);
pub const GPUS: Shape = Shape::OneOf(&[Shape::Choice(&["all"]), list(&Shape::Object(&GPU))]);

#[rustfmt::skip]
const DEPLOYMENT: Object = object(&[
    text("mode", "`replicated` (as many as `replicas` says) or `global` (one on each host), or a job"),
    text("endpoint_mode", "How clients reach the instances: `vip` or `dnsrr`"),
    field("replicas", INT_OR_TEXT, Form::Int(Zero::Keep), "Number of instances").cast(),
    labels("labels", "Labels of the service, not of its containers"),
    section("rollback_config", &UPDATE, "How instances go back to the version before"),
    section("update_config", &UPDATE, "How instances are replaced by new ones"),
    section("resources", &RESOURCES, "What an instance may use, and what it is guaranteed"),
    section("restart_policy", &RESTART, "When and how often an instance is restarted"),
    section("placement", &PLACEMENT, "On which hosts instances run"),
]);

#[rustfmt::skip]
const UPDATE: Object = object(&[
    field("parallelism", INT_OR_TEXT, Form::Uint(64, Zero::Keep), "How many instances change at a time; 0 is all").cast(),
    duration("delay", "Time between two groups").form(Form::Duration(Zero::Omit)),
    text("failure_action", "What to do after a failure: `continue`, `pause` or `rollback`"),
    duration("monitor", "Time within which a failure counts").form(Form::Duration(Zero::Omit)),
    field("max_failure_ratio", NUMBER_OR_TEXT, Form::Float, "Share of failures that is tolerated").cast(),
    choice("order", &["start-first", "stop-first"], "Whether the new instance starts before the old one stops"),
]);

#[rustfmt::skip]
const RESOURCES: Object = object(&[
    section("limits", &LIMITS, "What an instance may use at most"),
    section("reservations", &RESERVATIONS, "What an instance is guaranteed"),
]);

#[rustfmt::skip]
const LIMITS: Object = object(&[
    field("cpus", NUMBER_OR_TEXT, Form::Float, "Number of processors, also a fraction of one"),
    bytes("memory", "Memory in bytes, with a unit like `512m`").shape(Shape::Text),
    field("pids", INT_OR_TEXT, Form::Int(Zero::Omit), "Number of processes and threads"),
]);

#[rustfmt::skip]
const RESERVATIONS: Object = object(&[
    field("cpus", NUMBER_OR_TEXT, Form::Float, "Number of processors, also a fraction of one"),
    bytes("memory", "Memory in bytes, with a unit like `512m`").shape(Shape::Text),
    field("generic_resources", list(&Shape::Object(&GENERIC)), Form::Parts, "Resources that hosts declare themselves"),
    field("devices", list(&Shape::Object(&DEVICE)), Form::Parts, "Devices by what they can do, like GPUs"),
]);

#[rustfmt::skip]
const GENERIC: Object = object(&[
    section("discrete_resource_spec", &DISCRETE, "A resource that is counted"),
]);

#[rustfmt::skip]
const DISCRETE: Object = object(&[
    text("kind", "Name of the resource").form(Form::Text(Zero::Always)),
    field("value", NUMBER_OR_TEXT, Form::Int(Zero::Always), "How many of them"),
]);

#[rustfmt::skip]
const DEVICE: Object = object(DEVICE_FIELDS).requires(&["capabilities"]);
const GPU: Object = open(DEVICE_FIELDS);

#[rustfmt::skip]
const DEVICE_FIELDS: &[crate::shape::Field] = &[
    texts("capabilities", "What the device must be able to do, like `gpu`"),
    field("count", INT_OR_TEXT, Form::Count, "How many devices, or `all`"),
    texts("device_ids", "Which devices, by their identifiers"),
    text("driver", "Driver that provides the devices"),
    labels("options", "Options of the driver"),
];

#[rustfmt::skip]
const RESTART: Object = object(&[
    text("condition", "When: `none`, `on-failure` or `any`"),
    duration("delay", "Time between two attempts"),
    field("max_attempts", INT_OR_TEXT, Form::Uint(64, Zero::Keep), "How many attempts; without it there is no end").cast(),
    duration("window", "How long an instance must run for the attempt to count as a success"),
]);

#[rustfmt::skip]
const PLACEMENT: Object = object(&[
    field("constraints", TEXTS, Form::Texts, "What a host must be, like `node.role==worker`"),
    field("preferences", list(&Shape::Object(&PREFERENCE)), Form::Parts, "Over what the instances are spread"),
    field("max_replicas_per_node", INT_OR_TEXT, Form::Uint(64, Zero::Omit), "How many instances a host has at most").cast(),
]);

#[rustfmt::skip]
const PREFERENCE: Object = object(&[
    text("spread", "Label of hosts over whose values the instances are spread evenly"),
]);

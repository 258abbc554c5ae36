//! The table: volumes, configs, secrets, devices, ports, and how a service has them.

use super::{network::EXTERNAL, parts::*};
use crate::shape::{Form, Object, Shape, Zero};

pub const VOLUME_OR_NULL: Shape = Shape::OneOf(&[Shape::Object(&VOLUME), Shape::Null]);
/// Configs and secrets that something may read.
pub const GRANTS: Shape = list(&Shape::OneOf(&[Shape::Text, Shape::Object(&GRANT)]));
pub const MOUNTS: Shape = unique(&Shape::OneOf(&[Shape::Text, Shape::Object(&MOUNT)]));
pub const PORTS: Shape = unique(&Shape::OneOf(&[Shape::Number, Shape::Text, Shape::Object(&PORT)]));
pub const DEVICES: Shape = list(&Shape::OneOf(&[Shape::Text, Shape::Object(&DEVICE)]));
const OPEN_EXTERNAL: Shape = Shape::OneOf(&[Shape::Bool, Shape::Text, Shape::Object(&EXTERNAL_NAME)]);

#[rustfmt::skip]
const VOLUME: Object = object(&[
    text("name", "Name of the volume, used as it is, without the project's name"),
    text("driver", "What provides the volume; `local` if nothing is said"),
    field("driver_opts", OPTIONS, Form::Labels, "Options of the driver"),
    field("external", EXTERNAL, Form::Bool(Zero::Omit), "The volume exists already and is not managed here").cast(),
    labels("labels", "Labels of the volume"),
]);

#[rustfmt::skip]
const EXTERNAL_NAME: Object = open(&[
    text("name", "Deprecated: write `name` beside `external: true`"),
]);

#[rustfmt::skip]
pub const SECRET: Object = object(&[
    text("name", "Name of the secret, if it is not the key"),
    text("environment", "Variable that holds the secret"),
    text("file", "File that holds the secret"),
    field("external", OPEN_EXTERNAL, Form::Bool(Zero::Omit), "The secret exists already and is not managed here").cast(),
    labels("labels", "Labels of the secret"),
    text("driver", "What provides the secret"),
    field("driver_opts", OPTIONS, Form::Strings, "Options of the driver"),
    text("template_driver", "What fills in templates in the secret"),
]);

#[rustfmt::skip]
pub const CONFIG: Object = object(&[
    text("name", "Name of the config, if it is not the key"),
    text("content", "The text itself"),
    text("environment", "Variable that holds the text"),
    text("file", "File that holds the text"),
    field("external", OPEN_EXTERNAL, Form::Bool(Zero::Omit), "The config exists already and is not managed here").cast(),
    labels("labels", "Labels of the config"),
    text("template_driver", "What fills in templates in the text"),
]);

#[rustfmt::skip]
const GRANT: Object = object(&[
    text("source", "Which one, by its name at the top level"),
    text("target", "Path or name of the file in the container"),
    text("uid", "Owner of the file, a number as text"),
    text("gid", "Group of the file, a number as text"),
    field("mode", NUMBER_OR_TEXT, Form::Mode, "Permissions of the file, octal: `0440`"),
]);

#[rustfmt::skip]
const MOUNT: Object = object(&[
    choice("type", &["bind", "volume", "tmpfs", "cluster", "npipe", "image"], "What is mounted"),
    text("source", "Path on the host, name of the volume, or image"),
    text("target", "Path in the container"),
    switch("read_only", "Nothing can be written there").cast(),
    text("consistency", "Ignored: was for Docker Desktop"),
    section("bind", &BIND, "For a directory or file of the host"),
    section("volume", &VOLUME_MOUNT, "For a named volume"),
    section("tmpfs", &TMPFS, "For a filesystem in memory"),
    section("image", &IMAGE, "For an image"),
]).requires(&["type"]);

#[rustfmt::skip]
const BIND: Object = object(&[
    text("propagation", "How mounts below are shared: `rprivate` if nothing is said"),
    field("create_host_path", BOOL_OR_TEXT, Form::OptOut, "Whether a missing path is made as a directory; it is if nothing is said"),
    choice("recursive", &["enabled", "disabled", "writable", "readonly"], "What happens to mounts below the path"),
    choice("selinux", &["z", "Z"], "SELinux label: `z` is shared, `Z` is private"),
]);

#[rustfmt::skip]
const VOLUME_MOUNT: Object = object(&[
    labels("labels", "Labels of a volume that has no name"),
    switch("nocopy", "An empty volume does not get what the image has at this path").cast(),
    text("subpath", "Directory of the volume to mount"),
]);

#[rustfmt::skip]
const TMPFS: Object = object(&[
    field("size", Shape::OneOf(&[Shape::Integer { min: Some(0), max: None }, Shape::Text]), Form::Bytes(Zero::Omit),
        "Largest size in bytes, or with a unit"),
    field("mode", NUMBER_OR_TEXT, Form::Uint(32, Zero::Omit), "Permissions, octal: `0o1777`")
        .hint("write octal digits without quotes, for example `0o1777`"),
]);

#[rustfmt::skip]
const IMAGE: Object = object(&[
    text("subpath", "Directory of the image to mount"),
]);

#[rustfmt::skip]
const PORT: Object = object(&[
    text("name", "What people call the port"),
    text("mode", "`ingress` or `host`: no difference on one host"),
    text("host_ip", "Address of the host to listen at; all if nothing is said")
        .hint("write an address, for example `127.0.0.1`"),
    field("target", INT_OR_TEXT, Form::Uint(32, Zero::Omit), "Port in the container")
        .hint("write the number of a port, for example `80`").cast(),
    field("published", INT_OR_TEXT, Form::Text(Zero::Omit), "Port of the host, or a range like `8000-8010`; any free one if nothing is said")
        .hint("write a port or a range, for example `8000-8010`"),
    text("protocol", "`tcp` if nothing is said, or `udp`, or `sctp`"),
    text("app_protocol", "What is spoken there, like `http`; for people"),
]);

#[rustfmt::skip]
const DEVICE: Object = object(&[
    text("source", "The device on the host"),
    text("target", "Path in the container"),
    text("permissions", "What may be done with it, out of `rwm`"),
]).requires(&["source"]);

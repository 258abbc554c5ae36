//! The table: how an image is built, and what watches its sources.

use super::{mounts::GRANTS, parts::*};
use crate::shape::{Form, Object, Shape, Zero};

pub const BUILD: Shape = Shape::OneOf(&[Shape::Text, Shape::Object(&DETAILS)]);
pub const DEVELOP: Shape = Shape::OneOf(&[Shape::Object(&DEVELOPMENT), Shape::Null]);

#[rustfmt::skip]
const DETAILS: Object = object(&[
    text("context", "Directory with the sources, or the URL of a repository"),
    text("dockerfile", "The Dockerfile, relative to the context"),
    text("dockerfile_inline", "The Dockerfile itself, as text"),
    field("entitlements", TEXTS, Form::Texts, "Privileges that the build may use"),
    variables("args", "Arguments of the build (`ARG` in the Dockerfile)"),
    field("ssh", MAP_OR_TEXTS, Form::Keys, "SSH agents or keys that the build may use: `default` or `ID=PATH`"),
    labels("labels", "Labels of the built image"),
    field("cache_from", TEXTS, Form::Texts, "Where layers of earlier builds are looked for"),
    field("cache_to", TEXTS, Form::Texts, "Where the layers of this build are kept"),
    switch("no_cache", "Use no layers of earlier builds"),
    field("no_cache_filter", TEXT_OR_TEXTS, Form::Texts, "Stages that use no layers of earlier builds"),
    labels("additional_contexts", "Further named contexts, each a directory, a URL or `service:NAME`"),
    text("network", "Network of the build's `RUN` steps"),
    field("provenance", BOOL_OR_TEXT, Form::Printed, "Attest how the image was built"),
    field("sbom", BOOL_OR_TEXT, Form::Printed, "Attest what the image contains"),
    switch("pull", "Look for newer versions of the base images"),
    text("target", "Stage of the Dockerfile to build"),
    field("shm_size", INT_OR_TEXT, Form::Bytes(Zero::Omit), "Size of `/dev/shm` during the build"),
    field("extra_hosts", HOSTS, Form::Hosts, "Host names and addresses known to the build"),
    text("isolation", "Isolation technology of the build"),
    switch("privileged", "Run the build with extended privileges"),
    field("secrets", GRANTS, Form::Parts, "Secrets that the build may read"),
    field("tags", TEXTS, Form::Texts, "Further names of the built image"),
    field("ulimits", ULIMITS, Form::Ulimits, "Resource limits of the build's processes"),
    field("platforms", TEXTS, Form::Texts, "Platforms to build for, like `linux/arm64`"),
]);

#[rustfmt::skip]
const DEVELOPMENT: Object = object(&[
    field("watch", list(&Shape::Object(&TRIGGER)), Form::Parts, "Paths whose changes cause an action"),
]);

#[rustfmt::skip]
const TRIGGER: Object = object(&[
    text("path", "Path that is watched").form(Form::Text(Zero::Always)),
    choice("action", &["rebuild", "sync", "restart", "sync+restart", "sync+exec"], "What happens when something below the path changes")
        .form(Form::Text(Zero::Always)),
    text("target", "Path in the container that changes are copied to"),
    section("exec", &super::service::HOOK, "Command to run in the container after copying"),
    field("include", TEXT_OR_TEXTS, Form::Texts, "Patterns of paths to watch; all if there is none"),
    field("ignore", TEXT_OR_TEXTS, Form::Texts, "Patterns of paths not to watch"),
    field("initial_sync", Shape::Bool, Form::Bool(Zero::Omit), "Copy everything once at the start"),
])
.requires(&["path", "action"]);

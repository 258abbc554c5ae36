//! The table: every attribute of the Compose Specification, as the schema of the reference loader has it.

mod build;
mod deploy;
mod mounts;
mod network;
mod parts;
mod service;

use self::parts::*;
pub(super) use self::service::SERVICE;
use super::{Form, Keys, Object, Shape, Zero};

/// A Compose file.
#[rustfmt::skip]
pub(super) const ROOT: Object = object(&[
    text("version", "Has no meaning any more; leave it out").form(Form::Dropped),
    text("name", "Name of the project; it begins the name of everything that belongs to it"),
    field("include", list(&INCLUDE), Form::Dropped, "Other Compose files whose services and resources become part of this project"),
    field("services", names(Keys::Names, &Shape::Object(&SERVICE)), Form::Parts, "The programs that run, each by its name"),
    field("models", names(Keys::LooseNames, &Shape::Object(&MODEL)), Form::Parts, "Language models that services use"),
    field("networks", names(Keys::LooseNames, &network::NETWORK_OR_NULL), Form::Parts, "Networks that connect services"),
    field("volumes", names(Keys::Names, &mounts::VOLUME_OR_NULL), Form::Parts, "Named volumes, whose data outlives containers"),
    field("secrets", names(Keys::Names, &Shape::Object(&mounts::SECRET)), Form::Parts, "Confidential files that services may be given"),
    field("configs", names(Keys::Names, &Shape::Object(&mounts::CONFIG)), Form::Parts, "Configuration files that services may be given"),
]);

const INCLUDE: Shape = Shape::OneOf(&[Shape::Text, Shape::Object(&INCLUDED)]);

#[rustfmt::skip]
const INCLUDED: Object = closed(&[
    field("path", TEXT_OR_TEXTS, Form::Texts, "The Compose file; further ones in the list are merged onto the first"),
    field("env_file", TEXT_OR_TEXTS, Form::Texts, "Files with variables for the included files, instead of their `.env`"),
    text("project_directory", "Directory that relative paths of the included files start from"),
]);

#[rustfmt::skip]
const MODEL: Object = object(&[
    text("name", "Name of the model, if it is not the key"),
    text("model", "The model to run, as an image reference"),
    field("context_size", INT, Form::Int(Zero::Omit), "Largest number of tokens of context"),
    field("runtime_flags", TEXTS, Form::Texts, "Arguments for the inference engine"),
])
.requires(&["model"]);

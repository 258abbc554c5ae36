//! Compose files to checked, typed projects. No clock, no runtime, and no file is read but through
//! the [`source::Sources`] that the caller gives.

#[allow(dead_code)]
pub mod canonical;
mod check;
#[allow(dead_code)] // until the pipeline uses it
mod compose;
mod decode;
pub mod diagnostic;
pub mod dotenv;
pub mod fields;
pub mod fingerprint;
pub mod interpolate;
pub mod load;
mod name;
mod normalise;
#[allow(dead_code)]
mod report;
#[allow(dead_code)] // until the pipeline uses it
pub mod shape;
pub mod source;
pub mod support;
#[allow(dead_code)] // until the pipeline uses it
mod syntax;
#[allow(dead_code)] // until the pipeline uses it
mod tree;
pub mod types;
mod yaml;

pub use fingerprint::revision;
pub use name::project_name;

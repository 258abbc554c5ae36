//! Compose files to checked, typed projects. No clock, no runtime, and no file is read but through
//! the [`source::Sources`] that the caller gives.

pub mod canonical;
mod check;
mod compose;
mod decode;
pub mod diagnostic;
pub mod dotenv;
pub mod fields;
pub mod fingerprint;
pub mod interpolate;
pub mod load;
mod name;
pub mod pre_start;
mod report;
pub mod shape;
pub mod source;
pub mod support;
mod syntax;
mod tree;
pub mod types;
mod yaml;

pub use fingerprint::revision;
pub use name::project_name;

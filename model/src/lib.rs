//! Compose files to checked, typed projects. No clock, no runtime, and no file is read but through
//! the [`source::Sources`] that the caller gives.

pub mod diagnostic;
pub mod fields;
pub mod load;
pub mod source;
pub mod types;

//! The supervisor of one sandbox.

pub mod protocol;

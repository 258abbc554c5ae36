//! A host without a kernel, for tests of the loop and as the pattern the real one is held against.

pub mod sim_host;
pub mod story;

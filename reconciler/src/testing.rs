//! A host without a kernel, for tests of the plan and the loop.

pub mod conformance;
pub mod drive;
pub mod exhaustive;
pub mod generate;
pub mod invariants;
pub mod manifest;
pub mod seeds;
pub mod sim_host;
pub mod simulate;

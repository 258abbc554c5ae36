//! Names: zone files the agent writes, and the resolver every shim answers from.

pub mod answer;
pub mod message;
pub mod server;
mod stream;
mod upstream;
pub mod zone;

//! HTTP on a unix socket: what the command line asks of a running agent.

pub mod routes;
pub mod server;
mod since;
pub mod views;
pub mod wire;

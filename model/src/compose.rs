//! Many files to one model: what the Compose Specification says of merging, including and extending.

mod confine;
pub(crate) mod consistency;
mod contents;
pub(crate) mod devices;
pub(crate) mod environment;
mod extends;
pub(crate) mod files;
mod include;
pub(crate) mod loading;
pub(crate) mod merge;
pub(crate) mod normalise;
mod path;
pub(crate) mod paths;
pub(crate) mod profiles;
pub(crate) mod reset;
pub(crate) mod unique;

#[cfg(test)]
mod cases;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod text;

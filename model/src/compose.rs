//! From files to one model: what the Compose Specification says of several files, all on positioned trees.

pub(crate) mod merge;
mod path;
pub(crate) mod reset;
pub(crate) mod unique;

#[cfg(test)]
mod cases;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod text;

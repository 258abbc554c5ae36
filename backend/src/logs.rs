//! What containers print: CRI lines (`TIME STREAM TAG TEXT`) in `current.log`, `.1`, `.2`.

pub mod reader;
pub mod writer;

pub use reader::Reader;

/// The file that grows.
pub const CURRENT: &str = "current.log";

/// Files kept, the growing one included.
pub const FILES: usize = 3;

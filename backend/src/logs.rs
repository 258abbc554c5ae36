//! What containers print: CRI lines (`TIME STREAM TAG TEXT`) in `current.log`, `.1`, `.2` and so on, and those who
//! get them as well.

pub mod forward;
mod index;
pub mod reader;
pub mod writer;

pub use reader::Reader;

/// The file that grows.
pub const CURRENT: &str = "current.log";

/// Beside the files, where not all of the output is kept in them: a line that says where it goes.
pub const ELSEWHERE: &str = "elsewhere";

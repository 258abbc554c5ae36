//! Fingerprints of desired state.

use sha2::{Digest, Sha256};

use crate::{canonical, types::Project};

/// Part of every hash; raised when the canonical form changes its meaning.
const VERSION: &str = "stead project 1\n";

/// The revision of a project: 12 hexadecimal digits over everything that it asks for. Comments, key
/// order, short or long forms, the file's place and the project directory do not count (the paths that
/// were resolved against it do).
pub fn revision(project: &Project) -> String {
    let mut hash = Sha256::new();
    hash.update(VERSION);
    hash.update(canonical::project_json(project));
    hash.finalize()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

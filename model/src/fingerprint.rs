//! Fingerprints of desired state.

use sha2::{Digest, Sha256};

use crate::types::Project;

/// Part of every hash; raised when the canonical form changes its meaning.
const VERSION: &str = "stead project 1\n";

/// The revision of a project: 12 hexadecimal digits over everything that it asks for. What the typed project
/// does not hold does not count: comments, key order, short or long forms, profiles, `x-` keys, the file's
/// place and the project directory (the paths that were resolved against it do); nor does `build`, for
/// nothing is built.
pub fn revision(project: &Project) -> String {
    let mut hash = Sha256::new();
    hash.update(VERSION);
    hash.update(json(project));
    hash.finalize()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What a config or secret holds, as 16 hexadecimal digits. `whose`: so that equal ones of two projects, or two
/// names, look different.
pub fn content(whose: &str, bytes: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update("stead content 1\n");
    hash.update(format!("{} {whose}\n", whose.len()));
    hash.update(bytes);
    hash.finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Indented JSON with a final newline: the form over which revisions have always been made.
fn json(project: &Project) -> String {
    let mut value = serde_json::to_value(project).unwrap_or_default();
    if let Some(services) = value
        .get_mut("services")
        .and_then(|services| services.as_object_mut())
    {
        for service in services
            .values_mut()
            .filter_map(|service| service.as_object_mut())
        {
            service.shift_remove("build");
        }
    }
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Build, Service};

    #[test]
    fn a_revision_is_the_same_in_every_release() {
        let mut project = Project {
            name: "shop".to_owned(),
            ..Project::default()
        };
        let mut web = Service {
            image: "builtin:hello".to_owned(),
            ..Service::default()
        };
        web.networks.insert("default".to_owned(), Default::default());
        project.services.insert("web".to_owned(), web.clone());
        assert_eq!(revision(&project), "56f1b5858d64");
        web.container.build = Some(Build::default());
        project.services.insert("web".to_owned(), web);
        assert_eq!(revision(&project), "56f1b5858d64");
    }
}

//! A source that is not trusted names files of its own directory only.

use std::path::Path;

use super::{
    files::{Need, Wanted},
    loading::Loading,
};
use crate::tree::Node;

impl Loading<'_> {
    /// Checks the files that configs and secrets name; those that are read are checked when they are.
    pub fn confine(&mut self, model: &Node) {
        for section in ["configs", "secrets"] {
            for entry in model.get(section).map(Node::entries).unwrap_or_default() {
                let Some(file) = entry.value.get("file") else {
                    continue;
                };
                let path = format!("{section}.{}.file", entry.key);
                let wanted = Wanted {
                    at: file.at,
                    path: &path,
                    need: Need::Optional,
                };
                if let Some(text) = file.as_text() {
                    self.files.inside(Path::new(text), wanted, &mut self.report);
                }
            }
        }
    }
}

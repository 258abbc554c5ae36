//! Where a node is in the model: the keys from the root, for rules and for messages.

use std::fmt;

/// Longer keys are cut in messages.
const MAX_KEY: usize = 64;

/// The keys from the root of the model to a node.
#[derive(Debug, Default)]
pub(crate) struct Path(Vec<String>);

impl Path {
    pub fn new(keys: &[&str]) -> Self {
        Path(keys.iter().map(|key| (*key).to_owned()).collect())
    }

    pub fn push(&mut self, key: &str) {
        self.0.push(key.to_owned());
    }

    pub fn pop(&mut self) {
        self.0.pop();
    }

    /// The last key; empty at the root.
    pub fn last(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    /// Whether a dotted pattern names this path; `*` stands for any one key.
    pub fn matches(&self, pattern: &str) -> bool {
        let mut keys = self.0.iter();
        for part in pattern.split('.') {
            match keys.next() {
                Some(key) if part == "*" || part == key => {}
                _ => return false,
            }
        }
        keys.next().is_none()
    }

    /// The path of one item of the list that is here.
    pub fn item(&self, index: usize) -> String {
        format!("{self}[{index}]")
    }

    /// The path of one entry of the mapping that is here.
    pub fn entry(&self, key: &str) -> String {
        format!("{self}.{}", cut(key))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, key) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            f.write_str(&cut(key))?;
        }
        Ok(())
    }
}

fn cut(key: &str) -> String {
    match key.char_indices().nth(MAX_KEY) {
        Some((end, _)) => format!("{}…", key.get(..end).unwrap_or_default()),
        None => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_paths_of_its_own_length_only() {
        for (keys, pattern, want) in [
            (&["services", "a.b", "dns"][..], "services.*.dns", true),
            (&["services", "web", "dns"], "services.web.dns", true),
            (&["services", "web"], "services.*.dns", false),
            (&["services", "web", "dns", "x"], "services.*.dns", false),
            (&["networks", "web", "dns"], "services.*.dns", false),
        ] {
            assert_eq!(Path::new(keys).matches(pattern), want, "{keys:?} {pattern}");
        }
    }

    #[test]
    fn long_keys_are_cut_in_messages() {
        let long = "é".repeat(100);
        let path = Path::new(&["services", &long]);
        assert_eq!(path.item(2), format!("services.{}…[2]", "é".repeat(64)));
    }
}

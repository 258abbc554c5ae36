//! Names: of projects, services, networks and volumes, and of hosts.

/// A project name as Compose derives it: lower case, only `[a-z0-9_-]`, no leading `_` or `-`.
/// Empty when nothing is left.
pub fn project_name(text: &str) -> String {
    text.to_lowercase()
        .chars()
        .filter(|c| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-'))
        .skip_while(|c| matches!(c, '_' | '-'))
        .collect()
}

/// A key of `services`, `networks` or `volumes`: `[a-zA-Z0-9._-]+` (Compose Specification), short enough
/// to be part of a file name, and not dots alone.
pub(crate) fn is_resource_key(text: &str) -> bool {
    text.len() <= 128
        && text
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
        && text.bytes().any(|c| c.is_ascii_alphanumeric())
}

/// A full name of a network or volume, which becomes part of a path: starts alphanumeric.
pub(crate) fn is_object_name(text: &str) -> bool {
    is_resource_key(text) && text.as_bytes()[0].is_ascii_alphanumeric()
}

/// RFC 1123 labels, within the 64 bytes of Linux (`HOST_NAME_MAX`, gethostname(2)).
pub(crate) fn is_hostname(text: &str) -> bool {
    text.len() <= 64
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_names_are_normalised_as_compose_does() {
        for (text, want) in [
            ("shop", "shop"),
            ("My_App", "my_app"),
            ("my.app", "myapp"),
            ("__-x-", "x-"),
            ("Grüße 1", "gre1"),
            ("…", ""),
        ] {
            assert_eq!(project_name(text), want, "{text}");
        }
    }

    #[test]
    fn hostnames_follow_rfc_1123_and_the_kernel() {
        let long = "a".repeat(63);
        for (text, want) in [
            ("web", true),
            ("web-1.example.org", true),
            (long.as_str(), true),
            ("", false),
            ("-web", false),
            ("web-", false),
            ("we_b", false),
            ("a..b", false),
            ("a b", false),
        ] {
            assert_eq!(is_hostname(text), want, "{text}");
        }
        assert!(!is_hostname(&format!("{long}.a")), "more than 64 bytes");
    }
}

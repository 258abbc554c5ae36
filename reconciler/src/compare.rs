//! What a differing field of a service does to what runs: the one table, and the verdict over it.

use std::cmp::Ordering;

use model::fields::Fields;

use crate::plan::step::Class;

use Class::{Live, Recreate, Restart};

/// Attribute of a service to disruption class. What is not listed restarts the container. `None`: says
/// something about order, not about the container.
const CLASSES: &[(&str, Option<Class>)] = &[
    ("annotations", Some(Live)),
    ("blkio_config", Some(Live)),
    ("cap_add", Some(Restart)),
    ("cap_drop", Some(Restart)),
    ("cgroup", Some(Recreate)),
    ("cgroup_parent", Some(Recreate)),
    ("command", Some(Restart)),
    ("configs", Some(Restart)),
    ("container_name", Some(Live)),
    ("cpu_period", Some(Live)),
    ("cpu_quota", Some(Live)),
    ("cpu_shares", Some(Live)),
    ("cpus", Some(Live)),
    ("cpuset", Some(Live)),
    ("depends_on", None),
    ("device_cgroup_rules", Some(Restart)),
    ("devices", Some(Restart)),
    ("dns", Some(Restart)),
    ("dns_opt", Some(Restart)),
    ("dns_search", Some(Restart)),
    ("domainname", Some(Restart)),
    ("entrypoint", Some(Restart)),
    ("environment", Some(Restart)),
    ("extra_hosts", Some(Restart)),
    ("gpus", Some(Restart)),
    ("group_add", Some(Restart)),
    ("healthcheck", Some(Live)),
    ("hostname", Some(Restart)),
    ("image", Some(Restart)),
    ("init", Some(Restart)),
    ("ipc", Some(Recreate)),
    ("labels", Some(Live)),
    ("links", Some(Live)),
    ("logging", Some(Live)),
    ("mac_address", Some(Live)),
    ("mem_limit", Some(Live)),
    ("mem_reservation", Some(Live)),
    ("memswap_limit", Some(Live)),
    ("network_mode", Some(Recreate)),
    ("networks", Some(Live)),
    ("oom_score_adj", Some(Restart)),
    ("pid", Some(Recreate)),
    ("pids_limit", Some(Live)),
    ("platform", Some(Restart)),
    ("ports", Some(Live)),
    ("post_start", Some(Restart)),
    ("pre_start", Some(Restart)),
    ("pre_stop", Some(Live)),
    // Whether there is a user namespace.
    ("privileged", Some(Recreate)),
    ("read_only", Some(Restart)),
    ("restart", Some(Live)),
    ("secrets", Some(Restart)),
    ("security_opt", Some(Restart)),
    ("shm_size", Some(Restart)),
    ("stdin_open", Some(Restart)),
    ("stop_grace_period", Some(Live)),
    ("stop_signal", Some(Live)),
    ("storage_opt", Some(Restart)),
    // One that is taken out again must get its default back.
    ("sysctls", Some(Recreate)),
    ("tty", Some(Restart)),
    ("ulimits", Some(Restart)),
    ("user", Some(Restart)),
    ("userns_mode", Some(Recreate)),
    ("uts", Some(Recreate)),
    ("volumes", Some(Restart)),
    ("volumes_from", Some(Restart)),
    ("working_dir", Some(Restart)),
    ("x-on-unhealthy", Some(Live)),
];

/// The strongest difference, and the first field that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub class: Class,
    pub field: String,
    pub old: Option<String>,
    pub new: Option<String>,
}

/// The class of one field path below a service.
pub fn class(field: &str) -> Option<Class> {
    let head = field.split('.').next().unwrap_or(field);
    if planted!("pre-stop-restarts") && head == "pre_stop" {
        return Some(Restart);
    }
    let known = CLASSES.binary_search_by_key(&head, |(name, _)| name);
    match known.ok().and_then(|index| CLASSES.get(index)) {
        Some((_, None)) if field.ends_with(".revision") => Some(Restart),
        Some((_, None)) if field.ends_with(".restart") => Some(Live),
        Some((_, class)) => *class,
        None => Some(Restart),
    }
}

/// `None`: the same. `ignore`: fields whose wanted value is not known yet.
pub fn compare(have: &Fields, want: &Fields, ignore: &[&str]) -> Option<Difference> {
    let mut found: Option<Difference> = None;
    let (mut olds, mut news) = (have.iter().peekable(), want.iter().peekable());
    // Both are in order: field after field, of either or of both.
    loop {
        let order = match (olds.peek(), news.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((old, _)), Some((new, _))) => old.cmp(new),
        };
        let old = if order.is_le() { olds.next() } else { None };
        let new = if order.is_ge() { news.next() } else { None };
        let Some((field, _)) = old.or(new) else { break };
        let (old, new) = (old.map(|(_, value)| value), new.map(|(_, value)| value));
        if planted!("removed-field-unnoticed") && new.is_none() {
            continue;
        }
        if old == new || ignore.contains(&field.as_str()) {
            continue;
        }
        let Some(mut class) = class(field) else { continue };
        // A dependency that is followed from now on, or no longer, is no reason to restart.
        if field.starts_with("depends_on.") && (old.is_none() || new.is_none()) {
            class = Live;
        }
        if found.as_ref().is_none_or(|found| class > found.class) {
            found = Some(Difference {
                class,
                field: field.clone(),
                old: old.cloned(),
                new: new.cloned(),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        pairs
            .iter()
            .map(|(field, value)| ((*field).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn each_field_has_its_class() {
        let cases = [
            ("ports", Some(Live)),
            ("labels.a.b", Some(Live)),
            ("annotations.a", Some(Live)),
            ("logging.driver", Some(Live)),
            ("restart", Some(Live)),
            ("healthcheck.test", Some(Live)),
            ("stop_signal", Some(Live)),
            ("stop_grace_period", Some(Live)),
            ("networks.front.aliases", Some(Live)),
            ("mem_limit", Some(Live)),
            ("cpus", Some(Live)),
            ("pids_limit", Some(Live)),
            ("cpuset", Some(Live)),
            ("blkio_config.weight", Some(Live)),
            ("x-on-unhealthy", Some(Live)),
            ("depends_on.db.condition", None),
            ("depends_on.db.required", None),
            ("depends_on.db.restart", Some(Live)),
            ("depends_on.db.revision", Some(Restart)),
            ("environment.A", Some(Restart)),
            ("image", Some(Restart)),
            ("image.digest", Some(Restart)),
            ("volumes", Some(Restart)),
            ("hostname", Some(Restart)),
            ("something_new", Some(Restart)),
            ("network_mode", Some(Recreate)),
            ("userns_mode", Some(Recreate)),
            ("pid", Some(Recreate)),
            ("ipc", Some(Recreate)),
            ("sysctls.net.core.somaxconn", Some(Recreate)),
        ];
        for (field, expected) in cases {
            assert_eq!(class(field), expected, "{field}");
        }
    }

    #[test]
    fn the_table_is_sorted_and_speaks_of_every_attribute_that_reaches_a_container() {
        assert!(CLASSES.is_sorted_by(|(a, _), (b, _)| a < b));
        // Read when the file is loaded, or about something else than a container.
        const ELSEWHERE: [&str; 14] = [
            "build",
            "deploy",
            "env_file",
            "expose",
            "extends",
            "label_file",
            "profiles",
            "pull_policy",
            "pull_refresh_after",
            "scale",
            "tmpfs",
            "attach",
            "develop",
            "models",
        ];
        for (name, attribute) in model::support::below("services.*") {
            let rejected = attribute.support == model::support::Support::Rejected;
            let listed = CLASSES.iter().any(|(known, _)| *known == name);
            assert!(
                listed || rejected || ELSEWHERE.contains(&name),
                "{name} has no class"
            );
        }
    }

    #[test]
    fn a_dependency_is_followed_only_from_one_known_revision_to_another() {
        let followed = |revision: Option<&str>| {
            let mut all = fields(&[("depends_on.db.restart", "true")]);
            let revision = revision.map(|it| ("depends_on.db.revision".to_owned(), it.to_owned()));
            all.extend(revision);
            all
        };
        let class = |have: &Fields, want: &Fields| compare(have, want, &[]).map(|it| it.class);
        let (one, two, none) = (followed(Some("1")), followed(Some("2")), followed(None));
        assert_eq!(class(&one, &two), Some(Restart));
        assert_eq!(class(&one, &one), None);
        assert_eq!(class(&none, &one), Some(Live), "a record from before");
        assert_eq!(
            class(&fields(&[]), &one),
            Some(Live),
            "it is to be followed from now on"
        );
        assert_eq!(class(&one, &fields(&[])), Some(Live), "and no longer");
    }

    #[test]
    fn the_first_field_of_the_strongest_class_is_the_cause() {
        let have = fields(&[("environment.A", "1"), ("environment.B", "1"), ("labels.x", "1")]);
        let want = fields(&[("environment.B", "2"), ("environment.A", "2"), ("labels.x", "2")]);
        let difference = compare(&have, &want, &[]).unwrap();
        assert_eq!(difference.class, Class::Restart);
        assert_eq!(difference.field, "environment.A");
        assert_eq!(
            (difference.old.as_deref(), difference.new.as_deref()),
            (Some("1"), Some("2"))
        );
    }

    #[test]
    fn added_and_removed_fields_differ_too() {
        let (none, one) = (fields(&[]), fields(&[("environment.A", "1")]));
        assert_eq!(compare(&none, &one, &[]).unwrap().old, None);
        assert_eq!(compare(&one, &none, &[]).unwrap().new, None);
        assert_eq!(compare(&one, &one, &[]), None);
    }

    #[test]
    fn the_order_of_starts_and_unknown_values_are_no_difference() {
        let have = fields(&[
            ("depends_on.db.condition", "service_started"),
            ("image.digest", "sha256:1"),
        ]);
        let want = fields(&[("image.digest", "sha256:2")]);
        assert_eq!(compare(&have, &want, &["image.digest"]), None);
    }
}

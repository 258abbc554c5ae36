//! What a differing field of a service does to what runs: the one table, and the verdict over it.

use model::fields::Fields;

use crate::plan::step::Class;

/// Field path (or the part before its first dot) to disruption class. What is not listed restarts the
/// container: whatever the process sees. `None`: says something about order, not about the container.
const CLASSES: &[(&str, Option<Class>)] = &[
    ("depends_on", None),
    ("ports", Some(Class::Live)),
    ("labels", Some(Class::Live)),
    ("annotations", Some(Class::Live)),
    ("logging", Some(Class::Live)),
    ("restart", Some(Class::Live)),
    ("healthcheck", Some(Class::Live)),
    ("stop_signal", Some(Class::Live)),
    ("stop_grace_period", Some(Class::Live)),
    ("networks", Some(Class::Live)),
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
    CLASSES
        .iter()
        .find(|(name, _)| *name == head)
        .map_or(Some(Class::Restart), |(_, class)| *class)
}

/// `None`: the same. `ignore`: fields whose wanted value is not known yet.
pub fn compare(have: &Fields, want: &Fields, ignore: &[&str]) -> Option<Difference> {
    let mut found: Option<Difference> = None;
    let added = want.keys().filter(|field| !have.contains_key(*field));
    let mut fields: Vec<&String> = have.keys().chain(added).collect();
    fields.sort();
    for field in fields {
        let (old, new) = (have.get(field), want.get(field));
        if old == new || ignore.contains(&field.as_str()) {
            continue;
        }
        let Some(class) = class(field) else { continue };
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
            ("ports", Some(Class::Live)),
            ("labels.a.b", Some(Class::Live)),
            ("annotations.a", Some(Class::Live)),
            ("logging.driver", Some(Class::Live)),
            ("restart", Some(Class::Live)),
            ("healthcheck.test", Some(Class::Live)),
            ("stop_signal", Some(Class::Live)),
            ("stop_grace_period", Some(Class::Live)),
            ("networks.front.aliases", Some(Class::Live)),
            ("depends_on.db.condition", None),
            ("environment.A", Some(Class::Restart)),
            ("image", Some(Class::Restart)),
            ("image.digest", Some(Class::Restart)),
            ("volumes", Some(Class::Restart)),
            ("hostname", Some(Class::Restart)),
            ("something_new", Some(Class::Restart)),
        ];
        for (field, expected) in cases {
            assert_eq!(class(field), expected, "{field}");
        }
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

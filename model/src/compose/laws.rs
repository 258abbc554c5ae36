//! What holds for the merge of any trees.

use proptest::prelude::*;

use super::{
    merge::{extend_service, merge},
    reset,
    text::plain,
    unique::unique,
};
use crate::{
    report::Report,
    tree::{At, Entry, Node, Tag, Value},
};

/// Keys for which there are rules, so that random trees meet them.
const KEYS: &[&str] = &[
    "services",
    "networks",
    "volumes",
    "web",
    "*",
    "environment",
    "labels",
    "build",
    "args",
    "ports",
    "target",
    "published",
    "depends_on",
    "extra_hosts",
    "logging",
    "driver",
    "ipam",
    "config",
    "subnet",
    "ulimits",
    "command",
    "dns",
    "env_file",
    "path",
    "secrets",
    "source",
    "expose",
    "devices",
    "aliases",
    "",
];

fn node() -> impl Strategy<Value = Node> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i32>().prop_map(|number| Value::Int(number.into())),
        any::<f64>().prop_map(Value::Float),
        "[a-c$:={}/é]{0,6}".prop_map(Value::Text),
    ];
    let tag = prop_oneof![
        8 => Just(Tag::None),
        1 => Just(Tag::Reset),
        1 => Just(Tag::Override),
    ];
    let at = (0u32..9).prop_map(|line| At {
        line,
        ..At::default()
    });
    let meta = (at, tag);
    let leaf = (scalar, meta.clone()).prop_map(|(value, (at, tag))| Node { value, at, tag });
    leaf.prop_recursive(6, 64, 8, move |inner| {
        let list = prop::collection::vec(inner.clone(), 0..6).prop_map(Value::List);
        let map = prop::collection::btree_map(prop::sample::select(KEYS), inner, 0..8).prop_map(|entries| {
            let entries = entries.into_iter().map(|(key, value)| Entry {
                key: key.to_owned(),
                at: value.at,
                value,
            });
            Value::Map(entries.collect())
        });
        (prop_oneof![1 => list, 3 => map], meta.clone()).prop_map(|(value, (at, tag))| Node {
            value,
            at,
            tag,
        })
    })
}

fn empty() -> Node {
    Node::new(Value::Map(Vec::new()), At::default())
}

fn mapping() -> impl Strategy<Value = Node> {
    node().prop_map(|node| match node.value {
        Value::Map(_) => node,
        _ => empty(),
    })
}

/// Lists that `unique` looks after.
const LISTS: &[&str] = &[
    "annotations",
    "cap_add",
    "cap_drop",
    "configs",
    "devices",
    "dns",
    "env_file",
    "environment",
    "expose",
    "labels",
    "ports",
    "profiles",
    "secrets",
    "sysctls",
    "tmpfs",
    "volumes",
];

/// A service with such lists, of text that each of them takes.
fn lists() -> impl Strategy<Value = Node> {
    let item = "/[a-d]{1,3}(=[a-b])?".prop_map(|text| Node::text(text, At::default()));
    let list =
        prop::collection::vec(item, 0..8).prop_map(|items| Node::new(Value::List(items), At::default()));
    prop::collection::btree_map(prop::sample::select(LISTS), list, 0..8).prop_map(|lists| {
        let mut web = empty();
        for (key, list) in lists {
            web.set(key, list);
        }
        let mut services = empty();
        services.set("web", web);
        let mut file = empty();
        file.set("services", services);
        file
    })
}

proptest! {
    #[test]
    fn an_empty_file_changes_nothing(mut file in mapping()) {
        file.tag = Tag::None;
        reset::take(&mut file);
        let mut report = Report::default();
        prop_assert_eq!(&merge(file.clone(), empty(), &mut report).value, &file.value);
        prop_assert_eq!(&merge(empty(), file.clone(), &mut report).value, &file.value);
        prop_assert!(report.finish().0.is_empty());
    }

    #[test]
    fn a_file_merged_with_itself_is_itself_once_its_lists_are_unique(mut file in lists()) {
        let mut report = Report::default();
        let mut twice = merge(file.clone(), file.clone(), &mut report);
        unique(&mut file, &mut report);
        unique(&mut twice, &mut report);
        prop_assert_eq!(plain(&twice), plain(&file));
        prop_assert!(report.finish().0.is_empty());
    }

    #[test]
    fn unique_lists_stay_as_they_are(mut file in mapping()) {
        unique(&mut file, &mut Report::default());
        let once = file.clone();
        unique(&mut file, &mut Report::default());
        prop_assert_eq!(plain(&file), plain(&once));
    }

    #[test]
    fn any_two_trees_merge_without_a_panic(mut base in node(), mut over in node()) {
        let mut report = Report::default();
        let paths = reset::take(&mut over);
        paths.apply(&mut base);
        paths.apply_to("services", "web", &mut base);
        extend_service(base.clone(), over.clone(), "web", &mut report);
        let mut model = merge(base, over, &mut report);
        unique(&mut model, &mut report);
        prop_assert!(report.finish().0.iter().all(|finding| finding.hint.is_some()));
    }
}

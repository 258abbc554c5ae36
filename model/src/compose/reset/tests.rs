//! What `!reset` and `!override` take out, and what they leave.

use super::*;

fn apply(model: &mut Node, over: &mut Node) -> Paths {
    let paths = take(over);
    paths.apply(model);
    paths
}
use crate::compose::text::{at, plain, tree};

/// A tree, and tags for some of its paths.
fn tagged(text: &str, tags: &[(&str, Tag)]) -> Node {
    let mut node = tree(text);
    for (path, tag) in tags {
        at(&mut node, path).tag = *tag;
    }
    node
}

#[test]
fn tagged_paths_leave_the_model() {
    const WEB: &str = "services: {web: {image: a, ports: [80], environment: {A: 1, B: 2}}, db: {image: b}}";
    for (over, tags, want_model, want_over) in [
        (
            "services: {web: {ports: , image: c}}",
            &[("services.web.ports", Tag::Reset)][..],
            "services: {web: {image: a, environment: {A: 1, B: 2}}, db: {image: b}}",
            "services: {web: {image: c}}",
        ),
        (
            "services: {web: {ports: [81], environment: {A: 3}}}",
            &[
                ("services.web.ports", Tag::Override),
                ("services.web.environment.A", Tag::Reset),
            ],
            "services: {web: {image: a, environment: {B: 2}}, db: {image: b}}",
            "services: {web: {ports: [81], environment: {}}}",
        ),
        (
            "services: {web: {}, db: {image: c}}",
            &[("services.web", Tag::Reset), ("services.db", Tag::Override)],
            "services: {}",
            "services: {db: {image: c}}",
        ),
        // Below an override, tags mean nothing.
        (
            "services: {web: {image: c, ports: [1]}}",
            &[
                ("services.web", Tag::Override),
                ("services.web.ports", Tag::Reset),
            ],
            "services: {db: {image: b}}",
            "services: {web: {image: c, ports: [1]}}",
        ),
        // What the model has not, or has otherwise.
        (
            "services: {web: {image: {x: 1}, tty: true, ports: {'0': 1}}, other: {image: c}}",
            &[
                ("services.web.image.x", Tag::Reset),
                ("services.web.tty", Tag::Reset),
                ("services.web.ports.0", Tag::Reset),
                ("services.other", Tag::Reset),
            ],
            WEB,
            "services: {web: {image: {}, ports: {}}}",
        ),
        (
            "services: {'*': }",
            &[("services.*", Tag::Reset)],
            "services: {}",
            "services: {}",
        ),
        (
            "services: {web: {image: a}}",
            &[],
            WEB,
            "services: {web: {image: a}}",
        ),
    ] {
        let mut model = tree(WEB);
        let mut over = tagged(over, tags);
        apply(&mut model, &mut over);
        assert_eq!(plain(&model), plain(&tree(want_model)), "{tags:?}");
        assert_eq!(plain(&over), plain(&tree(want_over)), "{tags:?}");
    }
}

#[test]
fn a_reset_key_stays_where_the_earlier_file_wrote_a_list() {
    let mut model = tree("services: {web: {environment: [A=1]}}");
    let mut over = tagged(
        "services: {web: {environment: {A: }}}",
        &[("services.web.environment.A", Tag::Reset)],
    );
    apply(&mut model, &mut over);
    assert_eq!(
        plain(&model),
        plain(&tree("services: {web: {environment: [A=1]}}"))
    );
    assert_eq!(plain(&over), plain(&tree("services: {web: {environment: {}}}")));
}

#[test]
fn a_reset_item_leaves_its_own_list_only() {
    let mut model = tree("services: {web: {ports: [1, 2]}}");
    let mut over = tree("services: {web: {ports: [3, 4]}}");
    if let Value::List(items) = &mut at(&mut over, "services.web.ports").value {
        items[0].tag = Tag::Reset;
    }
    assert_eq!(apply(&mut model, &mut over), Paths::default());
    assert_eq!(plain(&model), plain(&tree("services: {web: {ports: [1, 2]}}")));
    assert_eq!(plain(&over), plain(&tree("services: {web: {ports: [4]}}")));
}

#[test]
fn a_document_that_is_reset_whole_is_empty() {
    let mut over = tree("services: {web: {}}");
    over.tag = Tag::Reset;
    let mut model = tree("name: x");
    apply(&mut model, &mut over);
    assert!(over.is_null());
    assert_eq!(plain(&model), plain(&tree("name: x")));
}

#[test]
fn tags_are_gone_afterwards() {
    let mut over = tagged(
        "services: {web: {ports: {x: 1}}}",
        &[
            ("services.web.ports", Tag::Override),
            ("services.web.ports.x", Tag::Override),
        ],
    );
    take(&mut over);
    assert_eq!(over, tree("services: {web: {ports: {x: 1}}}"));
}

#[test]
fn an_extended_service_loses_what_its_extender_resets() {
    for (tags, want) in [
        (&[("services.web.ports", Tag::Reset)][..], "{image: a}"),
        (&[("services.web.ports", Tag::Override)], "{image: a}"),
        // The service's own path: the extended one is merged all the same.
        (&[("services.web", Tag::Override)], "{image: a, ports: [80]}"),
        (&[("services", Tag::Override)], "{image: a, ports: [80]}"),
        (&[("services.other.ports", Tag::Reset)], "{image: a, ports: [80]}"),
    ] {
        let paths = take(&mut tagged(
            "services: {web: {ports: [1]}, other: {ports: }}",
            tags,
        ));
        let mut base = tree("{image: a, ports: [80]}");
        paths.apply_to("services", "web", &mut base);
        assert_eq!(plain(&base), plain(&tree(want)), "{tags:?}");
    }
}

#[test]
fn many_paths_take_little_time() {
    let entries = |tag: Tag| {
        let entries = (0..100_000).map(|n| Entry {
            key: format!("key{n}"),
            at: Default::default(),
            value: Node {
                tag,
                ..Node::text("x", Default::default())
            },
        });
        Node::new(Value::Map(entries.collect()), Default::default())
    };
    let mut model = entries(Tag::None);
    apply(&mut model, &mut entries(Tag::Reset));
    assert_eq!(model.entries().len(), 0);
}

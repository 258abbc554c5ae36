//! The table of keys in docs/manifests.md is the one the loader goes by.
//!
//! `UPDATE=1 cargo test -p stead-model --test documentation` writes it anew.

use std::{fs, path::Path};

use model::support::{ATTRIBUTES, Support};

const BEGIN: &str = "## Keys\n";

/// One line a key; the many that are an error for now only by name, for their hint is in the message.
fn table() -> String {
    let mut text = String::from("\nSupported:\n\n");
    let of = |support: Support| {
        ATTRIBUTES
            .iter()
            .filter(move |attribute| attribute.support == support)
    };
    let list = |support: Support| {
        let names = of(support).map(|attribute| format!("`{}`", attribute.path.replace(".*", ".NAME")));
        names.collect::<Vec<_>>().join(", ")
    };
    text.push_str(&list(Support::Supported));
    text.push_str("\n\nAccepted without an effect, with a warning:\n\n");
    text.push_str(&list(Support::Ignored));
    text.push_str("\n\nAccepted without an effect, as they mean nothing on one host:\n\n");
    text.push_str(&list(Support::Silent));
    text.push_str("\n\nNot yet; an error that says what to do instead:\n\n| key | instead |\n|---|---|\n");
    for attribute in of(Support::NotYet) {
        let path = attribute.path.replace(".*", ".NAME");
        text.push_str(&format!(
            "| `{path}` | {} |\n",
            attribute.hint.replace('|', "\\|")
        ));
    }
    text.push_str("\nKeys that begin with `x-` are left alone everywhere.\n");
    text
}

#[test]
fn the_table_of_keys_is_the_one_the_loader_goes_by() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/manifests.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, now) = page.split_once(BEGIN).expect("the page has a section Keys");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{}", table())).unwrap();
        return;
    }
    assert!(
        now == table(),
        "docs/manifests.md is old: UPDATE=1 cargo test -p stead-model --test documentation"
    );
}

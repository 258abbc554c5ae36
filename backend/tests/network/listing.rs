//! What `nft list` shows is what the text form of the ruleset says.

use backend::firewall::ruleset;

use crate::{
    rig::{on_a_host, sh},
    shop,
};

#[test]
fn nft_lists_the_same_rules_in_the_same_order() {
    on_a_host(|| {
        let root = shop("a0000e");
        let notes = |text: &str| -> Vec<String> {
            text.lines()
                .filter_map(|line| Some(line.split_once("comment \"")?.1.trim_end_matches('"').to_owned()))
                .collect()
        };
        let skeleton = ruleset::skeleton(root.mark, true);
        let listed: String = ["inet", "bridge"]
            .iter()
            // Without the elements: their comments name networks.
            .map(|family| sh(&format!("nft -t list table {family} stead-{}", root.mark)))
            .collect();
        let without_table = |notes: Vec<String>| -> Vec<String> {
            notes
                .into_iter()
                .filter(|note| !note.starts_with("stead "))
                .collect()
        };
        assert_eq!(
            without_table(notes(&listed)),
            notes(&ruleset::text(&skeleton, "")),
            "{listed}"
        );
    });
}

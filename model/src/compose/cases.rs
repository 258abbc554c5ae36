//! The reference loader's own cases of merged files, where they are at hand: `shared/compose-cases` in a
//! directory above this crate.

use std::{fs, path::Path};

use serde_json::Value as Json;

use super::{
    merge::merge,
    text::{plain, tree},
    unique::unique,
};
use crate::report::Report;

/// Switched off in the reference loader's own tests: it joins these lists, and none of them is unique.
const OFF: &str = "override-merge-models-Test-mergeYamlModelsRuntimeFlagsMerge-6";

/// The rows of the kinds `merge` and `unicity`: files in order, and the tree that they make.
fn rows() -> Option<Vec<Json>> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|above| above.join("shared/compose-cases/cases.jsonl"))
        .find(|place| place.is_file())?;
    let text = fs::read_to_string(place).expect("the cases are readable");
    let rows = text
        .lines()
        .map(|line| serde_json::from_str::<Json>(line).expect("a row is JSON"))
        .filter(|row| matches!(row["kind"].as_str(), Some("merge" | "unicity")))
        .filter(|row| row["id"] != OFF);
    Some(rows.collect())
}

fn check(row: &Json) -> Result<(), String> {
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let mut report = Report::default();
    let inputs = row["inputs"].as_array().expect("a row has inputs");
    let mut trees = inputs.iter().map(|input| tree(&text(input)));
    let first = trees.next().expect("a row has an input");
    let mut model = trees.fold(first, |base, over| merge(base, over, &mut report));
    unique(&mut model, &mut report);

    let failed = row["expect"] != "ok";
    if failed != report.failed() {
        return Err(format!("expected {}, found {report:#?}", row["expect"]));
    }
    let (found, want) = (plain(&model), plain(&tree(&text(&row["want"]))));
    if !failed && found != want {
        return Err(format!("found {found:#}\nexpected {want:#}"));
    }
    Ok(())
}

#[test]
fn files_merge_as_the_reference_loader_merges_them() {
    let Some(rows) = rows() else {
        println!("not run: no shared/compose-cases above this crate");
        return;
    };
    assert!(rows.len() >= 50, "only {} rows", rows.len());
    let faults: Vec<String> = rows
        .iter()
        .filter_map(|row| check(row).err().map(|fault| format!("{}: {fault}", row["id"])))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

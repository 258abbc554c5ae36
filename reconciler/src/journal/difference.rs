//! What differs between two versions of a project, field by field, each with its place in the file.

use std::collections::BTreeMap;

use model::{
    fields::{self, Fields},
    types::Project,
};
use serde::Serialize;

use crate::plan::step::Cause;

/// So many are told; a project that is wholly another one is no news field by field.
const TOLD: usize = 40;

/// Fields that are set otherwise in `new`. What is new or gone as a whole is one difference.
pub fn differences(old: Option<&Project>, new: &Project) -> Vec<Cause> {
    let none = Project::default();
    let old = old.unwrap_or(&none);
    let mut found = Vec::new();
    let services = |project: &Project| {
        let each = project.services.iter();
        let each = each.map(|(name, service)| {
            let mut fields = fields::fields(service);
            // Left out where containers are compared; here it is what somebody typed.
            if let Some(scale) = service.container.scale {
                fields.insert("scale".into(), scale.to_string());
            }
            (name.clone(), fields)
        });
        each.collect()
    };
    section("services", services(old), services(new), (old, new), &mut found);
    let parts = (old, new);
    section(
        "networks",
        flat(&old.networks),
        flat(&new.networks),
        parts,
        &mut found,
    );
    section(
        "volumes",
        flat(&old.volumes),
        flat(&new.volumes),
        parts,
        &mut found,
    );
    section(
        "configs",
        flat(&old.configs),
        flat(&new.configs),
        parts,
        &mut found,
    );
    section(
        "secrets",
        flat(&old.secrets),
        flat(&new.secrets),
        parts,
        &mut found,
    );
    found.truncate(TOLD);
    found
}

/// Mappings of a part that has no fields of its own, one level deep.
fn flat<T: Serialize>(parts: &BTreeMap<String, T>) -> BTreeMap<String, Fields> {
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    parts
        .iter()
        .map(|(name, part)| {
            let value = serde_json::to_value(part).unwrap_or_default();
            let fields = value.as_object().into_iter().flatten();
            let fields = fields.map(|(field, value)| (field.clone(), text(value)));
            (name.clone(), fields.collect())
        })
        .collect()
}

fn section(
    name: &str,
    old: BTreeMap<String, Fields>,
    new: BTreeMap<String, Fields>,
    projects: (&Project, &Project),
    found: &mut Vec<Cause>,
) {
    let mut note = |field: String, values: (Option<String>, Option<String>)| {
        // What is gone stood in the old file, and has no line in the new one.
        let span = match &values.1 {
            None if !projects.1.origins.contains_key(&field) => projects.0.origin(&field),
            _ => projects.1.origin(&field),
        };
        found.push(Cause {
            span: span.cloned(),
            field,
            old: values.0,
            new: values.1,
        });
    };
    let gone = old.keys().filter(|part| !new.contains_key(*part));
    for part in gone {
        note(format!("{name}.{part}"), (Some("there".into()), None));
    }
    for (part, fields) in &new {
        let Some(before) = old.get(part) else {
            note(format!("{name}.{part}"), (None, None));
            continue;
        };
        let removed = before.keys().filter(|field| !fields.contains_key(*field));
        for field in fields.keys().chain(removed) {
            let values = (before.get(field).cloned(), fields.get(field).cloned());
            if values.0 != values.1 {
                note(format!("{name}.{part}.{field}"), values);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(text: &str) -> Project {
        serde_json::from_str(text).expect("a project")
    }

    #[test]
    fn each_field_that_differs_is_told_and_what_is_new_or_gone_as_a_whole() {
        let old = project(
            r#"{"name":"shop","services":{
              "web":{"image":"a:1","networks":{"default":{}},"environment":{"A":"1","B":"2"}},
              "old":{"image":"a:1","networks":{}}}}"#,
        );
        let new = project(
            r#"{"name":"shop","services":{
              "web":{"image":"a:2","networks":{"default":{}},"environment":{"B":"2","C":"3"},"scale":3},
              "new":{"image":"a:1","networks":{}}},
              "volumes":{"data":{"name":"shop_data"}}}"#,
        );
        let told: Vec<String> = differences(Some(&old), &new)
            .into_iter()
            .map(|cause| format!("{} {:?} {:?}", cause.field, cause.old, cause.new))
            .collect();
        assert_eq!(
            told,
            [
                r#"services.old Some("there") None"#,
                "services.new None None",
                r#"services.web.environment.C None Some("3")"#,
                r#"services.web.image Some("a:1") Some("a:2")"#,
                r#"services.web.scale None Some("3")"#,
                r#"services.web.environment.A Some("1") None"#,
                "volumes.data None None",
            ]
        );
        assert_eq!(differences(Some(&new), &new), Vec::new());
        assert_eq!(differences(None, &new).len(), 3);
    }
}

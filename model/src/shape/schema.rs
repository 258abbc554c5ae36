//! The table as a JSON Schema, for editors.

use serde_json::{Map, Value, json};

use super::{Keys, Object, Shape, table::ROOT};

/// A JSON Schema (draft 2020-12) of the Compose files that stead loads, `x-` extensions included. Where
/// only certain words are allowed, text with a `$` is, too: it is a variable that editors cannot know.
pub fn json_schema() -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:stead:compose",
        "title": "Compose file for stead",
        "description": "What runs on this host, as a Compose file.",
    });
    if let Value::Object(schema) = &mut schema {
        schema.extend(object(&ROOT));
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            let source = json!({
                "type": "string",
                "description": "Path of the Compose file that this file stands for; no other key is beside it",
            });
            properties.insert("x-stead-source".to_owned(), source);
        }
        let service = schema.get_mut("properties").and_then(|properties| {
            let (_, service) = properties
                .get_mut("services")?
                .get_mut("patternProperties")?
                .as_object_mut()?
                .iter_mut()
                .next()?;
            service.get_mut("properties")?.as_object_mut()
        });
        if let Some(service) = service {
            let unhealthy = json!({
                "anyOf": [{ "enum": ["restart"] }, { "type": "string", "pattern": "\\$" }],
                "description": "What is done about a container that is unhealthy; nothing if nothing is said",
            });
            service.insert("x-on-unhealthy".to_owned(), unhealthy);
        }
    }
    schema
}

fn of(shape: &Shape) -> Value {
    match shape {
        Shape::Any => json!({}),
        Shape::Null => json!({ "type": "null" }),
        Shape::Text => json!({ "type": "string" }),
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::Number => json!({ "type": "number" }),
        Shape::Integer { min, max } => {
            let mut schema = Map::new();
            schema.insert("type".to_owned(), json!("integer"));
            schema.extend(min.map(|min| ("minimum".to_owned(), json!(min))));
            schema.extend(max.map(|max| ("maximum".to_owned(), json!(max))));
            Value::Object(schema)
        }
        Shape::Choice(values) => json!({ "anyOf": [
            { "enum": values },
            { "type": "string", "pattern": "\\$" },
        ]}),
        Shape::Pattern(pattern) => json!({
            "type": "string",
            "pattern": format!("{}|\\$", pattern.regex),
        }),
        Shape::OneOf(shapes) => json!({ "anyOf": shapes.iter().map(of).collect::<Vec<_>>() }),
        // Items that are there twice are not told: most lists are freed of them before they are checked.
        Shape::List { item, .. } => json!({ "type": "array", "items": of(item) }),
        Shape::Map { keys, value } => map(*keys, &of(value)),
        Shape::Object(fields) => Value::Object(object(fields)),
    }
}

fn map(keys: Keys, value: &Value) -> Value {
    let pattern = match keys {
        Keys::Any => return json!({ "type": "object", "additionalProperties": value }),
        Keys::NotEmpty => "[^\n]",
        Keys::Line | Keys::LooseLine => "^[^\n]+$",
        Keys::Names | Keys::LooseNames => "^[a-zA-Z0-9._-]+$",
        Keys::LooseSmall => "^[a-z]+$",
    };
    json!({
        "type": "object",
        "patternProperties": { pattern: value },
        "additionalProperties": keys.loose(),
    })
}

fn object(object: &Object) -> Map<String, Value> {
    let properties: Map<_, _> = object
        .fields
        .iter()
        .map(|field| {
            let mut schema = of(&field.shape);
            // A word that is a boolean in YAML 1.1 is cast: it may also be text.
            if let (Shape::Bool, true) = (field.shape, field.cast) {
                schema = json!({ "type": ["boolean", "string"] });
            }
            if let Value::Object(schema) = &mut schema {
                schema.insert("description".to_owned(), json!(field.doc));
            }
            (field.name.to_owned(), schema)
        })
        .collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), Value::Object(properties));
    if !object.required.is_empty() {
        schema.insert("required".to_owned(), json!(object.required));
    }
    if object.extensible {
        schema.insert("patternProperties".to_owned(), json!({ "^x-": {} }));
    }
    schema.insert("additionalProperties".to_owned(), json!(object.open));
    schema
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::shape::tests::{json, parse};

    fn validator() -> jsonschema::Validator {
        jsonschema::draft202012::new(&json_schema()).unwrap()
    }

    #[test]
    fn the_schema_is_one_and_takes_every_valid_project_of_the_corpus() {
        assert!(jsonschema::draft202012::meta::is_valid(&json_schema()));
        let validator = validator();
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/valid");
        let mut wrong = Vec::new();
        for case in fs::read_dir(corpus).unwrap() {
            let file = case.unwrap().path().join("compose.yaml");
            let node = json(&parse(&fs::read_to_string(&file).unwrap()));
            let errors = validator.iter_errors(&node);
            wrong.extend(
                errors.map(|error| format!("{}: {}: {error}", file.display(), error.instance_path())),
            );
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn the_schema_refuses_what_is_wrong_and_takes_what_is_not() {
        let validator = validator();
        for (text, valid) in [
            ("services: { web: { image: a } }", true),
            ("services: { web: { imag: a } }", false),
            ("services: { web: { x-own: a } }", true),
            ("services: { web: { user: 1000 } }", false),
            ("services: { web: { command: [sleep, 10] } }", false),
            ("services: { web: { cgroup: '${GROUP}' } }", true),
            ("services: { web: { cgroup: guest } }", false),
            ("services: { web: { container_name: a } }", false),
            ("services: { web: { oom_score_adj: 2000 } }", false),
            ("services: { web: { depends_on: { db: {} } } }", false),
            ("services: { web: { ports: { '80': 80 } } }", false),
            ("services: { a b: { image: a } }", false),
            ("services: { web: null }", false),
            ("networks: { default: }", true),
            ("networks: { default: { drivers: a } }", false),
            ("x-stead-source: /srv/app/compose.yaml", true),
            ("x-stead-source: 1", false),
            ("services: { web: { x-on-unhealthy: restart } }", true),
            ("services: { web: { x-on-unhealthy: reboot } }", false),
            ("zot: a", false),
            ("[]", false),
        ] {
            assert_eq!(validator.is_valid(&json(&parse(text))), valid, "{text}");
        }
    }

    #[test]
    fn every_attribute_is_described() {
        let schema = json_schema();
        let image = &schema["properties"]["services"]["patternProperties"]["^[a-zA-Z0-9._-]+$"]["properties"]
            ["image"];
        assert_eq!(image["type"], "string");
        assert!(image["description"].is_string());
    }
}

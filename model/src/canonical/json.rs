//! The canonical model as JSON, as `docker compose config --format json` prints it.

use serde_json::{Map, Number, Value as Json};

use super::{Canonical, place::Place};
use crate::{
    shape::without_extensions,
    tree::{Entry, Node, Value},
};

impl Canonical {
    /// The model with sorted keys: the reference's JSON. It has no `models` at the top level, and of what
    /// was read for a secret or a config only where it came from.
    pub fn to_json(&self) -> Json {
        convert(&without_extensions(&self.0), &Place::Root)
    }
}

/// Indented JSON, with a final newline. Values are what they are: `$` stays single.
pub fn json(canonical: &Canonical) -> String {
    format!("{:#}\n", canonical.to_json())
}

/// A tree that is no Compose file, as it is.
pub(crate) fn plain(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => integer(*value),
        Value::Float(value) => float(*value),
        Value::Text(text) => Json::String(text.clone()),
        Value::List(items) => Json::Array(items.iter().map(plain).collect()),
        Value::Map(entries) => {
            let entries = entries.iter();
            Json::Object(
                entries
                    .map(|Entry { key, value, .. }| (key.clone(), plain(value)))
                    .collect(),
            )
        }
    }
}

fn convert(node: &Node, place: &Place) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => integer(*value),
        Value::Float(value) => float(*value),
        Value::Text(text) => Json::String(text.clone()),
        Value::List(items) => {
            let items = items.iter().enumerate();
            Json::Array(
                items
                    .map(|(index, item)| convert(item, &place.item(index)))
                    .collect(),
            )
        }
        Value::Map(entries) => {
            let told = entries.iter().filter(|entry| match entry.key.as_str() {
                "models" => !matches!(place, Place::Root),
                "content" => !place.key("content").is_read_content(entries),
                _ => true,
            });
            let told = told.map(|Entry { key, value, .. }| {
                let place = place.key(key);
                (name(key, &place), convert(value, &place))
            });
            let mut entries: Vec<_> = told.collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Json::Object(entries.into_iter().collect::<Map<_, _>>())
        }
    }
}

/// The rates of devices have no names of their own in JSON: they are those of the reference's fields.
fn name(key: &str, place: &Place) -> String {
    match key {
        "path" if place.is_rate() => "Path".to_owned(),
        "rate" if place.is_rate() => "Rate".to_owned(),
        "weight" if place.is_rate() => "Weight".to_owned(),
        _ => key.to_owned(),
    }
}

/// Beyond 64 bits numbers are floating point ones.
fn integer(value: i128) -> Json {
    let signed = i64::try_from(value).map(Number::from);
    match signed.or_else(|_| u64::try_from(value).map(Number::from)) {
        Ok(number) => Json::Number(number),
        #[allow(clippy::cast_precision_loss)] // what floating point is
        Err(_) => Number::from_f64(value as f64).map_or(Json::Null, Json::Number),
    }
}

/// Whole numbers have no point. What JSON has no number for is text.
fn float(value: f64) -> Json {
    // Up to here every whole number is exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        #[allow(clippy::cast_possible_truncation)] // it is whole and small
        return Json::from(value as i64);
    }
    match Number::from_f64(value) {
        Some(number) => Json::Number(number),
        None => Json::String(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::testing::parse;

    #[test]
    fn keys_are_sorted_and_numbers_are_printed_as_compose_prints_them() {
        for (model, want) in [
            ("{services: {}, name: a}", r#"{"name":"a","services":{}}"#),
            (
                "x-a: [1, -1, 1.0, 0.5, 1e21, true, null, a]",
                r#"{"x-a":[1,-1,1,0.5,1e+21,true,null,"a"]}"#,
            ),
            (
                "x-a: [9223372036854775808, 18446744073709551615]",
                r#"{"x-a":[9223372036854775808,18446744073709551615]}"#,
            ),
            (
                "services: {w: {environment: {A: $B}}}",
                r#"{"services":{"w":{"environment":{"A":"$B"}}}}"#,
            ),
        ] {
            let got = Canonical(parse(model)).to_json().to_string();
            assert_eq!(got, want);
        }
    }

    #[test]
    fn what_was_read_for_secrets_and_configs_is_not_told() {
        let model = parse(
            "{secrets: {s: {environment: A, content: b}}, configs: {c: {environment: A, content: b}, \
             d: {content: e}}, models: {m: {model: a}}, x-a: {content: f}}",
        );
        assert_eq!(
            Canonical(model).to_json().to_string(),
            r#"{"configs":{"c":{"environment":"A"},"d":{"content":"e"}},"secrets":{"s":{"environment":"A"}},"x-a":{"content":"f"}}"#
        );
    }

    #[test]
    fn rates_of_devices_have_capitals() {
        let model =
            parse("services: {w: {blkio_config: {weight: 1, device_read_bps: [{path: /d, rate: '1'}]}}}");
        assert_eq!(
            Canonical(model).to_json().to_string(),
            r#"{"services":{"w":{"blkio_config":{"device_read_bps":[{"Path":"/d","Rate":"1"}],"weight":1}}}}"#
        );
    }

    #[test]
    fn the_text_is_indented_and_ends_in_a_newline() {
        assert_eq!(
            json(&Canonical(parse("{name: $a}"))),
            "{\n  \"name\": \"$a\"\n}\n"
        );
    }
}

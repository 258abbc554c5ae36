//! The canonical model as YAML, laid out as `docker compose config` prints it.

use std::borrow::Cow;

use super::{Canonical, place::Place};
use crate::{
    syntax::is_date,
    tree::{Entry, Node, Value},
};

/// The order of the top level; extensions come last.
const FIRST: [&str; 7] = [
    "name", "services", "networks", "volumes", "secrets", "configs", "models",
];
/// Longer keys are written with a `?`, as YAML asks for from 1,024 characters.
const MAX_KEY: usize = 128;

/// YAML with a final newline and sorted keys. Every `$` in a value is written `$$`: the text is a Compose
/// file again, and loads to the same model.
pub fn yaml(canonical: &Canonical) -> String {
    let mut text = String::new();
    let rank = |entry: &Entry| FIRST.iter().position(|first| *first == entry.key);
    let mut entries = told(&canonical.0, &Place::Root);
    entries.sort_by_key(|entry| rank(entry).unwrap_or(FIRST.len()));
    match entries.is_empty() {
        true => text.push_str("{}\n"),
        false => write_entries(&mut text, &entries, &Place::Root, 0),
    }
    text
}

/// What a value stands behind: then a mapping begins on a new line, or on the same.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Key,
    Dash,
}

/// Writes a mapping whose first line is indented already.
fn write_entries(text: &mut String, entries: &[Cow<Entry>], place: &Place, indent: usize) {
    for (index, entry) in entries.iter().enumerate() {
        let Entry { key, value, .. } = &**entry;
        let place = place.key(key);
        let key = one_line(name(key, &place));
        if index > 0 {
            pad(text, indent);
        }
        if key.len() > MAX_KEY {
            text.push_str("? ");
            text.push_str(&key);
            text.push('\n');
            pad(text, indent);
        } else {
            text.push_str(&key);
        }
        text.push(':');
        write_value(text, value, &place, indent + 2, After::Key);
    }
}

/// The rates of devices are told as they are written in a Compose file.
fn name<'a>(key: &'a str, place: &Place) -> &'a str {
    match key {
        "Path" if place.is_rate() => "path",
        "Rate" if place.is_rate() => "rate",
        "Weight" if place.is_rate() => "weight",
        _ => key,
    }
}

/// What is told of a mapping, in the order of the keys.
fn told<'n>(node: &'n Node, place: &Place) -> Vec<Cow<'n, Entry>> {
    let Value::Map(entries) = &node.value else {
        return Vec::new();
    };
    let told = entries.iter().filter(|entry| is_told(entry, entries, place));
    let mut told: Vec<Cow<Entry>> = told.map(Cow::Borrowed).collect();
    for (key, value) in place.required_keys() {
        if !entries.iter().any(|entry| entry.key == *key) {
            told.push(Cow::Owned(Entry {
                key: (*key).to_owned(),
                at: node.at,
                value: Node::new(value.clone(), node.at),
            }));
        }
    }
    told.sort_by(|a, b| a.key.cmp(&b.key));
    told
}

/// Not told is a command that is not set, and what was read for a secret or a config.
fn is_told(entry: &Entry, siblings: &[Entry], place: &Place) -> bool {
    match entry.key.as_str() {
        "command" | "entrypoint" => !(entry.value.is_null() && place.key(&entry.key).is_command()),
        "content" => !place.key("content").is_read_content(siblings),
        _ => true,
    }
}

/// Writes a value behind a key or a dash, and its last newline.
fn write_value(text: &mut String, node: &Node, place: &Place, indent: usize, after: After) {
    let entries = told(node, place);
    if after == After::Key {
        if entries.is_empty() && node.items().is_empty() {
            text.push(' ');
        } else {
            text.push('\n');
            pad(text, indent);
        }
    }
    match &node.value {
        Value::Map(_) if !entries.is_empty() => write_entries(text, &entries, place, indent),
        Value::List(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    pad(text, indent);
                }
                text.push_str("- ");
                write_value(text, item, &place.item(index), indent + 2, After::Dash);
            }
        }
        Value::Text(value) => {
            let value = value.replace('$', "$$");
            if block(&value) {
                write_block(text, &value, indent);
            } else {
                text.push_str(&one_line(&value));
                text.push('\n');
            }
        }
        other => {
            match other {
                Value::List(_) => text.push_str("[]"),
                Value::Map(_) => text.push_str("{}"),
                scalar => text.push_str(&scalar.scalar().unwrap_or_else(|| "null".to_owned())),
            }
            text.push('\n');
        }
    }
}

fn pad(text: &mut String, indent: usize) {
    text.extend(std::iter::repeat_n(' ', indent));
}

/// Whether text of several lines can stand as it is below a `|`.
fn block(text: &str) -> bool {
    text.contains('\n')
        && !text.starts_with([' ', '\t', '\n'])
        && text.chars().all(|c| c == '\n' || printable(c))
        && !text.lines().any(|line| line.ends_with([' ', '\t']))
}

fn write_block(text: &mut String, value: &str, indent: usize) {
    let body = value.trim_end_matches('\n');
    text.push_str(match value.len() - body.len() {
        0 => "|-\n",
        1 => "|\n",
        _ => "|+\n",
    });
    for line in body.split('\n') {
        if !line.is_empty() {
            pad(text, indent);
            text.push_str(line);
        }
        text.push('\n');
    }
    text.extend(std::iter::repeat_n(
        '\n',
        (value.len() - body.len()).saturating_sub(1),
    ));
}

/// Text on one line: plain if that reads as the same text, else in quotes.
fn one_line(text: &str) -> String {
    if other_type(text) || !text.chars().all(printable) {
        return double_quoted(text);
    }
    if plain(text) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// What stands in YAML as it is, on one line.
fn printable(c: char) -> bool {
    (c == '\t' || !c.is_control())
        && !matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')
}

fn plain(text: &str) -> bool {
    let mut chars = text.chars();
    let (Some(first), second) = (chars.next(), chars.next()) else {
        return false;
    };
    let indicator = match first {
        '-' | '?' | ':' => matches!(second, None | Some(' ' | '\t')),
        ' ' | '\t' => true,
        _ => "#,[]{}&*!|>'\"%@`".contains(first),
    };
    !indicator
        && !text.ends_with([' ', '\t', ':'])
        && !["---", "...", "<<"].iter().any(|mark| text.starts_with(mark))
        && ![": ", ":\t", " #", "\t#"].iter().any(|mark| text.contains(mark))
        && text != "="
}

/// Whether some reader of YAML 1.1 or 1.2 takes the plain text for something else.
fn other_type(text: &str) -> bool {
    const WORDS: [&str; 12] = [
        "~", "null", "true", "false", "y", "n", "yes", "no", "on", "off", ".inf", ".nan",
    ];
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    text.is_empty()
        || text.len() <= 6 && WORDS.contains(&unsigned.to_ascii_lowercase().as_str())
        || unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && (number(&unsigned.replace('_', "")) || sexagesimal(unsigned) || is_date(text))
}

/// Decimal, hexadecimal, octal, binary, or with a point and an exponent; no sign.
fn number(text: &str) -> bool {
    let all = |digits: &str, base: u32| !digits.is_empty() && digits.chars().all(|c| c.is_digit(base));
    for (prefix, base) in [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            return all(digits, base);
        }
    }
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let whole_only = all(whole, 10) && (fraction.is_empty() || all(fraction, 10));
    (whole_only || whole.is_empty() && all(fraction, 10)) && all(exponent, 10)
}

/// `22:22`, a number to base 60 in YAML 1.1.
fn sexagesimal(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit() || c == b'_');
    let (text, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = text.split(':');
    parts.next().is_some_and(digits)
        && text.contains(':')
        && parts.all(|part| part.len() <= 2 && part.parse::<u8>().is_ok_and(|part| part < 60))
        && (fraction.is_empty() || digits(fraction))
}

fn double_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if printable(c) => quoted.push(c),
            c if u32::from(c) < 0x100 => quoted.push_str(&format!("\\x{:02X}", u32::from(c))),
            c => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{canonical::testing::parse, tree::At};

    #[test]
    fn a_model_is_laid_out_as_compose_does() {
        let model = parse(
            "{x-a: 1, volumes: {d: {name: p_d}}, networks: {default: {name: p_default}}, name: p, \
             services: {web: {image: nginx, command: [], networks: {default: null}, \
             ports: [{target: 80, published: '8080', mode: ingress}], environment: {A: $B, C: ''}}}}",
        );
        assert_eq!(
            yaml(&Canonical(model)),
            "name: p
services:
  web:
    command: []
    environment:
      A: $$B
      C: \"\"
    image: nginx
    networks:
      default: null
    ports:
      - mode: ingress
        published: \"8080\"
        target: 80
networks:
  default:
    name: p_default
volumes:
  d:
    name: p_d
x-a: 1
"
        );
    }

    #[test]
    fn yaml_tells_what_a_compose_file_says() {
        for (service, want) in [
            ("{command: null, entrypoint: null}", " {}\n"),
            (
                "{command: [], entrypoint: null, environment: {command: null}}",
                "\n    command: []\n    environment:\n      command: null\n",
            ),
            (
                "{develop: {watch: [{path: a, exec: {command: null}}]}}",
                "\n    develop:\n      watch:\n        - exec: {}\n          path: a\n",
            ),
            (
                "{ulimits: {core: {}, nofile: {hard: 2}, nproc: 3}}",
                "\n    ulimits:\n      core:\n        hard: 0\n        soft: 0\n      nofile:\n        \
                 hard: 2\n        soft: 0\n      nproc: 3\n",
            ),
            (
                "{deploy: {resources: {reservations: {devices: [{driver: d}]}}}}",
                "\n    deploy:\n      resources:\n        reservations:\n          devices:\n            \
                 - capabilities: []\n              driver: d\n",
            ),
            (
                "{blkio_config: {device_read_bps: [{Path: /d, Rate: '1'}]}}",
                "\n    blkio_config:\n      device_read_bps:\n        - path: /d\n          rate: \"1\"\n",
            ),
        ] {
            let model = parse(&format!("services: {{web: {service}}}"));
            assert_eq!(yaml(&Canonical(model)), format!("services:\n  web:{want}"));
        }
    }

    #[test]
    fn what_was_read_for_secrets_and_configs_is_not_told() {
        let model = parse("{secrets: {s: {environment: A, content: b}}, configs: {c: {content: d}}}");
        assert_eq!(
            yaml(&Canonical(model)),
            "secrets:\n  s:\n    environment: A\nconfigs:\n  c:\n    content: d\n"
        );
    }

    #[test]
    fn text_is_quoted_only_where_it_must_be() {
        for (text, want) in [
            ("a b", "a b"),
            ("10.1.0.100", "10.1.0.100"),
            ("nginx:1.25", "nginx:1.25"),
            ("8080:80", "8080:80"),
            ("-c", "-c"),
            ("1h30m", "1h30m"),
            ("a\"b'c", "a\"b'c"),
            ("", "\"\""),
            ("yes", "\"yes\""),
            ("Off", "\"Off\""),
            ("~", "\"~\""),
            ("NULL", "\"NULL\""),
            ("1", "\"1\""),
            ("-1.5e3", "\"-1.5e3\""),
            ("1_000", "\"1_000\""),
            ("0x1F", "\"0x1F\""),
            ("010", "\"010\""),
            ("08", "\"08\""),
            (".5", "\".5\""),
            (".inf", "\".inf\""),
            ("22:22", "\"22:22\""),
            ("2024-01-31", "\"2024-01-31\""),
            ("a: b", "'a: b'"),
            ("a #b", "'a #b'"),
            ("a:", "'a:'"),
            ("- a", "'- a'"),
            ("*a", "'*a'"),
            ("'a", "'''a'"),
            (" a", "' a'"),
            ("a\tb", "a\tb"),
            ("a\u{7}", "\"a\\x07\""),
        ] {
            assert_eq!(one_line(text), want, "{text:?}");
        }
    }

    #[test]
    fn lines_stand_below_a_bar() {
        for (text, want) in [
            ("a\nb\n", "k: |\n  a\n  b\n"),
            ("a\n\nb", "k: |-\n  a\n\n  b\n"),
            ("a\n\n", "k: |+\n  a\n\n"),
            (" a\nb", "k: \" a\\nb\"\n"),
            ("a \nb", "k: \"a \\nb\"\n"),
        ] {
            let mut model = parse("{k: v}");
            model.set("k", Node::text(text, At::default()));
            assert_eq!(yaml(&Canonical(model)), want, "{text:?}");
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|number| Value::Int(number.into())),
            "\\PC{0,12}".prop_map(Value::Text),
            "[-+0-9a-fxo._:eE #'\"\n\t$~?%-]{0,9}".prop_map(Value::Text),
            "(yes|no|on|null|true|~|<<|=|---)( |:|\n)?".prop_map(Value::Text),
        ];
        scalar.prop_recursive(3, 24, 4, |inner| {
            let node = inner.prop_map(|value| Node::new(value, At::default()));
            let key = "[-a-z0-9.:# ?'\"~]{0,6}";
            prop_oneof![
                prop::collection::vec(node.clone(), 0..4).prop_map(Value::List),
                prop::collection::btree_map(key, node, 0..4).prop_map(|entries| Value::Map(
                    entries
                        .into_iter()
                        .map(|(key, value)| Entry {
                            key,
                            at: At::default(),
                            value
                        })
                        .collect()
                )),
            ]
        })
    }

    /// Without positions, as the printer escapes it.
    fn bare(node: &Node) -> Node {
        let value = match &node.value {
            Value::Text(text) => Value::Text(text.replace('$', "$$")),
            Value::List(items) => Value::List(items.iter().map(bare).collect()),
            Value::Map(entries) => Value::Map(
                entries
                    .iter()
                    .map(|entry| Entry {
                        key: entry.key.clone(),
                        at: At::default(),
                        value: bare(&entry.value),
                    })
                    .collect(),
            ),
            other => other.clone(),
        };
        Node::new(value, At::default())
    }

    /// Texts as they are: what is read back has its dollars doubled already.
    fn read(node: &Node) -> Node {
        let value = match &node.value {
            Value::List(items) => Value::List(items.iter().map(read).collect()),
            Value::Map(entries) => Value::Map(
                entries
                    .iter()
                    .map(|entry| Entry {
                        key: entry.key.clone(),
                        at: At::default(),
                        value: read(&entry.value),
                    })
                    .collect(),
            ),
            other => other.clone(),
        };
        Node::new(value, At::default())
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_as_the_same_model(value in any_value()) {
            let node = Node::new(Value::Map(vec![Entry {
                key: "x-a".to_owned(),
                at: At::default(),
                value: Node::new(value, At::default()),
            }]), At::default());
            let want = bare(&node);
            let text = yaml(&Canonical(node));
            prop_assert_eq!(read(&parse(&text)), want, "{}", text);
        }
    }
}

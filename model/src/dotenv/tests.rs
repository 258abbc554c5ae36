//! The syntax of env files, as tables.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn environment() -> BTreeMap<String, String> {
    [("OUTER", "outer"), ("WINS", "process")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
}

fn read(text: &str) -> Result<Vec<(String, String)>, DotenvError> {
    parse(text, &environment()).map(|values| values.into_iter().collect())
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect()
}

#[test]
fn every_form_of_a_line_is_read() {
    for (text, want) in [
        ("A=1\nB=2\n", &[("A", "1"), ("B", "2")][..]),
        ("A=1", &[("A", "1")]),
        ("\u{feff}A=1\r\nB=2\r\n", &[("A", "1"), ("B", "2")]),
        ("  A = 1  \n\n# comment\n\t#B=2\n", &[("A", "1")]),
        ("A: 1\nB:2", &[("A", "1"), ("B", "2")]),
        (
            "export A=1\nexport  B=2\nexportC=3\nexport.D=4",
            &[("A", "1"), ("B", "2"), ("export.D", "4"), ("exportC", "3")],
        ),
        ("A=\nB=''\nC=\"\"\n", &[("A", ""), ("B", ""), ("C", "")]),
        (
            "A=a b # c\nB=a#b\nC=x #\nD=a\t# b",
            &[("A", "a b"), ("B", "a#b"), ("C", "x"), ("D", "a\t# b")],
        ),
        // Only after a space a `#` starts a comment, and the space after `=` is gone already.
        ("A=#x\nB= # x\n", &[("A", "#x"), ("B", "# x")]),
        ("A=1=2:3\nB: C=d\n", &[("A", "1=2:3"), ("B", "C=d")]),
        ("A=$OUTER\nB=\"${OUTER}2\"\n", &[("A", "outer"), ("B", "outer2")]),
        ("A=1\nB=$A\n", &[("A", "1"), ("B", "1")]),
        // The environment wins over earlier lines.
        ("WINS=file\nB=$WINS\n", &[("B", "process"), ("WINS", "file")]),
        (
            "A=${NO:-d}\nB=$$A\nC=a\\tb",
            &[("A", "d"), ("B", "$A"), ("C", "a\\tb")],
        ),
        // A name alone is inherited, or absent.
        ("OUTER\nNO\n", &[("OUTER", "outer")]),
        (
            "A=1\r\nOUTER\r\nexport WINS",
            &[("A", "1"), ("OUTER", "outer"), ("WINS", "process")],
        ),
        ("A=1\nA=2\nB=$A\n", &[("A", "2"), ("B", "2")]),
        (
            "a.b-c[0]=1\n1A=1\nárvíz=tűrő\n",
            &[("1A", "1"), ("a.b-c[0]", "1"), ("árvíz", "tűrő")],
        ),
        ("=1", &[("", "1")]),
        ("", &[]),
    ] {
        assert_eq!(read(text), Ok(pairs(want)), "{text:?}");
    }
}

#[test]
fn quotes_keep_and_escapes_are_read_in_double_quotes_only() {
    for (text, want) in [
        (r"A='raw $OUTER \n' # c", "raw $OUTER \\n"),
        (r"A='it\'s'", "it's"),
        (r"A='a\\'", r"a\\"),
        (r#"A='"'"#, "\""),
        (r#"A="it's""#, "it's"),
        (r#"A="a\n\t\r\\\"\$OUTER\0101""#, "a\n\t\r\\\"$OUTERA"),
        (r#"A="\a\b\f\v""#, "\u{7}\u{8}\u{c}\u{b}"),
        (r#"A="\$$OUTER \${OUTER}""#, "$outer ${OUTER}"),
        // No escapes: they stay.
        (r#"A="\c\x07\u12e4\ \''""#, r"\c\x07\u12e4\ \''"),
        (r#"A="\\n""#, "\\n"),
        // Octal escapes have a zero and three digits, up to 255; of others the zero is dropped.
        (r#"A="\0377\0061x""#, "\u{ff}1x"),
        (r#"A="\012\0400\0089\0""#, r"\12\400\089\"),
        ("A=\"two\nlines\" # c", "two\nlines"),
        ("A='two\r\nlines'", "two\r\nlines"),
        ("A=\"a#b\"#c", "a#b"),
    ] {
        assert_eq!(read(text), Ok(pairs(&[("A", want)])), "{text:?}");
    }
    // What follows a closing quote is read as the next line would be.
    let want = pairs(&[("A", "1"), ("B", "2"), ("OUTER", "outer")]);
    assert_eq!(read("A='1'B=\"2\" OUTER\n"), Ok(want));
}

#[test]
fn a_broken_line_is_named() {
    for (text, line, column, message) in [
        ("A=1\n B C=2\n", 2, 2, "`B C` is not a variable name"),
        ("A\nB # c\n", 2, 1, "`B # c` is not a variable name"),
        ("A='ü' B C\n", 1, 7, "`B C` is not a variable name"),
        ("\n\nexport %=1", 3, 8, "`%` is not a variable name"),
        ("A=1\nB='x\ny\n", 2, 3, "quote ' is never closed"),
        ("A='1\n2'\nB=\"x\\\"\n", 3, 3, "quote \" is never closed"),
        (
            "A=1\nB= ${\nC=1",
            2,
            4,
            "cannot be interpolated: invalid interpolation `${`",
        ),
        ("A=\"a\nb\"\nB=${NO?set NO}", 3, 3, "`NO` is required: set NO"),
    ] {
        let error = read(text).unwrap_err();
        assert_eq!((error.line(), error.column()), (line, column), "{text:?}");
        assert!(error.to_string().contains(message), "{text:?}: {error}");
        assert!(!error.hint().is_empty());
    }
}

#[test]
fn several_files_see_what_came_before_and_tell_what_is_unset() {
    let environment = environment();
    let scope = |name: &str| environment.get(name).map(String::as_str);
    let (mut values, mut unset) = (BTreeMap::new(), BTreeSet::new());
    for text in ["A=1\nWINS=first\n", "B=$A$WINS$NO\nA\nC=${NO2:-}"] {
        parse_into(text, &scope, &mut values, &mut unset).unwrap();
    }
    let want = pairs(&[("A", "1"), ("B", "1process"), ("C", ""), ("WINS", "first")]);
    assert_eq!(values, want.into_iter().collect());
    assert_eq!(unset, ["NO".to_owned()].into());
}

#[test]
fn a_raw_file_is_taken_as_it_stands() {
    let environment = environment();
    let scope = |name: &str| environment.get(name).map(String::as_str);
    let read = |text: &str| {
        let mut values = BTreeMap::new();
        parse_raw(text, &scope, &mut values).map(|()| values.into_iter().collect::<Vec<_>>())
    };
    for (text, want) in [
        (
            "A='1' # $B \r\n\n # c\n\tB=\"\n",
            &[("A", "'1' # $B "), ("B", "\"")][..],
        ),
        (
            "\u{feff}A=\nB==x\nOUTER\nNO",
            &[("A", ""), ("B", "=x"), ("OUTER", "outer")],
        ),
        ("A: 1=2", &[]),
    ] {
        if want.is_empty() {
            let error = read(text).unwrap_err();
            assert_eq!(error.to_string(), "`A: 1` is not a variable name");
        } else {
            assert_eq!(read(text), Ok(pairs(want)), "{text:?}");
        }
    }
    let error = read("A=1\n  =x").unwrap_err();
    assert_eq!((error.line(), error.column()), (2, 3));
    assert_eq!(error.to_string(), "`` is not a variable name");
}

#[test]
fn hostile_files_have_a_quick_verdict() {
    let start = Instant::now();
    let doubling: String = (0..100).map(|n| format!("A{}=$A{n}$A{n}\n", n + 1)).collect();
    let error = read(&format!("A0=x\n{doubling}")).unwrap_err();
    assert!(error.to_string().contains("longer"), "{error}");

    let large = format!("A='{}'\n", "x".repeat(1_000_000));
    let error = read(&(large + &"B=$A\n".repeat(100_000))).unwrap_err();
    assert_eq!(error.kind, DotenvErrorKind::TooMuch);

    let names: String = (0..200_000).map(|n| format!("N{n}=${{N{n}:-x}}\n")).collect();
    assert_eq!(read(&names).map(|values| values.len()), Ok(200_000));
    assert_eq!(read(&"A='' ".repeat(200_000)).map(|values| values.len()), Ok(1));
    assert!(read(&"a".repeat(4_000_000)).is_ok());
    assert!(read(&format!("A={}", "$".repeat(3_999_999))).is_ok());
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = read(&text);
    }

    #[test]
    fn any_text_like_a_file_is_read_or_refused(text in "[A-C=:$'\"\\\\0-9 #\n{}-]{0,60}") {
        let _ = read(&text);
    }

    #[test]
    fn single_quotes_keep_everything(value in "[^'\\\\]*") {
        prop_assert_eq!(read(&format!("A='{value}'\n")), Ok(vec![("A".to_owned(), value)]));
    }
}

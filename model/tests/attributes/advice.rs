//! Advice is followed: what a hint says to write is written, and the error must be gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use model::diagnostic::Diagnostic;

use super::{Case, DIRECTORY, cases, language_errors, load_files, paths, shown};

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Words of hints that stand for something else.
const PLACEHOLDERS: [&str; 14] = [
    "ADDRESS",
    "CONTAINER",
    "CONTEXT",
    "FILE",
    "HOST",
    "IMAGE",
    "KEY",
    "NAME",
    "OPTIONS",
    "PATH",
    "PORT",
    "SERVICE",
    "SOURCE",
    "VALUE",
];

/// What a hint says to write: each of the alternatives. Nothing where one of them is no YAML, or not all of it.
fn snippets(hint: &str) -> Vec<&str> {
    let advises = |part: &str| {
        ["write ", "put ", "add a unit", "did you mean "]
            .iter()
            .any(|verb| part.starts_with(verb))
    };
    let snippets: Vec<&str> = hint.split('`').skip(1).step_by(2).collect();
    let whole = |snippet: &&str| {
        let mut words = snippet.split(|c: char| !c.is_alphanumeric() && c != '_');
        !snippet.contains('…')
            && snippet.contains(char::is_alphanumeric)
            && !words.any(|word| PLACEHOLDERS.contains(&word))
    };
    if hint.split(": ").any(advises) && snippets.iter().all(whole) {
        snippets
    } else {
        Vec::new()
    }
}

/// Whether a `[` or `{` is open at the end of a part of a line.
fn in_flow(before: &str) -> bool {
    before.matches(['[', '{']).count() > before.matches([']', '}']).count()
}

/// The length of the value that `rest` begins with; `None` for what goes on in the next lines.
fn length(rest: &str, in_flow: bool) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (index, c) in rest.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}' | ',') if depth == 0 && in_flow => return Some(rest[..index].trim_end().len()),
            (None, ']' | '}') => depth -= 1,
            _ => {}
        }
    }
    let is_block =
        depth > 0 || rest.starts_with("- ") || (!rest.starts_with(['[', '{', '"']) && rest.contains(": "));
    (!in_flow && !is_block).then_some(rest.len())
}

fn compose(files: &Files) -> &str {
    str::from_utf8(&files[&Path::new(DIRECTORY).join("compose.yaml")]).unwrap()
}

/// The files with another text of the Compose file.
fn with_compose(files: &Files, text: String) -> Files {
    let mut files = files.clone();
    files.insert(Path::new(DIRECTORY).join("compose.yaml"), text.into_bytes());
    files
}

/// The Compose file with a snippet in the place of what the error is about.
fn repaired(text: &str, error: &Diagnostic, hint: &str, snippet: &str) -> Option<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let line = lines.get_mut(error.span.line as usize - 1)?;
    let (before, rest) = line.split_at_checked(error.span.column as usize - 1)?;
    if rest.is_empty() {
        return None;
    }
    let name = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    let (length, new) = if hint.starts_with("did you mean") {
        (rest.find(|c| !name(c)).unwrap_or(rest.len()), snippet.to_owned())
    } else {
        let key = before
            .trim_end()
            .strip_suffix(':')
            .map(|text| text.rsplit(|c| !name(c)).next());
        let value = match (snippet.split_once(": "), snippet.strip_prefix("- ")) {
            (Some((own, value)), _) if key == Some(Some(own)) => value.to_owned(),
            (_, Some(item)) if hint.starts_with("write a list") => format!("[{item}]"),
            (_, Some(item)) => item.to_owned(),
            (Some((own, _)), _) if own.chars().all(name) => return None,
            _ => snippet.to_owned(),
        };
        (length(rest, in_flow(before))?, value)
    };
    *line = format!("{before}{new}{}", &rest[length..]);
    Some(lines.join("\n") + "\n")
}

/// The place of an error, and the path that it is about.
fn about(error: &Diagnostic) -> (u32, u32, String) {
    let path = error.message.split('`').nth(1).unwrap_or_default();
    (error.span.line, error.span.column, path.to_owned())
}

/// Follows the advice on each error. How often that was done, and what came of it in vain is in `useless`.
fn follow(files: &Files, place: &str, useless: &mut Vec<String>) -> usize {
    let mut followed = 0;
    let loaded = load_files(files);
    for error in language_errors(&loaded).filter(|error| error.span.file.ends_with("compose.yaml")) {
        let hint = error.hint.as_deref().unwrap_or_default();
        for snippet in snippets(hint) {
            let Some(text) = repaired(compose(files), error, hint, snippet) else {
                continue;
            };
            let again = load_files(&with_compose(files, text.clone()));
            followed += 1;
            // That a name is well written and there is nothing of this name is another matter.
            let nothing = |again: &Diagnostic| {
                again.message.ends_with("the file does not exist")
                    || again.message.contains("there is no service")
            };
            if language_errors(&again).any(|again| about(again) == about(error) && !nothing(again)) {
                useless.push(format!("{place}: `{snippet}`\n{}{text}", shown([error])));
            }
        }
    }
    followed
}

fn judge(followed: usize, floor: usize, useless: &[String]) {
    println!("{followed} pieces of advice were followed");
    assert!(
        useless.is_empty(),
        "{} lead nowhere:\n{}",
        useless.len(),
        useless.join("\n")
    );
    assert!(
        followed >= floor,
        "only {followed} pieces of advice can be followed"
    );
}

#[test]
fn advice_that_can_be_followed_literally_removes_the_error() {
    let mut useless = Vec::new();
    let refused = paths().into_iter().flat_map(|path| cases(&path));
    let refused = refused.filter(|case| !case.loads);
    let followed = refused
        .map(|case| follow(&case.files, &case.place, &mut useless))
        .sum();
    judge(followed, 450, &useless);
}

/// The Compose file of a case before and after the value of its attribute, if that is in one line.
fn around_the_value(case: &Case) -> Option<(&str, &str)> {
    let text = compose(&case.files);
    let key = case.attribute.rsplit('.').find(|step| *step != "*")?;
    let key = format!("{key}: ");
    let start = text.rfind(&key)? + key.len();
    let line = text[..start].rfind('\n').map_or(0, |end| end + 1);
    let rest = text[start..].lines().next()?;
    let length = length(rest, in_flow(&text[line..start]))?;
    Some((&text[..start], &text[start + length..]))
}

#[test]
fn it_does_so_for_a_value_of_each_kind_in_the_place_of_each_attribute() {
    const VALUES: [&str; 20] = [
        "1",
        "-1",
        "1.5",
        "1e3",
        "true",
        "\"true\"",
        "word",
        "\"5\"",
        "\"\"",
        "a=b",
        "[a]",
        "[1]",
        "[true]",
        "[{a: b}]",
        "[a: b]",
        "{a: b}",
        "{a: [b]}",
        "{a: {b: c}}",
        "~",
        "[~]",
    ];
    let (mut followed, mut useless, mut seen) = (0, Vec::new(), BTreeSet::new());
    for case in paths()
        .iter()
        .flat_map(|path| cases(path))
        .filter(|case| case.loads)
    {
        let Some((before, after)) = around_the_value(&case) else {
            continue;
        };
        if !seen.insert(case.attribute.clone()) {
            continue;
        }
        for value in VALUES {
            let files = with_compose(&case.files, format!("{before}{value}{after}"));
            followed += follow(&files, &case.place, &mut useless);
        }
    }
    println!("{} attributes", seen.len());
    judge(followed, 3500, &useless);
}

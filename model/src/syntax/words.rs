//! A command line as text to its words, by the rules of the reference implementation (go-shellwords).

/// The words, and what the reference drops: everything from the first unquoted `;`, `&`, `|`, `<`, `>`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Words {
    pub words: Vec<String>,
    pub dropped: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SplitError {
    #[error("the quote {0} is never closed")]
    Unclosed(char),
    #[error("an unquoted `{0}` is not allowed in a command")]
    Parenthesis(char),
    #[error("the command ends in a backslash")]
    Backslash,
}

impl SplitError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            SplitError::Unclosed(_) => "close it, or write the command as a list",
            SplitError::Parenthesis(_) => "put it in quotes, or write `[\"sh\", \"-c\", \"…\"]` for a shell",
            SplitError::Backslash => "write `\\\\` for a backslash",
        }
    }
}

/// Splits like a shell does, without running one: quotes, backslashes, and commands in `` `…` `` and
/// `$(…)`, which stay as they are but are not split.
///
/// # Errors
/// Unclosed quotes, a final backslash, unquoted parentheses.
pub(crate) fn split(text: &str) -> Result<Words, SplitError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    // Where the word begins.
    let mut start = 0;
    // `'`, `"`, `` ` ``, or `(` for `$(`.
    let mut open = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if word.is_none() {
            start = at;
        }
        match (c, open) {
            ('\\', None | Some('"' | '`' | '(')) => {
                let (_, next) = chars.next().ok_or(SplitError::Backslash)?;
                let word = word.get_or_insert_default();
                match (next, open) {
                    (_, Some('`' | '(')) => word.extend(['\\', next]),
                    ('t', _) => word.push('\t'),
                    ('n', _) => word.push('\n'),
                    _ => word.push(next),
                }
            }
            (' ' | '\t' | '\r' | '\n', None) => words.extend(word.take()),
            ('\'' | '"', None) => {
                open = Some(c);
                word.get_or_insert_default();
            }
            ('\'' | '"', Some(quote)) if quote == c => open = None,
            ('`', None) => {
                open = Some(c);
                word.get_or_insert_default().push(c);
            }
            ('`', Some('`')) | (')', Some('(')) => {
                open = None;
                word.get_or_insert_default().push(c);
            }
            ('(', None) => match &mut word {
                Some(word) if word.ends_with('$') && !word.ends_with(r"\$") => {
                    open = Some(c);
                    word.push(c);
                }
                _ => return Err(SplitError::Parenthesis(c)),
            },
            ('(', Some('(')) | (')', None) => return Err(SplitError::Parenthesis(c)),
            (';' | '&' | '|' | '<' | '>', None) => {
                // The number of a stream, as in `2>`, is part of the redirection.
                let stream = |word: &String| c == '>' && word.bytes().all(|c| c.is_ascii_digit());
                let stream = word.as_ref().is_some_and(|word| !word.is_empty() && stream(word));
                let end = if stream { start } else { at };
                words.extend(word.take().filter(|_| !stream));
                return Ok(Words {
                    words,
                    dropped: Some(text[end..].trim_end().to_owned()),
                });
            }
            _ => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = open {
        return Err(SplitError::Unclosed(open));
    }
    words.extend(word);
    Ok(Words { words, dropped: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_at_blanks_outside_of_quotes() {
        for (text, want) in [
            ("", &[][..]),
            ("  a  b\tc\nd ", &["a", "b", "c", "d"]),
            ("sh -c 'a b; c'", &["sh", "-c", "a b; c"]),
            (r#"a "b \" c" d"#, &["a", "b \" c", "d"]),
            (r"a b\ c", &["a", "b c"]),
            (r"'a\b'", &[r"a\b"]),
            ("''", &[""]),
            (r#"a"b c"d"#, &["ab cd"]),
            (r"a\nb", &["a\nb"]),
            ("$HOME", &["$HOME"]),
            (r#"a\\ "\t\n" b"#, &["a\\", "\t\n", "b"]),
            // Commands of a shell are kept, not run and not split.
            ("echo `date -u; id` x", &["echo", "`date -u; id`", "x"]),
            ("a=$(date '+%s' | cat)b", &["a=$(date '+%s' | cat)b"]),
            (r"`a\n'`", &[r"`a\n'`"]),
            (r#"'`' "(a)" '$(' $\("#, &["`", "(a)", "$(", "$("]),
        ] {
            let split = split(text).unwrap();
            assert_eq!(
                (split.words, split.dropped),
                (want.iter().map(|s| s.to_string()).collect(), None),
                "{text}"
            );
        }
    }

    #[test]
    fn what_a_shell_would_interpret_ends_the_command() {
        for (text, words, dropped) in [
            ("a b; c", &["a", "b"][..], "; c"),
            ("a && b", &["a"], "&& b"),
            ("a | b", &["a"], "| b"),
            ("a > f ", &["a"], "> f"),
            ("a 2>&1", &["a"], "2>&1"),
            ("a 2x>b", &["a", "2x"], ">b"),
            ("a '' >b", &["a", ""], ">b"),
            ("a 2<b", &["a", "2"], "<b"),
        ] {
            let split = split(text).unwrap();
            assert_eq!(split.words, words);
            assert_eq!(split.dropped.as_deref(), Some(dropped));
        }
    }

    #[test]
    fn a_broken_command_is_refused() {
        assert_eq!(split("a 'b"), Err(SplitError::Unclosed('\'')));
        assert_eq!(split("a \"b"), Err(SplitError::Unclosed('"')));
        assert_eq!(split("a \\"), Err(SplitError::Backslash));
        assert_eq!(split("a `b"), Err(SplitError::Unclosed('`')));
        assert_eq!(split("a $(b"), Err(SplitError::Unclosed('(')));
        assert_eq!(split("(a)"), Err(SplitError::Parenthesis('(')));
        assert_eq!(split("a)"), Err(SplitError::Parenthesis(')')));
        assert_eq!(split("$(a (b))"), Err(SplitError::Parenthesis('(')));
        assert_eq!(split(r"'\$'("), Err(SplitError::Parenthesis('(')));
    }
}

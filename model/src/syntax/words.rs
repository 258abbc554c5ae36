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
    #[error("an unquoted `(` is not allowed in a command")]
    Parenthesis,
    #[error("the command ends in a backslash")]
    Backslash,
}

/// Splits like a shell does, without running one: quotes and backslashes, nothing else.
///
/// # Errors
/// Unclosed quotes, a final backslash, unquoted parentheses.
pub(crate) fn split(text: &str) -> Result<Words, SplitError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if quote != Some('\'') => {
                let (_, next) = chars.next().ok_or(SplitError::Backslash)?;
                word.get_or_insert_default().push(match next {
                    't' => '\t',
                    'n' => '\n',
                    other => other,
                });
            }
            _ if quote == Some(c) => quote = None,
            _ if quote.is_some() => word.get_or_insert_default().push(c),
            '\'' | '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            ';' | '&' | '|' | '<' | '>' => {
                words.extend(word.take());
                return Ok(Words {
                    words,
                    dropped: Some(text[at..].trim_end().to_owned()),
                });
            }
            '(' | ')' => return Err(SplitError::Parenthesis),
            _ => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
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
        assert_eq!(split("(a)"), Err(SplitError::Parenthesis));
    }
}

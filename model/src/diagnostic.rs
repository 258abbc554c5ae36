//! What is wrong or doubtful, where, and what to do about it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A position in a source file. Lines and columns count from 1; 0 means "the file as a whole".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span {
    pub file: PathBuf,
    pub line: u32,
    pub column: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

/// One finding. `message` says what is wrong, `hint` what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Compose loads it, stead does not run it: an error for `plan` and `apply`, a warning for `config`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refusal: bool,
    #[serde(flatten)]
    pub span: Span,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The text of the line, for the caret.
    #[serde(skip)]
    pub source_line: Option<String>,
}

impl Diagnostic {
    /// Also a refusal is one.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// `file:line:column: error: message`, the source line with a caret, and the hint; no final newline.
/// Control characters are shown as `·`, so that a manifest cannot drive the terminal.
pub fn render(diagnostic: &Diagnostic, colour: bool) -> String {
    let paint = |code: &str, text: &str| {
        if colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    };
    let (name, code) = match diagnostic.severity {
        Severity::Error => ("error", "1;31"),
        Severity::Warning => ("warning", "1;33"),
    };
    let Span { file, line, column } = &diagnostic.span;
    let mut place = printable(&file.display().to_string());
    if *line > 0 {
        place.push_str(&format!(":{line}:{column}"));
    }
    let mut text = format!(
        "{place}: {}: {}",
        paint(code, name),
        paint("1", &printable(&diagnostic.message))
    );
    if let Some(source) = &diagnostic.source_line
        && *line > 0
    {
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        let (shown, caret) = window(source, *column as usize);
        text.push_str(&format!(
            "\n {} {} {shown}",
            paint("34", &number),
            paint("34", "|")
        ));
        text.push_str(&format!(
            "\n {margin} {} {}{}",
            paint("34", "|"),
            " ".repeat(caret),
            paint(code, "^")
        ));
    }
    if let Some(hint) = &diagnostic.hint {
        text.push_str(&format!("\n  {} {}", paint("36", "hint:"), printable(hint)));
    }
    text
}

/// The part of a source line around a column (from 1), and the caret's offset in it, in characters.
fn window(line: &str, column: usize) -> (String, usize) {
    const WIDTH: usize = 100;
    let caret = column.saturating_sub(1);
    let start = if caret < WIDTH { 0 } else { caret - WIDTH / 2 };
    let shown: String = line.chars().skip(start).take(WIDTH).collect();
    (printable(&shown), caret - start)
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            // These turn the direction of the text around them.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '·',
            c if c.is_control() => '·',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic(line: u32, column: u32, source_line: Option<&str>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            refusal: false,
            span: Span {
                file: "/p/compose.yaml".into(),
                line,
                column,
            },
            message: "no such thing".into(),
            hint: Some("make it".into()),
            source_line: source_line.map(str::to_owned),
        }
    }

    #[test]
    fn a_diagnostic_shows_place_line_caret_and_hint() {
        assert_eq!(
            render(&diagnostic(12, 5, Some("    bad: x")), false),
            "/p/compose.yaml:12:5: error: no such thing\n 12 |     bad: x\n    |     ^\n  hint: make it"
        );
        assert_eq!(
            render(&diagnostic(0, 0, None), false),
            "/p/compose.yaml: error: no such thing\n  hint: make it"
        );
        assert!(render(&diagnostic(1, 1, Some("a")), true).contains("\x1b[1;31merror\x1b[0m"));
    }

    #[test]
    fn long_and_hostile_lines_stay_on_the_screen() {
        let text = render(&diagnostic(1, 5000, Some(&"x".repeat(10_000))), false);
        assert!(text.lines().all(|line| line.chars().count() < 120), "{text}");
        let text = render(&diagnostic(1, 1, Some("\x1b[2J\t\u{202e}x")), false);
        assert!(!text.contains('\x1b') && text.contains("·[2J ·x"), "{text}");
        // A column behind the end of its line.
        render(&diagnostic(1, 300, Some("x")), false);
    }
}

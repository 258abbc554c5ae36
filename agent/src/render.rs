//! Tables and colours for people.

use std::io::IsTerminal;

/// Whether standard output is for eyes that want colour.
pub fn colour_out() -> bool {
    std::io::stdout().is_terminal() && no_color_is_unset()
}

pub fn colour_err() -> bool {
    std::io::stderr().is_terminal() && no_color_is_unset()
}

fn no_color_is_unset() -> bool {
    // no-color.org: present and not empty.
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Doubtful,
    Bad,
}

pub fn paint(text: &str, tone: Tone, colour: bool) -> String {
    let code = match tone {
        _ if !colour => return text.to_owned(),
        Tone::Plain => return text.to_owned(),
        Tone::Good => 32,
        Tone::Doubtful => 33,
        Tone::Bad => 31,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// What the eye is to find first.
pub fn strong(text: &str, colour: bool) -> String {
    if colour {
        format!("\x1b[1m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// The tone of a state of an instance or a project.
pub fn tone(state: &str) -> Tone {
    match state {
        "running" | "converged" | "healthy" | "ok" => Tone::Good,
        "failed" | "degraded" | "unhealthy" | "fail" => Tone::Bad,
        "none" | "exited" => Tone::Plain,
        _ => Tone::Doubtful,
    }
}

/// `1.5 MiB`
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1000.0 {
            return match unit {
                "B" => format!("{count} B"),
                _ => format!("{value:.1} {unit}"),
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// Columns two blanks apart, each as wide as its widest cell; a cell that is a state has its colour.
pub fn table(head: &[&str], rows: &[Vec<String>], colour: bool) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: Vec<(&str, Tone)>| {
        let mut out = String::new();
        for (column, (cell, tone)) in cells.iter().enumerate() {
            out.push_str(&paint(cell, *tone, colour));
            let gap = widths[column] + 2 - cell.chars().count();
            out.extend(std::iter::repeat_n(' ', gap));
        }
        text.push_str(out.trim_end());
        text.push('\n');
    };
    line(head.iter().map(|cell| (*cell, Tone::Plain)).collect());
    for row in rows {
        let states = ["STATE", "HEALTH"];
        let cell = |(column, cell): (usize, &'_ String)| {
            if states.contains(&head[column]) {
                tone(cell)
            } else {
                Tone::Plain
            }
        };
        line(
            row.iter()
                .enumerate()
                .map(|at| (at.1.as_str(), cell(at)))
                .collect(),
        );
    }
    text
}

/// The colour of one of several sources of lines; the same name has the same one.
pub fn prefix(name: &str, width: usize, colour: bool) -> String {
    let text = format!("{name:width$} |");
    if !colour {
        return text;
    }
    let code = 31
        + name
            .bytes()
            .fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
            % 6;
    format!("\x1b[{code}m{text}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        [["shop/web/1", "running"], ["shop/database/1", "backoff"]]
            .map(|row| row.map(str::to_owned).to_vec())
            .to_vec()
    }

    #[test]
    fn a_table_is_aligned_without_blanks_at_the_end() {
        assert_eq!(
            table(&["NAME", "STATE"], &rows(), false),
            "NAME             STATE\nshop/web/1       running\nshop/database/1  backoff\n"
        );
    }

    #[test]
    fn states_have_colours_where_colour_is_wanted() {
        let text = table(&["NAME", "STATE"], &rows(), true);
        assert!(
            text.contains("\x1b[32mrunning\x1b[0m") && text.contains("\x1b[33mbackoff\x1b[0m"),
            "{text:?}"
        );
        assert_eq!(prefix("web-1", 7, false), "web-1   |");
    }
}

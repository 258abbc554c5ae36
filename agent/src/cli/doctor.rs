//! `stead doctor`: what this host can and cannot do.

use serde_json::json;

use super::{Global, print, print_json};
use crate::{
    exit,
    host::{self, Finding, USER_NAMESPACES, Verdict},
    render::{self, Tone},
};

pub fn run(global: &Global) -> anyhow::Result<u8> {
    let findings = host::check(&global.layout()?);
    if global.json {
        let lines: Vec<_> = findings
            .iter()
            .map(|finding| {
                json!({
                    "name": finding.name,
                    "verdict": word(finding.verdict),
                    "detail": finding.detail,
                    "remedy": finding.remedy,
                })
            })
            .collect();
        print_json(&lines)?;
    } else {
        print(&text(&findings, render::colour_out()))?;
    }
    let failed = findings.iter().any(|finding| finding.verdict == Verdict::Fail);
    Ok(if failed { exit::SOMETHING } else { 0 })
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Fail => "fail",
    }
}

fn text(findings: &[Finding], colour: bool) -> String {
    let width = findings
        .iter()
        .map(|finding| finding.name.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let tone = match finding.verdict {
            Verdict::Ok => Tone::Good,
            Verdict::Warn => Tone::Doubtful,
            Verdict::Fail => Tone::Bad,
        };
        let verdict = render::paint(&format!("{:4}", word(finding.verdict)), tone, colour);
        text.push_str(&format!(
            "{verdict}  {:width$}  {}\n",
            finding.name, finding.detail
        ));
        if !finding.remedy.is_empty() {
            text.push_str(&format!("      {:width$}  remedy: {}\n", "", finding.remedy));
        }
    }
    text
}

/// The first thing that makes running containers impossible here, in one sentence with its remedy. Without user
/// namespaces some can run: the others are refused at their line.
pub fn obstacle(findings: &[Finding]) -> Option<String> {
    let mut failed = findings.iter().filter(|finding| finding.verdict == Verdict::Fail);
    let failed = failed.find(|finding| finding.name != USER_NAMESPACES)?;
    let Finding {
        name, detail, remedy, ..
    } = failed;
    Some(format!(
        "stead cannot run containers here: {name}: {detail}; {remedy}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_not_ok_has_its_remedy() {
        let finding = |name, verdict, remedy: &str| Finding {
            name,
            verdict,
            detail: "6.18".into(),
            remedy: remedy.into(),
        };
        let findings = [
            finding("kernel", Verdict::Ok, ""),
            finding("user namespaces", Verdict::Fail, "allow them"),
            finding("overlay", Verdict::Fail, "load it"),
        ];
        assert_eq!(
            text(&findings, false),
            "ok    kernel           6.18\nfail  user namespaces  6.18\n                       remedy: allow them\n\
             fail  overlay          6.18\n                       remedy: load it\n"
        );
        let want = "stead cannot run containers here: overlay: 6.18; load it";
        assert_eq!(obstacle(&findings).as_deref(), Some(want));
        assert_eq!(obstacle(&findings[..2]), None, "a plan says who needs one");
    }
}

//! The JSON of a seccomp profile to a [`Profile`]. What would be understood half is refused.

use serde::Deserialize;

use super::cut;
use crate::types::{Answer, Argument, CallCondition, CallRule, Comparison, Profile};

/// EPERM, which is what a refused call gets where the profile says nothing else.
const EPERM: u16 = 1;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    flags: Option<Vec<String>>,
    #[serde(default)]
    listener_path: String,
    #[serde(default)]
    syscalls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Option<Vec<Arg>>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// # Errors
/// What of it is no profile, or none that can be kept here.
pub(crate) fn parse(text: &[u8]) -> Result<Profile, String> {
    let written: Written = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if !written.listener_path.is_empty() {
        return Err("`listenerPath` asks another program about calls, which is not done here".to_owned());
    }
    if let Some(flag) = written.flags.iter().flatten().next() {
        return Err(format!("the flag `{}` is not known here", cut(flag)));
    }
    let calls = written.syscalls.unwrap_or_default().into_iter();
    Ok(Profile {
        default: answer(&written.default_action, written.default_errno_ret)?,
        rules: calls.map(rule).collect::<Result<_, _>>()?,
    })
}

fn rule(call: Call) -> Result<CallRule, String> {
    let mut names = call.names.unwrap_or_default();
    if !call.name.is_empty() {
        names.push(call.name);
    }
    let arguments = call.args.unwrap_or_default().into_iter();
    Ok(CallRule {
        names,
        answer: answer(&call.action, call.errno_ret)?,
        arguments: arguments.map(argument).collect::<Result<_, _>>()?,
        includes: condition(call.includes.unwrap_or_default())?,
        excludes: condition(call.excludes.unwrap_or_default())?,
    })
}

fn answer(action: &str, errno: Option<u16>) -> Result<Answer, String> {
    Ok(match action {
        "SCMP_ACT_ALLOW" => Answer::Allow,
        "SCMP_ACT_ERRNO" => Answer::Errno(errno.unwrap_or(EPERM)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Answer::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Answer::KillProcess,
        "SCMP_ACT_TRAP" => Answer::Trap,
        "SCMP_ACT_LOG" => Answer::Log,
        "SCMP_ACT_TRACE" | "SCMP_ACT_NOTIFY" => {
            return Err(format!("`{action}` asks another program, which is not done here"));
        }
        other => return Err(format!("`{}` is no action", cut(other))),
    })
}

fn argument(arg: Arg) -> Result<Argument, String> {
    if arg.index > 5 {
        return Err(format!("a call has no argument {}", arg.index));
    }
    let (comparison, value) = match arg.op.as_str() {
        "SCMP_CMP_EQ" => (Comparison::Equal, arg.value),
        "SCMP_CMP_NE" => (Comparison::NotEqual, arg.value),
        "SCMP_CMP_LT" => (Comparison::Less, arg.value),
        "SCMP_CMP_LE" => (Comparison::LessOrEqual, arg.value),
        "SCMP_CMP_GT" => (Comparison::Greater, arg.value),
        "SCMP_CMP_GE" => (Comparison::GreaterOrEqual, arg.value),
        "SCMP_CMP_MASKED_EQ" => (Comparison::Masked(arg.value), arg.value_two),
        other => return Err(format!("`{}` is no comparison", cut(other))),
    };
    Ok(Argument {
        index: arg.index,
        comparison,
        value,
    })
}

fn condition(filter: Filter) -> Result<CallCondition, String> {
    let version = |text: String| {
        let (major, minor) = text.split_once('.').unwrap_or((&text, "0"));
        let both = major.parse().ok().zip(minor.parse().ok());
        both.ok_or_else(|| format!("`{}` is no version of a kernel", cut(&text)))
    };
    let caps = filter.caps.unwrap_or_default().into_iter();
    Ok(CallCondition {
        capabilities: caps
            .map(|name| name.strip_prefix("CAP_").unwrap_or(&name).to_owned())
            .collect(),
        architectures: filter.arches.unwrap_or_default(),
        min_kernel: filter
            .min_kernel
            .filter(|text| !text.is_empty())
            .map(version)
            .transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_of_the_engine_is_read_whole() {
        let text = br#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "archMap": [],
            "syscalls": [
                {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "",
                 "includes": {}, "excludes": {}},
                {"name": "clone", "action": "SCMP_ACT_ALLOW",
                 "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
                 "includes": {"minKernel": "4.8", "arches": ["amd64"]}, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 3}
            ]}"#;
        let profile = parse(text).unwrap();
        assert_eq!(profile.default, Answer::Errno(38));
        let [all, clone, kill] = profile.rules.as_slice() else {
            panic!("{profile:?}");
        };
        assert_eq!(all.names, ["read", "write"]);
        assert_eq!(
            (all.answer, &all.includes),
            (Answer::Allow, &CallCondition::default())
        );
        assert_eq!(
            clone.arguments,
            [Argument {
                index: 0,
                comparison: Comparison::Masked(0x7e02_0000),
                value: 0
            }]
        );
        assert_eq!(clone.includes.min_kernel, Some((4, 8)));
        assert_eq!(clone.includes.architectures, ["amd64"]);
        assert_eq!(clone.excludes.capabilities, ["SYS_ADMIN"]);
        assert_eq!(kill.answer, Answer::Errno(3));
    }

    #[test]
    fn what_is_not_kept_is_refused() {
        for (text, expected) in [
            ("{", "EOF"),
            ("{}", "defaultAction"),
            (r#"{"defaultAction": "ALLOW"}"#, "`ALLOW` is no action"),
            (r#"{"defaultAction": "SCMP_ACT_TRACE"}"#, "asks another program"),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}"#,
                "listenerPath",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]}"#,
                "the flag `SECCOMP_FILTER_FLAG_LOG`",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW",
                   "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#,
                "no argument 6",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW",
                   "includes": {"minKernel": "x"}}]}"#,
                "`x` is no version",
            ),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}

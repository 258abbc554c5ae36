//! The restart policy of a service.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// `restart:` of Compose. Serialised as written there (`on-failure:3`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestartPolicy {
    #[default]
    No,
    Always,
    UnlessStopped,
    /// At most so many restarts in a row; `None`: no limit.
    OnFailure(Option<u32>),
}

impl RestartPolicy {
    pub(super) fn is_default(&self) -> bool {
        *self == RestartPolicy::No
    }
}

/// The text is none of `no`, `always`, `unless-stopped`, `on-failure[:N]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a restart policy")]
pub struct ParseRestartPolicyError(String);

impl FromStr for RestartPolicy {
    type Err = ParseRestartPolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseRestartPolicyError(text.to_owned());
        Ok(match text.split_once(':') {
            None if text == "no" => RestartPolicy::No,
            None if text == "always" => RestartPolicy::Always,
            None if text == "unless-stopped" => RestartPolicy::UnlessStopped,
            None if text == "on-failure" => RestartPolicy::OnFailure(None),
            // Zero is "no limit" in the Engine API (RestartPolicy.MaximumRetryCount).
            Some(("on-failure", count)) if count.bytes().all(|c| c.is_ascii_digit()) => {
                let count: u32 = count.parse().map_err(|_| wrong())?;
                RestartPolicy::OnFailure((count > 0).then_some(count))
            }
            _ => return Err(wrong()),
        })
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestartPolicy::No => f.write_str("no"),
            RestartPolicy::Always => f.write_str("always"),
            RestartPolicy::UnlessStopped => f.write_str("unless-stopped"),
            RestartPolicy::OnFailure(None) => f.write_str("on-failure"),
            RestartPolicy::OnFailure(Some(count)) => write!(f, "on-failure:{count}"),
        }
    }
}

impl Serialize for RestartPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RestartPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_read_and_print_as_in_compose() {
        for (text, want) in [
            ("no", RestartPolicy::No),
            ("always", RestartPolicy::Always),
            ("unless-stopped", RestartPolicy::UnlessStopped),
            ("on-failure", RestartPolicy::OnFailure(None)),
            ("on-failure:3", RestartPolicy::OnFailure(Some(3))),
        ] {
            assert_eq!(text.parse(), Ok(want));
            assert_eq!(want.to_string(), text);
            assert_eq!(serde_json::to_value(want).unwrap(), text);
            assert_eq!(
                serde_json::from_value::<RestartPolicy>(text.into()).unwrap(),
                want
            );
        }
        assert_eq!("on-failure:0".parse(), Ok(RestartPolicy::OnFailure(None)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "sometimes",
            "always:3",
            "on-failure:",
            "on-failure:x",
            "on-failure:-1",
            "on-failure:+1",
            "No",
        ] {
            assert!(text.parse::<RestartPolicy>().is_err(), "{text}");
        }
    }
}

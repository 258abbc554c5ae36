//! A seccomp profile, as the Engine has them in JSON: which system calls get which answer.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// For calls that no rule is about.
    pub default: Answer,
    pub rules: Vec<CallRule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Allow,
    /// The call fails with this number.
    Errno(u16),
    KillThread,
    KillProcess,
    Trap,
    Log,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRule {
    pub names: Vec<String>,
    pub answer: Answer,
    /// All of them must hold; those about the same argument are alternatives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<Argument>,
    /// The rule counts where all of these hold,
    #[serde(default)]
    pub includes: CallCondition,
    /// and none of these.
    #[serde(default)]
    pub excludes: CallCondition,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Argument {
    /// From 0 to 5.
    pub index: u8,
    pub comparison: Comparison,
    pub value: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Equal in the bits of the mask.
    Masked(u64),
}

/// Empty: nothing is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCondition {
    /// Upper case without `CAP_`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Under the names of Go: `amd64`, `arm64`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<String>,
    /// Major and minor version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_kernel: Option<(u32, u32)>,
}

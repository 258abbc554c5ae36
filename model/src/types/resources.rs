//! What a service may use of the machine.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use super::text::serialised_as_text;

/// Limits and shares. Serialised beside the other fields of the service, under the names of Compose. What
/// `deploy.resources` says is here, too: it wins over the attributes of the service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Cpus>,
    /// Relative to 1024, from 2 to 262144.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<u64>,
    /// Microseconds of each `cpu_period`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<u64>,
    /// Microseconds; `None`: 100,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_period: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<CpuSet>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_limit: Option<u64>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_reservation: Option<u64>,
    /// Bytes of memory and swap together; -1: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memswap_limit: Option<i64>,
    /// -1: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<i64>,
    /// Bytes of `/dev/shm`; `None`: 64 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<u64>,
    /// From -1000 to 1000 (proc(5), `oom_score_adj`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blkio_config: Option<BlockIo>,
    /// By the name of setrlimit(2) in lower case, without `RLIMIT_`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, Ulimit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_parent: Option<String>,
}

/// A number of processors, in billionths; written as a decimal number (`1.5`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpus(pub u64);

const BILLION: u64 = 1_000_000_000;

/// The text is no number of processors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a number of processors")]
pub struct ParseCpusError(String);

impl FromStr for Cpus {
    type Err = ParseCpusError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseCpusError(text.to_owned());
        let number: f64 = text.parse().map_err(|_| wrong())?;
        if !(0.0..1e6).contains(&number) {
            return Err(wrong());
        }
        Ok(Cpus((number * BILLION as f64).round() as u64))
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:09}", self.0 / BILLION, self.0 % BILLION);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// Processors by number, as cpuset(7) lists them: `0-3,5`. Sorted, without gaps inside a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuSet(Vec<(u32, u32)>);

impl CpuSet {
    /// Inclusive ranges.
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.0
    }
}

/// The text is no list of processors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a list of processors")]
pub struct ParseCpuSetError(String);

impl FromStr for CpuSet {
    type Err = ParseCpuSetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = |part: &str| -> Option<(u32, u32)> {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first <= last && last < 65_536).then_some((first, last))
        };
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        let mut ranges = ranges.ok_or_else(|| ParseCpuSetError(text.to_owned()))?;
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(end) if first <= end.1.saturating_add(1) => end.1 = end.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Ok(CpuSet(merged))
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

serialised_as_text!(Cpus, CpuSet);

/// A limit of setrlimit(2); -1: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    pub soft: i64,
    pub hard: i64,
}

/// Weights and rates of block devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockIo {
    /// From 10 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weight_device: BTreeMap<PathBuf, u16>,
    /// Bytes a second.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub device_read_bps: BTreeMap<PathBuf, u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub device_write_bps: BTreeMap<PathBuf, u64>,
    /// Operations a second.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub device_read_iops: BTreeMap<PathBuf, u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub device_write_iops: BTreeMap<PathBuf, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_in_billionths() {
        for (text, want, printed) in [
            ("0.5", 500_000_000, "0.5"),
            ("1.5", 1_500_000_000, "1.5"),
            ("2", 2 * BILLION, "2"),
            ("0", 0, "0"),
        ] {
            let cpus: Cpus = text.parse().unwrap();
            assert_eq!((cpus.0, cpus.to_string().as_str()), (want, printed));
        }
        for text in ["", "-1", "x", "nan", "inf", "1e30"] {
            assert!(text.parse::<Cpus>().is_err(), "{text}");
        }
    }

    #[test]
    fn sets_of_processors_are_sorted_ranges() {
        for (text, want) in [
            ("0-3", "0-3"),
            ("5,0-3", "0-3,5"),
            ("0,1", "0-1"),
            ("2-4,3-7", "2-7"),
        ] {
            assert_eq!(text.parse::<CpuSet>().unwrap().to_string(), want);
        }
        for text in ["", "a", "3-1", "1,,2", "-1", "0-99999999"] {
            assert!(text.parse::<CpuSet>().is_err(), "{text}");
        }
    }
}

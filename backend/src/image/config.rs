//! The JSON documents of an image (OCI image-spec v1.1: index, manifest, config; `docker save`).
//!
//! Only what is used is read; labels and annotations decide nothing but the tag.

use std::collections::BTreeMap;

use reconciler::observed::{ImageConfig, ImageHealthcheck};
use serde::{Deserialize, Serialize};

/// The tag of a manifest in an index.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The whole name of a manifest in an index, as `docker save` writes it.
pub(super) const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// `sha256:` and 64 lower-case hexadecimal digits; nothing else is accepted as a digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// `None`: another algorithm, upper case, or another length.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:")?;
        let valid = hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        valid.then(|| Digest(hex.to_owned()))
    }

    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Digest(crate::records::hex(&sha2::Sha256::digest(bytes)))
    }

    pub(super) fn from_hash(hash: &[u8]) -> Self {
        Digest(crate::records::hex(hash))
    }

    /// Without the algorithm.
    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    pub(super) fn tag(&self) -> Option<&str> {
        self.annotation(REF_NAME)
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
}

/// Index or manifest: which of the two is told by what it holds, and never both (CVE-2021-41190).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    pub media_type: Option<String>,
    pub manifests: Option<Vec<Descriptor>>,
    pub config: Option<Descriptor>,
    pub layers: Option<Vec<Descriptor>>,
}

/// One image of the `manifest.json` of `docker save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SavedImage {
    pub config: String,
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    pub layers: Vec<String>,
}

/// The image configuration.
#[derive(Debug, Deserialize)]
pub(super) struct Configuration {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub config: Option<Runtime>,
    pub rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
pub(super) struct RootFs {
    #[serde(default)]
    pub diff_ids: Option<Vec<String>>,
}

/// Go writes empty lists and maps as `null`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Runtime {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    healthcheck: Option<Healthcheck>,
}

/// Times in nanoseconds.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Healthcheck {
    test: Option<Vec<String>>,
    interval: i64,
    timeout: i64,
    retries: i64,
    start_period: i64,
    start_interval: i64,
}

impl Configuration {
    /// Why it cannot run on this host; `None`: it can.
    pub(super) fn unfit(&self) -> Option<String> {
        let fits_os = self.os.is_empty() || self.os == "linux";
        let fits = self.architecture.is_empty() || self.architecture == architecture();
        (!fits_os || !fits).then(|| {
            format!(
                "it is made for {}/{}, this host is linux/{}",
                self.os,
                self.architecture,
                architecture()
            )
        })
    }

    pub(super) fn runtime(self) -> ImageConfig {
        let runtime = self.config.unwrap_or_default();
        let milliseconds = |nanoseconds: i64| u64::try_from(nanoseconds).unwrap_or(0).div_ceil(1_000_000);
        ImageConfig {
            user: runtime.user.unwrap_or_default(),
            environment: runtime
                .env
                .unwrap_or_default()
                .into_iter()
                .map(|entry| match entry.split_once('=') {
                    Some((name, value)) => (name.to_owned(), value.to_owned()),
                    None => (entry, String::new()),
                })
                .collect(),
            entrypoint: runtime.entrypoint.unwrap_or_default(),
            command: runtime.cmd.unwrap_or_default(),
            working_dir: runtime.working_dir.unwrap_or_default(),
            stop_signal: runtime.stop_signal.filter(|signal| !signal.is_empty()),
            volumes: runtime.volumes.unwrap_or_default().into_keys().collect(),
            healthcheck: runtime.healthcheck.map(|health| ImageHealthcheck {
                test: health.test.unwrap_or_default(),
                interval: milliseconds(health.interval),
                timeout: milliseconds(health.timeout),
                retries: u32::try_from(health.retries).unwrap_or(0),
                start_period: milliseconds(health.start_period),
                start_interval: milliseconds(health.start_interval),
            }),
        }
    }
}

/// This host's architecture under its Go name, as images use it.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

//! Which attributes do not merge as any mapping, list or scalar does.

use crate::compose::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// The later value wins whole, even where it is null.
    Replace,
    /// Both become lists of `KEY=VALUE`, and are joined.
    List,
    /// As `List`; what the earlier list has is not repeated.
    Hosts,
    /// Text is the context of a mapping.
    Build,
    /// A list of names is a mapping of names to nothing.
    Names,
    /// A list of services is a mapping with a condition each.
    Dependencies,
    /// Merged while the driver is the same.
    Logging,
    /// Address pools, merged by their subnet.
    Pools,
}

/// Compose Specification, "Merge", and what the reference loader adds to it.
const RULES: &[(&str, Rule)] = &[
    ("networks.*.ipam.config", Rule::Pools),
    ("networks.*.labels", Rule::List),
    ("volumes.*.labels", Rule::List),
    ("services.*.annotations", Rule::List),
    ("services.*.build", Rule::Build),
    ("services.*.build.additional_contexts", Rule::List),
    ("services.*.build.args", Rule::List),
    ("services.*.build.extra_hosts", Rule::Hosts),
    ("services.*.build.labels", Rule::List),
    ("services.*.command", Rule::Replace),
    ("services.*.depends_on", Rule::Dependencies),
    ("services.*.deploy.labels", Rule::List),
    ("services.*.dns", Rule::List),
    ("services.*.dns_opt", Rule::List),
    ("services.*.dns_search", Rule::List),
    ("services.*.entrypoint", Rule::Replace),
    ("services.*.env_file", Rule::List),
    ("services.*.environment", Rule::List),
    ("services.*.extra_hosts", Rule::Hosts),
    ("services.*.healthcheck.test", Rule::Replace),
    ("services.*.label_file", Rule::List),
    ("services.*.labels", Rule::List),
    ("services.*.logging", Rule::Logging),
    ("services.*.models", Rule::Names),
    ("services.*.networks", Rule::Names),
    ("services.*.sysctls", Rule::List),
    ("services.*.tmpfs", Rule::List),
    ("services.*.ulimits.*", Rule::Replace),
];

pub(super) fn of(path: &Path) -> Option<Rule> {
    let (_, rule) = RULES.iter().find(|(pattern, _)| path.matches(pattern))?;
    Some(*rule)
}

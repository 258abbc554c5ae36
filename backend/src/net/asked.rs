//! Settings that a service asks for on one of its interfaces, in the namespace of the calling thread.

use reconciler::spec::Endpoint;

use super::{NetError, sysctl};

/// Where they are below, in [`Endpoint::settings`].
const NET: &str = "net/";
/// Milliseconds that a time may be away from what was asked for: the kernel counts in ticks.
const TICK: u64 = 10;

/// Sets all of them. One that the kernel does not have is an error: nobody would notice otherwise.
///
/// # Errors
/// There is no such setting, or not with such a value.
pub fn set(endpoint: &Endpoint) -> Result<(), NetError> {
    for (setting, value) in settings(endpoint) {
        if !is(setting, value) {
            sysctl::set(setting, value).map_err(|source| NetError::Sysctl {
                setting: setting.to_owned(),
                source,
            })?;
        }
    }
    Ok(())
}

/// Whether `setting`, below /proc/sys/net, is among them.
pub fn has(endpoint: &Endpoint, setting: &str) -> bool {
    settings(endpoint).any(|(asked, _)| asked == setting)
}

/// Those that are no longer as they were asked for. A missing one went with its interface, which is told of already.
pub fn differing(endpoint: &Endpoint) -> impl Iterator<Item = String> {
    let differ =
        settings(endpoint).filter(|(setting, value)| sysctl::read(setting).is_ok() && !is(setting, value));
    differ.map(|(setting, _)| setting.to_owned())
}

fn settings(endpoint: &Endpoint) -> impl Iterator<Item = (&str, &str)> {
    let all = endpoint.settings.iter();
    all.filter_map(|(setting, value)| Some((setting.strip_prefix(NET)?, value.as_str())))
}

fn is(setting: &str, value: &str) -> bool {
    let Ok(now) = sysctl::read(setting) else {
        return false;
    };
    match (now.parse::<i64>(), value.parse::<i64>()) {
        (Ok(now), Ok(asked)) if setting.ends_with("_ms") => now.abs_diff(asked) < TICK,
        _ => now == value,
    }
}

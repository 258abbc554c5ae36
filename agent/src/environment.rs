//! The environment file of a root: `KEY=VALUE` lines, as systemd.exec(5) EnvironmentFile.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context;
use backend::layout::Layout;

/// `/etc/stead/environment`, or `ROOT/environment`. A missing file is an empty environment.
pub fn of(layout: &Layout) -> anyhow::Result<BTreeMap<String, String>> {
    let path = layout.manifests.with_file_name("environment");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error)
            .with_context(|| format!("cannot read {}; make it readable or remove it", path.display())),
    }
}

/// What this process was given, as far as it is UTF-8.
pub fn of_process() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn parse(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with(['#', ';']))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), unquote(value.trim()).to_owned()))
        .collect()
}

fn unquote(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = value
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote))
        {
            return inner;
        }
    }
    value
}

/// The owner's home, for `~`; getpwuid(3) without NSS: /etc/passwd alone.
pub fn home_of_owner(path: &Path) -> Option<std::path::PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let uid = std::fs::metadata(path).ok()?.uid().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.nth(2)? == uid).then(|| fields.nth(2).map(Into::into))?
    })
}

/// Where the files of vendors' devices (CDI) are, when not where they usually are: `STEAD_CDI_DIRS`, with colons.
pub fn device_directories() -> Option<Vec<std::path::PathBuf>> {
    let given = std::env::var_os("STEAD_CDI_DIRS")?;
    Some(std::env::split_paths(&given).collect())
}

/// What tells this boot from others: `/proc/sys/kernel/random/boot_id`.
pub fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_file_has_comments_and_quotes() {
        let read = parse("# a comment\nA=1\n B = \"two words\" \n;C=3\nD='x=y'\nnothing\n");
        let want = [("A", "1"), ("B", "two words"), ("D", "x=y")];
        assert_eq!(read, want.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }
}

//! What the operator says of registries: mirrors and exceptions in `registries.yaml`, names and passwords as `docker
//! login` and `podman login` leave them, proxies in the environment.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use backend::{
    layout::Layout,
    registry::{Registries, credentials::Credentials, hosts::Hosts, proxy::Proxies},
};

/// Reads everything anew: a change counts for the next pull.
pub fn of(layout: &Layout) -> anyhow::Result<Registries> {
    Ok(Registries {
        hosts: hosts(&layout.manifests.with_file_name("registries.yaml"))?,
        credentials: Credentials {
            files: files(&layout.manifests.with_file_name("auth.json"), |name| {
                std::env::var_os(name)
                    .filter(|value| !value.is_empty())
                    .map(PathBuf::from)
            }),
            ..Credentials::default()
        },
        proxies: Proxies::of(|name| std::env::var(name).ok())?,
        ..Registries::default()
    })
}

fn hosts(path: &Path) -> anyhow::Result<Hosts> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Hosts::default()),
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot read {}; make it readable or remove it", path.display()));
        }
    };
    if text.trim().is_empty() {
        return Ok(Hosts::default());
    }
    serde_yaml::from_str(&text).map_err(|error| {
        let place = error
            .location()
            .map_or(String::new(), |at| format!(":{}:{}", at.line(), at.column()));
        let error = error.without_snippet();
        anyhow::anyhow!(
            "{}{place}: {error}; write what `docs/images.md` shows",
            path.display()
        )
    })
}

/// Where credentials are looked for, the root's own first; the agent has the home of root where it is told none.
fn files(own: &Path, variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let home = variable("HOME").unwrap_or_else(|| "/root".into());
    let docker = variable("DOCKER_CONFIG").unwrap_or_else(|| home.join(".docker"));
    let runtime = variable("XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json"));
    let configuration = variable("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
    [
        Some(own.to_owned()),
        variable("REGISTRY_AUTH_FILE"),
        runtime,
        Some(configuration.join("containers/auth.json")),
        Some(docker.join("config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use model::types::ImageName;

    use super::*;

    #[test]
    fn mirrors_and_exceptions_are_read_from_yaml() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registries.yaml");
        assert_eq!(hosts(&path).unwrap(), Hosts::default());
        let text = "docker.io:\n  mirrors:\n    - https://mirror.example\n    - { url: 10.0.0.1:5000, insecure: true }\n\
            localhost:5000: { insecure: true }\n";
        std::fs::write(&path, text).unwrap();
        let hosts = hosts(&path).unwrap();
        let bases = |name: &str| -> Vec<String> {
            let name: ImageName = name.parse().unwrap();
            hosts.endpoints(&name).into_iter().map(|one| one.base).collect()
        };
        assert_eq!(
            bases("nginx"),
            [
                "https://mirror.example",
                "https://10.0.0.1:5000",
                "http://10.0.0.1:5000",
                "https://registry-1.docker.io"
            ]
        );
        assert_eq!(
            bases("localhost:5000/a"),
            ["https://localhost:5000", "http://localhost:5000"]
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registries.yaml");
        for (text, line) in [
            ("docker.io:\n  mirror: [x]\n", 2),
            ("docker.io: [\n", 1),
            ("a: { insecure: often }\n", 1),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = hosts(&path).unwrap_err().to_string();
            assert!(
                error.contains(&format!("registries.yaml:{line}:")),
                "{text}: {error}"
            );
            assert!(error.contains("docs/images.md"), "{error}");
        }
    }

    #[test]
    fn credentials_are_where_docker_and_podman_leave_them() {
        let of = |variables: &[(&str, &str)]| {
            let variable = |name: &str| {
                variables
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| value.into())
            };
            let files = files(Path::new("/etc/stead/auth.json"), variable);
            files
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            of(&[]),
            [
                "/etc/stead/auth.json",
                "/root/.config/containers/auth.json",
                "/root/.docker/config.json"
            ]
        );
        assert_eq!(
            of(&[
                ("HOME", "/h"),
                ("DOCKER_CONFIG", "/d"),
                ("REGISTRY_AUTH_FILE", "/r"),
                ("XDG_RUNTIME_DIR", "/x")
            ]),
            [
                "/etc/stead/auth.json",
                "/r",
                "/x/containers/auth.json",
                "/h/.config/containers/auth.json",
                "/d/config.json"
            ]
        );
    }
}

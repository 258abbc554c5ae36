//! Projects in a few lines, for tests: one item a line, so that every cause has a line of its own.
//!
//! ```text
//! web
//!   image app:1
//!   env A 1
//!   port 8080:80
//!   needs db healthy
//!   net front alias
//! net front internal
//! ```

use std::{net::IpAddr, path::PathBuf};

use model::{
    diagnostic::Span,
    types::{
        Attachment, Condition, Dependency, FailureAction, Healthcheck, Mount, Network, OnUnhealthy,
        PortRange, Project, Protocol, PublishedPort, RestartPolicy, Service, UpdateConfig, Volume,
    },
};

/// The project `name` that `text` describes. The error names the line.
pub fn project(name: &str, text: &str) -> Result<Project, String> {
    let mut project = Project {
        name: name.to_owned(),
        directory: PathBuf::from("/srv").join(name),
        ..Project::default()
    };
    let mut current = None;
    for (index, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let span = Span {
            file: "compose.yaml".into(),
            line: index as u32 + 1,
            column: 1,
        };
        let field = match words.as_slice() {
            [] => continue,
            ["net", key, rest @ ..] if !line.starts_with(' ') => {
                network(&mut project, key, rest.contains(&"internal"));
                Some(format!("networks.{key}"))
            }
            [key] if !line.starts_with(' ') => {
                project.services.insert((*key).to_owned(), service());
                current = Some((*key).to_owned());
                Some(format!("services.{key}"))
            }
            words => {
                let key = current
                    .clone()
                    .ok_or_else(|| format!("line {}: no service yet", index + 1))?;
                let field = item(&mut project, &key, words)
                    .ok_or_else(|| format!("line {}: not understood: {line}", index + 1))?;
                Some(format!("services.{key}.{field}"))
            }
        };
        if let Some(field) = field {
            project.origins.entry(field).or_insert(span);
        }
    }
    for service in project.services.values_mut() {
        if service.networks.is_empty() && service.namespaces.network_mode.is_none() {
            service
                .networks
                .insert("default".to_owned(), Attachment::default());
        }
    }
    let used: Vec<String> = project
        .services
        .values()
        .flat_map(|service| service.networks.keys().cloned())
        .collect();
    for key in used {
        if !project.networks.contains_key(&key) {
            network(&mut project, &key, false);
        }
    }
    Ok(project)
}

fn network(project: &mut Project, key: &str, internal: bool) {
    let network = Network {
        name: format!("{}_{key}", project.name),
        internal,
        ..Network::default()
    };
    project.networks.insert(key.to_owned(), network);
}

fn service() -> Service {
    Service {
        image: "app:1".to_owned(),
        ..Service::default()
    }
}

fn item(project: &mut Project, key: &str, words: &[&str]) -> Option<String> {
    let (first, rest) = words.split_first()?;
    let text = rest.join(" ");
    let name = project.name.clone();
    let service = project.services.get_mut(key)?;
    Some(match *first {
        "image" => {
            service.image = text;
            "image".to_owned()
        }
        "command" => {
            service.command = Some(rest.iter().map(|word| (*word).to_owned()).collect());
            "command".to_owned()
        }
        "env" => {
            let (name, value) = rest.split_first()?;
            service.environment.insert((*name).to_owned(), value.join(" "));
            format!("environment.{name}")
        }
        "scale" => {
            service.container.scale = Some(text.parse().ok()?);
            "scale".to_owned()
        }
        "pull" => {
            let policy = serde_json::Value::String(text);
            service.container.pull_policy = Some(serde_json::from_value(policy).ok()?);
            "pull_policy".to_owned()
        }
        "update" => {
            let deploy = service.container.deploy.get_or_insert_default();
            deploy.update_config = Some(update(rest)?);
            "deploy.update_config".to_owned()
        }
        "rollback" => {
            let deploy = service.container.deploy.get_or_insert_default();
            deploy.rollback_config = Some(update(rest)?);
            "deploy.rollback_config".to_owned()
        }
        "address" => {
            let [network, address] = rest else { return None };
            let attachment = service.networks.entry((*network).to_owned()).or_default();
            attachment.ipv4_address = Some(address.parse().ok()?);
            format!("networks.{network}.ipv4_address")
        }
        "label" => {
            let (name, value) = rest.split_first()?;
            service.labels.insert((*name).to_owned(), value.join(" "));
            format!("labels.{name}")
        }
        "hostname" => {
            service.hostname = Some(text);
            "hostname".to_owned()
        }
        "restart" => {
            service.restart = match text.as_str() {
                "always" => RestartPolicy::Always,
                "unless-stopped" => RestartPolicy::UnlessStopped,
                "no" => RestartPolicy::No,
                other => RestartPolicy::OnFailure(match other.strip_prefix("on-failure")? {
                    "" => None,
                    count => Some(count.strip_prefix(':')?.parse().ok()?),
                }),
            };
            "restart".to_owned()
        }
        "restart-policy" => {
            let deploy = service.container.deploy.get_or_insert_default();
            for pair in rest.chunks(2) {
                match pair {
                    ["delay", time] => deploy.restart_delay = Some(time.parse().ok()?),
                    ["window", time] => deploy.restart_window = Some(time.parse().ok()?),
                    ["attempts", count] => deploy.restart_attempts = Some(count.parse().ok()?),
                    _ => return None,
                }
            }
            "deploy.restart_policy".to_owned()
        }
        "unhealthy" => {
            service.container.on_unhealthy = (text == "restart").then_some(OnUnhealthy::Restart);
            service.container.on_unhealthy?;
            "x-on-unhealthy".to_owned()
        }
        "memory" => {
            service.resources.mem_limit = Some(text.parse().ok()?);
            "mem_limit".to_owned()
        }
        "cpus" => {
            service.resources.cpus = Some(text.parse().ok()?);
            "cpus".to_owned()
        }
        "pids" => {
            service.resources.pids_limit = Some(text.parse().ok()?);
            "pids_limit".to_owned()
        }
        "network_mode" => {
            service.namespaces.network_mode = Some(text.parse().ok()?);
            "network_mode".to_owned()
        }
        "pid" => {
            service.namespaces.pid = Some(text.parse().ok()?);
            "pid".to_owned()
        }
        "ipc" => {
            service.namespaces.ipc = Some(text.parse().ok()?);
            "ipc".to_owned()
        }
        "grace" => {
            service.stop_grace_period = Some(text.parse().ok()?);
            "stop_grace_period".to_owned()
        }
        "signal" => {
            service.stop_signal = Some(text);
            "stop_signal".to_owned()
        }
        "health" => {
            let mut test = vec!["CMD-SHELL".to_owned()];
            test.push(text);
            service.healthcheck = Some(Healthcheck {
                test: Some(test),
                ..Healthcheck::default()
            });
            "healthcheck".to_owned()
        }
        "interval" => {
            service.healthcheck.as_mut()?.interval = Some(text.parse().ok()?);
            "healthcheck.interval".to_owned()
        }
        "needs" => {
            let (other, condition) = rest.split_first()?;
            let (optional, restart) = (condition.contains(&"optional"), condition.contains(&"restart"));
            let words = condition
                .iter()
                .filter(|word| !matches!(**word, "optional" | "restart"));
            let condition: Vec<&str> = words.copied().collect();
            let dependency = Dependency {
                condition: match condition.as_slice() {
                    [] | ["started"] => Condition::Started,
                    ["healthy"] => Condition::Healthy,
                    ["completed"] => Condition::CompletedSuccessfully,
                    _ => return None,
                },
                required: !optional,
                restart,
            };
            service.depends_on.insert((*other).to_owned(), dependency);
            format!("depends_on.{other}")
        }
        "net" => {
            let (network, aliases) = rest.split_first()?;
            let attachment = Attachment {
                aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
                ..Attachment::default()
            };
            service.networks.insert((*network).to_owned(), attachment);
            format!("networks.{network}")
        }
        "port" => {
            service.ports.push(port(&text)?);
            "ports".to_owned()
        }
        "volume" => {
            let (source, target) = text.split_once(':')?;
            let source = (!source.is_empty()).then(|| source.to_owned());
            if let Some(source) = &source {
                let volume = Volume {
                    name: format!("{name}_{source}"),
                    ..Volume::default()
                };
                project.volumes.insert(source.clone(), volume);
            }
            service.volumes.push(Mount::Volume {
                source,
                target: target.into(),
                read_only: false,
                nocopy: false,
                subpath: None,
            });
            "volumes".to_owned()
        }
        _ => return None,
    })
}

/// `parallelism 2 delay 5s monitor 10s order start-first action rollback ratio 500`, any of it; the ratio in
/// thousandths.
fn update(words: &[&str]) -> Option<UpdateConfig> {
    let mut update = UpdateConfig::default();
    for pair in words.chunks(2) {
        match pair {
            ["parallelism", count] => update.parallelism = Some(count.parse().ok()?),
            ["delay", time] => update.delay = Some(time.parse().ok()?),
            ["monitor", time] => update.monitor = Some(time.parse().ok()?),
            ["order", order] => update.start_first = *order == "start-first",
            ["action", "pause"] => update.failure_action = Some(FailureAction::Pause),
            ["action", "continue"] => update.failure_action = Some(FailureAction::Continue),
            ["action", "rollback"] => update.failure_action = Some(FailureAction::Rollback),
            ["ratio", thousandths] => update.max_failure_ratio = Some(thousandths.parse().ok()?),
            _ => return None,
        }
    }
    Some(update)
}

/// `80`, `8080:80`, `8000-8010:80`, `127.0.0.1:8080:80`, each with `/udp`.
fn port(text: &str) -> Option<PublishedPort> {
    let (text, protocol) = match text.strip_suffix("/udp") {
        Some(text) => (text, Protocol::Udp),
        None => (text, Protocol::Tcp),
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (ip, published, target): (Option<IpAddr>, Option<&str>, &str) = match parts.as_slice() {
        [target] => (None, None, target),
        [published, target] => (None, Some(published), target),
        [ip, published, target] => (Some(ip.parse().ok()?), Some(published), target),
        _ => return None,
    };
    let published = match published {
        None => None,
        Some(published) => {
            let (first, last) = published.split_once('-').unwrap_or((published, published));
            Some(PortRange {
                first: first.parse().ok()?,
                last: last.parse().ok()?,
            })
        }
    };
    Some(PublishedPort {
        target: target.parse().ok()?,
        published,
        host_ip: ip,
        protocol,
    })
}

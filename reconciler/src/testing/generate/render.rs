//! A shape as the typed project that the language would make of its file.

use std::collections::BTreeMap;

use model::types::{
    self, Attachment, Dependency, Deploy, Duration, FailureAction, Healthcheck, Mount, Namespace, Network,
    PortRange, Project, Protocol, PublishedPort, PullPolicy, RestartPolicy, UpdateConfig, Volume,
};

use super::{Behaviour, Condition, Need, OnFailure, Policy, Port, Restart, Service, Shape, Update};

impl Shape {
    pub fn project(&self, name: &str) -> Project {
        let mut project = Project {
            name: name.to_owned(),
            directory: format!("/srv/{name}").into(),
            ..Project::default()
        };
        for service in &self.services {
            let rendered = render(service);
            for key in rendered.networks.keys() {
                let network = Network {
                    name: format!("{name}_{key}"),
                    internal: key == "back" && self.internal,
                    ..Network::default()
                };
                project.networks.insert(key.clone(), network);
            }
            for key in &service.volumes {
                let volume = Volume {
                    name: format!("{name}_{key}"),
                    ..Volume::default()
                };
                project.volumes.insert((*key).to_owned(), volume);
            }
            project.services.insert(service.name.clone(), rendered);
        }
        model::pre_start::derive(&mut project, &mut BTreeMap::new());
        project
    }
}

fn render(service: &Service) -> types::Service {
    let networks = match service.networks.as_slice() {
        _ if service.joins_a_network() => &[],
        [] => &["default"][..],
        networks => networks,
    };
    let mut rendered = types::Service {
        image: service.image.to_owned(),
        command: Some(vec![service.behaviour.word().to_owned()]),
        environment: [("A".to_owned(), service.env.to_string())].into(),
        restart: match service.restart {
            Restart::No => RestartPolicy::No,
            Restart::Always => RestartPolicy::Always,
            Restart::UnlessStopped => RestartPolicy::UnlessStopped,
            Restart::OnFailure(limit) => RestartPolicy::OnFailure(limit),
        },
        healthcheck: service.health.then(|| Healthcheck {
            test: Some(vec!["CMD".to_owned(), "check".to_owned()]),
            ..Healthcheck::default()
        }),
        networks: networks
            .iter()
            .map(|key| ((*key).to_owned(), Attachment::default()))
            .collect(),
        ports: service.ports.iter().map(port).collect(),
        volumes: service
            .volumes
            .iter()
            .map(|key| Mount::Volume {
                source: Some((*key).to_owned()),
                target: format!("/{key}").into(),
                read_only: false,
                nocopy: false,
                subpath: None,
            })
            .collect(),
        depends_on: service.all_needs().iter().map(need).collect(),
        stop_grace_period: service.grace.map(milliseconds),
        ..types::Service::default()
    };
    if service.label > 0 {
        let label = ("l".to_owned(), service.label.to_string());
        rendered.labels.extend([label]);
    }
    let namespaces = &mut rendered.namespaces;
    namespaces.ipc = service.shared.then_some(Namespace::Shareable);
    if let Some(sharing) = &service.sharing {
        let all = [
            (sharing.network, &mut namespaces.network_mode),
            (sharing.ipc, &mut namespaces.ipc),
            (sharing.pid, &mut namespaces.pid),
        ];
        for (_, namespace) in all.into_iter().filter(|(shared, _)| *shared) {
            *namespace = Some(Namespace::Service(sharing.with.clone()));
        }
    }
    let hooks = &service.hooks;
    rendered.container.post_start = commands(service.post_start(), false);
    rendered.container.pre_stop = commands(&hooks.pre_stop, false);
    rendered.container.pre_start = commands(&hooks.pre_start, hooks.per_replica);
    rendered.container.pull_policy = match service.policy {
        Policy::None => None,
        Policy::Never => Some(PullPolicy::Never),
        Policy::Missing => Some(PullPolicy::Missing),
        Policy::Always => Some(PullPolicy::Always),
        Policy::EveryMinute => Some(PullPolicy::Every(milliseconds(60_000))),
    };
    rendered.container.scale = (service.scale != 1).then_some(service.scale);
    rendered.container.deploy = service.update.map(|own| Deploy {
        update_config: Some(update(own)),
        ..Deploy::default()
    });
    rendered
}

fn commands(hooks: &[Behaviour], per_replica: bool) -> Vec<types::Hook> {
    let hook = |hook: &Behaviour| types::Hook {
        command: vec![hook.word().to_owned()],
        per_replica,
        ..types::Hook::default()
    };
    hooks.iter().map(hook).collect()
}

fn milliseconds(time: u64) -> Duration {
    Duration(time * 1_000_000)
}

fn port(port: &Port) -> PublishedPort {
    PublishedPort {
        target: port.target,
        published: port.published.map(|(first, last)| PortRange { first, last }),
        host_ip: None,
        protocol: if port.udp { Protocol::Udp } else { Protocol::Tcp },
    }
}

fn need(need: &Need) -> (String, Dependency) {
    let dependency = Dependency {
        condition: match need.condition {
            Condition::Started => types::Condition::Started,
            Condition::Healthy => types::Condition::Healthy,
            Condition::Completed => types::Condition::CompletedSuccessfully,
        },
        required: need.required,
        restart: need.restart,
    };
    (need.on.clone(), dependency)
}

fn update(update: Update) -> UpdateConfig {
    UpdateConfig {
        parallelism: update.parallelism,
        delay: (update.delay > 0).then(|| milliseconds(update.delay)),
        start_first: update.start_first,
        failure_action: update.on_failure.map(|action| match action {
            OnFailure::Pause => FailureAction::Pause,
            OnFailure::Continue => FailureAction::Continue,
            OnFailure::Rollback => FailureAction::Rollback,
        }),
        monitor: (update.monitor > 0).then(|| milliseconds(update.monitor)),
        ..UpdateConfig::default()
    }
}

//! One service.

use super::{Reader, value::Place};
use crate::{
    name::is_hostname,
    syntax::{cut, image},
    types::{Build, Container, Deploy, DeployMode, Hook, OnUnhealthy, RestartPolicy, Service, UpdateConfig},
};

impl Reader<'_> {
    pub(super) fn service(&mut self, place: &Place) -> Service {
        let environment = place.optional_texts("environment").into_iter();
        Service {
            image: self.image(place, "image").unwrap_or_default(),
            command: place.get("command").map(|_| place.words("command")),
            entrypoint: place.get("entrypoint").map(|_| place.words("entrypoint")),
            // A name that the project environment does not have stays unset.
            environment: environment
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
            volumes: self.mounts(place),
            networks: self.attachments(place),
            ports: self.ports(place),
            depends_on: self.dependencies(place),
            restart: self.restart(place),
            healthcheck: self.healthcheck(place),
            hostname: self.hostname(place, "hostname"),
            labels: place.texts_by_name("labels"),
            user: self.user(place),
            working_dir: self.working_dir(place),
            stop_signal: self.stop_signal(place),
            stop_grace_period: self.exact_duration(place, "stop_grace_period"),
            resources: self.resources_of(place),
            security: self.security(place),
            namespaces: self.namespaces(place),
            names: self.names(place),
            container: Container {
                init: place.flag("init"),
                tty: place.flag("tty"),
                stdin_open: place.flag("stdin_open"),
                annotations: place.texts_by_name("annotations"),
                configs: self.file_mounts(place, "configs", "/"),
                secrets: self.file_mounts(place, "secrets", "/run/secrets"),
                volumes_from: self.volumes_from(place),
                logging: self.logging(place),
                pre_start: self.hooks(place, "pre_start"),
                pre_start_of: None,
                post_start: self.hooks(place, "post_start"),
                pre_stop: self.hooks(place, "pre_stop"),
                platform: self.parsed(place, "platform", "write it like `linux/amd64`"),
                pull_policy: self.parsed(place, "pull_policy", PULL_POLICIES),
                scale: self.scale(place),
                build: self.build(place),
                deploy: self.deploy(place),
                on_unhealthy: self.on_unhealthy(place),
            },
        }
    }

    fn on_unhealthy(&mut self, place: &Place) -> Option<OnUnhealthy> {
        const KEY: &str = "x-on-unhealthy";
        const HINT: &str = "write `restart`, or remove it";
        if let Some(place) = place.get(KEY)
            && place.scalar().is_none_or(|text| text.is_empty())
        {
            self.refuse(&place, "this must be a word", HINT);
        }
        self.named(place, KEY, HINT)
    }

    fn image(&mut self, place: &Place, key: &str) -> Option<String> {
        let place = place.get(key)?;
        let text = place.scalar()?;
        match image::resolve(&text, self.directory, self.home) {
            Ok(image) => Some(image),
            Err(error) => {
                // The text is in the error, and may be long.
                let message = error.to_string().replace(&text, &cut(&text));
                let hint = error.hint().replace(&text, &cut(&text));
                self.refuse(&place, message, &hint);
                None
            }
        }
    }

    /// `deploy.restart_policy` wins.
    fn restart(&mut self, place: &Place) -> RestartPolicy {
        const HINT: &str = "write `no`, `always`, `unless-stopped` or `on-failure[:N]`";
        let own = self.parsed(place, "restart", HINT).unwrap_or_default();
        let Some(policy) = place
            .get("deploy")
            .and_then(|deploy| deploy.get("restart_policy"))
        else {
            return own;
        };
        let condition = policy.word("condition");
        let most = self.number(&policy, "max_attempts", 0..=i128::from(u32::MAX));
        if let Some(service) = self.report.origins.get(&policy.path).copied() {
            self.report.origin(format!("{}.restart", place.path), service);
        }
        match condition.as_deref() {
            None | Some("any" | "always") => RestartPolicy::Always,
            Some("none" | "no") => RestartPolicy::No,
            Some("unless-stopped") => RestartPolicy::UnlessStopped,
            Some("on-failure") => RestartPolicy::OnFailure(most.filter(|most| *most > 0)),
            Some(other) => {
                let what = format!("`{}` is no condition to restart on", cut(other));
                let place = policy.get("condition").unwrap_or(policy);
                self.refuse(&place, what, "write `none`, `on-failure` or `any`");
                own
            }
        }
    }

    pub(super) fn hostname(&mut self, place: &Place, key: &str) -> Option<String> {
        let place = place.get(key)?;
        let text = place.scalar().filter(|text| !text.is_empty())?;
        if !is_hostname(&text) {
            let hint = "use letters, digits and `-` between dots, at most 64 in all (RFC 1123)";
            self.refuse(&place, format!("`{}` is not a host name", cut(&text)), hint);
            return None;
        }
        Some(text)
    }

    fn user(&mut self, place: &Place) -> Option<String> {
        let text = place.word("user")?;
        let place = place.get("user")?;
        let parts = text.split(':');
        if parts.clone().count() > 2 || parts.clone().any(|part| part.trim() != part) || text.starts_with(':')
        {
            let what = format!("`{}` is not a user", cut(&text));
            self.refuse(&place, what, "write `user` or `user:group`, as names or numbers");
            return None;
        }
        Some(text)
    }

    pub(super) fn working_dir(&mut self, place: &Place) -> Option<String> {
        let text = place.word("working_dir")?;
        if !text.starts_with('/') {
            let place = place.get("working_dir")?;
            let what = format!("`{}` is not an absolute path", cut(&text));
            self.refuse(&place, what, "start it with `/`");
            return None;
        }
        Some(text)
    }

    fn stop_signal(&mut self, place: &Place) -> Option<String> {
        let text = place.word("stop_signal")?;
        if !is_signal(&text) {
            let place = place.get("stop_signal")?;
            let what = format!("`{}` is not a signal", cut(&text));
            self.refuse(
                &place,
                what,
                "write a name like `SIGINT` or a number from 1 to 64",
            );
            return None;
        }
        Some(text)
    }

    /// `deploy.replicas` and `scale` are equal where both are said.
    fn scale(&mut self, place: &Place) -> Option<u32> {
        const RANGE: std::ops::RangeInclusive<i128> = 0..=10_000;
        let deploy = place.get("deploy");
        let replicas = deploy.and_then(|deploy| {
            self.stands_in(&deploy, "replicas", place, "scale");
            self.number(&deploy, "replicas", RANGE)
        });
        let scale = self.number(place, "scale", RANGE);
        replicas.or(scale).filter(|scale| *scale != 1)
    }

    fn hooks(&mut self, place: &Place, key: &str) -> Vec<Hook> {
        let mut hooks = Vec::new();
        for place in place.list(key) {
            let environment = place.optional_texts("environment").into_iter();
            hooks.push(Hook {
                command: place.words("command"),
                user: self.user(&place),
                privileged: place.flag("privileged"),
                working_dir: self.working_dir(&place),
                environment: environment
                    .filter_map(|(name, value)| Some((name, value?)))
                    .collect(),
                image: self.image(&place, "image"),
                per_replica: place.flag("per_replica"),
            });
        }
        hooks
    }

    fn deploy(&mut self, place: &Place) -> Option<Deploy> {
        let place = place.get("deploy")?;
        let restart = place.get("restart_policy");
        let restart_delay = restart.as_ref().and_then(|policy| self.duration(policy, "delay"));
        let restart_window = restart
            .as_ref()
            .and_then(|policy| self.duration(policy, "window"));
        // Where only failures count, the limit is part of the restart policy.
        let failures = restart.as_ref().and_then(|policy| policy.word("condition"));
        let restart_attempts = restart
            .as_ref()
            .filter(|_| failures.as_deref() != Some("on-failure"))
            .and_then(|policy| self.number(policy, "max_attempts", 0..=i128::from(u32::MAX)))
            .filter(|most| *most > 0);
        let update_config = self.update(&place, "update_config");
        let rollback_config = self.update(&place, "rollback_config");
        let deploy = Deploy {
            mode: self
                .named(&place, "mode", "write `replicated` or `global`")
                .filter(|mode| *mode != DeployMode::Replicated),
            labels: place.texts_by_name("labels"),
            restart_delay,
            restart_window,
            restart_attempts,
            update_config,
            rollback_config,
            constraints: place
                .get("placement")
                .map(|placement| placement.words("constraints"))
                .unwrap_or_default(),
        };
        Some(deploy).filter(|deploy| *deploy != Deploy::default())
    }

    fn update(&mut self, place: &Place, key: &str) -> Option<UpdateConfig> {
        let place = place.get(key)?;
        Some(UpdateConfig {
            parallelism: self.number(&place, "parallelism", 0..=i128::from(u32::MAX)),
            delay: self.duration(&place, "delay"),
            start_first: place.word("order").as_deref() == Some("start-first"),
            failure_action: self.named(
                &place,
                "failure_action",
                "write `pause`, `continue` or `rollback`",
            ),
            monitor: self.duration(&place, "monitor"),
            max_failure_ratio: self.ratio(&place, "max_failure_ratio"),
        })
    }

    /// A share between 0 and 1, in thousandths.
    fn ratio(&mut self, place: &Place, key: &str) -> Option<u32> {
        let text = place.word(key)?;
        let place = place.get(key)?;
        match text.parse::<f64>() {
            Ok(share) if (0.0..=1.0).contains(&share) => Some((share * 1000.0).round() as u32),
            _ => {
                let what = format!("`{}` is no share of containers", cut(&text));
                self.refuse(&place, what, "write a number between 0 and 1, like 0.25");
                None
            }
        }
    }

    /// One of the names of an enumeration.
    pub(super) fn named<T: serde::de::DeserializeOwned>(
        &mut self,
        place: &Place,
        key: &str,
        hint: &str,
    ) -> Option<T> {
        let text = place.word(key)?;
        let place = place.get(key)?;
        match serde_json::from_value(text.as_str().into()) {
            Ok(value) => Some(value),
            Err(_) => {
                self.refuse(&place, format!("`{}` means nothing here", cut(&text)), hint);
                None
            }
        }
    }

    fn build(&mut self, place: &Place) -> Option<Build> {
        let place = place.get("build")?;
        let secrets = place.list("secrets").into_iter();
        Some(Build {
            context: place.word("context"),
            dockerfile: place.word("dockerfile").map(Into::into),
            dockerfile_inline: place.word("dockerfile_inline"),
            args: place.optional_texts("args"),
            target: place.word("target"),
            labels: place.texts_by_name("labels"),
            tags: place.words("tags"),
            platforms: place.words("platforms"),
            cache_from: place.words("cache_from"),
            cache_to: place.words("cache_to"),
            no_cache: place.flag("no_cache"),
            no_cache_filter: place.words("no_cache_filter"),
            pull: place.flag("pull"),
            privileged: place.flag("privileged"),
            network: place.word("network"),
            additional_contexts: place.texts_by_name("additional_contexts"),
            extra_hosts: place.words("extra_hosts"),
            ssh: place.words("ssh"),
            entitlements: place.words("entitlements"),
            provenance: place.word("provenance"),
            sbom: place.word("sbom"),
            secrets: secrets.filter_map(|secret| secret.word("source")).collect(),
            shm_size: self.bytes(&place, "shm_size"),
            ulimits: self.ulimits(&place),
        })
    }
}

const PULL_POLICIES: &str = "write `always`, `never`, `missing`, `daily`, `weekly` or `every_12h`";

/// signal(7): a name with or without `SIG`, `RTMIN+n`, `RTMAX-n`, or a number.
fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 36] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
        "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
        "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
    ];
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = name
        .strip_prefix("RTMIN+")
        .or_else(|| name.strip_prefix("RTMAX-"));
    match offset {
        Some(offset) => offset.parse::<u8>().is_ok_and(|offset| offset <= 30),
        None => NAMES.contains(&name),
    }
}

//! Docker's defaults, one table each.

use model::types::{Healthcheck, Mount};

use super::*;
use crate::{key::Slot, observed::ImageHealthcheck, spec::MountSpec};

fn service(change: impl FnOnce(&mut Service)) -> Service {
    let mut service = Service {
        image: "app:1".to_owned(),
        ..Service::default()
    };
    change(&mut service);
    service
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn build(service: &Service, config: ImageConfig) -> Result<ContainerSpec, String> {
    let project = Project {
        name: "shop".to_owned(),
        ..Project::default()
    };
    let key = InstanceKey {
        project: project.name.clone(),
        service: "web".to_owned(),
        index: 1,
        slot: Slot::A,
    };
    let image = Image::new("sha256:aaaa".to_owned(), true, config);
    container(
        &project,
        &key,
        service,
        compared(&project, &key.service, service).into_owned(),
        &image,
        &Observed::nothing_known(),
    )
}

#[test]
fn entrypoint_and_command_combine_as_docker_does() {
    // image entrypoint, image command, service entrypoint, service command, argv
    let cases = [
        ("e", "c", None, None, "e c"),
        ("e", "c", None, Some("x"), "e x"),
        ("e", "c", None, Some(""), "e"),
        ("e", "c", Some("s"), None, "s"),
        ("e", "c", Some("s"), Some("x"), "s x"),
        ("e", "c", Some(""), Some("x"), "x"),
        ("", "c", None, None, "c"),
    ];
    for (entrypoint, command, own_entrypoint, own_command, expected) in cases {
        let config = ImageConfig {
            entrypoint: words(entrypoint),
            command: words(command),
            ..ImageConfig::default()
        };
        let service = service(|service| {
            service.entrypoint = own_entrypoint.map(words);
            service.command = own_command.map(words);
        });
        assert_eq!(build(&service, config).unwrap().argv, words(expected));
    }
    let nothing = build(&service(|_| {}), ImageConfig::default()).unwrap_err();
    assert!(nothing.contains("set `command`"), "{nothing}");
}

#[test]
fn the_environment_is_default_then_image_then_service() {
    let config = ImageConfig {
        command: words("x"),
        environment: BTreeMap::from([("PATH".into(), "/bin".into()), ("A".into(), "image".into())]),
        ..ImageConfig::default()
    };
    let service = service(|service| {
        service.environment.insert("A".into(), "service".into());
        service.hostname = Some("front".into());
    });
    let environment = build(&service, config.clone()).unwrap().environment;
    assert_eq!(environment["PATH"], "/bin");
    assert_eq!(environment["A"], "service");
    assert_eq!(environment["HOSTNAME"], "front");
    let plain = ImageConfig {
        environment: BTreeMap::new(),
        ..config
    };
    assert_eq!(build(&service, plain).unwrap().environment["PATH"], PATH);
}

#[test]
fn processors_are_limited_in_thousandths() {
    let cases = [
        (None, None),
        (Some("0.5"), Some(500)),
        (Some("2"), Some(2_000)),
        (Some("0.0015"), Some(1)),
        (Some("0.0001"), Some(1)),
    ];
    for (cpus, expected) in cases {
        let service = service(|service| {
            service.command = Some(words("x"));
            service.resources.cpus = cpus.map(|cpus| cpus.parse().unwrap());
        });
        let spec = build(&service, ImageConfig::default()).unwrap();
        assert_eq!(spec.limits.cpu, expected, "{cpus:?}");
    }
}

#[test]
fn a_probe_takes_each_open_value_from_the_image_then_the_engine() {
    let image = ImageHealthcheck {
        test: words("CMD image"),
        interval: 5_000,
        retries: 7,
        ..ImageHealthcheck::default()
    };
    let silent = ImageHealthcheck {
        interval: 0,
        retries: 0,
        ..image.clone()
    };
    let check = |test: Option<&str>, interval: Option<u64>| Healthcheck {
        test: test.map(words),
        interval: interval.map(|seconds| model::types::Duration(seconds * 1_000_000_000)),
        ..Healthcheck::default()
    };
    let cases = [
        (None, None, None),
        (Some(check(Some("NONE"), None)), Some(&image), None),
        (None, Some(&image), Some(("image", 5_000, 30_000, 7))),
        (
            Some(check(Some("CMD own x"), Some(1))),
            Some(&image),
            Some(("own x", 1_000, 30_000, 7)),
        ),
        (
            Some(check(Some("CMD own"), None)),
            None,
            Some(("own", 30_000, 30_000, 3)),
        ),
        (
            Some(check(Some("CMD-SHELL true"), None)),
            None,
            Some(("/bin/sh -c true", 30_000, 30_000, 3)),
        ),
        (
            Some(check(None, Some(2))),
            Some(&image),
            Some(("image", 2_000, 30_000, 7)),
        ),
        (Some(check(None, Some(2))), None, None),
        (Some(check(Some("CMD"), None)), None, None),
        // No time, and no tries, are the same as not said.
        (
            Some(Healthcheck {
                retries: Some(0),
                ..check(Some("CMD own"), Some(0))
            }),
            Some(&image),
            Some(("own", 5_000, 30_000, 7)),
        ),
        (
            Some(Healthcheck {
                retries: Some(2),
                ..check(Some("CMD own"), None)
            }),
            Some(&image),
            Some(("own", 5_000, 30_000, 2)),
        ),
        (None, Some(&silent), Some(("image", 30_000, 30_000, 3))),
    ];
    for (own, image, expected) in cases {
        let service = service(|service| service.healthcheck = own);
        let config = ImageConfig {
            command: words("x"),
            healthcheck: image.cloned(),
            ..ImageConfig::default()
        };
        let expected = expected.map(|(argv, interval, timeout, retries)| HealthSpec {
            argv: words(argv),
            interval,
            timeout,
            retries,
            start_period: 0,
            start_interval: interval.min(5_000),
        });
        assert_eq!(build(&service, config).unwrap().health, expected);
    }
}

#[test]
fn the_start_of_a_probe_is_the_services_then_the_images() {
    let seconds = |seconds: u64| Some(model::types::Duration(seconds * 1_000_000_000));
    let image = ImageHealthcheck {
        test: words("CMD image"),
        start_period: 60_000,
        start_interval: 700,
        ..ImageHealthcheck::default()
    };
    for (own, expected) in [
        (Healthcheck::default(), (60_000, 700)),
        (
            Healthcheck {
                start_period: seconds(10),
                start_interval: seconds(1),
                ..Healthcheck::default()
            },
            (10_000, 1_000),
        ),
    ] {
        let service = service(|service| service.healthcheck = Some(own));
        let config = ImageConfig {
            command: words("x"),
            healthcheck: Some(image.clone()),
            ..ImageConfig::default()
        };
        let health = build(&service, config).unwrap().health.unwrap();
        assert_eq!((health.start_period, health.start_interval), expected);
    }
}

#[test]
fn signals_have_names_numbers_and_offsets() {
    let cases = [
        ("SIGTERM", Some(15)),
        ("term", Some(15)),
        ("INT", Some(2)),
        ("sigusr1", Some(10)),
        ("SIGWINCH", Some(28)),
        ("SYS", Some(31)),
        ("9", Some(9)),
        ("64", Some(64)),
        ("RTMIN", Some(34)),
        ("SIGRTMIN+3", Some(37)),
        ("RTMAX-1", Some(63)),
        ("RTMAX", Some(64)),
        ("RTMIN+31", None),
        ("RTMIN-1", None),
        ("0", None),
        ("65", None),
        ("-1", None),
        ("SIGNOPE", None),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(signal_number(text), expected, "{text}");
    }
}

#[test]
fn the_service_wins_over_the_image_and_the_image_over_the_default() {
    let config = ImageConfig {
        command: words("x"),
        user: "app".to_owned(),
        working_dir: "/srv".to_owned(),
        stop_signal: Some("SIGQUIT".to_owned()),
        ..ImageConfig::default()
    };
    let bare = ImageConfig {
        command: words("x"),
        ..ImageConfig::default()
    };
    let set = service(|service| {
        service.user = Some("7:7".to_owned());
        service.working_dir = Some("/own".to_owned());
        service.stop_signal = Some("2".to_owned());
        service.stop_grace_period = Some(model::types::Duration(1_500_000_000));
    });
    let cases = [
        (&set, config.clone(), ("7:7", "/own", 2, 1_500)),
        (&service(|_| {}), config, ("app", "/srv", 3, 10_000)),
        (&service(|_| {}), bare, ("", "/", 15, 10_000)),
    ];
    for (service, config, (user, directory, signal, grace)) in cases {
        let spec = build(service, config).unwrap();
        assert_eq!(spec.user, user);
        assert_eq!(spec.working_dir, PathBuf::from(directory));
        assert_eq!((spec.stop_signal, spec.stop_grace), (signal, grace));
        assert_eq!(spec.hostname, "web");
    }
    let wrong = service(|service| service.stop_signal = Some("NOPE".to_owned()));
    let bare = ImageConfig {
        command: words("x"),
        ..ImageConfig::default()
    };
    assert!(build(&wrong, bare).unwrap_err().contains("stop_signal"));
}

#[test]
fn image_volumes_become_anonymous_ones_unless_something_is_mounted_there() {
    let config = ImageConfig {
        command: words("x"),
        volumes: BTreeSet::from(["/data".to_owned(), "/cache".to_owned()]),
        ..ImageConfig::default()
    };
    let service = service(|service| {
        service.volumes = vec![Mount::Tmpfs {
            target: "/cache".into(),
            size: None,
            mode: None,
            uid: None,
            gid: None,
            exec: false,
        }];
    });
    let mounts = build(&service, config).unwrap().mounts;
    assert_eq!(mounts.len(), 2);
    let MountSpec::Volume { volume, target, .. } = &mounts[1] else {
        panic!("{mounts:?}");
    };
    assert_eq!(target, &PathBuf::from("/data"));
    assert!(volume.name.starts_with("shop_web-1-"), "{}", volume.name);
}

#[test]
fn what_a_recorded_service_depended_on_is_read_back() {
    let fields = Fields::from([
        ("depends_on.db.condition".to_owned(), "service_started".to_owned()),
        (
            "depends_on.my.cache.condition".to_owned(),
            "service_healthy".to_owned(),
        ),
        ("depends_on.db.required".to_owned(), "true".to_owned()),
    ]);
    assert_eq!(dependencies(&fields).collect::<Vec<_>>(), ["db", "my.cache"]);
}

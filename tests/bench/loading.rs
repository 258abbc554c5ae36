//! Reading manifests: one of 500 services, a thousand that did not change, and hostile ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use backend::layout::Layout;

use crate::{
    ROUNDS, Spread,
    host::{Host, hostile},
    intake::Intake,
    source::{Snapshot, directory::Directory, watch::Watcher},
};

const SERVICES: usize = 500;
const PROJECTS: usize = 1000;

/// Milliseconds to load one manifest of [`SERVICES`] services from memory, about 70 KB.
pub fn large() -> Spread {
    let file = PathBuf::from("/srv/large.yaml");
    let sources = BTreeMap::from([(file.clone(), manifest(SERVICES).into_bytes())]);
    let options = model::load::Options {
        directory: "/srv".into(),
        fallback_name: "large".into(),
        ..Default::default()
    };
    let files = [file];
    let times = (0..=ROUNDS).map(|_| {
        let start = Instant::now();
        let loaded = model::load::load(&sources, &files, &options);
        let time = start.elapsed();
        let project = loaded.project.expect("a project without errors");
        assert_eq!(project.services.len(), SERVICES);
        time.as_secs_f64() * 1000.0
    });
    Spread::of(times.skip(1).collect())
}

/// Milliseconds to look at [`PROJECTS`] projects again of which nothing changed: what an agent does after each
/// event. Every second one is a directory with an override and an env file, the others are plain files.
pub fn unchanged(place: &Path) -> Spread {
    let layout = Layout::new(Some(place)).expect("a root");
    for number in 0..PROJECTS {
        let project = layout.manifests.join(format!("p{number:04}"));
        if number % 2 == 0 {
            fs::create_dir_all(&layout.manifests).expect("a directory");
            fs::write(project.with_extension("yaml"), manifest(2)).expect("a file");
            continue;
        }
        fs::create_dir_all(&project).expect("a directory");
        for (name, text) in [
            ("compose.yaml", manifest(2)),
            (
                "compose.override.yaml",
                "services: { s0: { hostname: \"${NAME}\" } }\n".into(),
            ),
            (".env", format!("NAME=host{number}\n")),
        ] {
            fs::write(project.join(name), text).expect("a file");
        }
    }
    let mut directory = Directory::new(layout.manifests.clone());
    let mut intake = Intake::open(&layout, BTreeMap::new(), BTreeMap::new()).expect("an empty root");
    let (hints, _nobody) = tokio::sync::mpsc::unbounded_channel();
    let mut watcher = Watcher::start(hints);
    let times = (0..=ROUNDS).map(|_| {
        let start = Instant::now();
        let mut snapshot = Snapshot::default();
        directory.scan(&mut snapshot);
        let (desired, report) = intake.take(&snapshot, &mut BTreeSet::new());
        watcher.follow([layout.manifests.clone()].into(), report.inputs.clone());
        let time = start.elapsed();
        let good = report.projects.values().filter(|seen| seen.revision.is_some());
        assert_eq!((desired.projects.len(), good.count()), (PROJECTS, PROJECTS));
        time.as_secs_f64() * 1000.0
    });
    // The first one reads everything.
    Spread::of(times.skip(1).collect())
}

/// The hostile manifest on which `stead config -q` takes longest, and how many milliseconds that are.
pub fn hostile(place: &Path) -> (&'static str, Spread) {
    let file = place.join("compose.yaml");
    let measured = hostile::manifests().into_iter().map(|(name, text)| {
        fs::write(&file, text).expect("a file");
        let times = (0..ROUNDS).map(|_| {
            let start = Instant::now();
            let status = Command::new(Host::binary())
                .args(["config", "-q", "-f"])
                .arg(&file)
                .stderr(Stdio::null())
                .status();
            let time = start.elapsed();
            assert!(status.is_ok_and(|status| status.code().is_some()), "{name}");
            time.as_secs_f64() * 1000.0
        });
        (name, Spread::of(times.collect()))
    });
    measured
        .max_by(|(_, a), (_, b)| a.p50.total_cmp(&b.p50))
        .expect("there are hostile manifests")
}

fn manifest(services: usize) -> String {
    let mut text = String::from("services:\n");
    for number in 0..services {
        text.push_str(&format!(
            "  s{number}:\n    image: builtin:hello\n    environment: {{ A: \"1\", B: \"${{B:-2}}\" }}\n    ports: [\"{}:80\"]\n    restart: always\n    stop_grace_period: 5s\n",
            10_000 + number
        ));
    }
    text
}

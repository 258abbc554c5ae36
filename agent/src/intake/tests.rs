//! Good, bad, gone, replaced, twice.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::source::directory::Directory;

pub(super) const GOOD: &str = "services: { web: { image: 'builtin:hello' } }\n";
const BETTER: &str = "services: { web: { image: 'builtin:hello', hostname: better } }\n";
const BAD: &str = "services: { web: { imag: x } }\n";

/// A root and an agent's reading of it.
pub(super) struct Host {
    _root: TempDir,
    layout: Layout,
    directory: Directory,
    pub(super) intake: Intake,
    writing: BTreeSet<PathBuf>,
}

impl Host {
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(root.path())).unwrap();
        fs::create_dir(&layout.manifests).unwrap();
        Host {
            directory: Directory::new(layout.manifests.clone()),
            intake: Intake::open(&layout, BTreeMap::new(), BTreeMap::new()).unwrap(),
            _root: root,
            layout,
            writing: BTreeSet::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.layout.manifests.join(name)
    }

    /// As an editor does: another inode.
    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    }

    pub(super) fn read(&mut self) -> (Desired, Report) {
        let mut snapshot = Snapshot::default();
        self.directory.scan(&mut snapshot);
        let read = self.intake.take(&snapshot, &mut self.writing);
        self.intake.save();
        read
    }

    /// Another agent takes over.
    fn restart(&mut self) {
        self.intake = Intake::open(&self.layout, BTreeMap::new(), BTreeMap::new()).unwrap();
        self.directory = Directory::new(self.layout.manifests.clone());
    }
}

/// `run HOSTNAME`, `hold`, `down` or `absent`.
pub(super) fn wish(desired: &Desired, name: &str) -> String {
    match desired.projects.get(name) {
        None => "absent".into(),
        Some(Wish::Hold { .. }) => "hold".into(),
        Some(Wish::Down { volumes }) => format!("down {volumes}"),
        Some(Wish::Run { project, .. }) => {
            format!(
                "run {}",
                project.services["web"].hostname.as_deref().unwrap_or("-")
            )
        }
    }
}

fn errors(report: &Report, name: &str) -> Vec<String> {
    let errors = report.projects[name]
        .diagnostics
        .iter()
        .filter(|d| d.severity == Severity::Error);
    errors.map(|d| d.message.clone()).collect()
}

#[test]
fn a_manifest_comes_changes_and_goes() {
    let mut host = Host::new();
    host.write("shop.yaml", GOOD);
    let (desired, report) = host.read();
    assert_eq!(wish(&desired, "shop"), "run -");
    assert!(report.inputs.contains(&host.path("shop.yaml")) && report.inputs.contains(&host.path(".env")));
    host.write("shop.yaml", BETTER);
    assert_eq!(wish(&host.read().0, "shop"), "run better");
    fs::remove_file(host.path("shop.yaml")).unwrap();
    let (desired, _) = host.read();
    assert_eq!(
        (wish(&desired, "shop").as_str(), desired.incomplete),
        ("absent", None)
    );
}

#[test]
fn a_bad_file_keeps_the_last_good_version_also_after_a_restart() {
    let mut host = Host::new();
    host.write("shop.yaml", BETTER);
    host.read();
    host.write("shop.yaml", BAD);
    host.write("other.yaml", GOOD);
    for _ in 0..2 {
        let (desired, report) = host.read();
        assert_eq!(wish(&desired, "shop"), "run better");
        assert_eq!(wish(&desired, "other"), "run -", "others go on");
        assert!(!errors(&report, "shop").is_empty());
        assert_eq!(report.projects["shop"].revision, None);
        host.restart();
    }
    host.write("shop.yaml", GOOD);
    assert_eq!(wish(&host.read().0, "shop"), "run -");
}

#[test]
fn what_was_kept_is_whole() {
    let mut host = Host::new();
    host.write("shop.yaml", GOOD);
    host.read();
    let before = host.intake.good["shop"].clone();
    host.restart();
    let after = &host.intake.good["shop"];
    assert!(after.is_like(&before));
    assert_eq!(after.project.directory, host.layout.manifests);
    assert!(!after.project.origins.is_empty());
}

#[test]
fn a_bad_file_that_was_never_good_is_held() {
    let mut host = Host::new();
    for (name, text) in [
        ("bad", BAD),
        ("zeros", "\0\0\0"),
        ("empty", ""),
        ("half", "services: { web"),
    ] {
        host.write(&format!("{name}.yaml"), text);
        let (desired, report) = host.read();
        assert_eq!(wish(&desired, name), "hold", "{name}");
        assert!(!errors(&report, name).is_empty(), "{name}");
    }
}

#[test]
fn what_compose_loads_and_stead_does_not_run_is_held_under_its_own_name() {
    let mut host = Host::new();
    let refused = "name: shop\nservices: { web: { image: 'builtin:hello', cgroup_parent: /x } }\n";
    host.write("file.yaml", refused);
    let (desired, report) = host.read();
    assert_eq!(wish(&desired, "shop"), "hold");
    assert_eq!((errors(&report, "shop").len(), report.projects.len()), (1, 1));
    host.write("file.yaml", &refused.replace(", cgroup_parent: /x", ""));
    assert_eq!(wish(&host.read().0, "shop"), "run -");
    host.write("file.yaml", refused);
    assert_eq!(wish(&host.read().0, "shop"), "run -", "the last good version");
}

#[test]
fn a_directory_that_is_gone_or_replaced_removes_nothing() {
    let mut host = Host::new();
    host.write("shop.yaml", GOOD);
    host.read();
    let manifests = host.layout.manifests.clone();
    fs::rename(&manifests, manifests.with_extension("away")).unwrap();
    for state in ["gone", "replaced"] {
        let (desired, report) = host.read();
        assert_eq!(wish(&desired, "shop"), "run -", "{state}");
        assert!(
            desired.incomplete.is_some() && !errors(&report, "shop").is_empty(),
            "{state}"
        );
        let _ = fs::create_dir(&manifests);
    }
    host.directory.accept();
    assert_eq!(
        wish(&host.read().0, "shop"),
        "absent",
        "SIGHUP accepts what is there"
    );
}

#[test]
fn of_two_manifests_of_one_name_the_first_applied_stays() {
    let mut host = Host::new();
    let named = |hostname: &str| {
        format!("name: shop\nservices: {{ web: {{ image: 'builtin:hello', hostname: {hostname} }} }}\n")
    };
    host.write("z.yaml", &named("first"));
    host.read();
    host.write("a.yaml", &named("second"));
    for _ in 0..2 {
        let (desired, report) = host.read();
        assert_eq!(wish(&desired, "shop"), "run first");
        assert!(
            errors(&report, "shop")
                .iter()
                .any(|error| error.contains("also defined by")),
            "{report:?}"
        );
        host.restart();
    }
    fs::rename(host.path("z.yaml"), host.path("z.off")).unwrap();
    let (desired, report) = host.read();
    assert_eq!(wish(&desired, "shop"), "run second");
    assert_eq!(errors(&report, "shop"), Vec::<String>::new());
}

#[test]
fn a_renamed_manifest_with_a_name_is_the_same_project() {
    let mut host = Host::new();
    host.write("a.yaml", &format!("name: shop\n{GOOD}"));
    let revision = host.read().1.projects["shop"].revision.clone();
    fs::rename(host.path("a.yaml"), host.path("b.yaml")).unwrap();
    let (desired, report) = host.read();
    assert_eq!(
        (wish(&desired, "shop").as_str(), desired.projects.len()),
        ("run -", 1)
    );
    assert_eq!(report.projects["shop"].revision, revision);
}

#[test]
fn a_file_being_written_is_left_alone_until_it_is_closed_or_the_same_twice() {
    let mut host = Host::new();
    host.write("shop.yaml", GOOD);
    host.read();
    for (round, name, before) in [(0, "shop", "run -"), (1, "new", "hold")] {
        let path = host.path(&format!("{name}.yaml"));
        fs::write(&path, BETTER).unwrap();
        host.writing.insert(path);
        assert_eq!(wish(&host.read().0, name), before, "{round}");
        assert_eq!(host.writing.len(), 1);
        assert_eq!(
            wish(&host.read().0, name),
            "run better",
            "{round}: the same twice"
        );
        assert!(host.writing.is_empty());
    }
}

#[test]
fn any_file_a_project_is_made_of_is_left_alone_while_it_is_written() {
    let mut host = Host::new();
    host.write("shop.yaml", &BETTER.replace("better", "'${NAME:-none}'"));
    host.write(".env", "NAME=better\n");
    assert_eq!(wish(&host.read().0, "shop"), "run better");
    // Truncated, it is a valid one.
    let path = host.path(".env");
    fs::write(&path, "").unwrap();
    host.writing.insert(path.clone());
    assert_eq!(wish(&host.read().0, "shop"), "run better");
    fs::write(&path, "NAME=best\n").unwrap();
    host.writing.remove(&path);
    assert_eq!(wish(&host.read().0, "shop"), "run best");
    fs::write(&path, "").unwrap();
    assert_eq!(wish(&host.read().0, "shop"), "run none", "written in one go");
}

#[test]
fn the_env_file_of_a_project_directory_says_which_files_it_has() {
    let mut host = Host::new();
    fs::create_dir_all(host.path("shop/more")).unwrap();
    host.write("shop/compose.yaml", GOOD);
    host.write("shop/more/better.yaml", BETTER);
    for (env, want) in [
        ("", "run -"),
        ("COMPOSE_FILE=more/better.yaml\n", "run better"),
        ("COMPOSE_FILE=missing.yaml\n", "run better"),
        ("COMPOSE_FILE=compose.yaml\n", "run -"),
    ] {
        host.write("shop/.env", env);
        // Of a project elsewhere the name is that directory's.
        let (desired, report) = host.read();
        let name = if want == "run better" { "more" } else { "shop" };
        assert_eq!(wish(&desired, name), want, "{env}");
        assert_eq!(
            errors(&report, name).is_empty(),
            !env.contains("missing"),
            "{env}"
        );
    }
}

#[test]
fn an_operators_down_holds_until_it_is_cleared() {
    let mut host = Host::new();
    host.write("shop.yaml", GOOD);
    host.read();
    host.intake.set_down("shop", Some(true)).unwrap();
    host.intake.set_down("gone", Some(false)).unwrap();
    for _ in 0..2 {
        let (desired, report) = host.read();
        assert_eq!(
            (wish(&desired, "shop").as_str(), wish(&desired, "gone").as_str()),
            ("down true", "down false")
        );
        assert!(report.projects["shop"].down);
        host.restart();
    }
    host.intake.set_down("shop", None).unwrap();
    assert_eq!(wish(&host.read().0, "shop"), "run -");
    host.intake.end("shop");
    assert_eq!(wish(&host.read().0, "shop"), "down false");
}

/// Of `shop`: `web stop`, `web/1 run`.
fn orders(host: &mut Host) -> (Vec<String>, Vec<PathBuf>) {
    let (desired, report) = host.read();
    assert_eq!(desired.intents, report.intents);
    let each = report.intents.iter().map(|(target, intent)| {
        let word = if matches!(intent, Intent::Stop { .. }) {
            "stop"
        } else {
            "run"
        };
        format!("{target} {word}")
    });
    (
        each.collect(),
        report.lost.into_iter().map(|lost| lost.path).collect(),
    )
}

fn ordered(list: &[(&str, Option<u32>, Intent)]) -> BTreeMap<Target, Intent> {
    let target = |service: &str, index| Target {
        project: "shop".into(),
        service: service.into(),
        index,
    };
    let each = list
        .iter()
        .map(|(service, index, intent)| (target(service, *index), intent.clone()));
    each.collect()
}

fn run(boot_id: &str) -> Intent {
    Intent::Run {
        boot_id: boot_id.into(),
        at: Default::default(),
    }
}

fn stop() -> Intent {
    Intent::Stop {
        at: Default::default(),
    }
}

#[test]
fn orders_survive_the_agent_and_those_to_run_end_with_their_boot() {
    let mut host = Host::new();
    host.write("shop.yaml", GOOD);
    host.read();
    let given = [
        ("web", None, stop()),
        ("web", Some(2), run(&surroundings::boot_id())),
    ];
    host.intake.set_intents(ordered(&given)).unwrap();
    for _ in 0..2 {
        assert_eq!(orders(&mut host).0, ["shop/web stop", "shop/web/2 run"]);
        host.restart();
    }
    // As if the machine had been started since.
    host.intake
        .set_intents(ordered(&[("web", None, stop()), ("web", Some(2), run("before"))]))
        .unwrap();
    host.restart();
    assert_eq!(orders(&mut host).0, ["shop/web stop"]);
    let directory = host.layout.state.join("intents/shop");
    assert_eq!(
        fs::read_dir(&directory).unwrap().count(),
        1,
        "its record is gone, too"
    );
    host.intake.set_intents(BTreeMap::new()).unwrap();
    host.restart();
    assert_eq!(orders(&mut host).0, Vec::<String>::new());
    assert!(!directory.exists(), "nothing is left behind");
}

#[test]
fn orders_go_with_their_service_and_with_their_project() {
    let mut host = Host::new();
    let two = "services: { web: { image: 'builtin:hello' }, db: { image: 'builtin:hello' } }\n";
    let given = || ordered(&[("web", None, stop()), ("db", None, stop())]);
    host.write("shop.yaml", two);
    host.read();
    host.intake.set_intents(given()).unwrap();
    host.write("shop.yaml", BAD);
    assert_eq!(orders(&mut host).0.len(), 2, "the last good version has both");
    host.write("shop.yaml", GOOD);
    assert_eq!(orders(&mut host).0, ["shop/web stop"]);
    host.write("shop.yaml", two);
    assert_eq!(
        orders(&mut host).0,
        ["shop/web stop"],
        "another service of that name is another one"
    );
    let manifests = host.layout.manifests.clone();
    fs::rename(&manifests, manifests.with_extension("away")).unwrap();
    assert_eq!(orders(&mut host).0, ["shop/web stop"], "unknown is not absent");
    fs::rename(manifests.with_extension("away"), &manifests).unwrap();
    fs::remove_file(host.path("shop.yaml")).unwrap();
    assert_eq!(orders(&mut host).0, Vec::<String>::new());
    host.write("shop.yaml", two);
    host.read();
    host.intake.set_intents(given()).unwrap();
    host.intake.set_down("shop", Some(false)).unwrap();
    host.intake.set_down("shop", None).unwrap();
    assert_eq!(orders(&mut host).0, Vec::<String>::new());
    assert!(!host.layout.state.join("intents/shop").exists());
}

#[test]
fn a_damaged_order_is_told_until_another_is_given() {
    let mut host = Host::new();
    host.write("shop.yaml", GOOD);
    host.read();
    host.intake
        .set_intents(ordered(&[("web", None, stop())]))
        .unwrap();
    let record = host.layout.state.join("intents/shop/web.json");
    let whole = fs::read(&record).unwrap();
    let renamed = String::from_utf8(whole.clone()).unwrap().replace("web", "db");
    for damaged in [&whole[..whole.len() / 2], b"\0\0\0", b"", renamed.as_bytes()] {
        fs::write(&record, damaged).unwrap();
        host.restart();
        assert_eq!(orders(&mut host), (Vec::new(), vec![record.clone()]));
    }
    let given = ordered(&[("web", None, stop())]);
    host.intake.set_intents(given.clone()).unwrap();
    given.keys().for_each(|target| host.intake.forget_lost(target));
    for _ in 0..2 {
        assert_eq!(orders(&mut host), (vec!["shop/web stop".to_owned()], Vec::new()));
        host.restart();
    }
    // An order that leaves no record (`start` of what runs) clears it, too.
    fs::write(&record, "{").unwrap();
    host.restart();
    given.keys().for_each(|target| host.intake.forget_lost(target));
    assert_eq!(orders(&mut host), (Vec::new(), Vec::new()));
    assert!(!record.exists());
    fs::create_dir_all(record.parent().unwrap()).unwrap();
    fs::write(&record, r#"{"version": 99}"#).unwrap();
    let newer = Intake::open(&host.layout, BTreeMap::new(), BTreeMap::new())
        .err()
        .unwrap();
    assert!(newer.to_string().contains("newer stead"), "{newer}");
    fs::remove_file(&record).unwrap();
    host.restart();
    assert_eq!(
        orders(&mut host),
        (Vec::new(), Vec::new()),
        "nothing is known of it"
    );
}

#[test]
fn a_thousand_unchanged_projects_are_not_parsed_again() {
    let mut host = Host::new();
    for number in 0..1000 {
        fs::write(host.path(&format!("p{number}.yaml")), GOOD).unwrap();
    }
    let mut snapshot = Snapshot::default();
    host.directory.scan(&mut snapshot);
    let (first, _) = host.intake.take(&snapshot, &mut host.writing);
    let (second, _) = host.intake.take(&snapshot, &mut host.writing);
    let same = |name: &String| match (&first.projects[name], &second.projects[name]) {
        (Wish::Run { project: a, .. }, Wish::Run { project: b, .. }) => Arc::ptr_eq(a, b),
        _ => false,
    };
    assert!(first.projects.len() == 1000 && first.projects.keys().all(same));
}

#[test]
fn a_record_of_a_newer_version_is_refused_and_a_damaged_one_is_written_again() {
    let mut host = Host::new();
    host.write("shop.yaml", GOOD);
    host.read();
    let record = host.layout.state.join("projects/shop/project.json");
    fs::write(&record, "{").unwrap();
    host.restart();
    assert_eq!(wish(&host.read().0, "shop"), "run -");
    fs::write(&record, r#"{"version": 99}"#).unwrap();
    let error = Intake::open(&host.layout, BTreeMap::new(), BTreeMap::new())
        .err()
        .unwrap();
    assert!(error.to_string().contains("newer stead"), "{error}");
}

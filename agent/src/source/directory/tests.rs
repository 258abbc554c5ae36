//! What is a project and what is not.

use super::*;

fn entry(name: &str, kind: Kind) -> Entry {
    Entry {
        name: name.into(),
        kind,
    }
}

fn found(entries: &[Entry]) -> Vec<(String, Vec<String>, bool)> {
    candidates(Path::new("/m"), Path::new("/m"), entries)
        .into_iter()
        .map(|candidate| {
            let files = candidate
                .files
                .iter()
                .map(|file| file.display().to_string())
                .collect();
            (candidate.fallback_name, files, candidate.problem.is_some())
        })
        .collect()
}

#[test]
fn a_directory_with_a_compose_file_is_one_project() {
    let entries = [
        "compose.yaml",
        "compose.override.yaml",
        "other.yaml",
        "docker-compose.yml",
    ];
    let entries: Vec<Entry> = entries.iter().map(|name| entry(name, Kind::File)).collect();
    let want = vec![
        "/m/compose.yaml".to_owned(),
        "/m/compose.override.yaml".to_owned(),
    ];
    assert_eq!(found(&entries), [("m".to_owned(), want, false)]);
}

#[test]
fn a_directory_of_manifests() {
    let directory = |names: &[&str]| Kind::Directory(names.iter().map(|name| (*name).to_owned()).collect());
    let table = [
        (
            entry("shop.yaml", Kind::File),
            Some(("shop", "/m/shop.yaml", false)),
        ),
        (
            entry("shop.yml", Kind::File),
            Some(("shop", "/m/shop.yml", false)),
        ),
        (entry("a.b.yaml", Kind::File), Some(("a.b", "/m/a.b.yaml", false))),
        (
            entry("dir", directory(&["docker-compose.yml"])),
            Some(("dir", "/m/dir/docker-compose.yml", false)),
        ),
        (entry("empty", directory(&[])), None),
        (entry("dir.yaml", directory(&[])), None),
        (entry(".git", directory(&["compose.yaml"])), None),
        (entry(".hidden.yaml", Kind::File), None),
        (entry(".shop.yaml.swp", Kind::File), None),
        (entry("#shop.yaml#", Kind::File), None),
        (entry("shop.yaml~", Kind::File), None),
        (entry("shop.yaml.bak", Kind::File), None),
        (entry("README.md", Kind::File), None),
        (entry("pipe", Kind::Odd("a FIFO".into())), None),
        (
            entry("pipe.yaml", Kind::Odd("a FIFO".into())),
            Some(("pipe", "/m/pipe.yaml", true)),
        ),
    ];
    for (given, want) in table {
        let want: Vec<_> = want
            .map(|(name, file, problem)| (name.to_owned(), vec![file.to_owned()], problem))
            .into_iter()
            .collect();
        assert_eq!(found(std::slice::from_ref(&given)), want, "{given:?}");
    }
}

#[test]
fn hostile_entries_are_named_and_never_opened() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    nix::unistd::mkfifo(&path("pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("loop.yaml", path("loop.yaml")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", path("zero.yaml")).unwrap();
    fs::write(path("good.yaml"), "services: {}\n").unwrap();
    let mut snapshot = Snapshot::default();
    Directory::new(root.path().to_owned()).scan(&mut snapshot);
    let found: Vec<(String, String)> = snapshot
        .candidates
        .into_iter()
        .map(|candidate| {
            let problem = candidate
                .problem
                .map(|problem| problem.message)
                .unwrap_or_default();
            (candidate.fallback_name, problem)
        })
        .collect();
    let says = |name: &str, part: &str| {
        found
            .iter()
            .any(|(n, problem)| n == name && problem.contains(part))
    };
    assert!(
        says("pipe", "a FIFO") && says("zero", "a device") && says("loop", "symbolic links"),
        "{found:?}"
    );
    assert!(found.contains(&("good".into(), String::new())));
}

#[test]
fn a_replaced_or_unreadable_directory_is_unknown_until_accepted() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("manifests");
    let scan = |directory: &mut Directory| {
        let mut snapshot = Snapshot::default();
        directory.scan(&mut snapshot);
        snapshot
    };
    fs::create_dir(&path).unwrap();
    let mut directory = Directory::new(path.clone());
    assert!(scan(&mut directory).unknown.is_empty());

    fs::rename(&path, root.path().join("away")).unwrap();
    assert!(!directory.is_the_same());
    assert!(scan(&mut directory).unknown[&path].contains("cannot be read"));

    fs::create_dir(&path).unwrap();
    fs::write(path.join("new.yaml"), "services: {}\n").unwrap();
    let snapshot = scan(&mut directory);
    assert!(snapshot.unknown[&path].contains("another directory"));
    assert_eq!(snapshot.candidates.len(), 1, "what is new in it is taken");

    directory.accept();
    assert!(scan(&mut directory).unknown.is_empty());
}

#[test]
fn a_generated_manifest_stands_for_its_source() {
    let root = tempfile::tempdir().unwrap();
    let (manifests, source) = (root.path().join("manifests"), root.path().join("shop"));
    fs::create_dir(&manifests).unwrap();
    let manifest = manifests.join("shop.yaml");
    fs::write(&manifest, generated::text("shop", &source).unwrap()).unwrap();
    let scan = || {
        let mut snapshot = Snapshot::default();
        Directory::new(manifests.clone()).scan(&mut snapshot);
        snapshot.candidates.remove(0)
    };
    let missing = scan();
    assert!(missing.problem.is_some() && missing.source == source && missing.manifest == manifest);

    fs::create_dir(&source).unwrap();
    fs::write(source.join("compose.yaml"), "services: {}\n").unwrap();
    let candidate = scan();
    assert_eq!(candidate.problem, None);
    assert_eq!(candidate.files, [source.join("compose.yaml")]);
    assert_eq!((candidate.directory, candidate.manifest), (source, manifest));
    assert_eq!(candidate.fallback_name, "shop");
}

#[test]
fn a_path_on_the_command_line() {
    let root = tempfile::tempdir().unwrap();
    let shop = root.path().join("shop");
    fs::create_dir(&shop).unwrap();
    assert!(at(&shop).is_err(), "nothing in it");
    fs::write(shop.join("compose.yaml"), "services: {}\n").unwrap();
    for path in [shop.clone(), shop.join("compose.yaml")] {
        let found = at(&path).unwrap();
        assert_eq!(
            (found.len(), found[0].fallback_name.as_str()),
            (1, "shop"),
            "{path:?}"
        );
    }
    assert!(at(&root.path().join("none")).is_err());
    assert_eq!(
        at(root.path()).unwrap()[0].fallback_name,
        "shop",
        "a directory of projects"
    );
}

//! The corpus: every directory below `corpus/valid` loads to its `expected.yaml` (with the warnings of
//! `expected.txt`, if any); every one below `corpus/invalid` is refused with its `expected.txt`.
//!
//! `BLESS=1 cargo test -p stead-model --test corpus` writes the expectations; read the difference before
//! you commit it. All cases are loaded as `/project`, so that no path of this machine is in them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use model::{
    canonical,
    diagnostic::render,
    load::{Loaded, Options, load},
    revision,
};

const DIRECTORY: &str = "/project";

fn cases(kind: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(kind);
    let mut cases: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    cases
}

fn options() -> Options {
    Options {
        directory: DIRECTORY.into(),
        fallback_name: "Project".to_owned(),
        environment: [("FROM_PROCESS".to_owned(), "process".to_owned())].into(),
        env_files: Vec::new(),
        home: Some("/home/user".into()),
        ..Options::default()
    }
}

fn load_text(text: impl Into<Vec<u8>>) -> Loaded {
    let sources: BTreeMap<PathBuf, Vec<u8>> =
        [(Path::new(DIRECTORY).join("compose.yaml"), text.into())].into();
    load(&sources, &[Path::new(DIRECTORY).join("compose.yaml")], &options())
}

fn load_case(case: &Path) -> Loaded {
    let mut sources: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    for name in ["compose.yaml", ".env"] {
        if let Ok(bytes) = fs::read(case.join(name)) {
            sources.insert(Path::new(DIRECTORY).join(name), bytes);
        }
    }
    load(&sources, &[Path::new(DIRECTORY).join("compose.yaml")], &options())
}

fn diagnostics(loaded: &Loaded) -> String {
    loaded
        .diagnostics
        .iter()
        .map(|diagnostic| render(diagnostic, false) + "\n")
        .collect()
}

/// Compares with a file, or writes it.
fn expect(file: &Path, text: &str, wrong: &mut Vec<String>) {
    if std::env::var_os("BLESS").is_some() {
        if text.is_empty() {
            let _ = fs::remove_file(file);
        } else {
            fs::write(file, text).unwrap();
        }
    }
    let want = fs::read_to_string(file).unwrap_or_default();
    if want != text {
        wrong.push(format!(
            "{}\n--- expected\n{want}\n--- got\n{text}",
            file.display()
        ));
    }
}

#[test]
fn valid_projects_load_to_their_canonical_form() {
    let mut wrong = Vec::new();
    let cases = cases("valid");
    for case in &cases {
        let loaded = load_case(case);
        expect(&case.join("expected.txt"), &diagnostics(&loaded), &mut wrong);
        match &loaded.canonical {
            Some(canonical) if loaded.project.is_some() => expect(
                &case.join("expected.yaml"),
                &canonical::yaml(canonical),
                &mut wrong,
            ),
            _ => wrong.push(format!(
                "{} is refused:\n{}",
                case.display(),
                diagnostics(&loaded)
            )),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn invalid_projects_are_refused_with_place_and_remedy() {
    let mut wrong = Vec::new();
    let cases = cases("invalid");
    for case in &cases {
        let loaded = load_case(case);
        if loaded.project.is_some() {
            wrong.push(format!("{} is accepted", case.display()));
        }
        for diagnostic in &loaded.diagnostics {
            if diagnostic.hint.is_none() {
                wrong.push(format!("{}: no hint: {}", case.display(), diagnostic.message));
            }
        }
        expect(&case.join("expected.txt"), &diagnostics(&loaded), &mut wrong);
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn the_canonical_form_is_its_own_canonical_form() {
    for case in cases("valid") {
        let Loaded {
            project: Some(project),
            canonical: Some(canonical),
            ..
        } = load_case(&case)
        else {
            panic!("{} is refused", case.display())
        };
        // In JSON a `$` stays as it is, for programs.
        let json = Some(canonical::json(&canonical)).filter(|text| !text.contains('$'));
        for text in [Some(canonical::yaml(&canonical)), json].into_iter().flatten() {
            let again = load_text(text.clone());
            let shown = diagnostics(&again);
            let (Some(again), Some(form)) = (again.project, again.canonical) else {
                panic!("{}:\n{text}\n{shown}", case.display())
            };
            assert_eq!(again.services, project.services, "{}", case.display());
            assert_eq!(form.to_json(), canonical.to_json(), "{}", case.display());
            assert_eq!(revision(&again), revision(&project), "{}", case.display());
        }
    }
}

#[test]
fn every_field_of_a_service_has_an_origin_in_the_file() {
    for case in cases("valid") {
        let Some(project) = load_case(&case).project else {
            continue;
        };
        for (name, service) in &project.services {
            for path in model::fields::fields(service)
                .keys()
                .filter(|path| *path != "networks.default")
            {
                // A condition or flag that the short form implies has the origin of its entry.
                let entry = path.rsplit_once('.').filter(|_| path.starts_with("depends_on."));
                let exact = [Some(path.as_str()), entry.map(|(entry, _)| entry)]
                    .into_iter()
                    .flatten();
                let known = exact
                    .map(|path| format!("services.{name}.{path}"))
                    .any(|path| project.origins.contains_key(&path));
                assert!(known, "{}: services.{name}.{path}", case.display());
            }
        }
    }
}

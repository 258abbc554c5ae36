//! Several files of one project: what each is read against, what they may name, and what is bounded.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use model::{
    load::{Loaded, Options, load},
    source::Disk,
};
use serde_json::Value;

/// Loads `/p/NAME…` from `(path below /p, text)`.
fn loaded(files: &[(&str, &str)], names: &[&str], options: Options) -> Loaded {
    let path = |name: &str| Path::new("/p").join(name);
    let sources: BTreeMap<PathBuf, Vec<u8>> = files
        .iter()
        .map(|(name, text)| (path(name), text.as_bytes().to_vec()))
        .collect();
    let names: Vec<PathBuf> = names.iter().map(|name| path(name)).collect();
    let options = Options {
        directory: "/p".into(),
        fallback_name: "p".into(),
        ..options
    };
    load(&sources, &names, &options)
}

fn model_of(loaded: &Loaded) -> Value {
    let canonical = loaded.canonical.as_ref();
    canonical
        .unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics))
        .to_json()
}

/// `file:line: message` of every error.
fn errors(loaded: &Loaded) -> Vec<String> {
    loaded
        .diagnostics
        .iter()
        .filter(|found| found.is_error())
        .map(|found| {
            format!(
                "{}:{}: {}",
                found.span.file.display(),
                found.span.line,
                found.message
            )
        })
        .collect()
}

const WEB: &str = "services:\n  web:\n    image: builtin:hello\n";

#[test]
fn a_later_file_wins_and_each_field_knows_its_file() {
    let over = "services:\n  web:\n    environment: { A: over }\n    hostname: two\n";
    let base = format!("{WEB}    environment: {{ A: base, B: base }}\n");
    let loaded = loaded(
        &[("a.yaml", &base), ("b.yaml", over)],
        &["a.yaml", "b.yaml"],
        Options::default(),
    );
    let project = loaded.project.unwrap();
    assert_eq!(project.services["web"].environment["A"], "over");
    for (field, file, line) in [
        ("services.web.environment.A", "/p/b.yaml", 3),
        ("services.web.environment.B", "/p/a.yaml", 4),
        ("services.web.hostname", "/p/b.yaml", 4),
        ("services.web.image", "/p/a.yaml", 3),
    ] {
        let origin = &project.origins[field];
        assert_eq!(
            (origin.file.as_path(), origin.line),
            (Path::new(file), line),
            "{field}"
        );
    }
}

#[test]
fn an_include_has_its_own_directory_and_variables_and_the_including_file_wins() {
    let main = "include: [sub/compose.yaml]\nservices:\n  web: { hostname: main }\n";
    let sub =
        format!("{WEB}    hostname: sub\n    volumes: [./data:/data]\n    environment: {{ A: $A, B: $B }}\n");
    let loaded = loaded(
        &[
            ("compose.yaml", main),
            ("sub/compose.yaml", &sub),
            (".env", "B=main\n"),
            ("sub/.env", "A=sub\nB=sub\n"),
        ],
        &["compose.yaml"],
        Options::default(),
    );
    let model = model_of(&loaded);
    let web = &model["services"]["web"];
    assert_eq!(web["hostname"], "main");
    assert_eq!(web["volumes"][0]["source"], "/p/sub/data");
    assert_eq!(web["environment"]["A"], "sub");
    assert_eq!(
        web["environment"]["B"], "main",
        "the project's own variables are above those of an include"
    );
    for input in ["compose.yaml", ".env", "sub/compose.yaml", "sub/.env"] {
        assert!(loaded.inputs.contains(&Path::new("/p").join(input)), "{input}");
    }
}

#[test]
fn a_service_extends_one_of_another_file_with_paths_of_that_file() {
    let main = "services:\n  web:\n    extends: { file: base/web.yaml, service: web }\n    environment: { B: '2' }\n";
    let base = "services:\n  web:\n    extends: common\n    volumes: [./data:/data]\n  common:\n    image: builtin:hello\n    environment: { A: '1', B: '1' }\n";
    let loaded = loaded(
        &[("compose.yaml", main), ("base/web.yaml", base)],
        &["compose.yaml"],
        Options::default(),
    );
    let model = model_of(&loaded);
    let web = &model["services"]["web"];
    assert_eq!(web["volumes"][0]["source"], "/p/base/data");
    assert_eq!(web["environment"], serde_json::json!({"A": "1", "B": "2"}));
    assert!(loaded.inputs.contains(Path::new("/p/base/web.yaml")));
}

#[test]
fn env_files_are_below_the_service_and_see_the_project() {
    let main = format!(
        "{WEB}    env_file: [one.env, {{ path: none.env, required: false }}, two.env]\n    environment: [C=service, P]\n"
    );
    let loaded = loaded(
        &[
            ("compose.yaml", &main),
            ("one.env", "A=one\nB=one\nC=one\n"),
            ("two.env", "B=two\nD=$A-$P\nP\n"),
            (".env", "P=project\n"),
        ],
        &["compose.yaml"],
        Options::default(),
    );
    assert_eq!(
        model_of(&loaded)["services"]["web"]["environment"],
        serde_json::json!({"A": "one", "B": "two", "C": "service", "D": "one-project", "P": "project"})
    );
    assert!(
        loaded.inputs.contains(Path::new("/p/none.env")),
        "also a missing file is watched"
    );
}

#[test]
fn only_services_of_active_profiles_are_there() {
    let text = "services:\n  web: { image: 'builtin:hello' }\n  debug: { image: 'builtin:hello', profiles: [debug] }\n  test: { image: 'builtin:hello', profiles: [test, debug] }\n";
    let table: [(&[&str], &str, &[&str]); 5] = [
        (&[], "", &["web"]),
        (&[], "COMPOSE_PROFILES=test\n", &["test", "web"]),
        (&["debug"], "", &["debug", "test", "web"]),
        (&["debug"], "COMPOSE_PROFILES=none\n", &["debug", "test", "web"]),
        (&["*"], "", &["debug", "test", "web"]),
    ];
    for (profiles, env, want) in table {
        let options = Options {
            profiles: profiles.iter().map(|name| (*name).to_owned()).collect(),
            ..Options::default()
        };
        let loaded = loaded(
            &[("compose.yaml", text), (".env", env)],
            &["compose.yaml"],
            options,
        );
        let project = loaded.project.unwrap();
        let names: Vec<&str> = project.services.keys().map(String::as_str).collect();
        assert_eq!(names, want, "{profiles:?} {env:?}");
    }
}

#[test]
fn a_service_that_is_switched_off_is_waited_for_only_where_it_is_required() {
    let text = |required: &str| {
        format!(
            "services:\n  web:\n    image: builtin:hello\n    depends_on: {{ db: {{ condition: service_started{required} }} }}\n  db: {{ image: 'builtin:hello', profiles: [db] }}\n"
        )
    };
    for (required, want) in [
        (", required: false", Ok(0)),
        ("", Err("is switched off by its profiles")),
    ] {
        let text = text(required);
        let loaded = loaded(&[("compose.yaml", &text)], &["compose.yaml"], Options::default());
        match want {
            Ok(count) => {
                let project = loaded.project.unwrap();
                assert_eq!(project.services["web"].depends_on.len(), count);
            }
            Err(want) => assert!(errors(&loaded).iter().any(|error| error.contains(want))),
        }
    }
}

#[test]
fn extensions_of_parts_are_in_the_yaml_and_not_in_the_json() {
    let text = format!("x-top: 1\n{WEB}    x-own: {{ a: 1 }}\n    labels: {{ x-label: '1' }}\n");
    let loaded = loaded(&[("compose.yaml", &text)], &["compose.yaml"], Options::default());
    let canonical = loaded.canonical.unwrap();
    let (json, yaml) = (canonical.to_json(), model::canonical::yaml(&canonical));
    let web = &json["services"]["web"];
    assert_eq!(
        (&json["x-top"], &web["labels"]["x-label"]),
        (&1.into(), &"1".into())
    );
    assert!(
        web.get("x-own").is_none() && yaml.contains("    x-own:\n      a: 1\n"),
        "{yaml}"
    );
}

#[test]
fn errors_of_all_files_and_stages_are_found_at_once_where_they_were_written() {
    let main = "include: [sub.yaml, none.yaml]\nservices:\n  web: { image: 'builtin:hello', imge: x, depends_on: [db] }\n  bad: { extends: nobody }\n";
    let sub = "services:\n  sub:\n    image: builtin:hello\n    ports: ['80:80:80:80']\n    env_file: none.env\n    user: 7\n    restart: sometimes\n";
    let over = "services:\n  web:\n    networks: [front]\n    mem_limit: lots\n";
    let loaded = loaded(
        &[("compose.yaml", main), ("sub.yaml", sub), ("over.yaml", over)],
        &["compose.yaml", "over.yaml"],
        Options::default(),
    );
    let errors = errors(&loaded);
    for want in [
        "/p/compose.yaml:1: `include`: `/p/none.yaml`: the file does not exist",
        "/p/compose.yaml:3: unknown key `services.web.imge`",
        "/p/compose.yaml:3: `services.web.depends_on`: there is no service `db`",
        "/p/compose.yaml:4: `services.bad.extends`: there is no service `nobody`",
        "/p/sub.yaml:4: `services.sub.ports[0]`",
        "/p/sub.yaml:5: `services.sub.env_file[0]`: `/p/none.env`: the file does not exist",
        "/p/sub.yaml:6: `services.sub.user`",
        "/p/sub.yaml:7: `services.sub.restart`",
        "/p/over.yaml:3: `services.web.networks`: the network `front` is not declared",
        "/p/over.yaml:4: `services.web.mem_limit`",
    ] {
        assert!(
            errors.iter().any(|error| error.starts_with(want)),
            "{want}\n{errors:#?}"
        );
    }
}

#[test]
fn circles_are_errors_that_name_the_way_round() {
    for (files, want) in [
        (
            vec![
                ("compose.yaml", "include: [b.yaml]\n"),
                ("b.yaml", "include: [compose.yaml]\n"),
            ],
            "`include` goes in a circle: /p/compose.yaml → /p/b.yaml → /p/compose.yaml",
        ),
        (
            vec![("compose.yaml", "include: [compose.yaml]\n")],
            "`include` goes in a circle: /p/compose.yaml → /p/compose.yaml",
        ),
        (
            vec![(
                "compose.yaml",
                "services:\n  a: { extends: b }\n  b: { extends: c }\n  c: { extends: a }\n",
            )],
            "`extends` goes in a circle: a → b → c → a",
        ),
        (
            vec![
                (
                    "compose.yaml",
                    "services:\n  a: { extends: { file: b.yaml, service: b } }\n",
                ),
                (
                    "b.yaml",
                    "services:\n  b: { extends: { file: compose.yaml, service: a } }\n",
                ),
            ],
            "`extends` goes in a circle: a → b → a",
        ),
    ] {
        let loaded = loaded(&files, &["compose.yaml"], Options::default());
        let errors = errors(&loaded);
        assert!(
            errors.iter().any(|error| error.contains(want)),
            "{want}\n{errors:#?}"
        );
    }
}

/// Files that name each other many times over end with an error, within memory and time.
#[test]
fn what_files_make_of_each_other_is_bounded() {
    let mut doubling = vec![(
        "compose.yaml".to_owned(),
        "include: [i0.yaml, i0.yaml]\n".to_owned(),
    )];
    for n in 0..30 {
        let text = format!("include: [i{0}.yaml, i{0}.yaml]\n", n + 1);
        doubling.push((format!("i{n}.yaml"), text));
    }
    doubling.push(("i30.yaml".to_owned(), WEB.to_owned()));

    let mut chain = String::from("services:\n  s0: { image: 'builtin:hello', expose: ['1'] }\n");
    for n in 1..5_000 {
        chain.push_str(&format!("  s{n}: {{ extends: s{}, expose: ['{n}'] }}\n", n - 1));
    }
    let long_chain = vec![("compose.yaml".to_owned(), chain)];

    let list: Vec<String> = (0..2_000).map(|n| format!("'{n}'")).collect();
    let mut wide = format!(
        "services:\n  base: {{ image: 'builtin:hello', expose: [{}] }}\n",
        list.join(", ")
    );
    for n in 0..2_000 {
        wide.push_str(&format!("  s{n}: {{ extends: base }}\n"));
    }
    let copies = vec![("compose.yaml".to_owned(), wide)];

    let many = vec![
        (
            "compose.yaml".to_owned(),
            format!("include: [{}]\n", "i.yaml, ".repeat(5_000)),
        ),
        ("i.yaml".to_owned(), "# comment\n".repeat(200_000)),
    ];

    for (files, want) in [
        (many, "larger than 8 MiB in all"),
        (doubling, "files are read for one project"),
        (long_chain, "`extends` copies more than"),
        (copies, "`extends` copies more than"),
    ] {
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        let errors = errors(&loaded(&files, &["compose.yaml"], Options::default()));
        assert!(
            errors.iter().any(|error| error.contains(want)),
            "{want}\n{errors:#?}"
        );
    }
}

#[test]
fn a_source_that_is_not_trusted_names_files_of_its_own_directory_only() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let project = root.join("project");
    fs::create_dir_all(project.join("inside")).unwrap();
    fs::create_dir_all(root.join("outside")).unwrap();
    for directory in ["project/inside", "outside"] {
        let file = |name: &str| root.join(directory).join(name);
        fs::write(file("web.yaml"), WEB).unwrap();
        fs::write(file("a.env"), "A=1\n").unwrap();
        fs::write(file("passwd"), "secret").unwrap();
    }
    symlink(root.join("outside"), project.join("link")).unwrap();
    symlink(project.join("inside"), project.join("own")).unwrap();

    let service = |field: &str| format!("{WEB}    {field}\n");
    type Manifest<'a> = &'a dyn Fn(&str) -> String;
    let cases: [(&str, Manifest<'_>); 7] = [
        ("include", &|directory| {
            format!("include: [{directory}/web.yaml]\n")
        }),
        ("extends", &|directory| {
            format!("services:\n  web: {{ extends: {{ file: {directory}/web.yaml, service: web }} }}\n")
        }),
        ("env_file", &|directory| {
            service(&format!("env_file: {directory}/a.env"))
        }),
        ("label_file", &|directory| {
            service(&format!("label_file: {directory}/a.env"))
        }),
        ("include.env_file", &|directory| {
            format!("include: [{{ path: inside/web.yaml, env_file: {directory}/a.env }}]\n")
        }),
        ("configs", &|directory| {
            format!("{WEB}    configs: [c]\nconfigs: {{ c: {{ file: {directory}/passwd }} }}\n")
        }),
        ("secrets", &|directory| {
            format!("{WEB}    secrets: [s]\nsecrets: {{ s: {{ file: {directory}/passwd }} }}\n")
        }),
    ];
    let absolute = root.join("outside").display().to_string();
    let file = project.join("compose.yaml");
    for (name, text) in cases {
        for (directory, allowed) in [
            ("inside", true),
            ("own", true),
            ("../outside", false),
            ("inside/../../outside", false),
            ("link", false),
            (absolute.as_str(), false),
        ] {
            fs::write(&file, text(directory)).unwrap();
            for confined in [true, false] {
                let options = Options {
                    directory: project.clone(),
                    fallback_name: "p".into(),
                    confined,
                    ..Options::default()
                };
                let loaded = load(&Disk, std::slice::from_ref(&file), &options);
                let outside = errors(&loaded)
                    .iter()
                    .any(|error| error.contains("outside of the project's directory"));
                assert_eq!(
                    outside,
                    confined && !allowed,
                    "{name} {directory} {confined}: {:#?}",
                    loaded.diagnostics
                );
            }
        }
    }
}

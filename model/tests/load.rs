//! What `load` makes of files, environments and options around a manifest.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use model::{
    load::{Loaded, Options, load},
    revision,
    source::{Disk, Sources},
    types::Project,
};

const WEB: &str = "services:\n  web:\n    image: builtin:hello\n";

struct Case {
    files: BTreeMap<PathBuf, Vec<u8>>,
    options: Options,
}

impl Case {
    fn new(compose: &str) -> Case {
        let options = Options {
            directory: "/p".into(),
            fallback_name: "My Shop".into(),
            ..Options::default()
        };
        Case {
            files: BTreeMap::new(),
            options,
        }
        .with("compose.yaml", compose)
    }

    fn with(mut self, name: &str, text: &str) -> Case {
        self.files
            .insert(Path::new("/p").join(name), text.as_bytes().to_vec());
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Case {
        self.options.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    fn env_file(mut self, name: &str) -> Case {
        self.options.env_files.push(Path::new("/p").join(name));
        self
    }

    fn load(&self) -> Loaded {
        load(&self.files, &["/p/compose.yaml".into()], &self.options)
    }

    fn project(&self) -> Project {
        let loaded = self.load();
        loaded
            .project
            .unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))
    }
}

fn errors(loaded: &Loaded) -> Vec<String> {
    let place =
        |span: &model::diagnostic::Span| format!("{}:{}:{}", span.file.display(), span.line, span.column);
    loaded
        .diagnostics
        .iter()
        .map(|found| format!("{}: {}", place(&found.span), found.message))
        .collect()
}

#[test]
fn the_environment_given_wins_over_env_files_and_later_files_over_earlier() {
    let text = format!("{WEB}    environment: [A, B, C]\n");
    let environment = |case: Case| {
        let web = case.project().services.remove("web");
        web.map(|web| {
            web.environment
                .into_iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect::<Vec<_>>()
                .join(" ")
        })
        .unwrap()
    };
    assert_eq!(environment(Case::new(&text)), "");
    assert_eq!(
        environment(
            Case::new(&text)
                .with(".env", "A=dotenv\nB=dotenv\n")
                .variable("A", "given")
        ),
        "A=given B=dotenv"
    );
    let files = Case::new(&text)
        .with(".env", "A=dotenv\n")
        .with("one.env", "B=one\nC=one\n")
        .with("two.env", "C=two-$B\n")
        .env_file("one.env")
        .env_file("two.env");
    assert_eq!(
        environment(files),
        "B=one C=two-one",
        "`.env` is not read beside env files"
    );
}

#[test]
fn the_name_comes_from_the_environment_the_file_or_the_caller() {
    assert_eq!(Case::new(WEB).project().name, "myshop");
    let named = || Case::new(&format!("name: From.File\n{WEB}"));
    assert_eq!(named().project().name, "fromfile");
    assert_eq!(
        named().variable("COMPOSE_PROJECT_NAME", "chosen").project().name,
        "chosen"
    );
}

#[test]
fn every_file_looked_at_is_an_input_also_when_it_is_missing() {
    let inputs = |case: &Case| -> BTreeSet<String> {
        case.load()
            .inputs
            .iter()
            .map(|path| path.display().to_string())
            .collect()
    };
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|name| format!("/p/{name}"))
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(inputs(&Case::new(WEB)), set(&[".env", "compose.yaml"]));
    assert_eq!(inputs(&Case::new("[")), set(&[".env", "compose.yaml"]));
    let missing = Case::new(WEB).env_file("no.env");
    assert_eq!(inputs(&missing), set(&["compose.yaml", "no.env"]));
    assert_eq!(
        errors(&missing.load()),
        ["/p/no.env:0:0: the file does not exist"]
    );
}

#[test]
fn files_that_cannot_be_read_are_errors_of_their_own() {
    struct Refusing;
    impl Sources for Refusing {
        fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
            Err(io::Error::other("it is a FIFO, not a regular file"))
        }
    }
    let loaded = load(&Refusing, &["/p/compose.yaml".into()], &Case::new("").options);
    assert!(loaded.project.is_none());
    assert_eq!(
        errors(&loaded),
        [
            "/p/.env:0:0: the file cannot be read: it is a FIFO, not a regular file",
            "/p/compose.yaml:0:0: the file cannot be read: it is a FIFO, not a regular file",
        ]
    );

    let options = Case::new("").options;
    let none = load(&BTreeMap::new(), &[], &options);
    assert_eq!(errors(&none), ["/p:0:0: there is no Compose file to load"]);
    let missing = load(&BTreeMap::new(), &["/p/compose.yaml".into()], &options);
    assert_eq!(errors(&missing), ["/p/compose.yaml:0:0: the file does not exist"]);
}

#[test]
fn a_project_on_disk_loads_as_one_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("compose.yaml");
    std::fs::write(&file, format!("{WEB}    volumes: [\"./data:/data\"]\n")).unwrap();
    let options = Options {
        directory: directory.path().into(),
        fallback_name: "disk".into(),
        ..Options::default()
    };
    let project = load(&Disk, &[file], &options).project.unwrap();
    assert_eq!(project.directory, directory.path());
    assert!(
        format!("{:?}", project.services["web"].volumes)
            .contains(&format!("{}/data", directory.path().display()))
    );
}

#[test]
fn origins_name_the_line_that_was_written() {
    let project = Case::new(concat!(
        "x-env: &env\n  A: \"1\"\n",
        "services:\n  web:\n    image: builtin:hello\n    environment:\n      <<: *env\n      B: \"2\"\n",
        "    ports:\n      - \"80:80\"\n    depends_on: [db]\n    volumes: [/a, data:/b]\n    networks:\n      front:\n        aliases: [www]\n",
        "  db:\n    image: builtin:hello\n    healthcheck:\n      interval: 1s\n",
        "networks:\n  front:\n    internal: true\nvolumes:\n  data:\n",
    ))
    .project();
    for (path, line, column) in [
        ("services.web", 4, 3),
        ("services.web.image", 5, 5),
        ("services.web.environment.A", 2, 3),
        ("services.web.environment.B", 8, 7),
        ("services.web.environment.GONE", 6, 5),
        ("services.web.ports", 9, 5),
        ("services.web.depends_on.db", 11, 18),
        ("services.web.depends_on.db.condition", 11, 18),
        ("services.web.volumes", 12, 5),
        ("services.web.volumes.1", 12, 19),
        ("services.web.networks.front.aliases", 15, 9),
        ("services.web.restart", 4, 3),
        ("services.db.healthcheck.interval", 19, 7),
        ("services.db.networks.default", 16, 3),
        ("networks.front", 21, 3),
        ("networks.front.internal", 22, 5),
        ("volumes.data", 24, 3),
    ] {
        let span = project
            .origin(path)
            .unwrap_or_else(|| panic!("{path} has no origin"));
        assert_eq!((span.line, span.column), (line, column), "{path}");
        assert_eq!(span.file, Path::new("/p/compose.yaml"));
    }
}

#[test]
fn a_revision_changes_with_what_is_asked_for_and_with_nothing_else() {
    let of = |text: &str| revision(&Case::new(text).project());
    let base = of(&format!(
        "{WEB}    ports: [\"80:80\"]\n    environment: [A=1, B=2]\n"
    ));
    assert_eq!(base.len(), 12);
    assert!(base.bytes().all(|c| c.is_ascii_hexdigit()));
    for same in [
        "# comment\n\nservices:\n  web:\n    environment: {B: 2, A: 1}\n    image: 'builtin:hello'\n    ports: [{target: 80, published: 80}]\n",
        "x-note: hi\nservices: {web: {image: 'builtin:hello', restart: no, ports: ['80:80/tcp'], environment: [B=2, A=1]}}\n",
    ] {
        assert_eq!(of(same), base, "{same}");
    }
    for other in [
        format!("{WEB}    ports: [\"81:80\"]\n    environment: [A=1, B=2]\n"),
        format!("{WEB}    ports: [\"80:80\"]\n    environment: [A=1, B=3]\n"),
        format!("name: x\n{WEB}    ports: [\"80:80\"]\n    environment: [A=1, B=2]\n"),
        format!("{WEB}    ports: [\"80:80\"]\n    environment: [A=1, B=2]\nvolumes: {{data: }}\n"),
    ] {
        assert_ne!(of(&other), base, "{other}");
    }
}

#[test]
fn a_serialised_project_reads_back() {
    let project = Case::new(concat!(
        "services:\n  web:\n    image: builtin:hello\n    command: [a]\n    restart: on-failure:3\n    ports: [\"127.0.0.1:80-81:80-81\"]\n",
        "    volumes: [data:/d:ro, ./x:/x]\n    tmpfs: /t:size=1m\n    stop_grace_period: 90s\n    depends_on: [db]\n",
        "  db: {image: \"builtin:hello\"}\nvolumes: {data: }\n",
    ))
    .project();
    let json = serde_json::to_string(&project).unwrap();
    let again: Project = serde_json::from_str(&json).unwrap();
    assert_eq!(again.services, project.services);
    assert_eq!(
        (again.networks, again.volumes),
        (project.networks, project.volumes)
    );
}

#[test]
fn a_directory_named_dotenv_is_no_env_file_unless_one_asks_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::create_dir_all(path(".env")).unwrap();
    std::fs::create_dir_all(path("part/.env")).unwrap();
    std::fs::write(path("part/compose.yaml"), WEB).unwrap();
    let load_text = |text: &str, env_files: Vec<PathBuf>| {
        std::fs::write(path("compose.yaml"), text).unwrap();
        let options = Options {
            directory: directory.path().into(),
            fallback_name: "disk".into(),
            env_files,
            ..Options::default()
        };
        let loaded = load(&Disk, &[path("compose.yaml")], &options);
        let found = loaded.diagnostics.into_iter().map(|found| found.message);
        found.collect::<Vec<_>>().join("; ")
    };
    assert_eq!(load_text("include: [part/compose.yaml]\n", Vec::new()), "");
    for found in [
        load_text(WEB, vec![path(".env")]),
        load_text(
            &format!("{WEB}    env_file: [{{path: .env, required: false}}]\n"),
            Vec::new(),
        ),
        load_text(
            "include: [{path: part/compose.yaml, env_file: .env}]\n",
            Vec::new(),
        ),
    ] {
        assert!(
            found.ends_with("it is a directory, not a regular file"),
            "{found}"
        );
    }
}

#[test]
fn one_mistake_is_told_once() {
    let service = |lines: &str| format!("services:\n  web:\n    image: builtin:hello\n    {lines}\n");
    let mut wrong = Vec::new();
    for (text, want) in [
        (
            "services:\n  web:\n    image:\n".to_owned(),
            "3:10: `services.web.image` has no value; it must be text",
        ),
        (
            "services:\n  web:\n    imgae: builtin:hello\n".to_owned(),
            "3:5: unknown key `services.web.imgae`",
        ),
        (
            "services:\n  web:\n    extends: { service: base, file: none.yaml }\n".to_owned(),
            "3:37: `services.web.extends`: `/p/none.yaml`: the file does not exist",
        ),
        (
            "services:\n  web:\n    extends: { file: base.yaml }\n".to_owned(),
            "3:5: `services.web.extends` has no `service`",
        ),
        (
            format!("{}secrets:\n  token: {{}}\n", service("secrets: [token]")),
            "6:3: `secrets.token` has no content",
        ),
        (
            format!(
                "{}secrets:\n  token: {{ content: a }}\n",
                service("secrets: [token]")
            ),
            "6:12: unknown key `secrets.token.content`",
        ),
        (
            format!(
                "{}secrets:\n  token: {{ external: 1 }}\n",
                service("secrets: [token]")
            ),
            "6:22: `secrets.token.external` must be a boolean or a mapping, and is a number",
        ),
        (
            format!("{}secrets: [token]\n", service("secrets: [token]")),
            "5:10: `secrets` must be a mapping, and is a list",
        ),
        (
            format!("{}networks: [front]\n", service("networks: [front]")),
            "5:11: `networks` must be a mapping, and is a list",
        ),
        (
            service("depends_on: { db: { conditon: service_healthy } }\n  db: { image: 'builtin:hello' }"),
            "4:25: unknown key `services.web.depends_on.db.conditon`",
        ),
        (
            service("network_mode: service:db"),
            "4:19: `services.web.network_mode`: there is no service `db`",
        ),
        (
            service("ipc: service:db"),
            "4:10: `services.web.ipc`: there is no service `db`",
        ),
        (
            service("links: ['db:database']"),
            "4:13: `services.web.links[0]`: there is no service `db`",
        ),
        (
            service("volumes_from: [db]"),
            "4:20: `services.web.volumes_from[0]`: there is no service `db`",
        ),
        (
            service("env_file: [{ path: none.env, required: 0 }]"),
            "4:44: `services.web.env_file[0].required` must be a boolean, and is a number",
        ),
        (
            service("configs: [{ source: a, target: [b] }]\nconfigs: { a: { content: a } }"),
            "4:36: `services.web.configs[0].target` must be text, and is a list",
        ),
        (
            service("build: { ulimits: [nofile=1024] }"),
            "4:23: `services.web.build.ulimits` must be a mapping, and is a list",
        ),
        (
            format!("include: [{{ path: {{ a: b }} }}]\n{WEB}"),
            "1:19: `include[0].path` must be text or a list, and is a mapping",
        ),
    ] {
        let loaded = Case::new(&text).load();
        let found = loaded
            .diagnostics
            .iter()
            .filter(|found| found.is_error() && !found.refusal);
        let found: Vec<_> = found
            .map(|found| format!("{}:{}: {}", found.span.line, found.span.column, found.message))
            .collect();
        if found != [want] {
            wrong.push(format!("{text}\n{found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn configs_and_secrets_are_read_and_only_their_digest_is_kept() {
    let text = "services:\n  web: { image: 'builtin:hello', secrets: [file, variable], configs: [text] }\nsecrets:\n  \
                file: { file: key }\n  variable: { environment: KEY }\n  unused: { file: nowhere }\nconfigs:\n  \
                text: { content: 'a${B:-b}' }\n";
    let project = |key: &str, variable: &str| {
        let case = Case::new(text).with("key", key).variable("KEY", variable);
        assert!(case.load().inputs.contains(Path::new("/p/key")), "it is watched");
        case.project()
    };
    let one = project("canary", "canary2");
    let value = |project: &Project, name: &str| {
        let source = &project.secrets[name];
        (source.value.bytes().map(<[u8]>::to_vec), source.digest.clone())
    };
    assert_eq!(value(&one, "file").0.as_deref(), Some(&b"canary"[..]));
    assert_eq!(value(&one, "variable").0.as_deref(), Some(&b"canary2"[..]));
    assert_eq!(value(&one, "unused"), (None, None));
    assert_eq!(one.configs["text"].value.bytes(), Some(&b"ab"[..]));
    let written = serde_json::to_string(&one).unwrap() + &format!("{one:?}");
    assert!(!written.contains("canary"), "{written}");
    let (other, same) = (project("canary!", "canary2"), project("canary", "canary2"));
    assert_ne!(value(&one, "file").1, value(&other, "file").1);
    assert_ne!(revision(&one), revision(&other));
    assert_eq!(revision(&one), revision(&same));
    // Under another name the same looks different.
    assert_ne!(
        value(&project("x", "x"), "file").1,
        value(&project("x", "x"), "variable").1
    );
    // Read back from a record, it is found where it was, unless something else is there now.
    let kept = serde_json::to_string(&one).unwrap();
    for (key, found) in [("canary", true), ("canary!", false)] {
        let mut back: Project = serde_json::from_str(&kept).unwrap();
        back.find_contents(&Case::new(text).with("key", key).files);
        assert_eq!(back.secrets["file"].value.bytes().is_some(), found);
        assert!(back.secrets["variable"].value.bytes().is_none());
        assert_eq!(back.configs["text"].value.bytes(), Some(&b"ab"[..]));
    }
    let refusals: Vec<String> = Case::new(text)
        .load()
        .diagnostics
        .iter()
        .map(|found| format!("{}: {}", found.span.line, found.message))
        .collect();
    let [file, variable] = refusals.as_slice() else {
        panic!("{refusals:#?}");
    };
    assert!(
        file.starts_with("4: ") && file.contains("does not exist"),
        "{file}"
    );
    assert!(
        variable.starts_with("5: ") && variable.contains("`KEY` is not set"),
        "{variable}"
    );
}

#[test]
fn a_seccomp_profile_is_read_with_the_project_and_refused_where_it_is_named() {
    let case = |options: &str| {
        Case::new(&format!(
            "services:\n  web:\n    image: builtin:hello\n    security_opt: [{options}]\n"
        ))
        .with("calls.json", r#"{"defaultAction": "SCMP_ACT_LOG"}"#)
        .with("bad.json", r#"{"defaultAction": "SCMP_ACT_TRACE"}"#)
    };
    let security = |options: &str| case(options).project().services["web"].security.clone();
    assert_eq!(security("").seccomp_profile, None);
    let profile = security("'seccomp:unconfined', 'seccomp=calls.json'").seccomp_profile;
    assert!(profile.is_some_and(|profile| profile.rules.is_empty()));
    assert_eq!(
        security("'seccomp=calls.json', 'seccomp=builtin'").seccomp_profile,
        None
    );
    assert!(
        case("'seccomp=calls.json'")
            .load()
            .inputs
            .contains(Path::new("/p/calls.json"))
    );
    for (option, expected) in [
        ("seccomp=bad.json", "`SCMP_ACT_TRACE` asks another program"),
        ("seccomp=nowhere.json", "the file does not exist"),
        ("label=type:x", "labels of SELinux are not supported yet"),
    ] {
        let loaded = case(&format!("'{option}'")).load();
        let [found] = loaded.diagnostics.as_slice() else {
            panic!("{option}: {:#?}", loaded.diagnostics);
        };
        assert!(found.refusal && found.message.contains(expected), "{found:?}");
        assert_eq!(found.span.line, 4);
    }
}

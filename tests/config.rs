//! `config` needs neither root nor an agent, and its diagnostics show the place.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use crate::host::{Host, hostile};

struct Directory(PathBuf);

impl Directory {
    fn with(name: &str, text: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("stead-config-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        fs::write(path.join("compose.yaml"), text).expect("a file");
        Directory(path)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    fn config(&self, arguments: &[&str]) -> Output {
        self.config_in("", arguments, &[])
    }

    /// In a directory below this one, with these variables.
    fn config_in(&self, below: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        Command::new(Host::binary())
            .arg("config")
            .args(arguments)
            .current_dir(self.0.join(below))
            .env("NO_COLOR", "1")
            .env("GREETING", "from-outside")
            .envs(variables.iter().copied())
            .output()
            .expect("it starts")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const GOOD: &str = r#"name: shop
services:
  web:
    image: builtin:hello
    environment: ["A=${GREETING:-default}", "B=${NOTHING:-default}"]
    ports: ["18080:8080"]
    depends_on: [db]
  db: { image: builtin:hello, command: sleep 1 }
"#;

#[test]
fn a_good_file_is_printed_in_its_canonical_form() {
    let directory = Directory::with("good", GOOD);
    let output = directory.config(&["-f", "compose.yaml"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for part in [
        "name: shop",
        "A: from-outside",
        "B: default",
        "condition: service_started",
        "target: 8080",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    // Its own output is a file it accepts, and says the same again.
    fs::write(directory.0.join("again.yaml"), text.as_bytes()).expect("a file");
    let again = directory.config(&["-f", "again.yaml"]);
    assert_eq!(String::from_utf8_lossy(&again.stdout), text, "{again:?}");
}

#[test]
fn json_is_the_same_project() {
    let directory = Directory::with("json", GOOD);
    let output = directory.config(&["--format", "json"]);
    let project: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(project["services"]["web"]["environment"]["A"], "from-outside");
    let quiet = directory.config(&["-q"]);
    assert!(quiet.status.success() && quiet.stdout.is_empty(), "{quiet:?}");
}

#[test]
fn an_error_shows_file_line_column_source_and_hint() {
    let directory = Directory::with(
        "error",
        "services:\n  web:\n    image: builtin:hello\n    comand: [a]\n",
    );
    let output = directory.config(&[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "compose.yaml:4:5: error: ",
        "comand",
        "    comand: [a]",
        "^",
        "command",
    ] {
        assert!(said.contains(part), "{part} is missing in\n{said}");
    }
    assert!(output.stdout.is_empty(), "nothing half-checked is printed");
}

/// One service that says where it came from.
fn from(place: &str) -> String {
    format!("services: {{ web: {{ image: builtin:hello, environment: {{ FROM: {place} }} }} }}\n")
}

#[test]
fn files_are_found_and_merged_as_docker_compose_does() {
    let directory = Directory::with("found", &from("base"));
    directory.write("compose.override.yaml", &from("override"));
    directory.write("other.yaml", &from("other"));
    directory.write(
        "named/.env",
        "COMPOSE_FILE=../compose.yaml:../other.yaml\nCOMPOSE_PROJECT_NAME=named\n",
    );
    directory.write("below/a/b/.keep", "");
    let name = directory
        .0
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    for (below, arguments, variables, project, place) in [
        ("", &[][..], &[][..], name.as_str(), "override"),
        ("below/a/b", &[], &[], &name, "override"),
        ("", &["-f", "compose.yaml"], &[], &name, "base"),
        (
            "",
            &["-f", "compose.yaml", "-f", "other.yaml"],
            &[],
            &name,
            "other",
        ),
        (
            "",
            &["-f", "other.yaml", "-f", "compose.yaml"],
            &[],
            &name,
            "base",
        ),
        (
            "",
            &[],
            &[
                ("COMPOSE_FILE", "compose.yaml;other.yaml"),
                ("COMPOSE_PATH_SEPARATOR", ";"),
            ],
            &name,
            "other",
        ),
        ("", &[], &[("COMPOSE_PROJECT_NAME", "mine")], "mine", "override"),
        ("named", &[], &[], "named", "other"),
        ("below", &["--env-file", "../named/.env"], &[], "named", "other"),
        (
            "below",
            &["--env-file", "../named/.env", "-f", "../compose.yaml"],
            &[],
            "named",
            "base",
        ),
    ] {
        let output = directory.config_in(below, &[arguments, &["--format", "json"]].concat(), variables);
        let what = format!("{below} {arguments:?} {variables:?}: {output:?}");
        let read: serde_json::Value = serde_json::from_slice(&output.stdout).expect(&what);
        assert_eq!(read["name"], *project, "{what}");
        assert_eq!(read["services"]["web"]["environment"]["FROM"], place, "{what}");
    }
}

#[test]
fn profiles_come_from_the_command_line_or_the_environment() {
    let directory = Directory::with(
        "profiles",
        "services:\n  web: { image: builtin:hello }\n  a: { image: builtin:hello, profiles: [a] }\n  b: { image: builtin:hello, profiles: [b] }\n",
    );
    for (arguments, variables, want) in [
        (&[][..], &[][..], &["web"][..]),
        (&["--profile", "a"], &[], &["a", "web"]),
        (&["--profile", "a", "--profile", "b"], &[], &["a", "b", "web"]),
        (&["--profile", "*"], &[], &["a", "b", "web"]),
        (&[], &[("COMPOSE_PROFILES", "b, a")], &["a", "b", "web"]),
    ] {
        let output = directory.config_in("", &[arguments, &["--format", "json"]].concat(), variables);
        let read: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let services = read["services"].as_object().expect("services");
        let mut names: Vec<&str> = services.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, want, "{arguments:?} {variables:?}");
    }
}

#[test]
fn what_only_stead_refuses_is_a_warning_and_the_project_is_printed() {
    let directory = Directory::with(
        "refused",
        "services:\n  web:\n    image: builtin:hello\n    ipc: host\n",
    );
    let output = directory.config(&[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains("compose.yaml:4:5: warning: ") && said.contains("ipc"),
        "{said}"
    );
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("ipc: host"),
        "{output:?}"
    );
    assert!(directory.config(&["-q"]).stdout.is_empty());
}

#[test]
fn json_is_one_document_also_where_there_is_no_project() {
    let directory = Directory::with(
        "json-error",
        "services:\n  web:\n    image: builtin:hello\n    comand: [a]\n",
    );
    let output = directory.config(&["--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let read: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let found = &read["diagnostics"][0];
    assert_eq!(
        (&found["line"], &found["column"]),
        (&4.into(), &5.into()),
        "{read}"
    );
    assert_eq!(found["severity"], "error", "{read}");
    assert!(
        found["hint"].is_string()
            && found["message"]
                .as_str()
                .is_some_and(|text| text.contains("comand"))
    );
    directory.write("compose.yaml", GOOD);
    let quiet = directory.config(&["--json", "-q"]);
    let read: serde_json::Value = serde_json::from_slice(&quiet.stdout).expect("JSON");
    assert_eq!(read["diagnostics"], serde_json::json!([]));
}

#[test]
fn a_file_can_come_on_standard_input() {
    use std::{io::Write, process::Stdio};

    let directory = Directory::with("stdin", GOOD);
    let mut child = Command::new(Host::binary())
        .args(["config", "-f", "-"])
        .current_dir(&directory.0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let text = from("stdin") + "x: 1\n";
    let mut stdin = child.stdin.take().expect("its standard input");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && said.contains("-:2:1: error: "),
        "{said}"
    );
}

#[test]
fn wrong_usage_is_64() {
    let output = Command::new(Host::binary())
        .args(["confog", "-x"])
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    let version = Command::new(Host::binary())
        .arg("version")
        .output()
        .expect("it starts");
    assert!(version.status.success(), "{version:?}");
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_schema_is_json_that_an_editor_can_take() {
    let output = Command::new(Host::binary())
        .arg("schema")
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{output:?}");
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(
        schema["$schema"]
            .as_str()
            .is_some_and(|url| url.starts_with("https://json-schema.org/"))
    );
    for key in [
        "name", "include", "services", "networks", "volumes", "configs", "secrets",
    ] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
}

#[test]
fn doctor_says_what_this_host_can_do() {
    let output = Command::new(Host::binary())
        .arg("doctor")
        .output()
        .expect("it starts");
    assert!(matches!(output.status.code(), Some(0 | 2)), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("kernel") && said.contains("cgroup"), "{said}");
}

/// How fast is told by the benchmark.
#[test]
fn every_hostile_manifest_has_a_verdict_within_64_mib() {
    for (name, text) in hostile::manifests() {
        let directory = Directory::with("hostile", &text);
        // What is allocated, touched or not, and the stacks.
        let output = Command::new("sh")
            .args(["-c", "ulimit -d 65536 && exec \"$0\" config -q"])
            .arg(Host::binary())
            .current_dir(&directory.0)
            .output()
            .expect("a shell");
        let told = String::from_utf8_lossy(&output.stderr);
        let told: String = told.chars().take(500).collect();
        assert!(
            matches!(output.status.code(), Some(0 | 1)) && !told.contains("memory allocation"),
            "{name}: {}: {told}",
            output.status
        );
    }
}

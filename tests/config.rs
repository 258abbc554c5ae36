//! `config` needs neither root nor an agent, and its diagnostics show the place.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use crate::host::Host;

struct Directory(PathBuf);

impl Directory {
    fn with(name: &str, text: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("stead-config-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        fs::write(path.join("compose.yaml"), text).expect("a file");
        Directory(path)
    }

    fn config(&self, arguments: &[&str]) -> Output {
        Command::new(Host::binary())
            .arg("config")
            .args(arguments)
            .current_dir(&self.0)
            .env("NO_COLOR", "1")
            .env("GREETING", "from-outside")
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
fn doctor_says_what_this_host_can_do() {
    let output = Command::new(Host::binary())
        .arg("doctor")
        .output()
        .expect("it starts");
    assert!(matches!(output.status.code(), Some(0 | 2)), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("kernel") && said.contains("cgroup"), "{said}");
}

//! What a hook has of its service, and what not.

use super::*;
use crate::decode::tests::read;

fn derived(text: &str) -> Project {
    let (project, found) = read(text);
    assert_eq!(found, [] as [&str; 0]);
    let mut project = project;
    let mut origins = BTreeMap::new();
    derive(&mut project, &mut origins);
    project
}

#[test]
fn hooks_cannot_make_much_of_little() {
    let hooks = "{ command: [a], image: builtin:hello }, ".repeat(1_000);
    let long = "x".repeat(10_000);
    let said = |environment: &str| {
        let text = format!(
            "services:\n  web:\n    image: builtin:hello\n    environment: {{ A: {environment} }}\n    pre_start: [{hooks}]\n"
        );
        read(&text).1
    };
    assert_eq!(said("short"), [] as [&str; 0]);
    assert!(said(&long)[0].contains("more than 8 MiB"), "{:?}", said(&long));
}

#[test]
fn a_hook_is_its_service_with_another_command_and_unreachable() {
    let project = derived(
        "services:
  web:
    image: builtin:hello
    command: [serve]
    user: app
    hostname: www
    environment: { A: 1, B: 1 }
    ports: ['80:80']
    restart: always
    cap_drop: [ALL]
    scale: 3
    depends_on: { db: { condition: service_started, required: true } }
    pre_start:
      - { command: [one], image: builtin:hello }
      - { command: [two], image: 'rootfs:/srv', environment: { B: 2 }, user: root, per_replica: true }
  db: { image: builtin:hello }
",
    );
    let names: Vec<&str> = project.services.keys().map(String::as_str).collect();
    assert_eq!(names, ["db", "web", "web.pre_start-1", "web.pre_start-2"]);
    let (one, two) = (
        &project.services["web.pre_start-1"],
        &project.services["web.pre_start-2"],
    );
    assert_eq!(one.command.as_deref(), Some(&["one".to_owned()][..]));
    assert_eq!(
        (one.user.as_deref(), two.user.as_deref()),
        (Some("app"), Some("root"))
    );
    assert_eq!((one.container.scale, two.container.scale), (None, Some(3)));
    assert_eq!(two.image, "rootfs:/srv");
    assert_eq!(two.environment["A"], "1");
    assert_eq!((&*one.environment["B"], &*two.environment["B"]), ("1", "2"));
    assert_eq!(one.security, project.services["web"].security);
    assert_eq!(one.hostname.as_deref(), Some("www"));
    assert_eq!(one.restart, RestartPolicy::OnFailure(None));
    assert!(one.ports.is_empty() && one.container.pre_start.is_empty());
    // In order, after what the service waits for, and before it.
    let waits = |name: &str| {
        project.services[name]
            .depends_on
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(waits("web.pre_start-1"), ["db"]);
    assert_eq!(waits("web.pre_start-2"), ["db", "web.pre_start-1"]);
    assert_eq!(waits("web"), ["db", "web.pre_start-1", "web.pre_start-2"]);
    let on = &project.services["web"].depends_on["web.pre_start-2"];
    assert_eq!(on.condition, Condition::CompletedSuccessfully);
}

//! A project of several files: every one of them is followed, wherever it lies, and a bad one is named.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::host::{Host, PATIENCE, Place};

/// Files of a project outside the directory of manifests, by their path below one directory.
struct Source(PathBuf);

impl Source {
    fn of(host: &Host, files: &[(&str, &str)]) -> Source {
        let source = Source(host.directory("source"));
        files.iter().for_each(|(name, text)| source.write(name, text));
        source
    }

    /// In one step, as a careful editor does.
    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        let temporary = path.with_extension("new");
        fs::write(&temporary, text).expect("a file");
        fs::rename(temporary, path).expect("a file in place");
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.0.join(name)).expect("the file was there");
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

/// Waits until the running service has the variable, and there is nothing left to do.
fn has(host: &Host, service: &str, name: &str, value: &str) {
    host.wait(&format!("{name} of {service} is `{value}`"), PATIENCE, || {
        let instance = host.instance("shop", service)?;
        let address = instance.addresses.values().flatten().next()?.parse().ok()?;
        let said = host
            .get(Place::Host, address, 8080, &format!("/env/{name}"))
            .ok()?;
        (said.trim() == value).then_some(())
    });
    host.converged("shop");
}

const COMPOSE: &str = "\
name: shop
include: [../parts/cache.yaml]
services:
  web:
    extends: { file: ../parts/base.yaml, service: base }
    env_file: [web.env, { path: later.env, required: false }]
    environment: { TAG: \"${TAG:-}\", OVERRIDDEN: \"no\" }
  db: { image: builtin:hello }
";
const CACHE: &str = "services: { cache: { image: builtin:hello, environment: { INCLUDED: one } } }\n";
const BASE: &str = "services: { base: { image: builtin:hello, environment: { EXTENDED: one } } }\n";

fn shop(host: &Host) -> Source {
    let source = Source::of(
        host,
        &[
            ("shop/compose.yaml", COMPOSE),
            ("shop/web.env", "LISTED=one\n"),
            ("parts/cache.yaml", CACHE),
            ("parts/base.yaml", BASE),
        ],
    );
    host.stead_ok(&["apply", "-f", &source.path("shop"), "--timeout", "60s"]);
    source
}

#[test]
fn an_edit_of_any_file_of_a_project_converges_and_concerns_only_what_it_says() {
    let Some(mut host) = Host::new("files") else {
        return;
    };
    host.start_agent();
    let source = shop(&host);
    has(&host, "cache", "INCLUDED", "one");
    has(&host, "web", "EXTENDED", "one");
    let untouched = host.identities("shop")["db"].clone();

    for (file, text, service, name, value) in [
        (
            "parts/cache.yaml",
            CACHE.replace("one", "two"),
            "cache",
            "INCLUDED",
            "two",
        ),
        (
            "parts/base.yaml",
            BASE.replace("one", "two"),
            "web",
            "EXTENDED",
            "two",
        ),
        ("shop/web.env", "LISTED=two\n".to_owned(), "web", "LISTED", "two"),
        // These appear.
        ("shop/later.env", "LATER=yes\n".to_owned(), "web", "LATER", "yes"),
        ("shop/.env", "TAG=two\n".to_owned(), "web", "TAG", "two"),
        (
            "shop/compose.override.yaml",
            "services: { web: { environment: { OVERRIDDEN: \"yes\" } } }\n".to_owned(),
            "web",
            "OVERRIDDEN",
            "yes",
        ),
    ] {
        let other = if service == "web" { "cache" } else { "web" };
        let before = host.identities("shop")[other].clone();
        source.write(file, &text);
        has(&host, service, name, value);
        assert_eq!(host.identities("shop")[other], before, "{file}");
    }
    source.remove("shop/compose.override.yaml");
    has(&host, "web", "OVERRIDDEN", "no");
    source.remove("shop/.env");
    has(&host, "web", "TAG", "");
    assert_eq!(host.identities("shop")["db"], untouched);
    host.finish();
}

#[test]
fn a_bad_included_file_is_named_with_its_line_and_the_last_good_version_stays() {
    let Some(mut host) = Host::new("files-bad") else {
        return;
    };
    host.start_agent();
    let source = shop(&host);
    host.converged("shop");
    let before = host.identities("shop");

    let places = |host: &Host, want: &Path| {
        let status = host.project_status("shop")?;
        let found = status["diagnostics"].as_array()?.iter().find_map(|found| {
            (found["severity"] == "error" && Path::new(found["file"].as_str()?) == want)
                .then(|| found["line"].as_u64())
                .flatten()
        });
        found.map(|line| (line, status.to_string()))
    };
    for (file, text, line, word) in [
        (
            "parts/cache.yaml",
            "services:\n  cache:\n    image: builtin:hello\n    comand: [a]\n",
            4,
            "comand",
        ),
        (
            "parts/base.yaml",
            "services:\n  base:\n    image: builtin:hello\n    tmpfs: 5\n",
            4,
            "tmpfs",
        ),
        ("shop/web.env", "GOOD=1\nBAD=\"open\n", 2, "never closed"),
    ] {
        let good = fs::read_to_string(source.path(file)).expect("the good text");
        source.write(file, text);
        let (at, said) = host.wait(&format!("{file} is explained"), PATIENCE, || {
            places(&host, &source.0.join(file))
        });
        assert!(at == line && said.contains(word), "{file}: {said}");
        assert_eq!(host.identities("shop"), before, "{file}");
        let plan = host.stead(&["plan", "-f", &source.path("shop")]);
        let place = format!("{file}:{line}:");
        assert!(plan.code == 1 && plan.stderr.contains(&place), "{plan:?}");
        source.write(file, &good);
        host.converged("shop");
    }

    // One that is gone is named at the place that asks for it, and followed until it is back.
    source.remove("parts/cache.yaml");
    host.wait("the missing file is explained", PATIENCE, || {
        let (_, said) = places(&host, &source.0.join("shop/compose.yaml"))?;
        said.contains("cache.yaml").then_some(())
    });
    source.write("parts/cache.yaml", CACHE);
    host.converged("shop");
    assert_eq!(host.identities("shop"), before);
    host.finish();
}

#[test]
fn a_service_whose_profile_is_switched_off_goes_and_comes_back_with_it() {
    let Some(mut host) = Host::new("profiles") else {
        return;
    };
    host.start_agent();
    let source = Source::of(
        &host,
        &[
            (
                "shop/compose.yaml",
                "name: shop\nservices:\n  web: { image: builtin:hello }\n  debug: { image: builtin:hello, profiles: [debug] }\n",
            ),
            ("shop/.env", "COMPOSE_PROFILES=debug\n"),
        ],
    );
    host.stead_ok(&["apply", "-f", &source.path("shop"), "--timeout", "60s"]);
    host.running("shop", "debug");
    let web = host.identities("shop")["web"].clone();

    source.write("shop/.env", "COMPOSE_PROFILES=\n");
    host.wait("debug is gone", PATIENCE, || {
        host.instance("shop", "debug").is_none().then_some(())
    });
    host.converged("shop");
    source.write("shop/.env", "COMPOSE_PROFILES=other,debug\n");
    host.running("shop", "debug");
    assert_eq!(host.identities("shop")["web"], web);
    host.finish();
}

#[test]
fn a_manifest_that_an_earlier_apply_wrote_still_stands_for_its_source() {
    let Some(mut host) = Host::new("files-generated") else {
        return;
    };
    let source = Source::of(
        &host,
        &[
            (
                "shop/compose.yaml",
                "services: { web: { image: builtin:hello, environment: { TAG: \"${TAG}\", AT: \"${COMPOSE_PROJECT_NAME}\" } } }\n",
            ),
            ("shop/.env", "TAG=own\n"),
            // Of the directory of manifests; not of this project.
            ("../manifests/.env", "TAG=foreign\n"),
        ],
    );
    host.write_manifest("shop", &format!("x-stead-source: {}\n", source.path("shop")));
    host.start_agent();
    has(&host, "web", "TAG", "own");
    has(&host, "web", "AT", "shop");
    host.finish();
}

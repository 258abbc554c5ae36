//! What can be typed, and what it ends with.

use clap::error::ErrorKind;

use super::*;

fn parse(words: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(std::iter::once("stead").chain(words.split_whitespace()))
}

#[test]
fn every_verb_of_the_contract_parses() {
    for words in [
        "up",
        "up examples/hello -d",
        "--root /r agent --manifests /a --manifests /b",
        "apply -f a.yaml -f b --plan abc --timeout 5m --no-wait",
        "apply -f a.yaml b.yaml",
        "down shop other --volumes",
        "plan",
        "plan -f a.yaml shop --json",
        "config",
        "config -f a.yaml -f b.yaml --project-directory d --env-file e --profile * --format json -q",
        "ps shop -a --json",
        "status shop",
        "why shop/web/1 --json",
        "why web -n 0",
        "stop shop/web shop/db/2 --timeout 5m",
        "start web --no-wait",
        "restart shop --json",
        "logs -f --tail 5 --since 10m -t shop web db",
        "exec -i -t -u 1000 -w /tmp -e A=1 -e B shop/web/1 -- sh -c ls",
        "exec shop/web -- true",
        "schema",
        "doctor --json",
        "version",
        "-vv --json status",
    ] {
        assert!(
            parse(words).is_ok(),
            "{words}: {:?}",
            parse(words).err().map(|error| error.to_string())
        );
    }
}

#[test]
fn wrong_usage_is_told_from_asking_for_help() {
    for words in [
        "",
        "nonsense",
        "down",
        "stop",
        "restart",
        "why",
        "apply",
        "apply -f",
        "ps --nonsense",
        "apply -f a --timeout soon",
        "exec shop/web",
    ] {
        let error = parse(words).expect_err(words);
        assert!(error.use_stderr(), "{words}: {error}");
    }
    for (words, kind) in [
        ("--help", ErrorKind::DisplayHelp),
        ("--version", ErrorKind::DisplayVersion),
    ] {
        let error = parse(words).expect_err(words);
        assert_eq!((error.kind(), error.use_stderr()), (kind, false));
    }
}

#[test]
fn errors_carry_their_status() {
    for (error, status) in [
        (exit::usage("x"), 64),
        (exit::with(exit::NO_AGENT, "x"), 69),
        (exit::with(exit::TIMEOUT, "x"), 124),
        (anyhow::anyhow!("x"), 1),
        (exit::with(exit::NO_AGENT, "x").context("while asking"), 69),
    ] {
        assert_eq!(exit::status(&error), status, "{error:#}");
    }
}

#[test]
fn durations() {
    for (text, want) in [
        ("90", Some(90_000)),
        ("5m", Some(300_000)),
        ("1h30m", Some(5_400_000)),
        ("250ms", Some(250)),
        ("", None),
        ("5", Some(5000)),
        ("5x", None),
        ("m", None),
        ("99999999999999999h", None),
    ] {
        assert_eq!(
            duration(text).ok().map(|duration| duration.as_millis()),
            want,
            "{text}"
        );
    }
}

//! The client against registries on the loopback that behave as they should, or not.

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::RootCertStore;
use serde_json::json;

use super::*;
use crate::registry::{
    proxy::Proxies,
    testing::{Request, Server, answer},
    transport::Patience,
};

mod origins;

const INDEX: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;
const BLOB: &[u8] = b"0123456789";

/// A directory with a file of credentials: what is told to whom.
fn credentials(of: serde_json::Value) -> (tempfile::TempDir, Credentials) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    std::fs::write(&path, json!({ "auths": of }).to_string()).unwrap();
    let files = vec![path];
    (
        directory,
        Credentials {
            files,
            ..Credentials::default()
        },
    )
}

/// Registries named by their addresses, all of them allowed to speak without TLS.
fn client(servers: &[&Server], more: serde_json::Value, credentials: Credentials) -> Client {
    let mut hosts = more;
    for server in servers {
        let rules = hosts.as_object_mut().unwrap();
        let rules = rules
            .entry(server.address.to_string())
            .or_insert_with(|| json!({}));
        rules["insecure"] = json!(true);
    }
    let patience = Patience {
        connect: Duration::from_secs(5),
        head: Duration::from_secs(5),
        ..Patience::default()
    };
    let transport = Transport::new(RootCertStore::empty(), Proxies::default(), patience);
    Client::new(transport, serde_json::from_value(hosts).unwrap(), credentials)
}

fn name(server: &Server) -> ImageName {
    format!("{}/team/app:1", server.address).parse().unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(future)
}

fn basic_of(text: &str) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

/// What a plain registry has.
fn plain(asked: &Request) -> Vec<u8> {
    let digest = Digest::of(INDEX).to_string();
    match asked.target.as_str() {
        "/v2/team/app/manifests/1" => answer(
            200,
            &[("Docker-Content-Digest", &digest), ("Content-Type", "a/b")],
            INDEX,
        ),
        target if target == format!("/v2/team/app/manifests/{digest}") => answer(200, &[], INDEX),
        target if target == format!("/v2/team/app/blobs/{}", Digest::of(BLOB)) => match asked.header("range")
        {
            Some("bytes=4-") => answer(206, &[("Content-Range", "bytes 4-9/10")], &BLOB[4..]),
            Some("bytes=5-") => answer(206, &[("Content-Range", "bytes 6-9/10")], &BLOB[6..]),
            _ => answer(200, &[], BLOB),
        },
        _ => answer(404, &[], b""),
    }
}

/// One that wants `authorization` for everything, and sends for it to `challenge`.
fn guarded(asked: &Request, authorization: &str, challenge: &str) -> Vec<u8> {
    match asked.header("authorization") {
        Some(told) if told == authorization => plain(asked),
        _ => answer(
            401,
            &[("WWW-Authenticate", challenge)],
            br#"{"errors":[{"message":"no \u001b[31mentry"}]}"#,
        ),
    }
}

#[test]
fn tags_manifests_and_parts_of_blobs_are_had_for_nothing() {
    let server = Server::answering(plain);
    let client = client(&[&server], json!({}), Credentials::default());
    let name = name(&server);
    run(async {
        let digest = Digest::of(INDEX);
        assert_eq!(client.digest(&name).await.unwrap(), digest);
        for reference in ["1".to_owned(), digest.to_string()] {
            let manifest = client.manifest(&name, &reference, 1000).await.unwrap();
            assert_eq!(
                (manifest.digest, manifest.bytes.as_slice()),
                (digest.clone(), INDEX)
            );
        }
        for (from, begins) in [(0, 0), (4, 4), (7, 0)] {
            let blob = client.blob(&name, &Digest::of(BLOB), from).await.unwrap();
            assert_eq!(blob.from, begins, "from {from}");
            assert_eq!(blob.answer.read(100).await.unwrap(), &BLOB[begins as usize..]);
        }
        let error = client.blob(&name, &Digest::of(BLOB), 5).await.unwrap_err();
        assert!(error.to_string().contains("another part"), "{error}");
        let error = client.manifest(&name, "1", 10).await.unwrap_err();
        assert!(error.to_string().contains("more than 10 bytes"), "{error}");
        let error = client.manifest(&name, "2", 10).await.unwrap_err();
        assert!(
            matches!(&error, ClientError::Missing { what, .. } if what == "manifests/2 of team/app"),
            "{error}"
        );
    });
    assert!(
        server
            .requests()
            .iter()
            .all(|asked| asked.header("authorization").is_none())
    );
}

#[test]
fn a_token_is_fetched_once_with_the_credential_and_told_each_time() {
    let issuer = Server::answering(|asked| {
        let fine = asked.target == "/token?scope=repository%3Ateam%2Fapp%3Apull&service=here"
            && asked.header("authorization") == Some(&basic_of("me:p:w"));
        match fine {
            true => answer(200, &[], br#"{"token":"t0ken","expires_in":300}"#),
            false => answer(403, &[], b""),
        }
    });
    let realm = format!(
        "Bearer realm=\"http://{}/token\",service=\"here\",scope=\"repository:team/app:pull\"",
        issuer.address
    );
    let server = Server::answering(move |asked| guarded(asked, "Bearer t0ken", &realm));
    let (_directory, credentials) =
        credentials(json!({ server.address.to_string(): { "auth": STANDARD.encode("me:p:w") } }));
    let client = client(&[&server], json!({}), credentials);
    let name = name(&server);
    run(async {
        for _ in 0..3 {
            client.manifest(&name, "1", 1000).await.unwrap();
        }
    });
    assert_eq!(issuer.requests().len(), 1);
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn a_refresh_token_goes_into_a_form_and_not_into_a_url() {
    let issuer = Server::answering(|asked| {
        let fine = (asked.method.as_str(), asked.target.as_str()) == ("POST", "/token")
            && asked.body.contains("grant_type=refresh_token")
            && asked.body.contains("refresh_token=r%2Ft");
        match fine {
            true => answer(200, &[], br#"{"access_token":"t0ken"}"#),
            false => answer(403, &[], b""),
        }
    });
    let realm = format!("Bearer realm=\"http://{}/token\"", issuer.address);
    let server = Server::answering(move |asked| guarded(asked, "Bearer t0ken", &realm));
    let (_directory, credentials) =
        credentials(json!({ server.address.to_string(): { "identitytoken": "r/t" } }));
    let client = client(&[&server], json!({}), credentials);
    run(client.manifest(&name(&server), "1", 1000)).unwrap();
}

#[test]
fn a_password_is_told_to_who_asks_for_it_and_a_wrong_one_is_named_without_it() {
    let server = Server::answering(|asked| guarded(asked, &basic_of("me:right"), "Basic realm=\"x\""));
    for (auth, fine) in [("me:right", true), ("me:wrong", false)] {
        let (_directory, credentials) =
            credentials(json!({ server.address.to_string(): { "auth": STANDARD.encode(auth) } }));
        let client = client(&[&server], json!({}), credentials);
        match run(client.manifest(&name(&server), "1", 1000)) {
            Ok(_) => assert!(fine, "{auth}"),
            Err(error) => {
                assert!(!fine, "{auth}: {error}");
                let text = error.to_string();
                assert!(text.contains("401 Unauthorized: no [31mentry"), "{text}");
                assert!(text.contains("docker login") && !text.contains("wrong"), "{text}");
            }
        }
    }
    // Who has none asks without, once.
    let client = client(&[&server], json!({}), Credentials::default());
    let before = server.requests().len();
    let error = run(client.manifest(&name(&server), "1", 1000)).unwrap_err();
    assert!(matches!(error, ClientError::Denied { .. }), "{error}");
    assert_eq!(server.requests().len(), before + 1);
}

#[test]
fn sec_24_token_leak_a_credential_is_shown_to_nobody_whom_the_registry_merely_names() {
    let evil = Server::answering(|_| answer(200, &[], br#"{"token":"t"}"#));
    let realm = format!("Bearer realm=\"http://localhost:{}/token\"", evil.address.port());
    let server = Server::answering(move |asked| guarded(asked, "Bearer t", &realm));
    let known = json!({ server.address.to_string(): { "auth": STANDARD.encode("me:pw") } });
    let (_directory, credentials) = credentials(known);
    let wary = client(&[&server], json!({}), credentials.clone());
    let error = run(wary.manifest(&name(&server), "1", 1000)).unwrap_err();
    assert!(matches!(error, ClientError::Realm { .. }), "{error}");
    assert!(error.to_string().contains("`tokens`"), "{error}");
    assert!(evil.requests().is_empty());
    // The operator may say that it is not.
    let rules = json!({ server.address.to_string(): { "tokens": ["localhost"] } });
    let client = client(&[&server], rules, credentials);
    run(client.manifest(&name(&server), "1", 1000)).unwrap();
    assert_eq!(
        evil.requests()[0].header("authorization"),
        Some(basic_of("me:pw").as_str())
    );
}

#[test]
fn sec_24_token_leak_mirrors_are_asked_in_their_order_with_what_is_theirs_and_then_the_registry() {
    let broken = Server::answering(|_| answer(500, &[], b""));
    let empty = Server::answering(|_| answer(404, &[], b""));
    let server = Server::answering(|asked| guarded(asked, &basic_of("me:pw"), "Basic"));
    let registry = server.address.to_string();
    let mirror = |server: &Server| json!(format!("http://{}/pre", server.address));
    let rules = json!({ registry.clone(): { "mirrors": [mirror(&broken), mirror(&empty)] } });
    let (_directory, credentials) = credentials(json!({ registry: { "auth": STANDARD.encode("me:pw") } }));
    let client = client(&[&server], rules, credentials);
    run(client.manifest(&name(&server), "1", 1000)).unwrap();
    for mirror in [&broken, &empty] {
        let asked = mirror.requests();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].target, "/pre/v2/team/app/manifests/1");
        assert_eq!(asked[0].header("authorization"), None);
    }
}

#[test]
fn a_registry_that_is_not_named_as_insecure_is_asked_nothing_in_the_clear() {
    let server = Server::answering(plain);
    let client = client(&[], json!({}), Credentials::default());
    let error = run(client.manifest(&name(&server), "1", 1000)).unwrap_err();
    assert!(
        matches!(error, ClientError::Transport(TransportError::Tls { .. })),
        "{error}"
    );
    assert!(server.requests().is_empty());
}

#[test]
fn sec_23_digest_who_lies_about_one_is_named_with_both() {
    let other = Digest::of(b"other").to_string();
    let told = other.clone();
    let server = Server::answering(move |asked| match asked.target.contains("sha256") {
        true => answer(200, &[], INDEX),
        false => answer(200, &[("Docker-Content-Digest", &told)], INDEX),
    });
    let client = client(&[&server], json!({}), Credentials::default());
    for reference in ["1", other.as_str()] {
        let error = run(client.manifest(&name(&server), reference, 1000)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&other) && text.contains(&Digest::of(INDEX).to_string()),
            "{text}"
        );
        assert!(!error.may_pass());
    }
}

#[test]
fn f_28_storm_who_wants_to_be_asked_later_says_when() {
    for (status, after, expected) in [(429, "7", Some(7)), (503, "0", Some(0)), (429, "soon", None)] {
        let server = Server::answering(move |_| answer(status, &[("Retry-After", after)], b""));
        let client = client(&[&server], json!({}), Credentials::default());
        let error = run(client.manifest(&name(&server), "1", 1000)).unwrap_err();
        assert_eq!(
            error.after(),
            expected.map(Duration::from_secs),
            "{status} {after}"
        );
        assert!(error.may_pass());
    }
}

#[test]
fn f_28_storm_a_time_to_be_asked_again_is_a_number_or_a_date() {
    let now: Timestamp = "2015-10-21T07:28:00Z".parse().unwrap();
    for (text, expected) in [
        ("0", Some(0)),
        (" 120 ", Some(120)),
        ("Wed, 21 Oct 2015 07:28:30 GMT", Some(30)),
        ("Wed, 21 Oct 2015 08:28:00 GMT", Some(3600)),
        ("Wed, 21 Oct 2015 07:27:59 GMT", Some(0)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("Wed, 45 Oct 2015 07:28:30 GMT", None),
    ] {
        let expected = expected.map(Duration::from_secs);
        assert_eq!(retry_after(text, now), expected, "{text}");
    }
}

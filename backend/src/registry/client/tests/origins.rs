//! SEC-24 and SEC-25: to whom a registry may send us, and what those are told.

use std::sync::Arc;

use nix::sched::{CloneFlags, unshare};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivatePkcs8KeyDer};

use super::*;

/// For 127.0.0.1 and localhost, signed by itself.
const CERTIFICATE: &[u8] = include_bytes!("../../testing/certificate.der");
const KEY: &[u8] = include_bytes!("../../testing/key.der");

/// One with TLS, or without.
fn server(tls: bool, answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Server {
    if !tls {
        return Server::answering(answer);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let key = PrivatePkcs8KeyDer::from(KEY.to_vec());
    let config = builder.with_no_client_auth();
    let config = Arc::new(
        config
            .with_single_cert(vec![CERTIFICATE.into()], key.into())
            .unwrap(),
    );
    let open = move |stream| StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
    Server::answering_over(open, answer)
}

/// Trusts that certificate; `insecure`: registries that may be asked without TLS.
fn trusting(insecure: &[&Server], credentials: Credentials) -> Client {
    let rules = insecure
        .iter()
        .map(|one| (one.address.to_string(), json!({ "insecure": true })));
    let hosts = serde_json::Value::Object(rules.collect());
    let mut roots = RootCertStore::empty();
    roots.add(CERTIFICATE.into()).unwrap();
    let transport = Transport::new(roots, Proxies::default(), Patience::default());
    Client::new(transport, serde_json::from_value(hosts).unwrap(), credentials)
}

fn known(server: &Server) -> (tempfile::TempDir, Credentials) {
    credentials(json!({ server.address.to_string(): { "auth": STANDARD.encode("me:pw") } }))
}

fn scheme(tls: bool) -> &'static str {
    if tls { "https" } else { "http" }
}

#[test]
fn sec_24_token_leak_whoever_a_registry_sends_us_to_sees_no_credential() {
    let tls = [false, true];
    let cases = tls.iter().flat_map(|from| tls.iter().map(move |to| (*from, *to)));
    for ((from, to), host) in cases.flat_map(|case| [(case, "127.0.0.1"), (case, "localhost")]) {
        for asks in [false, true] {
            let case = format!("{} to {}://{host}, which asks: {asks}", scheme(from), scheme(to));
            let there = server(to, move |_| match asks {
                true => answer(401, &[("WWW-Authenticate", "Basic realm=\"x\"")], b""),
                false => answer(200, &[], BLOB),
            });
            let elsewhere = format!("{}://{host}:{}/blob", scheme(to), there.address.port());
            let registry = server(from, move |asked| {
                match asked.header("authorization") == Some(&basic_of("me:pw")) {
                    true => answer(302, &[("Location", &elsewhere)], b""),
                    false => answer(401, &[("WWW-Authenticate", "Basic realm=\"x\"")], b""),
                }
            });
            let (_directory, credentials) = known(&registry);
            let insecure = if from { vec![] } else { vec![&registry] };
            let client = trusting(&insecure, credentials);
            let blob = run(async {
                let blob = client.blob(&name(&registry), &Digest::of(BLOB), 0).await?;
                Ok::<_, ClientError>(blob.answer.read(100).await?)
            });
            let seen = there.requests();
            match (from, to, asks) {
                (true, false, _) => {
                    assert!(
                        blob.unwrap_err().to_string().contains("it gives up TLS"),
                        "{case}"
                    );
                    assert_eq!(seen.len(), 0, "{case}");
                }
                (_, _, true) => {
                    assert!(
                        matches!(blob, Err(ClientError::Denied { .. })),
                        "{case}: {blob:?}"
                    );
                    assert_eq!(seen.len(), 1, "{case}");
                }
                (_, _, false) => {
                    assert_eq!(blob.unwrap(), BLOB, "{case}");
                    assert_eq!(seen.len(), 1, "{case}");
                }
            }
            let told = |asked: &Request| asked.headers.iter().any(|(_, value)| value.contains("Basic"));
            assert!(!seen.iter().any(told), "{case}");
        }
    }
}

#[test]
fn sec_24_token_leak_tokens_are_had_with_tls_and_of_whom_the_operator_trusts() {
    // With a password, with none, and with a refresh token, which goes into a form.
    let secrets = [
        ("none", json!({})),
        ("password", json!({ "auth": STANDARD.encode("me:pw") })),
        ("refresh token", json!({ "identitytoken": "refresh" })),
    ];
    for (registry_tls, realm_tls, host, told) in [
        (true, false, "127.0.0.1", None),
        (true, false, "localhost", None),
        (true, true, "127.0.0.1", Some(true)),
        (true, true, "localhost", Some(false)),
        (false, false, "127.0.0.1", Some(true)),
        (false, false, "localhost", Some(false)),
        (false, true, "localhost", Some(false)),
    ] {
        for (kind, secret) in &secrets {
            let case = format!("{registry_tls} to {realm_tls} {host} with {kind}");
            let issuer = server(realm_tls, |_| answer(200, &[], br#"{"token":"t"}"#));
            let realm = format!(
                "Bearer realm=\"{}://{host}:{}/token\"",
                scheme(realm_tls),
                issuer.address.port()
            );
            let registry = server(registry_tls, move |asked| guarded(asked, "Bearer t", &realm));
            let (_directory, credentials) = credentials(json!({ registry.address.to_string(): secret }));
            let insecure = if registry_tls { vec![] } else { vec![&registry] };
            let client = trusting(&insecure, credentials);
            let found = run(client.manifest(&name(&registry), "1", 1000));
            let seen = issuer.requests();
            match (told, *kind) {
                (None, _) => {
                    assert!(found.unwrap_err().to_string().contains("without TLS"), "{case}");
                    assert_eq!(seen.len(), 0, "{case}");
                }
                // Who has nothing to lose asks.
                (_, "none") => {
                    assert!(found.is_ok(), "{case}: {found:?}");
                    assert_eq!(seen[0].header("authorization"), None, "{case}");
                }
                (Some(true), _) => {
                    assert!(found.is_ok(), "{case}: {found:?}");
                    assert_eq!(seen.len(), 1, "{case}");
                }
                (Some(false), _) => {
                    assert!(
                        matches!(found, Err(ClientError::Realm { .. })),
                        "{case}: {found:?}"
                    );
                    assert_eq!(seen.len(), 0, "{case}");
                }
            }
        }
    }
}

#[test]
fn sec_24_token_leak_who_hands_out_tokens_sends_a_credential_nowhere_else() {
    for secret in [
        json!({ "auth": STANDARD.encode("me:pw") }),
        json!({ "identitytoken": "refresh" }),
    ] {
        for status in [301, 302, 307, 308] {
            let evil = Server::answering(|_| answer(200, &[], br#"{"token":"t"}"#));
            let elsewhere = format!("http://{}/token", evil.address);
            let issuer = Server::answering(move |_| answer(status, &[("Location", &elsewhere)], b""));
            let realm = format!("Bearer realm=\"http://{}/token\"", issuer.address);
            let registry = Server::answering(move |asked| guarded(asked, "Bearer t", &realm));
            let (_directory, credentials) = credentials(json!({ registry.address.to_string(): secret }));
            let client = trusting(&[&registry], credentials);
            let _ = run(client.manifest(&name(&registry), "1", 1000));
            for asked in evil.requests() {
                assert_eq!(asked.header("authorization"), None);
                assert!(
                    !asked.target.contains("refresh") && !asked.body.contains("refresh"),
                    "{asked:?}"
                );
            }
            assert_eq!(issuer.requests().len(), 1);
        }
    }
}

/// Runs a test in a network of its own: `lo`, which also has 198.51.100.1, an address like any elsewhere. Where none is to be had that is said.
fn in_a_network_of_its_own(test: impl FnOnce() + Send) {
    let made = || {
        unshare(CloneFlags::CLONE_NEWNET).map(|()| {
            for arguments in [
                "link set lo up",
                "address add 198.51.100.1/24 dev lo",
                // As a cloud has it.
                "address add 169.254.169.254/32 dev lo",
            ] {
                let done = std::process::Command::new("ip")
                    .args(arguments.split(' '))
                    .status();
                assert!(done.unwrap().success(), "ip {arguments}");
            }
            test();
        })
    };
    let ran = std::thread::scope(|scope| {
        let ended = scope.spawn(made).join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    if let Err(error) = ran {
        use std::io::Write;
        let required = std::env::var_os("STEAD_REQUIRE_KERNEL").is_some_and(|value| value == "1");
        assert!(
            !required,
            "STEAD_REQUIRE_KERNEL is set, but there is no network: {error}"
        );
        let _ = writeln!(std::io::stderr(), "skipped: no network: {error}");
    }
}

/// Everything that is this host or its links, and how a registry elsewhere may call it.
const NEAR: [&str; 10] = [
    "169.254.169.254",
    "127.0.0.1",
    "127.8.8.8",
    "localhost",
    "0.0.0.0",
    "0",
    "2130706433",
    "0x7f.1",
    "[::ffff:127.0.0.1]",
    "[::1]",
];

#[test]
fn sec_25_ssrf_proxy_a_registry_elsewhere_sends_nobody_to_this_host_or_its_links() {
    in_a_network_of_its_own(|| {
        let near = ["0.0.0.0:80", "[::1]:80"].map(|at| Server::answering_at(at, |_| answer(200, &[], BLOB)));
        let far = Server::answering_at("198.51.100.1:0", |asked| {
            let target = asked.target.as_str();
            let to = target
                .split_once("/to/")
                .map(|(_, to)| to.split('?').next().unwrap_or(to));
            match (to, target.split_once("/token/")) {
                (Some(to), _) => answer(307, &[("Location", &format!("http://{to}"))], b""),
                (_, Some((_, at))) => {
                    let realm = format!("Bearer realm=\"http://{at}/\"");
                    answer(401, &[("WWW-Authenticate", &realm)], b"")
                }
                _ => answer(200, &[], BLOB),
            }
        });
        let client = trusting(&[&far], Credentials::default());
        let asked = |path: String| {
            let name: ImageName = format!("{}/app:1", far.address).parse().unwrap();
            run(async {
                let wanted = Wanted {
                    method: Method::GET,
                    path: &path,
                    headers: HeaderMap::new(),
                    name: &name,
                };
                let endpoints = client.hosts.endpoints(&name);
                let answer = client.endpoint(endpoints.last().unwrap(), &wanted).await?;
                Ok::<_, ClientError>(answer.read(100).await?)
            })
        };
        // From elsewhere to elsewhere is fine: what is refused is refused for where it leads.
        for fine in [
            format!("to/{}/x", far.address),
            format!("to/{}/to/{}/x", far.address, far.address),
        ] {
            assert_eq!(asked(fine).unwrap(), BLOB);
        }
        for host in NEAR {
            for path in [
                format!("to/{host}/x"),
                format!("to/{}/to/{host}/x", far.address),
                format!("token/{host}"),
            ] {
                let error = asked(path.clone()).unwrap_err();
                let near = matches!(error, ClientError::Transport(TransportError::Near { .. }));
                assert!(near && !error.may_pass(), "{path}: {error}");
            }
        }
        for server in &near {
            assert_eq!(server.requests().len(), 0, "nothing was asked");
        }
        // A connection that is there for another reason is not used either.
        let url: Uri = "http://127.0.0.1/".parse().unwrap();
        run(async {
            let answer = client.transport.send(Ask::get(&url), true).await.unwrap();
            answer.read(100).await.unwrap();
            let far: Uri = format!("http://{}/to/127.0.0.1/x", far.address).parse().unwrap();
            let error = client.transport.send(Ask::get(&far), true).await.unwrap_err();
            assert!(matches!(error, TransportError::Near { .. }), "{error}");
        });
        assert_eq!(near[0].requests().len(), 1);
    });
}

#[test]
fn sec_25_ssrf_proxy_a_proxy_is_not_asked_for_what_is_near_either() {
    in_a_network_of_its_own(|| {
        let proxy = Server::answering_at("198.51.100.1:0", |_| {
            answer(302, &[("Location", "http://169.254.169.254/latest")], b"")
        });
        let address = format!("http://{}", proxy.address);
        let proxies = Proxies::of(|name| (name == "HTTP_PROXY").then(|| address.clone())).unwrap();
        let transport = Transport::new(RootCertStore::empty(), proxies, Patience::default());
        let url: Uri = "http://registry.example/v2/".parse().unwrap();
        let error = run(transport.send(Ask::get(&url), false)).unwrap_err();
        assert!(matches!(error, TransportError::Near { .. }), "{error}");
        let asked = proxy.requests();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].target, "http://registry.example/v2/");
    });
}

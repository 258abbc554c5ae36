//! The transport against servers on the loopback that behave as they should, or not.

use std::{io::Write, net::TcpListener};

use super::*;
use crate::registry::testing::{Request as Asked, Server, answer};

fn url(server: &Server, path: &str) -> Uri {
    format!("http://{}{path}", server.address).parse().unwrap()
}

fn ok(body: &str) -> Vec<u8> {
    answer(200, &[], body.as_bytes())
}

fn to(status: u16, location: &str) -> Vec<u8> {
    answer(status, &[("Location", location)], b"")
}

fn transport(proxies: Proxies) -> Transport {
    let patience = Patience {
        connect: Duration::from_secs(5),
        head: Duration::from_secs(3),
        stall: Duration::from_millis(300),
        least: 1000,
        ..Patience::default()
    };
    Transport::new(RootCertStore::empty(), proxies, patience)
}

async fn get(transport: &Transport, url: &Uri) -> Result<Vec<u8>, TransportError> {
    transport.send(Ask::get(url), false).await?.read(1 << 20).await
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(future)
}

#[test]
fn one_connection_serves_one_request_after_the_other() {
    let server = Server::start(|number, stream, next| {
        while next(stream).is_some() {
            stream.write_all(&ok(&number.to_string())).unwrap();
        }
    });
    run(async {
        let transport = transport(Proxies::default());
        for _ in 0..3 {
            assert_eq!(get(&transport, &url(&server, "/v2/")).await.unwrap(), b"0");
        }
    });
    let asked = server.requests();
    assert_eq!(asked.len(), 3);
    assert_eq!(
        (asked[0].method.as_str(), asked[0].target.as_str()),
        ("GET", "/v2/")
    );
    assert_eq!(asked[0].header("host"), Some(server.address.to_string().as_str()));
    assert!(asked[0].header("user-agent").unwrap().starts_with("stead/"));
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_replaced() {
    let server = Server::start(|number, stream, next| {
        // One answer a connection, which does not say that it is the last.
        if next(stream).is_some() {
            stream.write_all(&ok(&number.to_string())).unwrap();
        }
    });
    run(async {
        let transport = transport(Proxies::default());
        for number in 0..3 {
            let body = get(&transport, &url(&server, "/")).await.unwrap();
            assert_eq!(body, number.to_string().as_bytes());
        }
    });
}

#[test]
fn sec_24_token_leak_a_credential_stays_with_its_origin() {
    let other = Server::answering(|_| ok("there"));
    let elsewhere = url(&other, "/blob").to_string();
    let server = Server::answering(move |asked| match asked.target.as_str() {
        "/away" => to(307, &elsewhere),
        "/home" => to(302, "/here"),
        "/beside/x" => to(308, "y?z#f"),
        _ => ok("here"),
    });
    let secret = HeaderValue::from_static("Bearer s3cret");
    run(async {
        let transport = transport(Proxies::default());
        for (path, body) in [("/away", "there"), ("/home", "here"), ("/beside/x", "here")] {
            let url = url(&server, path);
            let ask = Ask {
                authorization: Some(&secret),
                ..Ask::get(&url)
            };
            let answer = transport.send(ask, false).await.unwrap();
            assert_eq!(answer.read(100).await.unwrap(), body.as_bytes(), "{path}");
        }
    });
    let secret = Some("Bearer s3cret");
    assert!(
        server
            .requests()
            .iter()
            .all(|asked| asked.header("authorization") == secret)
    );
    assert!(
        server
            .requests()
            .iter()
            .any(|asked| asked.target == "/beside/y?z")
    );
    assert_eq!(other.requests().len(), 1);
    assert_eq!(other.requests()[0].header("authorization"), None);
}

#[test]
fn sec_25_ssrf_proxy_redirects_end_and_lead_to_nothing_but_http() {
    let server = Server::answering(|asked| match asked.target.as_str() {
        "/round" => to(302, "/round"),
        "/file" => to(302, "file:///etc/passwd"),
        "/gopher" => to(302, "gopher://x/"),
        "/nowhere" => answer(302, &[], b""),
        _ => to(302, "http://"),
    });
    run(async {
        let transport = transport(Proxies::default());
        for (path, why) in [
            ("/round", "too many"),
            ("/file", "no URL"),
            ("/gopher", "neither http nor https"),
            ("/nowhere", "no place"),
            ("/broken", "no URL"),
        ] {
            let error = get(&transport, &url(&server, path)).await.unwrap_err();
            assert!(error.to_string().contains(why), "{path}: {error}");
            assert!(!error.may_pass(), "{path}");
        }
    });
    let asked = server.requests().into_iter();
    let round = asked.filter(|asked| asked.target == "/round").count();
    assert_eq!(round, 1 + REDIRECTS);
}

#[test]
fn sec_25_ssrf_proxy_what_an_answer_leads_to_is_taken_relative_to_it_and_never_without_tls() {
    let cases: [(&str, &str, Result<&str, &str>); 7] = [
        (
            "https://r.example/v2/a",
            "https://cdn.example/x",
            Ok("https://cdn.example/x"),
        ),
        (
            "https://r.example/v2/a",
            "//cdn.example/x",
            Ok("https://cdn.example/x"),
        ),
        ("https://r.example/v2/a?b", "/x?y#z", Ok("https://r.example/x?y")),
        (
            "https://r.example/v2/a",
            "b:c",
            Err("it is neither http nor https"),
        ),
        (
            "https://r.example/v2/a",
            "http://r.example/x",
            Err("it gives up TLS"),
        ),
        (
            "http://r.example/v2/a",
            "https://r.example/x",
            Ok("https://r.example/x"),
        ),
        ("http://r.example/v2/a", "data:text/plain,x", Err("it is no URL")),
    ];
    for (url, location, expected) in cases {
        let url: Uri = url.parse().unwrap();
        let here = Origin::of(&url).unwrap();
        let found = follow(&url, &here, Some(location)).map(|(url, _)| url.to_string());
        assert_eq!(found.as_deref().map_err(|why| *why), expected, "{location}");
    }
}

#[test]
fn f_27_registry_slow_who_is_silent_slow_or_gone_is_named() {
    let server = Server::start(|_, stream, next| {
        let Some(asked) = next(stream) else { return };
        let promise = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
        match asked.target.as_str() {
            "/silent" => drop(next(stream)),
            "/hangs" => {
                stream.write_all(promise).unwrap();
                drop(next(stream));
            }
            "/drips" => {
                stream.write_all(promise).unwrap();
                while stream.write_all(b"x").is_ok() {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            _ => stream.write_all(&[&promise[..], b"half"].concat()).unwrap(),
        }
    });
    run(async {
        let transport = transport(Proxies::default());
        for (path, says) in [
            ("/silent", "has not answered"),
            ("/hangs", "less than 1000 bytes"),
            ("/drips", "less than 1000 bytes"),
            ("/gone", "broke"),
        ] {
            let error = get(&transport, &url(&server, path)).await.unwrap_err();
            assert!(error.to_string().contains(says), "{path}: {error}");
            assert!(error.may_pass(), "{path}: {error}");
        }
        // Nobody listens on a port that was just given back.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = get(&transport, &format!("http://{free}/").parse().unwrap())
            .await
            .unwrap_err();
        assert!(matches!(error, TransportError::Connect { .. }), "{error}");
    });
}

#[test]
fn f_27_registry_slow_who_drips_for_ever_just_fast_enough_has_a_total_limit() {
    let server = Server::start(|_, stream, next| {
        while next(stream).is_some() {
            let promise = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
            stream.write_all(promise).unwrap();
            while stream.write_all(&[b'x'; 100]).is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    });
    let url = url(&server, "/");
    // Where both are the default, none of them would be reached in the life of a test.
    for (as_document, limit) in [(true, "document"), (false, "blob")] {
        let mut patience = Patience {
            stall: Duration::from_millis(500),
            least: 10,
            ..Patience::default()
        };
        let short = Duration::from_secs(1);
        match as_document {
            true => patience.document = short,
            false => patience.blob = short,
        }
        let begun = Instant::now();
        let error = run(async {
            let transport = Transport::new(RootCertStore::empty(), Proxies::default(), patience);
            let mut answer = transport.send(Ask::get(&url), false).await.unwrap();
            if as_document {
                return answer.read(1 << 20).await.unwrap_err();
            }
            loop {
                if let Err(error) = answer.next().await {
                    return error;
                }
            }
        });
        assert!(begun.elapsed() >= short, "{limit}");
        assert!(
            matches!(error, TransportError::Slow { limit, .. } if limit == short),
            "{limit}: {error}"
        );
        assert!(error.may_pass());
    }
}

#[test]
fn f_27_registry_slow_an_endless_answer_is_read_as_far_as_it_may_be_long() {
    let server = Server::start(|_, stream, next| {
        while next(stream).is_some() {
            let endless = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(endless.as_bytes()).unwrap();
            while stream.write_all(b"400\r\n").is_ok()
                && stream.write_all(&[b'x'; 1024]).is_ok()
                && stream.write_all(b"\r\n").is_ok()
            {}
        }
    });
    let error = run(async {
        get(&transport(Proxies::default()), &url(&server, "/"))
            .await
            .unwrap_err()
    });
    assert!(
        matches!(error, TransportError::Long { limit, .. } if limit == 1 << 20),
        "{error}"
    );
}

#[test]
fn a_proxy_is_asked_for_the_whole_url_and_for_a_tunnel() {
    let proxy = Server::answering(|asked| match asked.target.as_str() {
        "refused.example:443" => answer(403, &[], b""),
        _ => ok("by proxy"),
    });
    let address = format!("http://me:pass@{}", proxy.address);
    // It is on the loopback as a name: what is there itself is never asked by way of a proxy.
    let proxies = Proxies::of(|name| {
        name.ends_with("_PROXY")
            .then(|| address.clone())
            .filter(|_| name != "NO_PROXY")
    })
    .unwrap();
    run(async {
        let transport = transport(proxies);
        let url = "http://registry.example:5000/v2/?x".parse().unwrap();
        assert_eq!(get(&transport, &url).await.unwrap(), b"by proxy");
        let url = "https://refused.example/v2/".parse().unwrap();
        let error = get(&transport, &url).await.unwrap_err();
        assert!(error.to_string().contains("403"), "{error}");
        assert!(!error.may_pass());
    });
    let asked = proxy.requests();
    let seen = |asked: &Asked| {
        format!(
            "{} {} of {}",
            asked.method,
            asked.target,
            asked.header("host").unwrap()
        )
    };
    assert_eq!(
        seen(&asked[0]),
        "GET http://registry.example:5000/v2/?x of registry.example:5000"
    );
    assert_eq!(
        seen(&asked[1]),
        "CONNECT refused.example:443 of refused.example:443"
    );
    let told = |asked: &Asked| asked.header("proxy-authorization") == Some("Basic bWU6cGFzcw==");
    assert!(asked.iter().all(told), "{asked:?}");
}

//! What a registry asks for before it answers: `WWW-Authenticate` (RFC 9110, section 11.6.1; distribution
//! specification, "Token Authentication").

/// A scheme that stead can serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    /// Where a token is to be had, and for what.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// Every challenge of one header that is understood, in its order. A part that is malformed ends the reading.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some((word, after)) = token(rest) else { break };
        let after = after.trim_start_matches([' ', '\t']);
        match after.strip_prefix('=') {
            Some(after) => {
                let Some((value, after)) = value(after.trim_start_matches([' ', '\t'])) else {
                    break;
                };
                let Some((_, parameters)) = found.last_mut() else {
                    break;
                };
                parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            None => {
                found.push((word.to_ascii_lowercase(), Vec::new()));
                rest = after;
            }
        }
    }
    found
        .into_iter()
        .filter_map(|(scheme, parameters)| known(&scheme, parameters))
        .collect()
}

fn known(scheme: &str, parameters: Vec<(String, String)>) -> Option<Challenge> {
    let get = |name: &str| {
        let mut own = parameters
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.clone());
        own.next()
    };
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: get("realm")?,
            service: get("service"),
            scope: get("scope"),
        }),
        _ => None,
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let is = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(word, rest)| (word.to_owned(), rest));
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((value, &quoted[at + 1..])),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_in_their_order_and_others_passed_over() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        };
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull""#,
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:library/nginx:pull"),
                )],
            ),
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Negotiate, BEARER Realm = "https://x/t" , Basic"#,
                vec![bearer("https://x/t", None, None), Challenge::Basic],
            ),
            (
                r#"Bearer realm="a\"b\\c",service=plain"#,
                vec![bearer("a\"b\\c", Some("plain"), None)],
            ),
            (
                r#"Bearer realm="a, b",realm="second""#,
                vec![bearer("a, b", None, None)],
            ),
            (r#"Bearer service="s""#, vec![]),
            (r#"Bearer realm="open"#, vec![]),
            (r#"realm="https://x""#, vec![]),
            ("", vec![]),
            (",,,", vec![]),
        ] {
            assert_eq!(parse(header), expected, "{header}");
        }
    }
}

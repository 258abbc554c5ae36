//! Users of images, and of images that mean no good.

use std::{
    fs,
    os::unix::fs::{FileExt, symlink},
    os::{fd::OwnedFd, unix::net::UnixListener},
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;

#[test]
fn a_user_is_looked_up_as_docker_does() {
    let passwd = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34:w:/var/www:/bin/sh\n";
    let group = "root:x:0:\nweb:x:34:\naudio:x:29:www,other\ndocker:x:99:www\n";
    type Found = (u32, u32, &'static [u32], &'static str);
    let cases: [(&str, &str, Option<Found>); 13] = [
        ("", "", Some((0, 0, &[0], "/root"))),
        ("www", "", Some((33, 34, &[29, 34, 99], "/var/www"))),
        ("33", "", Some((33, 34, &[29, 34, 99], "/var/www"))),
        ("www:audio", "", Some((33, 29, &[29], "/var/www"))),
        ("1000", "", Some((1000, 0, &[0], "/"))),
        ("1000:1001", "", Some((1000, 1001, &[1001], "/"))),
        ("nobody", "", None),
        ("www:none", "", None),
        ("70000", "", None),
        ("1000", "audio 7 audio", Some((1000, 0, &[0, 7, 29], "/"))),
        ("www", "7", Some((33, 34, &[7, 29, 34, 99], "/var/www"))),
        ("", "nobody", None),
        ("", "65536", None),
    ];
    for (user, more, expected) in cases {
        let more: Vec<String> = more.split_whitespace().map(str::to_owned).collect();
        let found = resolve(user, &more, passwd, group).ok();
        let expected = expected.map(|(uid, gid, groups, home)| Account {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.into(),
        });
        assert_eq!(found, expected, "{user} {more:?}");
    }
}

/// A line of the two files, right or nearly so.
fn line() -> impl Strategy<Value = String> {
    let field = prop_oneof![
        "[a-z]{0,4}",
        "[0-9]{0,12}",
        Just("root".to_owned()),
        Just("0".to_owned()),
        Just("-1".to_owned()),
        "[a-z,]{0,8}",
        "\\PC{0,6}",
    ];
    prop_oneof![
        8 => proptest::collection::vec(field, 0..9).prop_map(|fields| fields.join(":")),
        1 => "\\PC{0,80}",
    ]
}

fn file() -> impl Strategy<Value = String> {
    proptest::collection::vec(line(), 0..12).prop_map(|lines| lines.join("\n"))
}

proptest! {
    /// Whatever an image says, an account has ids that are mapped, each group once, and nobody panics.
    #[test]
    fn an_account_stays_within_what_is_mapped(
        user in prop_oneof!["[a-z0-9]{0,5}(:[a-z0-9]{0,5})?", "\\PC{0,8}", Just("root".to_owned())],
        more in proptest::collection::vec("[a-z0-9]{0,5}", 0..3),
        passwd in file(),
        group in file(),
    ) {
        match resolve(&user, &more, &passwd, &group) {
            Ok(account) => {
                prop_assert!(account.uid < IDS && account.gid < IDS, "{:?}", account);
                prop_assert!(account.groups.iter().all(|id| *id < IDS), "{:?}", account);
                prop_assert!(account.groups.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", account);
                prop_assert!(account.groups.contains(&account.gid), "{:?}", account);
                // Nobody becomes root for not being there: it was asked for, by number or by an entry.
                let name = user.split(':').next().unwrap_or_default();
                let entry = passwd.lines().any(|line| line.split(':').next() == Some(name));
                prop_assert!(account.uid != 0 || name.is_empty() || entry || name.parse() == Ok(0), "{:?}", account);
            }
            Err(error) => prop_assert!(error.message.contains("correct") || error.message.contains("smaller"), "{error}"),
        }
    }
}

/// SEC-08: the longest files there may be, in the shapes that cost most.
#[test]
fn the_longest_files_are_looked_up_within_a_second() {
    const MOST: usize = 1 << 20;
    let long = |piece: &str| piece.repeat(MOST / piece.len());
    let group = format!("a:x:1:{}", "x,".repeat(MOST / 2 - 4));
    for (passwd, group) in [
        (long(":"), long(":")),
        (long("\n"), long("\n")),
        (long("a:x:1:1:::\n"), long("b:x:2:a\n")),
        ("x:x:1:1:::\n".to_owned(), group),
        (long("\u{fffd}"), long("::::\n")),
    ] {
        let more: Vec<String> = ["1", "2", "b", "missing"].map(String::from).to_vec();
        // Of this thread alone: others keep the processors busy.
        let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
        let begun = Duration::from(clock.now().unwrap());
        let _ = resolve("a", &more, &passwd, &group);
        let taken = Duration::from(clock.now().unwrap()) - begun;
        assert!(taken < Duration::from_secs(1), "{taken:?}");
    }
}

fn root(directory: &std::path::Path) -> OwnedFd {
    fs::File::open(directory).unwrap().into()
}

/// SEC-08: nothing but a regular file of at most 1 MiB is read, and nothing is waited for.
#[test]
fn only_small_regular_files_within_the_root_are_read() {
    use nix::{sys::stat::Mode, unistd::mkfifo};
    use std::os::fd::AsFd;
    let place = tempfile::tempdir().unwrap();
    let outside = place.path().join("outside");
    fs::write(&outside, "the host's").unwrap();
    let inner = place.path().join("root");
    let etc = inner.join("etc");
    fs::create_dir_all(&etc).unwrap();
    fs::write(etc.join("plain"), "a:x:1:1:::").unwrap();
    fs::write(etc.join("full"), vec![b'a'; 1 << 20]).unwrap();
    fs::write(etc.join("bytes"), [0xff, 0xfe, b':']).unwrap();
    let sparse = fs::File::create(etc.join("sparse")).unwrap();
    sparse.write_at(b"x", 10 << 30).unwrap();
    fs::write(etc.join("longer"), vec![b'a'; (1 << 20) + 1]).unwrap();
    mkfifo(&etc.join("pipe"), Mode::from_bits_truncate(0o644)).unwrap();
    let _socket = UnixListener::bind(etc.join("socket")).unwrap();
    fs::create_dir(etc.join("directory")).unwrap();
    for (name, to) in [
        ("loop", "loop"),
        ("pong", "ping"),
        ("ping", "pong"),
        ("nowhere", "not/there"),
        ("absolute", outside.to_str().unwrap()),
        ("up", "../../../../../../../../../../etc/passwd"),
        ("within", "/etc/plain"),
        ("to-pipe", "pipe"),
        ("below", "plain/more"),
    ] {
        symlink(to, etc.join(name)).unwrap();
    }
    let root = root(&inner);
    let read = |name: &str| {
        let begun = Instant::now();
        let found = tree::read_small(root.as_fd(), &Path::new("etc").join(name));
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{name}: {:?}",
            begun.elapsed()
        );
        found
            .map(|text| text.map(|text| text.len()))
            .map_err(|error| error.kind())
    };
    for (name, length) in [("plain", 10), ("full", 1 << 20), ("bytes", 7), ("within", 10)] {
        assert_eq!(read(name), Ok(Some(length)), "{name}");
    }
    for name in ["missing", "nowhere", "absolute", "up", "below"] {
        assert_eq!(read(name), Ok(None), "{name}");
    }
    for name in [
        "sparse",
        "longer",
        "pipe",
        "socket",
        "directory",
        "loop",
        "ping",
        "to-pipe",
    ] {
        assert!(read(name).is_err(), "{name}: {:?}", read(name));
    }
}

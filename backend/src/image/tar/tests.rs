//! What others see in an archive is what we see, or we refuse it (TARmageddon, CVE-2025-62518).
//!
//! `STEAD_TAR_MUTATIONS` sets how many archives are tried; a hundredth of them go through GNU tar.

use std::{
    fs,
    io::{self, Read, Write},
    process::{Command, Stdio},
};

use super::*;

/// A round is one archive of each kind, mutated.
const MUTATIONS: usize = 10_000;

const PYTHON: &str = r#"
import io, sys, tarfile
kinds = {b'0': 'f', b'\0': 'f', b'7': 'f', b'S': 'f', b'5': 'd', b'2': 's', b'1': 'h', b'3': 'c', b'4': 'b', b'6': 'p'}
out = sys.stdout.buffer
data = sys.stdin.buffer
while True:
    length = data.read(8)
    if not length:
        break
    archive = io.BytesIO(data.read(int.from_bytes(length, 'little')))
    try:
        with tarfile.open(fileobj=archive, mode='r:', encoding='latin-1', errors='strict') as tar:
            for entry in tar:
                kind = kinds.get(entry.type, '?')
                size = entry.size if kind == 'f' else 0
                link = entry.linkname if kind in 'sh' else ''
                name = entry.name.rstrip('/') if kind == 'd' else entry.name
                # PAX is UTF-8 to Python whatever it is told; GNU and plain names are bytes.
                raw = [part.encode('utf-8' if any(ord(c) > 255 for c in part) else 'latin-1') for part in (name, link)]
                out.write(b'%s %d %s %s\n' % (kind.encode(), size, raw[0].hex().encode() or b'-', raw[1].hex().encode() or b'-'))
        out.write(b'end\n')
    except Exception as error:
        out.write(b'error %s\n' % repr(error).encode().replace(b'\n', b' '))
out.flush()
"#;

/// Kind, size, path, link.
type Listing = Vec<(char, i128, Vec<u8>, Vec<u8>)>;

struct Bytes<'a>(&'a [u8]);

impl Read for Bytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Input for Bytes<'_> {}

fn ours(tar: &[u8]) -> Result<Listing, TarError> {
    let mut archive = Archive::new(Bytes(tar), 10_000);
    let mut listing = Listing::new();
    while let Some(entry) = archive.next()? {
        let kind = match entry.kind {
            Kind::File => 'f',
            Kind::Directory => 'd',
            Kind::Symlink => 's',
            Kind::HardLink => 'h',
            Kind::Char => 'c',
            Kind::Block => 'b',
            Kind::Fifo => 'p',
        };
        let link = match entry.kind {
            Kind::Symlink | Kind::HardLink => entry.link,
            _ => Vec::new(),
        };
        listing.push((kind, entry.size.into(), trimmed(kind, entry.path), link));
    }
    Ok(listing)
}

fn trimmed(kind: char, mut path: Vec<u8>) -> Vec<u8> {
    while kind == 'd' && path.ends_with(b"/") {
        path.pop();
    }
    path
}

fn pythons(archives: &[Vec<u8>]) -> Vec<Option<Listing>> {
    let mut python = Command::new("python3")
        .args(["-c", PYTHON])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = python.stdin.take().unwrap();
    let said = std::thread::scope(|scope| {
        scope.spawn(move || {
            for archive in archives {
                input.write_all(&(archive.len() as u64).to_le_bytes()).unwrap();
                input.write_all(archive).unwrap();
            }
        });
        let mut said = String::new();
        python.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        said
    });
    assert!(python.wait().unwrap().success());
    let (mut all, mut listing) = (Vec::new(), Listing::new());
    for line in said.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "end" => all.push(Some(std::mem::take(&mut listing))),
            "error" => {
                listing.clear();
                all.push(None);
            }
            kind => {
                let kind = kind.chars().next().unwrap();
                listing.push((kind, words[1].parse().unwrap(), unhex(words[2]), unhex(words[3])));
            }
        }
    }
    all
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.trim_start_matches('-').as_bytes();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// `None`: it is no archive to GNU tar.
fn gnu_tars(archive: &[u8]) -> Option<Listing> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), archive).unwrap();
    // From a pipe: in a file, it looks for the next header elsewhere than in a stream.
    let script = "cat \"$0\" | tar -t -v --quoting-style=c --full-time --numeric-owner -f -";
    let ran = Command::new("sh")
        .args(["-c", script])
        .arg(file.path())
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .output()
        .unwrap();
    if !ran.status.success() {
        return None;
    }
    let lines = ran
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    Some(lines.map(gnu_line).collect())
}

/// `-rw-r--r-- 0/0  12 2023-11-14 22:13:20 "path" -> "link"`
fn gnu_line(line: &[u8]) -> (char, i128, Vec<u8>, Vec<u8>) {
    let quote = line.iter().position(|byte| *byte == b'"').unwrap();
    let words: Vec<&str> = std::str::from_utf8(&line[..quote])
        .unwrap()
        .split_whitespace()
        .collect();
    let (path, rest) = unquote(&line[quote..]);
    let link = rest
        .iter()
        .position(|byte| *byte == b'"')
        .map(|at| unquote(&rest[at..]).0);
    let kind = match line[0] {
        b'-' | b'C' => 'f',
        b'l' => 's',
        other => char::from(other),
    };
    let size = match kind {
        'f' => words[2].parse().unwrap(),
        _ => 0,
    };
    (kind, size, trimmed(kind, path), link.unwrap_or_default())
}

fn unquote(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let (mut bytes, mut at) = (Vec::new(), 1);
    while text[at] != b'"' {
        if text[at] != b'\\' {
            bytes.push(text[at]);
            at += 1;
            continue;
        }
        at += 2;
        bytes.push(match text[at - 1] {
            b'a' => 7,
            b'b' => 8,
            b't' => b'\t',
            b'n' => b'\n',
            b'v' => 11,
            b'f' => 12,
            b'r' => b'\r',
            b'0'..=b'7' => {
                let digits = std::str::from_utf8(&text[at - 1..at + 2]).unwrap();
                at += 2;
                u8::from_str_radix(digits, 8).unwrap()
            }
            other => other,
        });
    }
    (bytes, &text[at + 1..])
}

/// Small valid archives of every format, as tools write them.
fn archives() -> Vec<Vec<u8>> {
    let from = tempfile::tempdir().unwrap();
    let script = r#"
        export TAR_OPTIONS=--mtime=@1700000000
        mkdir -p dir/below; printf content >dir/file; ln -s target dir/link; ln dir/file dir/hard; mkfifo fifo
        printf x >dir/below/$(printf 'n%.0s' $(seq 120)); : >empty
        truncate -s 20000 holes; printf data | dd of=holes bs=1 seek=8192 conv=notrunc status=none
        for format in v7 ustar oldgnu gnu 'posix --pax-option=delete=atime,delete=ctime'; do tar -c --format=$format -f ../${format%% *} --exclude=fifo dir empty 2>/dev/null; done
        tar -c --format=posix --pax-option=delete=atime,delete=ctime -f ../times fifo dir/file
        tar -cS --format=gnu -f ../sparse holes empty
        # It writes its process id into the archive.
        for version in 0.0 0.1 1.0; do unshare --pid --fork tar -cS --format=posix --pax-option=delete=atime,delete=ctime --sparse-version=$version -f ../sparse$version holes empty; done
        for name in ../v7 ../ustar ../oldgnu ../gnu ../posix ../times ../sparse ../sparse0.0 ../sparse0.1 ../sparse1.0; do
            test -s $name && echo $name
        done
    "#;
    let tree = from.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let ran = Command::new("sh")
        .args(["-c", script])
        .current_dir(&tree)
        .output()
        .unwrap();
    let names = String::from_utf8(ran.stdout).unwrap();
    let archives: Vec<Vec<u8>> = names
        .lines()
        .map(|name| fs::read(tree.join(name)).unwrap())
        .collect();
    assert_eq!(archives.len(), 10, "{}", String::from_utf8_lossy(&ran.stderr));
    archives
}

/// xorshift: the same archives each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// Bytes and blocks changed, moved, doubled, lost; mostly with a checksum that is right again.
fn mutate(archive: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = archive.to_vec();
    // The rest is the filler of a tape's record.
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
    bytes.truncate(end.next_multiple_of(512) + 1024);
    for _ in 0..1 + random.below(3) {
        let blocks = bytes.len() / 512;
        let (one, other) = (random.below(blocks) * 512, random.below(blocks) * 512);
        match random.below(12) {
            0 => bytes.copy_within(one..one + 512, other),
            1 => drop(bytes.drain(one..one + 512)),
            2 => {
                let block = bytes[one..one + 512].to_vec();
                bytes.splice(other..other, block);
            }
            3 => bytes.truncate(random.below(bytes.len()) + 1),
            4 => {
                let at = random.below(bytes.len());
                bytes[at] = random.below(256) as u8;
            }
            5 => {
                let digit = one + 124 + random.below(12);
                bytes[digit] = b"01234567 +-\0\x80\xff9x"[random.below(16)];
            }
            6 => bytes[one + 156] = b"01234567SLKxgXVDMN\0A"[random.below(20)],
            7 => bytes[one + 257 + random.below(8)] = b"ustar \x000"[random.below(8)],
            8 => bytes[one + 345 + random.below(150)] = b"a/\x007"[random.below(4)],
            9 => bytes[one + 386 + random.below(109)] = b"01234567\0\x80"[random.below(10)],
            _ => bytes[one + random.below(300)] = b"/.a\0 0123=\n\xc3"[random.below(12)],
        }
        if bytes.len() < 1024 {
            break;
        }
    }
    for at in 0..bytes.len() / 512 {
        let block = &mut bytes[at * 512..at * 512 + 512];
        // What looks like a header: it has a checksum's form.
        if random.below(20) > 0 && block[154..156] == *b"\0 " {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    bytes
}

#[test]
fn sec_21_listings_of_valid_archives_are_those_of_gnu_tar_and_python() {
    let archives = archives();
    for (archive, python) in archives.iter().zip(pythons(&archives)) {
        let ours = ours(archive).unwrap();
        assert!(ours.len() >= 2);
        assert_eq!(Some(&ours), python.as_ref());
        assert_eq!(Some(ours), gnu_tars(archive));
    }
}

#[test]
fn sec_21_listings_of_mutated_archives_are_those_of_gnu_tar_and_python_or_refused() {
    let wanted = std::env::var("STEAD_TAR_MUTATIONS");
    let wanted = wanted.map_or(MUTATIONS, |wanted| wanted.parse().unwrap());
    let valid = archives();
    let mut random = Random(0x5eed);
    let (mut taken, mut tried, mut differences) = (0, 0, Vec::new());
    while tried < wanted {
        let batch: Vec<Vec<u8>> = (0..1000)
            .map(|number| mutate(&valid[number % valid.len()], &mut random))
            .collect();
        tried += batch.len();
        let pythons = pythons(&batch);
        assert_eq!(pythons.len(), batch.len());
        for (archive, python) in batch.iter().zip(pythons) {
            let Ok(ours) = ours(archive) else { continue };
            taken += 1;
            let gnu = (taken % 10 == 0).then(|| gnu_tars(archive));
            for (reader, theirs) in [("Python", Some(python)), ("GNU tar", gnu)] {
                if theirs
                    .as_ref()
                    .is_some_and(|theirs| theirs.as_ref() != Some(&ours))
                {
                    let kept = std::env::temp_dir().join(format!("stead-mutated-{}.tar", differences.len()));
                    fs::write(&kept, archive).unwrap();
                    differences.push(format!(
                        "{}: we see {ours:?}, {reader} {theirs:?}",
                        kept.display()
                    ));
                }
            }
        }
        if differences.len() > 9 {
            break;
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(
        taken * 20 > tried,
        "only {taken} of {tried} were taken: too little is compared"
    );
    println!("{tried} archives, {taken} taken");
}

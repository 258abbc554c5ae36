//! The probe: runs inside a container and says what is possible there, one line a fact; or attacks it.
//!
//! It needs nothing of the container but itself, and no fact of it depends on the one who reads it: the same
//! program tells of stead, podman and runc. Facts that the kernel or the host decides, not the runtime, are
//! below `host.`, so that a golden file can leave them out.

mod attacks;
mod attempts;
mod calls;
mod entries;
mod facts;
mod files;
mod sys;

use std::process::ExitCode;

const USAGE: &str = "\
probe facts [NAMESPACE:[INODE] …]   what is so here; the namespaces that are the host's
probe calls                         the verdict on each system call only
probe entry                         sockets of four families by both entries
probe userns                        every way to a new namespace, really tried
probe key add|find NAME             adds a key to the session keyring, or looks for it
probe key hold NAME PROGRAM …       executes a program in a new session whose keyring has that key
probe exchange A B ROUNDS           exchanges two names until the rounds (0: until killed) are over
probe exes ROUNDS|FILE              tries to open for writing what each process executes (until FILE is there)
probe beyond                        signals and traces whatever can be seen
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let lines = match words.as_slice() {
        ["facts", host @ ..] => all(host),
        ["calls"] => calls::verdicts(),
        ["entry"] => entries::really(&[15, 33, 38, 40]),
        ["userns"] => attempts::namespaces(),
        ["key", "add", name] => vec![attacks::add_key(name)],
        ["key", "hold", name, program, rest @ ..] => vec![attacks::hold_key(name, program, rest)],
        ["key", "find", name] => attacks::find_key(name),
        ["exchange", one, other, rounds] => vec![attacks::exchange(one, other, rounds)],
        ["exes", until] => attacks::open_executables(until),
        ["beyond"] => attacks::beyond(),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(64);
        }
    };
    let mut text = lines.join("\n");
    text.push('\n');
    print!("{text}");
    ExitCode::SUCCESS
}

fn all(host: &[&str]) -> Vec<String> {
    // First, because what looks later opens descriptors of its own.
    let mut lines = facts::descriptors();
    lines.extend(facts::rights());
    lines.extend(facts::namespaces(host));
    lines.extend(facts::ids());
    lines.extend(facts::limits());
    lines.extend(facts::settings());
    lines.extend(files::mounts());
    lines.extend(files::devices());
    lines.extend(files::hidden());
    lines.extend(files::writable());
    lines.extend(attempts::all());
    lines.extend(attempts::namespaces());
    lines.extend(entries::facts());
    lines.extend(calls::verdicts());
    lines
}

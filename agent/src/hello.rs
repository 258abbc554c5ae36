//! `builtin:hello`, the demonstration image: a small HTTP server that shows what stead gave it.
//!
//! ```text
//!   hello                        serve HTTP on $PORT (8080); with $GREETING, say it
//!   hello --probe URL            exit 0 if URL answers with 2xx, else 1
//!   hello --call URL [SECONDS]   call URL again and again (every second) and log each answer
//!   hello --crash SECONDS        exit 1 after so long
//!   hello --udp-echo PORT        send every datagram back
//!   hello --bind-53 [NAME]       serve HTTP, answer on port 53 of its own, and keep looking up NAME
//! ```
//!
//! It knows nothing of the rest of stead, and uses threads and std alone: it is what runs inside.

mod dns;
mod http;
mod visits;

use std::{
    env,
    io::Write,
    net::{TcpListener, UdpSocket},
    path::Path,
    process::exit,
    thread,
    time::Duration,
};

use http::{Reply, Request, Url};
use nix::sys::signal::{SigSet, Signal};

/// How long a call or a probe waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether this process is to be `hello` instead of `stead`: called by that name, or as
/// `stead hello-server`.
pub fn is_called() -> bool {
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    let name = Path::new(&name).file_name();
    name.is_some_and(|name| name == "hello") || arguments.next().is_some_and(|first| first == "hello-server")
}

/// Runs until it is told to stop.
pub fn main() -> ! {
    stop_on_signals();
    let mut arguments: Vec<String> = env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    if arguments.first().is_some_and(|first| first == "hello-server") {
        arguments.remove(0);
    }
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => serve(),
        ["--probe", url] => probe(url),
        ["--call", url] => call(url, "1"),
        ["--call", url, seconds] | ["--call", url, "every", seconds] => call(url, seconds),
        ["--crash", seconds] => {
            log(&format!("will crash in {seconds} s"));
            thread::sleep(duration(seconds));
            log("crashed");
            exit(1)
        }
        ["--udp-echo", port] => udp_echo(port),
        ["--bind-53"] => bind_53(&name()),
        ["--bind-53", name] => bind_53(name),
        _ => fail(&format!(
            "unknown arguments: {}. Use none, --probe URL or --call URL",
            words.join(" ")
        )),
    }
}

/// Process 1 of a namespace gets no signal it has no handler for. A blocked signal is kept for it, and
/// waited for: no handler, no unsafe code.
fn stop_on_signals() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    // Before any other thread exists, so that all inherit it.
    if signals.thread_block().is_ok() {
        spawn(move || {
            if let Ok(signal) = signals.wait() {
                log(&format!("{signal}: bye"));
                exit(0);
            }
        });
    }
}

fn serve() -> ! {
    let port = env::var("PORT")
        .ok()
        .and_then(|port| port.parse().ok())
        .unwrap_or(8080);
    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap_or_else(|error| {
        fail(&format!(
            "cannot listen on port {port}: {error}. Set PORT to a free one"
        ))
    });
    log(&format!("{} listens on port {port}", name()));
    for stream in listener.incoming().flatten() {
        spawn(move || http::serve(stream, answer, log));
    }
    fail("the listener is gone")
}

fn answer(request: &Request) -> Reply {
    let path = request.path.split('?').next().unwrap_or_default();
    if request.method != "GET" && request.method != "HEAD" {
        return Reply::text(405, "only GET and HEAD\n");
    }
    match path.split('/').skip(1).collect::<Vec<_>>().as_slice() {
        [""] => Reply::text(200, &portrait()),
        ["healthz"] => Reply::text(200, "ok\n"),
        ["stream"] => Reply::Stream(Duration::from_millis(100)),
        ["call", target] => match Url::parse(&format!("http://{target}/")) {
            None => Reply::text(400, "use /call/NAME or /call/NAME:PORT\n"),
            Some(url) => match http::get(&url, PATIENCE) {
                Ok((status, body)) => Reply::text(status, &body),
                Err(error) => Reply::text(502, &format!("{target}: {error}\n")),
            },
        },
        ["env", name] => match env::var_os(name).filter(|_| !name.is_empty()) {
            Some(value) => Reply::text(200, &format!("{}\n", value.to_string_lossy())),
            None => Reply::text(404, &format!("{name} is not set\n")),
        },
        ["exit", code] => match code.parse::<u8>() {
            Ok(code) => Reply::Exit(code),
            Err(_) => Reply::text(400, "use /exit/0 to /exit/255\n"),
        },
        _ => Reply::text(
            404,
            "try /, /call/NAME, /env/NAME, /healthz, /stream or /exit/CODE\n",
        ),
    }
}

/// One `key: value` a line.
fn portrait() -> String {
    let visits = match visits::count() {
        (visits, None) => visits.to_string(),
        (visits, Some(why)) => format!("{visits} (not kept: {why})"),
    };
    format!(
        "{greeting}name: {name}\naddresses: {addresses}\nvisits: {visits}\npid: {pid}\n",
        greeting = env::var("GREETING").map_or(String::new(), |greeting| format!("greeting: {greeting}\n")),
        name = name(),
        addresses = addresses().join(" "),
        pid = std::process::id(),
    )
}

fn name() -> String {
    env::var("HOSTNAME")
        .ok()
        .filter(|name| !name.is_empty())
        .or_else(|| {
            nix::unistd::gethostname()
                .ok()
                .map(|name| name.to_string_lossy().into_owned())
        })
        .unwrap_or_else(|| "hello".to_owned())
}

/// IPv4 addresses in order of interfaces, loopback left out.
fn addresses() -> Vec<String> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    interfaces
        .filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()))
        .filter(|address| !address.is_loopback())
        .map(|address| address.to_string())
        .collect()
}

fn probe(url: &str) -> ! {
    let result = Url::parse(url).ok_or_else(|| format!("{url} is no http:// URL"));
    match result.and_then(|url| http::get(&url, PATIENCE)) {
        Ok((200..=299, _)) => exit(0),
        Ok((status, _)) => fail(&format!("{url}: status {status}")),
        Err(error) => fail(&format!("{url}: {error}")),
    }
}

fn call(text: &str, seconds: &str) -> ! {
    let Some(url) = Url::parse(text) else {
        fail(&format!("{text} is no http:// URL"));
    };
    let pause = duration(seconds);
    loop {
        match http::get(&url, PATIENCE) {
            Ok((status, body)) => log(&format!(
                "{text}: {status} {}",
                body.trim_end().replace('\n', ", ")
            )),
            Err(error) => log(&format!("{text}: {error}")),
        }
        thread::sleep(pause);
    }
}

fn udp_echo(port: &str) -> ! {
    let socket = port
        .parse()
        .map_err(|_| "not a port number".to_owned())
        .and_then(|port: u16| UdpSocket::bind(("0.0.0.0", port)).map_err(|error| error.to_string()))
        .unwrap_or_else(|error| fail(&format!("cannot listen on UDP port {port}: {error}")));
    log(&format!("echoes on UDP port {port}"));
    let mut buffer = [0; 65_536];
    loop {
        if let Ok((size, peer)) = socket.recv_from(&mut buffer) {
            log(&format!("{size} bytes from {peer}"));
            let _ = socket.send_to(&buffer[..size], peer);
        }
    }
}

/// A service may have port 53 for itself; names keep resolving beside it.
fn bind_53(wanted: &str) -> ! {
    let bound = UdpSocket::bind("0.0.0.0:53").and_then(|udp| Ok((udp, TcpListener::bind("0.0.0.0:53")?)));
    let (udp, tcp) = bound.unwrap_or_else(|error| fail(&format!("cannot listen on port 53: {error}")));
    log("listens on port 53");
    spawn(move || {
        let mut buffer = [0; 512];
        loop {
            if let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(b"hello on port 53\n", peer);
            }
        }
    });
    spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let _ = stream.write_all(b"hello on port 53\n");
        }
    });
    let wanted = wanted.to_owned();
    spawn(move || {
        loop {
            match dns::lookup(&wanted) {
                Ok(addresses) => log(&format!("{wanted}: {addresses:?}")),
                Err(error) => log(&format!("{wanted}: {error}")),
            }
            thread::sleep(Duration::from_secs(1));
        }
    });
    serve()
}

fn duration(seconds: &str) -> Duration {
    let parsed = seconds
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    parsed.unwrap_or_else(|| fail(&format!("{seconds} is not a number of seconds")))
}

/// Small stacks: a demonstration should not weigh anything.
fn spawn(body: impl FnOnce() + Send + 'static) {
    let started = thread::Builder::new().stack_size(256 << 10).spawn(body);
    if let Err(error) = started {
        log(&format!("cannot start a thread: {error}"));
    }
}

/// A line in one write. Nobody listening is no reason to stop.
fn log(line: &str) {
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}

fn fail(why: &str) -> ! {
    let _ = std::io::stderr().write_all(format!("hello: {why}\n").as_bytes());
    exit(1)
}

#[cfg(test)]
mod tests;

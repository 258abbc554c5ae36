//! Servers on the loopback for tests: registries that behave as they should, or not.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
};

use nix::{
    libc::linger,
    sys::socket::{setsockopt, sockopt},
};

/// What a registry has, by what comes after `/v2/`: `app/manifests/1`.
pub type Shelf = BTreeMap<String, Vec<u8>>;

/// What was asked.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// As in the first line: with its query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    /// `None`: nothing more is asked on this connection.
    pub fn read(stream: &mut impl Read) -> Option<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            // The beginning of TLS, and of nothing that is said without.
            if byte[0] == 0x16 {
                return None;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.lines();
        let mut first = lines.next()?.split(' ').map(str::to_owned);
        let headers = lines.filter_map(|line| line.split_once(": "));
        let mut request = Request {
            method: first.next()?,
            target: first.next()?,
            headers: headers
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect(),
            body: String::new(),
        };
        let length = request
            .header("content-length")
            .and_then(|length| length.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).ok()?;
        request.body = String::from_utf8_lossy(&body).into_owned();
        Some(request)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let own = self.headers.iter().find(|(key, _)| key == name);
        own.map(|(_, value)| value.as_str())
    }

    /// The byte from which on something is wanted.
    pub fn from(&self) -> usize {
        let range = self
            .header("range")
            .and_then(|range| range.strip_prefix("bytes="));
        let from = range.and_then(|range| range.strip_suffix('-')?.parse().ok());
        from.unwrap_or(0)
    }
}

/// An answer as it goes over the wire. Only a HEAD is to have one without its body.
pub fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        answer.push_str(&format!("{name}: {value}\r\n"));
    }
    [format!("{answer}\r\n").as_bytes(), body].concat()
}

/// What a registry answers that has this and nothing else, and keeps to ranges.
pub fn shelved(shelf: &Shelf, asked: &Request) -> Vec<u8> {
    let found = asked.target.strip_prefix("/v2/").and_then(|path| shelf.get(path));
    found.map_or_else(|| answer(404, &[], b""), |bytes| ranged(asked, bytes))
}

/// All of it, or what was asked for (RFC 9110, section 14).
pub fn ranged(asked: &Request, bytes: &[u8]) -> Vec<u8> {
    match asked.from() {
        0 => answer(200, &[], bytes),
        from if from < bytes.len() => {
            let told = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            answer(206, &[("Content-Range", &told)], &bytes[from..])
        }
        _ => answer(416, &[], b""),
    }
}

fn of_method(asked: &Request, mut answer: Vec<u8>) -> Vec<u8> {
    if asked.method == "HEAD" {
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
        answer.truncate(head.map_or(0, |at| at + 4));
    }
    answer
}

/// How a connection ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As one that has said all.
    Closed,
    /// As one whose other end has forgotten it.
    Reset,
    /// It does not: nothing comes any more, and nobody says so.
    Silent,
}

impl End {
    pub fn of(self, mut stream: TcpStream) {
        match self {
            End::Closed => {}
            End::Reset => {
                let at_once = linger {
                    l_onoff: 1,
                    l_linger: 0,
                };
                setsockopt(&stream, sockopt::Linger, &at_once).expect("SO_LINGER");
            }
            // Until the other end has had enough.
            End::Silent => while stream.read(&mut [0; 64]).is_ok_and(|read| read > 0) {},
        }
    }
}

/// Listens until the process ends.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    told: Arc<Mutex<Vec<Request>>>,
}

/// What a server does with one connection, the number of which it is told. The function reads the next request.
type Serve = dyn Fn(usize, &mut TcpStream, &mut dyn FnMut(&mut TcpStream) -> Option<Request>) + Send + Sync;

impl Server {
    pub fn start(
        serve: impl Fn(usize, &mut TcpStream, &mut dyn FnMut(&mut TcpStream) -> Option<Request>)
        + Send
        + Sync
        + 'static,
    ) -> Server {
        Server::start_at("127.0.0.1:0", serve)
    }

    /// As [`Server::start`], at an address of this network namespace.
    pub fn start_at(
        address: &str,
        serve: impl Fn(usize, &mut TcpStream, &mut dyn FnMut(&mut TcpStream) -> Option<Request>)
        + Send
        + Sync
        + 'static,
    ) -> Server {
        let listener = TcpListener::bind(address).expect("an address to listen at");
        let address = listener.local_addr().expect("its address");
        let serve: Arc<Serve> = Arc::new(serve);
        let server = Server {
            address,
            told: Arc::default(),
        };
        let told = Arc::clone(&server.told);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (serve, told) = (Arc::clone(&serve), Arc::clone(&told));
                std::thread::spawn(move || {
                    let mut next = |stream: &mut TcpStream| {
                        let request = Request::read(stream)?;
                        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                        told.push(request.clone());
                        Some(request)
                    };
                    if let Ok(mut stream) = stream {
                        serve(number, &mut stream, &mut next);
                    }
                });
            }
        });
        server
    }

    /// Answers every request of every connection.
    pub fn answering(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Server {
        Server::answering_at("127.0.0.1:0", answer)
    }

    pub fn answering_at(
        address: &str,
        answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static,
    ) -> Server {
        Server::start_at(address, move |_, stream, next| {
            while let Some(request) = next(stream) {
                if stream.write_all(&of_method(&request, answer(&request))).is_err() {
                    return;
                }
            }
        })
    }

    /// As [`Server::answering`], over what `open` makes of a connection.
    pub fn answering_over<S: Read + Write>(
        open: impl Fn(TcpStream) -> S + Send + Sync + 'static,
        answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static,
    ) -> Server {
        let told: Arc<Mutex<Vec<Request>>> = Arc::default();
        let heard = Arc::clone(&told);
        let server = Server::start(move |_, stream, _| {
            let Ok(stream) = stream.try_clone() else { return };
            let mut stream = open(stream);
            while let Some(request) = Request::read(&mut stream) {
                let bytes = of_method(&request, answer(&request));
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                if stream.write_all(&bytes).and_then(|()| stream.flush()).is_err() {
                    return;
                }
            }
        });
        Server { told, ..server }
    }

    /// All that was asked, in its order.
    pub fn requests(&self) -> Vec<Request> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

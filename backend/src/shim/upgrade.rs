//! A shim becomes another build of itself: its state goes to a memfd, its descriptors stay open.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read, Seek, Write},
    net::{TcpListener, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
};

use reconciler::spec::{FileSpec, PortBinding};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::{
    assigned::Sandbox,
    attached::One,
    clock,
    door::Door,
    joined::{self, Joined, Purpose},
    made::Names,
    protocol::{Record, Reply, Run},
    record::seal,
    run::{Beside, Output},
    serve::{self, Connection},
    state::{Phase, Supervisor},
    watch::{Kept, Watch},
    wire::Inbox,
};
use crate::{
    cgroup::limits::Controllers,
    health::Health,
    logs::{
        forward::{Dropped, Forward},
        writer::{Lines, Lost},
    },
    rootfs::files::Held,
    sandbox::{Namespaces, ResolverSockets},
    sys::process,
};

/// Descriptors by number. Fields are only ever added, with a default.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    record: Record,
    run: Run,
    health: Health,
    /// -1: there is none; likewise `udp` and `tcp`.
    user: i32,
    net: i32,
    #[serde(default)]
    ipc: Option<i32>,
    #[serde(default)]
    pid: Option<i32>,
    #[serde(default)]
    shm: Option<i32>,
    #[serde(default)]
    pause: Option<i32>,
    udp: i32,
    tcp: i32,
    resolver_port: u16,
    ports: Vec<(PortBinding, i32)>,
    listener: i32,
    /// Both ends; a build before there were any has none.
    #[serde(default)]
    door: Option<(i32, i32)>,
    payload: i32,
    first: Option<i32>,
    streams: [Option<i32>; 2],
    /// The first stream is the master of a terminal.
    #[serde(default)]
    terminal: bool,
    #[serde(default)]
    input: Option<i32>,
    /// Connection and socket of each reader.
    #[serde(default)]
    attached: Vec<(u64, i32)>,
    pending: [Vec<u8>; 2],
    #[serde(default)]
    beside: Vec<SavedBeside>,
    #[serde(default)]
    lost: Lost,
    #[serde(default)]
    dropped: Dropped,
    #[serde(default)]
    exit_due: Option<u64>,
    joined: Vec<(i32, Purpose)>,
    #[serde(default)]
    watch: Kept,
    idle_leaf: Option<PathBuf>,
    /// The tmpfs of configs and secrets, and what it was made from.
    #[serde(default)]
    files: Option<(i32, Vec<FileSpec>)>,
    connections: Vec<SavedConnection>,
    next_number: u64,
    /// Who asked for the upgrade and is owed an answer.
    asker: u64,
}

/// Of one that prints beside the first.
#[derive(Debug, Serialize, Deserialize)]
struct SavedBeside {
    streams: [Option<i32>; 2],
    pending: [Vec<u8>; 2],
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedConnection {
    number: u64,
    socket: i32,
    bytes: Vec<u8>,
    subscribed: bool,
}

/// Does not come back when it succeeds; the new program answers `Done`.
///
/// # Errors
/// The state cannot be written, or the program cannot be executed: this one goes on.
pub fn replace(supervisor: &mut Supervisor, asker: u64, binary: &OwnedFd) -> io::Result<()> {
    let Phase::Assigned(sandbox) = &supervisor.phase else {
        return Err(io::Error::other("an idle shim is replaced by a new one"));
    };
    let (streams, pending) = match &sandbox.output {
        Some(output) => (
            output
                .streams
                .each_ref()
                .map(|stream| stream.as_ref().map(AsRawFd::as_raw_fd)),
            output.lines.each_ref().map(|lines| lines.pending.clone()),
        ),
        None => ([None, None], [Vec::new(), Vec::new()]),
    };
    let sockets = sandbox.names.as_ref().map(|names| &names.sockets);
    let saved = Saved {
        record: sandbox.record.clone(),
        run: sandbox.run.clone(),
        health: sandbox.health.clone(),
        user: sandbox.namespaces.user.as_ref().map_or(-1, AsRawFd::as_raw_fd),
        net: sandbox.namespaces.net.as_raw_fd(),
        ipc: sandbox.namespaces.ipc.as_ref().map(AsRawFd::as_raw_fd),
        pid: sandbox.namespaces.pid.as_ref().map(AsRawFd::as_raw_fd),
        shm: sandbox.namespaces.shm.as_ref().map(AsRawFd::as_raw_fd),
        pause: sandbox.pause.as_ref().map(|(pid, _)| *pid),
        udp: sockets.map_or(-1, |sockets| sockets.udp.as_raw_fd()),
        tcp: sockets.map_or(-1, |sockets| sockets.tcp.as_raw_fd()),
        resolver_port: sockets.map_or(0, |sockets| sockets.port),
        ports: sandbox
            .ports
            .iter()
            .map(|(port, fd)| (port.clone(), fd.as_raw_fd()))
            .collect(),
        listener: sandbox.listener.as_raw_fd(),
        door: Some((sandbox.door.as_fd().as_raw_fd(), sandbox.door.number())),
        payload: sandbox.payload.as_raw_fd(),
        first: sandbox.first.as_ref().map(|(pid, _)| *pid),
        streams,
        terminal: sandbox
            .output
            .as_ref()
            .is_some_and(|output| output.terminal.is_some()),
        input: sandbox
            .output
            .as_ref()
            .and_then(|output| output.input.as_ref().map(AsRawFd::as_raw_fd)),
        attached: sandbox
            .attached()
            .map(|one| (one.connection, one.socket.as_raw_fd()))
            .collect(),
        pending,
        beside: sandbox
            .output
            .iter()
            .flat_map(|output| &output.beside)
            .map(|beside| {
                let streams = beside.streams.each_ref();
                SavedBeside {
                    streams: streams.map(|stream| stream.as_ref().map(AsRawFd::as_raw_fd)),
                    pending: beside.lines.each_ref().map(|lines| lines.pending.clone()),
                }
            })
            .collect(),
        lost: sandbox
            .output
            .as_ref()
            .map_or(&sandbox.lost, Output::lost)
            .clone(),
        dropped: sandbox
            .output
            .as_ref()
            .and_then(Output::forwarded)
            .map(Forward::carried)
            .unwrap_or_default(),
        exit_due: sandbox.exit_due,
        joined: sandbox
            .joined
            .iter()
            .map(|one| (one.pid, one.purpose.clone()))
            .collect(),
        watch: sandbox.watch.kept.clone(),
        idle_leaf: sandbox.idle_leaf.clone(),
        files: sandbox.files.as_ref().map(Held::saved),
        connections: supervisor
            .connections
            .iter()
            .map(|one| SavedConnection {
                number: one.number,
                socket: one.socket.as_raw_fd(),
                bytes: one.inbox.bytes.clone(),
                subscribed: one.subscribed,
            })
            .collect(),
        next_number: supervisor.next_number,
        asker,
    };
    let mut state = File::from(memfd_create("stead-state", MemfdFlags::CLOEXEC)?);
    state.write_all(&serde_json::to_vec(&saved).map_err(io::Error::other)?)?;
    let mut kept = vec![
        saved.user,
        saved.net,
        saved.udp,
        saved.tcp,
        saved.listener,
        saved.payload,
    ];
    kept.retain(|fd| *fd >= 0);
    kept.extend([saved.ipc, saved.pid, saved.shm].into_iter().flatten());
    kept.push(state.as_raw_fd());
    // The record stays findable all the while.
    kept.push(sandbox.memfd.as_raw_fd());
    kept.extend(saved.door.iter().flat_map(|(inner, outer)| [inner, outer]));
    kept.extend(saved.files.iter().map(|(mount, _)| *mount));
    kept.extend(saved.ports.iter().map(|(_, fd)| *fd));
    kept.extend(saved.streams.iter().chain([&saved.input]).flatten());
    kept.extend(saved.beside.iter().flat_map(|beside| &beside.streams).flatten());
    kept.extend(saved.attached.iter().map(|(_, fd)| *fd));
    kept.extend(saved.connections.iter().map(|one| one.socket));
    for fd in &kept {
        process::keep_over_exec(*fd, true)?;
    }
    let memfd = sandbox.memfd.as_raw_fd();
    let argument = format!("{},{memfd}", state.as_raw_fd());
    let argv: Vec<CString> = [super::PROGRAM, "resume", &argument]
        .into_iter()
        .filter_map(|text| CString::new(text).ok())
        .collect();
    let environment: [CString; 0] = [];
    let Err(errno) = nix::unistd::execveat(
        binary.as_fd(),
        c"",
        &argv,
        &environment,
        nix::fcntl::AtFlags::AT_EMPTY_PATH,
    );
    for fd in &kept {
        let _ = process::keep_over_exec(*fd, false);
    }
    Err(errno.into())
}

/// The other side of [`replace`]. `argument`: the numbers of the state and of the record's memfd.
///
/// # Errors
/// The state cannot be read. The agent finds the sandbox by its cgroup then.
pub fn resume(argument: &str) -> io::Result<()> {
    let wrong = || io::Error::other("the saved state has no such descriptor");
    let (state, memfd) = argument.split_once(',').ok_or_else(wrong)?;
    let mut state = File::from(process::inherited(state.parse().map_err(|_| wrong())?)?);
    let old = process::inherited(memfd.parse().map_err(|_| wrong())?)?;
    let mut bytes = Vec::new();
    state.rewind()?;
    state.read_to_end(&mut bytes)?;
    let saved: Saved = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
    serve::prepare()?;

    let names = match saved.udp {
        ..0 => None,
        udp => {
            let sockets = ResolverSockets {
                udp: UdpSocket::from(process::inherited(udp)?),
                tcp: TcpListener::from(process::inherited(saved.tcp)?),
                port: saved.resolver_port,
            };
            Some(Names::serve(sockets, &saved.record).map_err(io::Error::other)?)
        }
    };
    let mut ports = Vec::new();
    for (port, fd) in saved.ports {
        ports.push((port, process::inherited(fd)?));
    }
    let first = match saved.first {
        Some(pid) => Some((pid, joined::pidfd(pid).map_err(io::Error::other)?)),
        None => None,
    };
    let pause = match saved.pause {
        Some(pid) => Some((pid, joined::pidfd(pid).map_err(io::Error::other)?)),
        None => None,
    };
    let mut streams = [None, None];
    for (place, fd) in streams.iter_mut().zip(saved.streams) {
        *place = fd.map(process::inherited).transpose()?;
    }
    let mut output = first.is_some().then(|| {
        Output::resume(
            streams,
            saved.pending,
            &saved.record.assignment.logs,
            saved.lost.clone(),
        )
    });
    if let Some(output) = &mut output {
        if saved.terminal {
            output.hold_terminal()?;
        }
        if let Some(container) = &saved.record.container {
            output.set(&container.logging, &saved.record.key, saved.dropped);
        }
        output.input = saved.input.map(process::inherited).transpose()?;
        for SavedBeside { streams, pending } in saved.beside {
            let mut beside = Beside {
                streams: [None, None],
                lines: pending.map(|pending| Lines {
                    pending,
                    terminal: false,
                }),
            };
            for (place, fd) in beside.streams.iter_mut().zip(streams) {
                *place = fd.map(process::inherited).transpose()?;
            }
            output.beside.push(beside);
        }
        for (connection, socket) in saved.attached {
            let socket = process::inherited(socket)?;
            output.attached.readers.push(One { connection, socket });
        }
    }
    let mut running = Vec::new();
    for (pid, purpose) in saved.joined {
        running.push(Joined {
            pid,
            pidfd: joined::pidfd(pid).map_err(io::Error::other)?,
            purpose,
        });
    }
    let door = match saved.door {
        Some((inner, outer)) => Door::resume(process::inherited(inner)?, process::inherited(outer)?),
        None => Door::new()?,
    };
    let files = match saved.files {
        Some((mount, files)) => Some(Held::resume(process::inherited(mount)?, files)),
        None => None,
    };
    let mut record = saved.record;
    record.door = Some(door.number());
    let controllers = Controllers::find().map_err(io::Error::other)?;
    let watch = match (&record.container, &first) {
        (Some(container), Some((pid, _))) => Watch::resume(
            &controllers,
            &record.assignment.cgroup,
            &container.limits,
            saved.watch,
            *pid as u32,
            clock::boot(),
        ),
        _ => Watch::default(),
    };
    let mut sandbox = Sandbox {
        namespaces: Namespaces {
            user: (saved.user >= 0)
                .then(|| process::inherited(saved.user))
                .transpose()?,
            net: process::inherited(saved.net)?,
            ipc: saved.ipc.map(process::inherited).transpose()?,
            pid: saved.pid.map(process::inherited).transpose()?,
            shm: saved.shm.map(process::inherited).transpose()?,
        },
        pause,
        names,
        ports,
        listener: UnixListener::from(process::inherited(saved.listener)?),
        door,
        memfd: seal(&record)?,
        record,
        payload: process::inherited(saved.payload)?,
        controllers,
        watch,
        run: saved.run,
        first,
        output,
        lost: saved.lost,
        exit_due: saved.exit_due,
        joined: running,
        health: saved.health,
        idle_leaf: saved.idle_leaf,
        files,
        next: None,
        stub: None,
        stub_due: None,
        sources: None,
    };
    sandbox.count_lost();
    drop(old);
    let mut supervisor = Supervisor::new(Phase::Assigned(Box::new(sandbox)));
    supervisor.next_number = saved.next_number;
    for one in saved.connections {
        let connection = Connection {
            number: one.number,
            socket: UnixStream::from(process::inherited(one.socket)?),
            inbox: Inbox {
                bytes: one.bytes,
                descriptors: Vec::new(),
            },
            subscribed: one.subscribed,
            heard: Some(clock::boot()),
        };
        if one.number == saved.asker {
            connection.send(&Reply::Done, &[]);
        }
        supervisor.connections.push(connection);
    }
    drop(state);
    serve::serve(&mut supervisor)
}

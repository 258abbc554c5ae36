//! The resolver's sockets of a sandbox while no zone is served: queries are read and dropped.

use std::{
    net::{TcpListener, UdpSocket},
    os::fd::{AsRawFd, RawFd},
};

use super::protocol::Resolver;

pub struct Server {
    udp: UdpSocket,
    tcp: TcpListener,
    resolver: Resolver,
}

impl Server {
    pub fn new(udp: UdpSocket, tcp: TcpListener, resolver: Resolver) -> std::io::Result<Self> {
        Ok(Server { udp, tcp, resolver })
    }

    pub fn poll_fds(&self, wanted: &mut Vec<(RawFd, i16)>) {
        wanted.push((self.udp.as_raw_fd(), libc::POLLIN));
        wanted.push((self.tcp.as_raw_fd(), libc::POLLIN));
    }

    pub fn ready(&mut self, fd: RawFd, _events: i16) {
        if fd == self.udp.as_raw_fd() {
            while self.udp.recv_from(&mut [0; 512]).is_ok() {}
        } else {
            while self.tcp.accept().is_ok() {}
        }
    }

    pub fn next_deadline(&self) -> Option<u64> {
        None
    }

    pub fn tick(&mut self, _now: u64) {}

    pub fn update(&mut self, resolver: Resolver) {
        self.resolver = resolver;
    }
}

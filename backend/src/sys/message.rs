//! Bytes and descriptors over unix sockets (unix(7), SCM_RIGHTS), events over netlink sockets (netlink(7)).

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, NetlinkAddr, UnixAddr, recvmsg, sendmsg,
};

/// Most descriptors one message may carry.
const MOST: usize = 8;

/// Sends some of `bytes`, the descriptors with the first of them.
///
/// # Errors
/// As sendmsg(2).
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[_] = if raw.is_empty() { &[] } else { &rights };
    let slices = [IoSlice::new(bytes)];
    Ok(sendmsg::<UnixAddr>(
        socket.as_raw_fd(),
        &slices,
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?)
}

/// Receives up to `bytes.len()` bytes; 0 is the end. Descriptors that came along are appended.
///
/// # Errors
/// As recvmsg(2).
pub fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = nix::cmsg_space!([i32; MOST]);
    let mut slices = [IoSliceMut::new(bytes)];
    let message = recvmsg::<UnixAddr>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel just made these descriptors for this process; nobody else has them.
            descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok(message.bytes)
}

/// From now on a netlink socket hears what happens in every network namespace that has a number in its
/// own, not in its own alone.
///
/// # Errors
/// As setsockopt(2).
pub fn hear_all_namespaces(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the value is an int that outlives the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_LISTEN_ALL_NSID,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// One datagram of a netlink socket, and the number of the namespace it is about, where that is not the
/// socket's own.
///
/// # Errors
/// As recvmsg(2); `EAGAIN` when there is none.
pub fn datagram(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Option<i32>)> {
    let mut space = nix::cmsg_space!(i32);
    let mut slices = [IoSliceMut::new(bytes)];
    let message = recvmsg::<NetlinkAddr>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let mut number = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::Unknown(control) = control
            && (control.cmsg_header.cmsg_level, control.cmsg_header.cmsg_type)
                == (libc::SOL_NETLINK, libc::NETLINK_LISTEN_ALL_NSID)
            && let Some(value) = control.data_bytes.first_chunk::<4>()
        {
            number = Some(i32::from_ne_bytes(*value));
        }
    }
    Ok((message.bytes, number))
}

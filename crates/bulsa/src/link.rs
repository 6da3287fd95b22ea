//! The links between keeper, agent and proxy.
//!
//! A link is one end of a `SOCK_SEQPACKET` socket pair. One message is one JSON datagram of at most
//! [`MAX_MESSAGE_BYTES`], with at most [`MAX_MESSAGE_FDS`] file descriptors beside it. Whatever may
//! be larger than a message (a route table, a spawn spec, a long report) travels as a sealed memfd
//! ([`memfd`]); sets of more descriptors than fit go as several messages that say `more`.
//!
//! Message boundaries come from the kernel, so a peer that is killed at any instruction leaves either a
//! whole message or none. What it had sent before its death can still be read.
//!
//! This module owns the transport, the message types and two helpers around sockets and lock files.
//! It never decides anything: the rules of who answers what are in `keeper`, `agent` and `proxy_process`.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub mod async_link;
pub mod listeners;
pub mod lock;
pub mod memfd;
pub mod messages;

/// The longest message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// The most file descriptors beside one message. The kernel's own limit is 253.
pub const MAX_MESSAGE_FDS: usize = 100;

/// The environment variable that tells a child which descriptor its keeper link is.
pub const LINK_FD_ENV: &str = "BULSA_LINK_FD";

/// What can go wrong on a link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The kernel refused; `WouldBlock` means that the peer does not read fast enough.
    #[error("the link failed: {0}")]
    Io(#[from] io::Error),
    /// The peer is gone.
    #[error("the other end closed the link")]
    Closed,
    /// A message does not fit.
    #[error("a message of {bytes} bytes and {fds} descriptors does not fit in a link message")]
    TooLarge {
        /// Bytes of the message.
        bytes: usize,
        /// Descriptors beside it.
        fds: usize,
    },
    /// A message was cut short by the kernel, or descriptors were lost.
    #[error("a message arrived incomplete")]
    Truncated,
    /// A message is not one of this protocol.
    #[error("a message is not understood: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A message came without the descriptor it needs, or out of order.
    #[error("the other end broke the protocol: {0}")]
    Protocol(&'static str),
    /// A memfd was refused.
    #[error(transparent)]
    Memfd(#[from] memfd::MemfdError),
}

impl LinkError {
    /// Whether the operation can simply be tried again when the socket is ready.
    #[must_use]
    pub fn would_block(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// One received message.
#[derive(Debug)]
pub struct Message<T> {
    /// The decoded body.
    pub body: T,
    /// The descriptors that came with it.
    pub fds: Vec<OwnedFd>,
}

impl<T> Message<T> {
    /// The body and exactly one descriptor.
    ///
    /// # Errors
    /// [`LinkError::Protocol`] when none or more than one came.
    pub fn one_fd(fds: Vec<OwnedFd>) -> Result<OwnedFd, LinkError> {
        let mut fds = fds.into_iter();
        match (fds.next(), fds.next()) {
            (Some(fd), None) => Ok(fd),
            _ => Err(LinkError::Protocol("expected exactly one descriptor beside the message")),
        }
    }
}

/// One end of a link: a non-blocking `SOCK_SEQPACKET` socket.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Link {
    /// Takes a connected socket and makes it non-blocking.
    ///
    /// # Errors
    /// When the descriptor is not usable.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd })
    }

    /// A fresh pair: our end, and the other end as a plain descriptor to hand on.
    ///
    /// # Errors
    /// When the process or the system has no descriptors left.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self::new(ours)?, theirs))
    }

    /// The link that the keeper gave this process as its standard input. Standard input is then turned into
    /// `/dev/null`, so that no child inherits the link.
    ///
    /// # Errors
    /// When standard input is no link.
    pub fn from_stdin() -> io::Result<Self> {
        let fd = io::stdin().as_fd().try_clone_to_owned()?;
        if rustix::net::sockopt::socket_type(&fd)? != SocketType::SEQPACKET {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "standard input is no link to a keeper: this command is started by `bulsa serve` only",
            ));
        }
        let null = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        Self::new(fd)
    }

    /// Sends one message without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when the peer is behind ([`LinkError::would_block`]); [`LinkError::TooLarge`].
    pub fn send<T: Serialize>(&self, body: &T, fds: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        self.send_bytes(&encode(body, fds.len())?, fds)
    }

    /// Sends an encoded message without waiting.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub fn send_bytes(&self, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        send_on(self.as_fd(), body, fds)
    }

    /// Receives one message without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when none is there; [`LinkError::Closed`] at the end; the others when the peer broke
    /// the protocol, after which the link should be dropped.
    pub fn recv<T: DeserializeOwned>(&self) -> Result<Message<T>, LinkError> {
        recv_on(self.as_fd())
    }
}

fn send_on(socket: BorrowedFd<'_>, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
    let mut space = [const { MaybeUninit::<u8>::uninit() }; rustix::cmsg_space!(ScmRights(MAX_MESSAGE_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(LinkError::TooLarge { bytes: body.len(), fds: fds.len() });
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    match rustix::io::retry_on_intr(|| sendmsg(socket, &[IoSlice::new(body)], &mut control, flags)) {
        Ok(_) => Ok(()),
        Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(LinkError::Closed),
        Err(error) => Err(LinkError::Io(error.into())),
    }
}

fn recv_on<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<Message<T>, LinkError> {
    let mut buffer = vec![0; MAX_MESSAGE_BYTES];
    let mut space = [const { MaybeUninit::<u8>::uninit() }; rustix::cmsg_space!(ScmRights(MAX_MESSAGE_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, flags)
    });
    let received = match received {
        Ok(received) => received,
        Err(rustix::io::Errno::CONNRESET) => return Err(LinkError::Closed),
        Err(error) => return Err(LinkError::Io(error.into())),
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Err(LinkError::Closed);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(LinkError::Truncated);
    }
    let body = serde_json::from_slice(buffer.get(..received.bytes).unwrap_or_default())?;
    Ok(Message { body, fds })
}

/// Encodes a message and checks that it fits.
///
/// # Errors
/// [`LinkError::TooLarge`].
pub fn encode<T: Serialize>(body: &T, fds: usize) -> Result<Vec<u8>, LinkError> {
    let bytes = serde_json::to_vec(body)?;
    if bytes.len() > MAX_MESSAGE_BYTES || fds > MAX_MESSAGE_FDS {
        return Err(LinkError::TooLarge { bytes: bytes.len(), fds });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Link, Link) {
        let (a, b) = Link::pair().unwrap();
        (a, Link::new(b).unwrap())
    }

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (a, b) = pair();
        let file = std::fs::File::open("/dev/null").unwrap();
        a.send(&"hello", &[file.as_fd(), file.as_fd()]).unwrap();
        let message: Message<String> = b.recv().unwrap();
        assert_eq!(message.body, "hello");
        assert_eq!(message.fds.len(), 2);
    }

    #[test]
    fn what_a_dead_peer_had_sent_is_read_before_the_end() {
        let (a, b) = pair();
        a.send(&1, &[]).unwrap();
        a.send(&2, &[]).unwrap();
        drop(a);
        assert_eq!(b.recv::<i32>().unwrap().body, 1);
        assert_eq!(b.recv::<i32>().unwrap().body, 2);
        assert!(matches!(b.recv::<i32>(), Err(LinkError::Closed)));
    }

    #[test]
    fn sending_to_a_closed_link_is_an_error_and_no_signal() {
        let (a, b) = pair();
        drop(b);
        assert!(matches!(a.send(&1, &[]), Err(LinkError::Closed)));
    }

    #[test]
    fn a_link_without_messages_would_block() {
        let (a, _b) = pair();
        assert!(a.recv::<i32>().unwrap_err().would_block());
    }

    #[test]
    fn a_peer_that_does_not_read_makes_sending_block() {
        let (a, _b) = pair();
        let text = "x".repeat(MAX_MESSAGE_BYTES / 2);
        let error = (0..1000).find_map(|_| a.send(&text, &[]).err()).unwrap();
        assert!(error.would_block(), "{error}");
    }

    #[test]
    fn a_message_or_a_set_of_descriptors_over_the_limit_is_refused() {
        let (a, _b) = pair();
        let long = "x".repeat(MAX_MESSAGE_BYTES);
        assert!(matches!(a.send(&long, &[]), Err(LinkError::TooLarge { .. })));
        let file = std::fs::File::open("/dev/null").unwrap();
        let fds = vec![file.as_fd(); MAX_MESSAGE_FDS + 1];
        assert!(matches!(a.send(&1, &fds), Err(LinkError::TooLarge { .. })));
        a.send(&1, &fds[1..]).unwrap();
    }

    #[test]
    fn a_message_of_another_protocol_is_refused() {
        let (a, b) = pair();
        a.send(&"text", &[]).unwrap();
        assert!(matches!(b.recv::<i32>(), Err(LinkError::Malformed(_))));
    }
}

//! One connection to a target.
//!
//! Owns: connecting, and what must be known about a connection to retry safely: whether it is still open, whether a byte
//! of an answer has come. Never: decides about retries, or keeps connections; see [`crate::retry`] and [`crate::pool`].

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::h1::buffer::{Buffers, Inbox};

/// How long a target may take to accept a connection.
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);

/// A connection to a target. Dropping it closes it, whatever is on it.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) stream: TcpStream,
    /// What has come and is not done with.
    pub(crate) inbox: Inbox,
    /// Since when it was idle, if it has served a request before.
    pub(crate) idle_since: Option<Instant>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// The target did not take it.
    Refused(io::Error),
    /// We had no port, file descriptor or memory for it.
    Local(io::Error),
}

/// Opens a socket to a target.
pub(crate) async fn open(addr: SocketAddr) -> Result<TcpStream, ConnectError> {
    let stream = match timeout(CONNECT_TIME_MAX, TcpStream::connect(addr)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if is_local(&error) => return Err(ConnectError::Local(error)),
        Ok(Err(error)) => return Err(ConnectError::Refused(error)),
        Err(_) => return Err(ConnectError::Refused(io::ErrorKind::TimedOut.into())),
    };
    stream.set_nodelay(true).map_err(ConnectError::Refused)?;
    Ok(stream)
}

/// Opens a connection to a target.
pub(crate) async fn connect(addr: SocketAddr, buffers: &Rc<Buffers>) -> Result<Upstream, ConnectError> {
    Ok(Upstream { stream: open(addr).await?, inbox: Inbox::new(buffers), idle_since: None })
}

fn is_local(error: &io::Error) -> bool {
    let Some(errno) = Errno::from_io_error(error) else { return false };
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL, Errno::AGAIN]
        .contains(&errno)
}

impl Upstream {
    /// Whether an idle connection has neither been closed nor has bytes that nobody asked for, as far as the runtime has
    /// heard. Asks the kernel only if there is something to hear.
    pub(crate) fn is_open(&self) -> bool {
        let looked = self.stream.try_io(Interest::READABLE, || peek(&self.stream));
        matches!(looked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The same, by the kernel's own word: the news may not have come to the runtime yet.
    pub(crate) fn is_surely_open(&self) -> bool {
        matches!(peek(&self.stream), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

fn peek(stream: &TcpStream) -> io::Result<usize> {
    let (_, read) = rustix::net::recv(stream, &mut [0_u8; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener as StdListener, TcpStream as StdStream};

    use super::*;

    async fn connected() -> (Upstream, StdStream) {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let upstream = connect(listener.local_addr().unwrap(), &Rc::default()).await.unwrap();
        (upstream, listener.accept().unwrap().0)
    }

    #[tokio::test]
    async fn the_kernel_knows_of_an_end_before_the_runtime_does() {
        let (upstream, target) = connected().await;
        assert!(upstream.is_surely_open());
        drop(target);
        assert!(!upstream.is_surely_open());
        upstream.stream.readable().await.unwrap();
        assert!(!upstream.is_open());
    }

    #[tokio::test]
    async fn bytes_that_nobody_asked_for_spoil_a_connection() {
        let (upstream, mut target) = connected().await;
        target.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        assert!(!upstream.is_surely_open());
        upstream.stream.readable().await.unwrap();
        assert!(!upstream.is_open(), "they are not taken for an answer");
    }

    #[tokio::test]
    async fn a_refusal_is_the_targets_and_a_lack_of_descriptors_is_ours() {
        // Bound, so that nobody else listens there, and not listening.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let refused = connect(socket.local_addr().unwrap(), &Rc::default()).await;
        assert!(matches!(refused, Err(ConnectError::Refused(_))), "{refused:?}");
        assert!(is_local(&Errno::MFILE.into()));
        assert!(!is_local(&Errno::CONNREFUSED.into()));
    }
}

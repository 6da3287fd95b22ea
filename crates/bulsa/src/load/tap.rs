//! The wire between a client's HTTP connection and its socket: it counts the bytes written, and looks whether an idle
//! connection is still good in the very moment before the first byte of a request.
//!
//! Without that look the server's close and our request could cross, and a request would fail that the server never
//! had. What remains is the instant between two system calls.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use rustix::net::RecvFlags;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// What a tap has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    written: AtomicU64,
    idle: AtomicBool,
}

impl Seen {
    /// Bytes written so far.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// The next byte written is the first of a request on a connection that stood idle.
    pub(super) fn was_idle(&self) {
        self.idle.store(true, Ordering::Relaxed);
    }
}

/// A socket under observation.
#[derive(Debug)]
pub(super) struct Tap {
    stream: TcpStream,
    seen: Arc<Seen>,
}

impl Tap {
    pub(super) fn new(stream: TcpStream) -> (Self, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        (Self { stream, seen: Arc::clone(&seen) }, seen)
    }

    /// Refuses to write to an idle connection that has ended, or on which something came that nobody asked for.
    fn look(&self) -> io::Result<()> {
        if !self.seen.idle.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let mut byte = [0_u8; 1];
        match rustix::net::recv(&self.stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "closed while it was idle")),
        }
    }

    fn count(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.seen.written.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.look()?;
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.count(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.look()?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.count(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

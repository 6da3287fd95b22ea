//! One connection to a target.
//!
//! Owns: connecting, and what must be known about a connection's bytes to retry safely.
//! Never: decides about retries, or keeps connections; see [`crate::choose`] and [`crate::pool`].
//!
//! Two facts matter. Has a byte of an answer come? The socket's wrapper notes it. And is a pooled connection still
//! open at the very moment at which a request is written to it? A target that died has closed its connections,
//! but the news may still lie in the kernel, unread. So before the first write to a reused connection the
//! wrapper looks into the socket itself; if it was closed, hyper hands the request back unsent.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::request_body::RequestBody;

/// How long a target may take to accept a connection.
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);

/// A connection to a target. Dropping it closes it, whatever is on it.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) sender: http1::SendRequest<RequestBody>,
    marks: Arc<Marks>,
    /// When the last answer on it had come, if it was idle until it was taken.
    pub(crate) idle_since: Option<Instant>,
    task: AbortHandle,
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
pub(crate) async fn connect(addr: SocketAddr) -> Result<Upstream, ConnectError> {
    let stream = open(addr).await?;
    let marks = Arc::new(Marks::default());
    let io = TokioIo::new(UpstreamIo { stream, marks: Arc::clone(&marks) });
    let mut builder = http1::Builder::new();
    builder.preserve_header_case(true);
    let (sender, connection) =
        builder.handshake(io).await.map_err(|error| ConnectError::Refused(io::Error::other(error)))?;
    let ended = Arc::clone(&marks);
    let run = async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to a target ended");
        }
        // Whoever has the connection idle asks when this was.
        ended.closed_at.get_or_init(Instant::now);
    };
    let task = tokio::task::spawn_local(run).abort_handle();
    Ok(Upstream { sender, marks, idle_since: None, task })
}

fn is_local(error: &io::Error) -> bool {
    let Some(errno) = Errno::from_io_error(error) else { return false };
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL, Errno::AGAIN]
        .contains(&errno)
}

impl Upstream {
    /// Prepares for a request; `reused` says that the connection was idle until now.
    pub(crate) fn begin(&self, reused: bool) {
        self.marks.answered.store(false, Ordering::Relaxed);
        self.marks.look.store(reused, Ordering::Relaxed);
    }

    /// When the connection ended, if it has.
    pub(crate) fn closed_at(&self) -> Option<Instant> {
        self.marks.closed_at.get().copied()
    }

    /// Whether a byte has come since [`Self::begin`].
    pub(crate) fn has_answered(&self) -> bool {
        self.marks.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, Default)]
struct Marks {
    /// A byte has been read since the request began.
    answered: AtomicBool,
    /// The next time that nothing is to read, look into the kernel whether that is really so.
    look: AtomicBool,
    /// When the connection ended.
    closed_at: OnceLock<Instant>,
}

/// The socket under hyper's client connection.
#[derive(Debug)]
pub(crate) struct UpstreamIo {
    stream: TcpStream,
    marks: Arc<Marks>,
}

impl UpstreamIo {
    /// The bare socket, when hyper has given it back.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Looks whether an idle socket has been closed or has bytes that nobody asked for.
    fn look(&self) -> Poll<io::Result<()>> {
        let mut byte = [0_u8; 1];
        match rustix::net::recv(&self.stream, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => Poll::Pending,
            // Nothing was put into the buffer: for the reader that is the end.
            Ok((_, 0)) => Poll::Ready(Ok(())),
            Ok(_) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "bytes on an idle connection")))
            }
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_pending() {
            if self.marks.look.swap(false, Ordering::Relaxed) {
                return self.look();
            }
        } else if before < buf.filled().len() {
            self.marks.answered.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener as StdListener, TcpStream as StdStream};

    use http::Request;
    use tokio::task::LocalSet;

    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

    fn request() -> Request<RequestBody> {
        Request::builder().uri("/").header("host", "a").body(RequestBody::empty()).unwrap()
    }

    /// A connection that has served one request and is idle, and its other end.
    async fn idle(listener: &StdListener) -> (Upstream, StdStream) {
        let mut upstream = connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut target, _) = listener.accept().unwrap();
        upstream.begin(false);
        let answering = upstream.sender.try_send_request(request());
        target.write_all(ANSWER).unwrap();
        answering.await.unwrap();
        assert!(upstream.has_answered());
        assert!(target.read(&mut [0; 1024]).unwrap() > 0);
        upstream.sender.ready().await.unwrap();
        (upstream, target)
    }

    #[tokio::test]
    async fn a_request_on_a_connection_that_was_just_closed_comes_back_unsent() {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let test = async {
            let (mut upstream, target) = idle(&listener).await;
            // From here to the send the runtime does not get to hear of the end.
            drop(target);
            assert!(upstream.sender.is_ready());
            upstream.begin(true);
            let mut error = upstream.sender.try_send_request(request()).await.unwrap_err();
            assert!(error.take_message().is_some());
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_request_on_a_connection_with_unasked_bytes_comes_back_unsent() {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let test = async {
            let (mut upstream, mut target) = idle(&listener).await;
            target.write_all(ANSWER).unwrap();
            upstream.begin(true);
            let mut error = upstream.sender.try_send_request(request()).await.unwrap_err();
            assert!(error.take_message().is_some(), "the answer that nobody asked for is not taken for ours");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_refusal_is_the_targets_and_a_lack_of_descriptors_is_ours() {
        // Bound, so that nobody else listens there, and not listening.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let refused = connect(socket.local_addr().unwrap()).await;
        assert!(matches!(refused, Err(ConnectError::Refused(_))), "{refused:?}");
        assert!(is_local(&Errno::MFILE.into()));
        assert!(!is_local(&Errno::CONNREFUSED.into()));
    }
}

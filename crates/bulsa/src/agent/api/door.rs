//! Who comes in, and how many.
//!
//! Owns: accepting on the Unix socket, the limit on connections, the peer's user id. Never: reads a byte of theirs.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::CONNECTIONS_MAX;

/// The pause after a failed accept: out of file descriptors, mostly, and trying at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listener with its seats.
pub(super) struct Door {
    listener: UnixListener,
    seats: Arc<Semaphore>,
}

impl Door {
    pub(super) fn new(listener: UnixListener) -> Self {
        Self { listener, seats: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }

    async fn next(&self) -> io::Result<(Seat, Peer)> {
        // The semaphore is never closed; were it, the guest would only sit without being counted.
        let seat = Arc::clone(&self.seats).acquire_owned().await.ok();
        let (stream, _) = self.listener.accept().await?;
        let peer = Peer { uid: stream.peer_cred()?.uid() };
        Ok((Seat { stream, _seat: seat }, peer))
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    uid: u32,
}

impl Peer {
    /// Root and the daemon's own user may.
    pub(super) fn may_ask(self) -> bool {
        self.uid == 0 || self.uid == rustix::process::geteuid().as_raw()
    }
}

impl Connected<IncomingStream<'_, Door>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        *stream.remote_addr()
    }
}

/// A connection on its seat, which is free again when the connection ends.
pub(super) struct Seat {
    stream: UnixStream,
    _seat: Option<OwnedSemaphorePermit>,
}

impl Listener for Door {
    type Io = Seat;
    type Addr = Peer;

    async fn accept(&mut self) -> (Seat, Peer) {
        loop {
            match self.next().await {
                Ok(guest) => return guest,
                Err(error) => {
                    tracing::warn!(%error, "the API could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { uid: rustix::process::geteuid().as_raw() })
    }
}

impl AsyncRead for Seat {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Seat {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

//! One client connection that speaks HTTP. One that is passed through whole is in [`crate::tcp`].
//!
//! Owns: the connection from one request to the next, its limits, and how it ends. Never: knows targets; requests go to
//! [`crate::forward`].
//!
//! ```text
//! Idle ─ a byte ─▶ Head ─ read, screened ─▶ Busy (forward.rs) ─ answered, body read ─▶ Idle
//!   └ too long, or wanted elsewhere: closed   └─ 101 ─▶ a tunnel takes the sockets
//! ```
//!
//! A connection is closed so that its last answer is not lost: the writing side first, then what the client still sends
//! is read for a moment. Closing a socket with unread bytes resets it, and the reset may overtake the answer.

use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{Instant, timeout};

use crate::accept::Permit;
use crate::addresses::Counted;
use crate::desk::Desk;
use crate::forward::{Done, answer};
use crate::h1::buffer::{BUFFER_BYTES, Inbox};
use crate::h1::head::{HEAD_BYTES_MAX, Search};
use crate::life::{End, Life, Place};
use crate::outlet::write_all;
use crate::proxy_header::Ends;
use crate::respond::{self, Details, Refusal};
use crate::tunnel::Tunnel;
use crate::upstream::Upstream;
use crate::worker::Worker;

/// How long a client may take to send a request's head, from its first byte on, or from the connection's begin.
pub(crate) const HEAD_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a connection may be idle between two requests. (nginx's `keepalive_timeout`; a balancer in front that keeps
/// its own for a minute, as most do, closes first.)
const IDLE_TIME_MAX: Duration = Duration::from_secs(75);
/// How long a closing connection is read for what its client still sends.
const LINGER_TIME_MAX: Duration = Duration::from_secs(2);
/// What is read of that at most, in bytes.
const LINGER_BYTES_MAX: usize = 1 << 20;

/// What is known of a client connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    /// The name of the listener that it came in by.
    pub(crate) listener: Rc<str>,
    pub(crate) peer: IpAddr,
    /// The peer's address in words.
    pub(crate) peer_text: String,
    /// Where the connection comes from and goes to, if a balancer in front has said that. Else the socket knows.
    pub(crate) ends: Option<Ends>,
    pub(crate) _permit: Permit,
    /// Its place among the connections of its address.
    pub(crate) _counted: Option<Counted>,
}

/// The two directions of a client's connection, and what has come from it.
#[derive(Debug)]
pub(crate) struct Wire<'s> {
    pub(crate) reader: ReadHalf<'s>,
    pub(crate) writer: WriteHalf<'s>,
    pub(crate) inbox: &'s mut Inbox,
}

/// What becomes of the sockets.
enum After {
    /// The last answer was sent.
    Linger,
    /// There is nobody to say anything to.
    Cut,
    /// An answer was broken off: that is not to look like its end.
    Reset,
    /// A tunnel takes them.
    Tunnel(Box<(Tunnel, Upstream)>),
}

/// Serves a connection until either side ends it.
pub(crate) async fn serve(client: Rc<Client>, stream: TcpStream) {
    let mut stream = stream;
    let place = client.worker.lives().enter(&client.listener);
    let mut inbox = Inbox::new(client.worker.buffers());
    let after = {
        let (reader, writer) = stream.split();
        let wire = Wire { reader, writer, inbox: &mut inbox };
        converse(&client, &place, wire).await
    };
    drop(place);
    match after {
        After::Cut => {}
        After::Reset => {
            if let Err(error) = stream.set_zero_linger() {
                tracing::debug!(%error, "an answer that was broken off gets an ordinary end");
            }
        }
        After::Linger => Box::pin(linger(stream)).await,
        After::Tunnel(opened) => {
            let (tunnel, upstream) = *opened;
            let from_client = Bytes::copy_from_slice(inbox.bytes());
            drop(inbox);
            let Upstream { stream: target, inbox: from, .. } = upstream;
            let from_target = Bytes::copy_from_slice(from.bytes());
            drop(from);
            Box::pin(tunnel.run((stream, from_client), (target, from_target))).await;
        }
    }
    // The connection's permit lives as long as the tunnel.
    drop(client);
}

/// One request after the other.
///
/// What a request needs while it is under way is large, and is on the heap for that time only: a connection that is idle
/// is small.
async fn converse(client: &Rc<Client>, place: &Place, mut wire: Wire<'_>) -> After {
    let mut patience = client.worker.bounds().head_time;
    loop {
        place.idle(Instant::now(), patience);
        patience = IDLE_TIME_MAX;
        if wire.inbox.is_empty() {
            let filled = poll_fn(|cx| wire.inbox.poll_fill(cx, &mut wire.reader, BUFFER_BYTES));
            match place.life.unless_ended(filled).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) | Err(_) => return After::Cut,
            }
        }
        if let Some(after) = Box::pin(burst(client, place, &mut wire)).await {
            return after;
        }
    }
}

/// The requests that have come, one after the other. Nothing, if the connection is idle then.
async fn burst(client: &Rc<Client>, place: &Place, wire: &mut Wire<'_>) -> Option<After> {
    let head_time = client.worker.bounds().head_time;
    while !wire.inbox.is_empty() {
        let mut desk = match next_head(client, &place.life, head_time, wire).await {
            Ok(desk) => desk,
            Err(NoHead::Gone) => return Some(After::Cut),
            Err(NoHead::Refused(refusal)) => {
                refusal.count(client.worker.stats());
                let date = client.worker.date();
                let text = respond::write(refusal, &Details { minor: 1, date: &date, ..Details::default() });
                place.life.busy();
                let written = write_all(&mut wire.writer, &[&text], Some(&place.life)).await;
                return Some(if written.is_ok() { After::Linger } else { After::Cut });
            }
        };
        place.life.busy();
        let done = answer(client, &place.life, &mut desk, wire).await;
        client.worker.desks().put(desk);
        match done {
            Done::Kept => place.idle(Instant::now(), IDLE_TIME_MAX),
            Done::Last => return Some(After::Linger),
            Done::Over => return Some(After::Cut),
            Done::Broken => return Some(After::Reset),
            Done::Tunnel(opened) => return Some(After::Tunnel(opened)),
        }
    }
    None
}

/// Why there is no next request.
enum NoHead {
    /// The client has ended the connection, or it was idle for too long.
    Gone,
    /// What came is answered at once, and nothing after it.
    Refused(Refusal),
}

/// Reads the next request's head.
async fn next_head(
    client: &Client,
    life: &Life,
    head_time: Duration,
    wire: &mut Wire<'_>,
) -> Result<Box<Desk>, NoHead> {
    let mut search = Search::default();
    loop {
        if !wire.inbox.is_empty() {
            life.reading_head(Instant::now(), head_time);
            let bytes = wire.inbox.bytes();
            let refused = |bad| NoHead::Refused(Refusal::Head(bad));
            if let Some(end) = search.end_of_head(bytes).map_err(refused)? {
                let mut desk = client.worker.desks().take();
                desk.head.read(&bytes[..end], &search).map_err(refused)?;
                wire.inbox.consume(end);
                return Ok(desk);
            }
        }
        let most = HEAD_BYTES_MAX + BUFFER_BYTES;
        let filled = poll_fn(|cx| wire.inbox.poll_fill(cx, &mut wire.reader, most));
        match life.unless_ended(filled).await {
            Ok(Ok(0) | Err(_)) | Err(End::Idle | End::Stalled | End::Cut) => return Err(NoHead::Gone),
            Ok(Ok(_)) => {}
            Err(End::SlowHead) => return Err(NoHead::Refused(Refusal::SlowHead)),
        }
    }
}

/// Ends a connection whose last answer was sent.
async fn linger(stream: TcpStream) {
    let mut stream = stream;
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut buffer = [0; 4096];
    let mut read = 0;
    let to_end = async {
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            read += count;
            if LINGER_BYTES_MAX < read {
                break;
            }
        }
    };
    if timeout(LINGER_TIME_MAX, to_end).await.is_err() {
        tracing::debug!("a client did not close its side");
    }
}

//! One request and its answer on one connection to a target.
//!
//! Owns: sending and receiving at the same time, and what is to be said when it breaks. Never: chooses the connection, or
//! decides what follows a failure; see [`crate::courier`].
//!
//! ```text
//! client ── head, body ──▶ up ──▶ target      until all is sent, then it looks whether the client is still there
//! client ◀── answer ◀── down ◀── target       informational ones first, then the answer's head, then its body
//! ```
//!
//! Both go on at the same time, in the connection's own task: an application may answer before it has read the whole
//! request, and one that waits for the rest of it must not wait for us.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::io::ReadBuf;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use crate::h1::buffer::{BUFFER_BYTES, Inbox};
use crate::h1::chunked::{LAST_CHUNK, SizeLine};
use crate::h1::framing::Framing;
use crate::h1::head::{AnswerHead, HEAD_BYTES_MAX};
use crate::life::{End, Life};
use crate::outlet::{write_all, write_counted};
use crate::request_body::{BodyError, Kept, Piece, RequestBody};

/// Leave to send a body.
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How sending ended.
#[derive(Debug)]
pub(crate) enum Up {
    /// All was sent, and then the client went away.
    Gone,
    /// The client's body failed.
    Client(BodyError),
    /// The target takes no more.
    Target(io::Error),
}

/// How far sending has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Bytes that the target was sent.
    pub(crate) written: Cell<usize>,
    /// The whole request was sent.
    pub(crate) is_sent: Cell<bool>,
    /// It could be sent once more.
    pub(crate) is_replayable: Cell<bool>,
}

/// What is sent.
pub(crate) struct Request<'r> {
    pub(crate) head: &'r [u8],
    pub(crate) body: &'r mut RequestBody,
    pub(crate) kept: &'r mut Kept,
}

/// Sends a request, then waits for its client to go away.
pub(crate) async fn send(
    request: Request<'_>,
    (reader, inbox): (&mut ReadHalf<'_>, &mut Inbox),
    to: &mut WriteHalf<'_>,
    progress: &Progress,
) -> Up {
    let Request { head, body, kept } = request;
    // What is kept of a body that has ended is all of it, its last chunk too.
    let is_chunked = body.framing() == Framing::Chunked && !body.has_ended();
    if let Err(error) = write(to, &[head, kept.bytes()], progress).await {
        return Up::Target(error);
    }
    while !body.has_ended() {
        let Piece { skip, length } = match body.next(reader, inbox).await {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(error) => return Up::Client(error),
        };
        let piece = &inbox.bytes()[skip..skip + length];
        let line = SizeLine::new(length);
        let parts: [&[u8]; 3] =
            if is_chunked { [line.as_bytes(), piece, b"\r\n"] } else { [b"", piece, b""] };
        kept.keep(&parts);
        progress.is_replayable.set(progress.is_replayable.get() && kept.is_whole());
        let written = write(to, &parts, progress).await;
        inbox.consume(skip + length);
        if let Err(error) = written {
            return Up::Target(error);
        }
    }
    if is_chunked {
        kept.keep(&[LAST_CHUNK]);
        if let Err(error) = write(to, &[LAST_CHUNK], progress).await {
            return Up::Target(error);
        }
    }
    progress.is_sent.set(true);
    gone(reader, inbox).await;
    Up::Gone
}

async fn write(to: &mut WriteHalf<'_>, pieces: &[&[u8]], progress: &Progress) -> io::Result<()> {
    let mut written = 0;
    let result = write_counted(to, pieces, None, &mut written).await;
    progress.written.set(progress.written.get() + written);
    result
}

/// Waits until a client that has nothing more to send is gone. One that has sent a further request is not looked after.
pub(crate) async fn gone(reader: &mut ReadHalf<'_>, inbox: &Inbox) {
    if inbox.is_empty() && poll_fn(|cx| poll_gone(cx, reader)).await {
        return;
    }
    std::future::pending::<()>().await;
}

/// Whether the client has gone: true if it has, false if it has sent something.
fn poll_gone(cx: &mut Context<'_>, reader: &mut ReadHalf<'_>) -> Poll<bool> {
    let mut byte = [0; 1];
    reader.poll_peek(cx, &mut ReadBuf::new(&mut byte)).map(|read| !matches!(read, Ok(1..)))
}

/// Why there is no answer's head.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The connection has ended without a byte.
    Nothing,
    /// What came is no answer, or only part of one.
    Garbled,
    /// The client's body failed.
    Client(BodyError),
    /// The client has gone.
    Gone,
    /// It took too long.
    Overdue,
}

/// Receives a head of an answer while the request is being sent. What comes behind it stays in the inbox.
pub(crate) async fn receive_head<U, O>(
    head: &mut AnswerHead,
    (from, inbox): (&mut ReadHalf<'_>, &mut Inbox),
    (mut up, up_ended): (Pin<&mut U>, &RefCell<Option<Up>>),
    mut overdue: Pin<&mut O>,
    life: &Life,
) -> Result<(), NoAnswer>
where
    U: Future<Output = Up>,
    O: Future<Output = ()>,
{
    let mut has_come = !inbox.is_empty();
    loop {
        if !inbox.is_empty() {
            match head.read(inbox.bytes()) {
                Ok(Some(length)) => {
                    inbox.consume(length);
                    return Ok(());
                }
                Ok(None) => {}
                Err(_) => return Err(NoAnswer::Garbled),
            }
        }
        let filled = poll_fn(|cx| {
            if up_ended.borrow().is_none()
                && let Poll::Ready(ended) = up.as_mut().poll(cx)
            {
                match ended {
                    Up::Gone => return Poll::Ready(Err(NoAnswer::Gone)),
                    Up::Client(error) => return Poll::Ready(Err(NoAnswer::Client(error))),
                    // It may have answered all the same.
                    Up::Target(error) => *up_ended.borrow_mut() = Some(Up::Target(error)),
                }
            }
            if let Poll::Ready(filled) = inbox.poll_fill(cx, from, HEAD_BYTES_MAX + BUFFER_BYTES) {
                return Poll::Ready(Ok(filled));
            }
            if let Poll::Ready(End::Cut) = life.poll_end(cx) {
                return Poll::Ready(Err(NoAnswer::Gone));
            }
            overdue.as_mut().poll(cx).map(|()| Err(NoAnswer::Overdue))
        });
        match filled.await? {
            Ok(1..) => has_come = true,
            Ok(0) | Err(_) if has_come => return Err(NoAnswer::Garbled),
            Ok(0) | Err(_) => return Err(NoAnswer::Nothing),
        }
    }
}

/// Does something with an answer while the rest of the request is being sent.
pub(crate) async fn beside<U, D>(mut up: Pin<&mut U>, up_ended: &RefCell<Option<Up>>, down: D) -> D::Output
where
    U: Future<Output = Up>,
    D: Future,
{
    let mut down = pin!(down);
    poll_fn(|cx| {
        if up_ended.borrow().is_none()
            && let Poll::Ready(ended) = up.as_mut().poll(cx)
        {
            *up_ended.borrow_mut() = Some(ended);
        }
        down.as_mut().poll(cx)
    })
    .await
}

/// Gives the client leave to send its body.
pub(crate) async fn give_leave(writer: &mut WriteHalf<'_>, life: &Life) -> io::Result<()> {
    write_all(writer, &[CONTINUE], Some(life)).await
}

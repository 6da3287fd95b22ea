//! A request's body on its way to a target: streamed, and kept for a second attempt while it is small.
//!
//! Owns: where a body comes from ([`Source`]), what of it is kept, and how slow a client may be. Never: changes a byte.
//!
//! What hyper sends is a [`RequestBody`]: a reader of the source. When an attempt was lost, the next one gets another
//! reader, which begins with what is kept and goes on with what has not come yet. When a body has outgrown what is kept,
//! there is no second attempt.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::body::Leftovers;

/// What is kept of a body for a second attempt, in bytes.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// In so much time of waiting for a client…
const SLOW_TIME: Duration = Duration::from_secs(60);
/// … it must send so many bytes. (nginx allows 60 s between two bytes, which lets an attacker hold a connection for a
/// byte a minute.)
const SLOW_BYTES: u64 = 1024;

/// Why a body could not be sent.
#[derive(Debug, Error)]
pub(crate) enum BodyError {
    /// The client broke it off, or framed it badly.
    #[error(transparent)]
    Client(#[from] hyper::Error),
    /// The client sent too little in too much time.
    #[error("the client sent less than {SLOW_BYTES} bytes in {SLOW_TIME:?}")]
    Slow,
}

/// Where a request's body comes from.
#[derive(Debug)]
pub(crate) struct Source {
    incoming: RefCell<Option<Incoming>>,
    kept: RefCell<Kept>,
    /// There was nothing to read from the beginning.
    is_empty: bool,
    has_ended: Cell<bool>,
    has_failed: Cell<bool>,
    is_slow: Cell<bool>,
    pace: RefCell<Pace>,
    /// Where an unread rest goes. `None` if the client waits for leave to send it.
    leftovers: Option<Rc<Leftovers>>,
}

/// What has been read and may be read again.
#[derive(Debug, Default)]
struct Kept {
    pieces: Vec<Bytes>,
    bytes: usize,
    /// Nothing is kept (any more).
    is_off: bool,
}

/// How fast a body has come, while somebody was waiting for it.
#[derive(Debug, Default)]
struct Pace {
    waiting_since: Option<Instant>,
    waited: Duration,
    bytes: u64,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Source {
    /// `keep`: the request may be sent again, so what is read is kept as long as it is not too much.
    pub(crate) fn new(incoming: Incoming, keep: bool, leftovers: Option<Rc<Leftovers>>) -> Rc<Self> {
        let has_ended = incoming.is_end_stream();
        Rc::new(Self {
            // Nothing is to be had of one that has ended.
            incoming: RefCell::new((!has_ended).then_some(incoming)),
            kept: RefCell::new(Kept { is_off: !keep || has_ended, ..Kept::default() }),
            is_empty: has_ended,
            has_ended: Cell::new(has_ended),
            has_failed: Cell::new(false),
            is_slow: Cell::new(false),
            pace: RefCell::default(),
            leftovers,
        })
    }

    /// Whether all of it has been read.
    pub(crate) fn ended(&self) -> bool {
        self.has_ended.get()
    }

    /// Whether the client broke it off, or was too slow.
    pub(crate) fn failed(&self) -> bool {
        self.has_failed.get()
    }

    /// Whether the client was too slow.
    pub(crate) fn is_slow(&self) -> bool {
        self.is_slow.get()
    }

    /// Whether there is no body at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Whether another reader would get all of it.
    pub(crate) fn is_replayable(&self) -> bool {
        !self.has_failed.get() && (self.is_empty || !self.kept.borrow().is_off)
    }

    /// Keeps nothing any more: there will be no second attempt.
    pub(crate) fn let_go(&self) {
        *self.kept.borrow_mut() = Kept { is_off: true, ..Kept::default() };
    }

    /// A reader from the beginning.
    pub(crate) fn reader(self: &Rc<Self>) -> RequestBody {
        RequestBody { source: Rc::clone(self), next: 0 }
    }

    fn poll_incoming(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut incoming = self.incoming.borrow_mut();
        let Some(body) = incoming.as_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *body).poll_frame(cx);
        let Poll::Ready(frame) = polled else {
            ready!(self.pace.borrow_mut().poll_slow(cx));
            self.is_slow.set(true);
            self.has_failed.set(true);
            *incoming = None;
            return Poll::Ready(Some(Err(BodyError::Slow)));
        };
        match &frame {
            Some(Ok(frame)) => {
                self.has_ended.set(body.is_end_stream());
                self.pace.borrow_mut().came(frame.data_ref().map_or(0, Bytes::len));
                self.kept.borrow_mut().keep(frame);
            }
            Some(Err(_)) => self.has_failed.set(true),
            None => self.has_ended.set(true),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }
}

impl Kept {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if self.is_off {
            return;
        }
        match frame.data_ref() {
            Some(data) if self.bytes + data.len() <= KEPT_BYTES_MAX => {
                self.bytes += data.len();
                self.pieces.push(data.clone());
            }
            // Too much, or trailers, which are rare enough to do without.
            _ => *self = Self { is_off: true, ..Self::default() },
        }
    }
}

impl Pace {
    /// Ready when the client has been too slow.
    fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let deadline = since + SLOW_TIME.saturating_sub(self.waited);
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if alarm.deadline() != deadline {
            alarm.as_mut().reset(deadline);
        }
        alarm.as_mut().poll(cx)
    }

    fn came(&mut self, bytes: usize) {
        let Some(since) = self.waiting_since.take() else { return };
        self.waited += since.elapsed();
        self.bytes += bytes as u64;
        if SLOW_BYTES <= self.bytes {
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if self.has_ended.get() || self.has_failed.get() {
            return;
        }
        if let (Some(incoming), Some(leftovers)) = (self.incoming.take(), self.leftovers.take()) {
            leftovers.push(incoming);
        }
    }
}

/// A request's body as hyper sends it.
#[derive(Debug)]
pub(crate) struct RequestBody {
    source: Rc<Source>,
    /// The next piece of what is kept.
    next: usize,
}

impl RequestBody {
    #[cfg(test)]
    pub(crate) fn empty() -> Self {
        let source = Source {
            incoming: RefCell::new(None),
            kept: RefCell::default(),
            is_empty: true,
            has_ended: Cell::new(true),
            has_failed: Cell::new(false),
            is_slow: Cell::new(false),
            pace: RefCell::default(),
            leftovers: None,
        };
        Self { source: Rc::new(source), next: 0 }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let kept = self.source.kept.borrow().pieces.get(self.next).cloned();
        if let Some(piece) = kept {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let polled = self.source.poll_incoming(cx);
        if matches!(&polled, Poll::Ready(Some(Ok(_)))) {
            // It is kept now, unless there was too much.
            let kept = self.source.kept.borrow().pieces.len();
            self.next = kept;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.source.ended() && self.source.kept.borrow().pieces.len() <= self.next
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.source.incoming.borrow().as_ref().map_or(SizeHint::with_exact(0), Body::size_hint);
        let kept: usize = self.source.kept.borrow().pieces.iter().skip(self.next).map(Bytes::len).sum();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + kept as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + kept as u64);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_is_slow_by_the_time_that_was_spent_waiting_for_it() {
        let mut pace = Pace::default();
        let begun = Instant::now();
        std::future::poll_fn(|cx| pace.poll_slow(cx)).await;
        assert!(SLOW_TIME <= begun.elapsed());

        let mut pace = Pace::default();
        let wait = async |pace: &mut Pace, seconds| {
            let waiting = std::future::poll_fn(|cx| pace.poll_slow(cx));
            tokio::time::timeout(Duration::from_secs(seconds), waiting).await.is_ok()
        };
        for _ in 0..5 {
            assert!(!wait(&mut pace, 10).await);
            pace.came(100);
            // The application takes its time: that is not the client's.
            tokio::time::sleep(Duration::from_secs(100)).await;
        }
        assert!(wait(&mut pace, 11).await, "500 bytes in 60 s of waiting");

        let mut pace = Pace::default();
        for _ in 0..100 {
            assert!(!wait(&mut pace, 50).await);
            pace.came(1024);
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut kept = Kept::default();
        kept.keep(&Frame::data(Bytes::from(vec![0; KEPT_BYTES_MAX])));
        assert!(!kept.is_off);
        kept.keep(&Frame::data(Bytes::from_static(b"x")));
        assert!(kept.is_off && kept.pieces.is_empty());
    }
}

//! Answers on their way through: streamed, never collected; and what was not read of a request.
//!
//! Owns: the wrappers around hyper's bodies that notice their end.
//! Never: copies or changes a byte.
//!
//! The end of an answer's body ends the request's time in flight and frees the connection to the target for
//! the next request. What an application did not read of a request's body is read and thrown away for a
//! short while: closing a socket with unread bytes resets it, and the client would lose the answer with it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::pool::Lease;
use crate::target::{InFlight, Outcome};

/// What is read at most of a body that nobody wants, in bytes.
const LEFTOVER_BYTES_MAX: usize = 1 << 20;
/// How long a body that nobody wants is read at most.
const LEFTOVER_TIME_MAX: Duration = Duration::from_secs(2);
/// Leftover bodies waiting to be looked at on one worker, at most. More are dropped unread.
const LEFTOVERS_MAX: usize = 1024;

/// Bodies that nobody reads any more, on one worker.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    queue: RefCell<VecDeque<Incoming>>,
    pushed: Notify,
}

impl Leftovers {
    pub(crate) fn push(&self, incoming: Incoming) {
        let mut queue = self.queue.borrow_mut();
        if queue.len() < LEFTOVERS_MAX {
            queue.push_back(incoming);
            self.pushed.notify_one();
        }
    }

    /// Reads what is pushed and throws it away, within limits. Runs as long as the worker.
    pub(crate) async fn read_forever(self: Rc<Self>) {
        loop {
            let next = self.queue.borrow_mut().pop_front();
            match next {
                // The number of these tasks is bounded by the number of connections.
                Some(incoming) => drop(tokio::task::spawn_local(read_leftover(incoming))),
                None => self.pushed.notified().await,
            }
        }
    }
}

async fn read_leftover(mut incoming: Incoming) {
    let read = async {
        let mut read = 0;
        while let Some(Ok(frame)) = incoming.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if LEFTOVER_BYTES_MAX < read {
                break;
            }
        }
    };
    if timeout(LEFTOVER_TIME_MAX, read).await.is_err() {
        tracing::debug!("a client is still sending a body that nobody reads; closing its connection");
    }
}

/// The body of an answer to a client.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    /// One of the proxy's own answers.
    Text(Option<Bytes>),
    /// A target's answer.
    Target(TargetBody),
}

impl AnswerBody {
    pub(crate) fn text(text: Bytes) -> Self {
        Self::Text(Some(text).filter(|text| !text.is_empty()))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Target(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Target(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Target(body) => body.incoming.size_hint(),
        }
    }
}

/// The body of a target's answer; it keeps the request in flight until it has ended.
#[derive(Debug)]
pub(crate) struct TargetBody {
    incoming: Incoming,
    work: Option<(InFlight, Lease)>,
}

impl TargetBody {
    pub(crate) fn new(incoming: Incoming, in_flight: InFlight, lease: Lease) -> Self {
        let mut body = Self { incoming, work: Some((in_flight, lease)) };
        if body.incoming.is_end_stream() {
            body.end();
        }
        body
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &frame {
            Some(Ok(_)) if !self.incoming.is_end_stream() => {}
            Some(Ok(_)) | None => self.end(),
            Some(Err(_)) => self.break_off(),
        }
        Poll::Ready(frame)
    }

    fn end(&mut self) {
        if let Some((in_flight, lease)) = self.work.take() {
            lease.give_back();
            drop(in_flight);
        }
    }

    fn break_off(&mut self) {
        if let Some((in_flight, lease)) = self.work.take() {
            // When the client broke off its own body, the target is not to blame.
            if !lease.request_failed() {
                in_flight.count(Outcome::BrokenOff);
            }
        }
    }
}

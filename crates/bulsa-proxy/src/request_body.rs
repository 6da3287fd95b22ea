//! A request's body on its way to a target: streamed, framed anew, and kept for a second attempt while it is small.
//!
//! Owns: where a body ends, what of it is kept, and how slow a client may be. Never: changes a byte of it.
//!
//! What is kept is what was sent, frames and all: a second attempt sends it as it is, and goes on with what has not come
//! yet. When a body has outgrown that, there is no second attempt.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::h1::buffer::{BUFFER_BYTES, Inbox};
use crate::h1::chunked::{Decoder, Step};
use crate::h1::framing::Framing;

/// What is kept of a body for a second attempt, in bytes.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// In so much time of waiting for a client…
const SLOW_TIME: Duration = Duration::from_secs(60);
/// … it must send so many bytes. (nginx allows 60 s between two bytes, which lets an attacker hold a connection for a
/// byte a minute.)
const SLOW_BYTES: u64 = 1024;

/// Why a body does not come.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// Its chunks are broken.
    Malformed,
    /// The client ended or broke the connection in the middle of it.
    Cut(io::Error),
    /// The client sent too little in too much time.
    Slow,
}

/// A body that is read from a client.
#[derive(Debug)]
pub(crate) struct RequestBody {
    framing: Framing,
    left: u64,
    decoder: Decoder,
    has_ended: bool,
    pace: Pace,
}

/// A piece of a body in an inbox: so many bytes behind so many others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) skip: usize,
    pub(crate) length: usize,
}

impl RequestBody {
    pub(crate) fn new(framing: Framing) -> Self {
        let left = if let Framing::Length(length) = framing { length } else { 0 };
        let (decoder, pace) = (Decoder::default(), Pace::default());
        Self { framing, left, decoder, has_ended: framing == Framing::None, pace }
    }

    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether all of it has been read.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The next piece, or nothing at the end. Whoever takes it consumes it from the inbox before asking again.
    pub(crate) async fn next<R>(
        &mut self,
        reader: &mut R,
        inbox: &mut Inbox,
    ) -> Result<Option<Piece>, BodyError>
    where
        R: AsyncRead + Unpin,
    {
        poll_fn(|cx| self.poll_next(cx, reader, inbox)).await
    }

    fn poll_next<R>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        inbox: &mut Inbox,
    ) -> Poll<Result<Option<Piece>, BodyError>>
    where
        R: AsyncRead + Unpin,
    {
        loop {
            if self.has_ended {
                return Poll::Ready(Ok(None));
            }
            if !inbox.is_empty() {
                if let Some(piece) = self.look(inbox)? {
                    return Poll::Ready(Ok(Some(piece)));
                }
                continue;
            }
            let polled = inbox.poll_fill(cx, reader, BUFFER_BYTES);
            if polled.is_pending() {
                ready!(self.pace.poll_slow(cx));
                return Poll::Ready(Err(BodyError::Slow));
            }
            match ready!(polled) {
                Ok(0) => return Poll::Ready(Err(BodyError::Cut(io::ErrorKind::UnexpectedEof.into()))),
                Ok(read) => self.pace.came(read),
                Err(error) => return Poll::Ready(Err(BodyError::Cut(error))),
            }
        }
    }

    /// What there is in the inbox. What belongs to the coding alone is consumed.
    fn look(&mut self, inbox: &mut Inbox) -> Result<Option<Piece>, BodyError> {
        if let Framing::Length(_) = self.framing {
            let there = inbox.bytes().len();
            let length = usize::try_from(self.left).map_or(there, |left| left.min(there));
            self.left -= length as u64;
            self.has_ended = self.left == 0;
            return Ok(Some(Piece { skip: 0, length }));
        }
        match self.decoder.step(inbox.bytes()).map_err(|_| BodyError::Malformed)? {
            Step::Data { skip, length } => Ok(Some(Piece { skip, length })),
            Step::More => {
                inbox.clear();
                Ok(None)
            }
            Step::End(used) => {
                inbox.consume(used);
                self.has_ended = true;
                Ok(None)
            }
        }
    }
}

/// What was sent of a request's body, as it was sent.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    bytes: Vec<u8>,
    /// Nothing is kept (any more).
    is_off: bool,
}

impl Kept {
    /// `keep`: the request may be sent again.
    pub(crate) fn new(keep: bool) -> Self {
        Self { bytes: Vec::new(), is_off: !keep }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it is all of what was sent.
    pub(crate) fn is_whole(&self) -> bool {
        !self.is_off
    }

    /// Keeps what is sent, unless there is too much of it by now.
    pub(crate) fn keep(&mut self, parts: &[&[u8]]) {
        if self.is_off {
            return;
        }
        let more: usize = parts.iter().map(|part| part.len()).sum();
        if KEPT_BYTES_MAX < self.bytes.len() + more {
            *self = Self { bytes: Vec::new(), is_off: true };
            return;
        }
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
    }
}

/// How fast a body has come, while somebody was waiting for it.
#[derive(Debug, Default)]
struct Pace {
    waiting_since: Option<Instant>,
    waited: Duration,
    bytes: u64,
    alarm: Option<Pin<Box<Sleep>>>,
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

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::h1::buffer::Buffers;

    #[tokio::test(start_paused = true)]
    async fn a_client_is_slow_by_the_time_that_was_spent_waiting_for_it() {
        let mut pace = Pace::default();
        let begun = Instant::now();
        poll_fn(|cx| pace.poll_slow(cx)).await;
        assert!(SLOW_TIME <= begun.elapsed());

        let mut pace = Pace::default();
        let wait = async |pace: &mut Pace, seconds| {
            let waiting = poll_fn(|cx| pace.poll_slow(cx));
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

    async fn read(framing: Framing, mut from: &[u8]) -> (Result<Vec<u8>, BodyError>, Vec<u8>) {
        let mut inbox = Inbox::new(&Rc::new(Buffers::default()));
        let (mut body, mut all) = (RequestBody::new(framing), Vec::new());
        loop {
            match body.next(&mut from, &mut inbox).await {
                Ok(Some(Piece { skip, length })) => {
                    all.extend_from_slice(&inbox.bytes()[skip..skip + length]);
                    inbox.consume(skip + length);
                }
                Ok(None) => return (Ok(all), inbox.bytes().to_vec()),
                Err(error) => return (Err(error), Vec::new()),
            }
        }
    }

    #[tokio::test]
    async fn a_body_ends_where_it_says_and_the_rest_is_left_alone() {
        let (body, rest) = read(Framing::Length(3), b"abcGET /").await;
        assert_eq!((body.unwrap(), rest), (b"abc".to_vec(), b"GET /".to_vec()));
        let (body, rest) = read(Framing::Chunked, b"1\r\na\r\n2;x\r\nbc\r\n0\r\nT: x\r\n\r\nGET /").await;
        assert_eq!((body.unwrap(), rest), (b"abc".to_vec(), b"GET /".to_vec()));
        let (body, rest) = read(Framing::None, b"GET /").await;
        assert_eq!((body.unwrap(), rest), (Vec::new(), Vec::new()), "nothing is read");
    }

    #[tokio::test]
    async fn a_body_that_is_cut_or_broken_is_an_error() {
        assert!(matches!(read(Framing::Length(4), b"abc").await.0, Err(BodyError::Cut(_))));
        assert!(matches!(read(Framing::Chunked, b"3\r\nabc\r\n").await.0, Err(BodyError::Cut(_))));
        assert!(matches!(read(Framing::Chunked, b"3\nabc").await.0, Err(BodyError::Malformed)));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut kept = Kept::new(true);
        kept.keep(&[&vec![0; KEPT_BYTES_MAX]]);
        assert!(kept.is_whole());
        kept.keep(&[b"x"]);
        assert!(!kept.is_whole() && kept.bytes().is_empty());
    }
}

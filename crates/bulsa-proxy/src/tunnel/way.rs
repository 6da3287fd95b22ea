//! One direction of a tunnel: what one side sends, on its way to the other.
//!
//! Owns: the bytes that were read and could not be written yet, where they stand among the frames, and the last words
//! that are put in. Never: reads a clock, knows of the other direction, or changes a byte.
//!
//! ```text
//! Passing ─ at the boundary asked for ─▶ Closing ─ the Close is written ─▶ Closed ─ finished ─▶ Shutting ─▶ Shut
//!    └─ the sender has ended, and all it sent is written ────────────────────────────────────────┘
//! ```
//!
//! Nothing is held while nothing moves: a read goes into a piece of the stack, and what the other side does not take at
//! once is kept aside and freed when it has gone; until then nothing more is read. The position among the frames is that
//! of what was written, for it is there that a Close must fit. After a Close nothing is written any more; what still
//! comes is read, so that its own Close is seen, and thrown away.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{Boundary, Follower};

/// What is read at a time, in bytes: as much is kept at most.
const READ_BYTES: usize = 16 * 1024;

/// At which end a direction broke off.
#[derive(Debug)]
pub(super) enum Broken {
    Reading(io::Error),
    Writing(io::Error),
}

/// How a direction is to be ended, if it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct End<'e> {
    /// Where it may be cut short.
    pub(super) at: Boundary,
    /// The Close that is put in there.
    pub(super) close: &'e Bytes,
    /// Whether it may be put in yet; until then nothing goes beyond that place.
    pub(super) may: bool,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Way {
    /// Where it stands among the frames. `None` if it has none: its bytes are just bytes.
    frames: Option<Follower>,
    /// What was read and is to be written before anything else.
    kept: Bytes,
    stage: Stage,
    /// The sender's end was read, or no more is to be read from it.
    ended: bool,
    /// A byte has come from the sender.
    began: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Passing,
    Closing,
    Closed,
    Shutting,
    Shut,
}

impl Way {
    /// A direction that begins with these bytes.
    pub(super) fn new(first: Bytes, frames: Option<Follower>) -> Self {
        // No bytes may still be a whole buffer.
        let kept = if first.is_empty() { Bytes::new() } else { first };
        let began = !kept.is_empty();
        Self { frames, kept, stage: Stage::Passing, ended: false, began }
    }

    /// Moves what can be moved at once; says how many bytes were carried over. Ready also if something else has
    /// happened, so that the next step can be another one.
    pub(super) fn step<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        end: Option<End<'_>>,
    ) -> Poll<Result<usize, Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let limit = if self.stage == Stage::Passing { self.limit(end) } else { None };
        if let Some(End { at, close, may }) = limit
            && self.frames.is_some_and(|frames| frames.is_at(at))
        {
            if !may {
                return Poll::Pending;
            }
            self.put_in(close);
        }
        match self.stage {
            Stage::Passing | Stage::Closing if !self.kept.is_empty() => {
                self.write_kept(cx, to, limit.map(|end| end.at)).map_err(Broken::Writing)
            }
            Stage::Passing if self.ended => self.go(Stage::Shutting),
            Stage::Passing => self.pass_on(cx, from, to, limit.map(|end| end.at)),
            Stage::Closing => self.go(Stage::Closed),
            Stage::Closed | Stage::Shut if !self.has_heard() => self.throw_away(cx, from),
            Stage::Shutting => {
                ready!(Pin::new(to).poll_shutdown(cx)).map_err(Broken::Writing)?;
                self.go(Stage::Shut)
            }
            Stage::Closed | Stage::Shut => Poll::Pending,
        }
    }

    /// Whether the receiver gets nothing more, or has got a Close, the sender's own or ours.
    pub(super) fn has_closed(&self) -> bool {
        match self.stage {
            Stage::Passing => self.is_closing_itself(),
            Stage::Closing => false,
            Stage::Closed | Stage::Shutting | Stage::Shut => true,
        }
    }

    /// Whether the receiver has got the sender's own Close.
    pub(super) fn is_closing_itself(&self) -> bool {
        self.stage == Stage::Passing && self.frames.is_some_and(|frames| frames.has_closed())
    }

    /// Whether nothing under way would be cut short there: it stands there, has been closed, or has no such places.
    pub(super) fn is_at(&self, at: Boundary) -> bool {
        let is_there = self.frames.is_none_or(|frames| frames.is_lost() || frames.is_at(at));
        is_there || self.stage != Stage::Passing || (self.ended && self.kept.is_empty())
    }

    /// Whether the sender has said its last: a Close, its end, or something that cannot be told.
    pub(super) fn has_heard(&self) -> bool {
        self.ended || self.frames.is_none_or(|frames| frames.has_closed() || frames.is_lost())
    }

    /// Gives the receiver its end, and nothing before it; says whether that is new. The sender is still heard.
    pub(super) fn finish(&mut self) -> bool {
        let new = matches!(self.stage, Stage::Passing | Stage::Closing | Stage::Closed);
        if new {
            self.kept = Bytes::new();
            self.stage = Stage::Shutting;
        }
        new
    }

    /// Gives up: the receiver takes no more, so nothing more is read.
    pub(super) fn give_up(&mut self) {
        self.kept = Bytes::new();
        self.stage = Stage::Shut;
        self.ended = true;
    }

    /// Whether there is nothing left to do.
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Shut && self.has_heard()
    }

    /// Whether a byte has come from the sender.
    pub(super) fn has_begun(&self) -> bool {
        self.began
    }

    /// Whether there are frames, so that it can be ended by a Close.
    pub(super) fn is_followed(&self) -> bool {
        self.frames.is_some_and(|frames| !frames.is_lost())
    }

    /// Where a Close is to be put in, if one is. Bytes without frames end where they are: what was read is still
    /// written.
    fn limit<'e>(&mut self, end: Option<End<'e>>) -> Option<End<'e>> {
        let end = end?;
        if !self.is_followed() {
            self.ended = true;
            return None;
        }
        if self.is_closing_itself() {
            return None;
        }
        // A message whose rest will never come has no other boundary.
        let at = if self.ended && self.kept.is_empty() { Boundary::Frame } else { end.at };
        Some(End { at, ..end })
    }

    /// Writes a Close next. What was read beyond this point will not be written.
    fn put_in(&mut self, close: &Bytes) {
        if let Some(frames) = &mut self.frames {
            frames.advance(&self.kept);
        }
        self.kept = close.clone();
        self.stage = Stage::Closing;
    }

    fn go(&mut self, stage: Stage) -> Poll<Result<usize, Broken>> {
        self.stage = stage;
        Poll::Ready(Ok(0))
    }

    fn write_kept<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
        limit: Option<Boundary>,
    ) -> Poll<io::Result<usize>> {
        let kept = std::mem::take(&mut self.kept);
        let written = self.write(cx, to, &kept, limit);
        self.kept = kept;
        let written = ready!(written)?;
        self.kept.advance(written);
        if self.kept.is_empty() {
            self.kept = Bytes::new();
        }
        Poll::Ready(Ok(written))
    }

    /// Reads, writes what is taken at once, and keeps the rest.
    fn pass_on<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        limit: Option<Boundary>,
    ) -> Poll<Result<usize, Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(from).poll_read(cx, &mut buffer)).map_err(Broken::Reading)?;
        let read = buffer.filled();
        if read.is_empty() {
            self.ended = true;
            return Poll::Ready(Ok(0));
        }
        self.began = true;
        let written = match self.write(cx, to, read, limit) {
            Poll::Ready(written) => written.map_err(Broken::Writing)?,
            Poll::Pending => 0,
        };
        if written < read.len() {
            self.kept = Bytes::copy_from_slice(&read[written..]);
        }
        Poll::Ready(Ok(written))
    }

    /// Writes some of these bytes, none beyond the limit.
    fn write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
        bytes: &[u8],
        limit: Option<Boundary>,
    ) -> Poll<io::Result<usize>> {
        let passing = if self.stage == Stage::Passing { self.frames.as_mut() } else { None };
        let until = passing.as_ref().zip(limit).and_then(|(frames, limit)| frames.until(bytes, limit));
        let bytes = &bytes[..until.unwrap_or(bytes.len())];
        let written = ready!(Pin::new(to).poll_write(cx, bytes))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        if let Some(frames) = passing {
            frames.advance(&bytes[..written]);
        }
        Poll::Ready(Ok(written))
    }

    /// Reads on behind our Close, for the sender's own.
    fn throw_away<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
    ) -> Poll<Result<usize, Broken>> {
        let frames = &mut self.frames;
        let read = ready!(poll_discard(cx, from, |bytes| {
            if let Some(frames) = frames {
                frames.advance(bytes);
            }
        }));
        if let Err(error) = &read {
            tracing::debug!(%error, "a side of a tunnel broke after its Close");
        }
        self.ended = !matches!(read, Ok(1..));
        Poll::Ready(Ok(0))
    }
}

/// Reads and forgets; says how many bytes there were, and shows them.
pub(super) fn poll_discard<R: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    from: &mut R,
    show: impl FnOnce(&[u8]),
) -> Poll<io::Result<usize>> {
    let mut space = [MaybeUninit::uninit(); READ_BYTES];
    let mut buffer = ReadBuf::uninit(&mut space);
    ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
    show(buffer.filled());
    Poll::Ready(Ok(buffer.filled().len()))
}

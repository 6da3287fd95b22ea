//! Answers on their way through: streamed, never collected, framed anew.
//!
//! Owns: the end of an answer's body, and how it is framed for the client. Never: changes a byte of it.
//!
//! What has come is passed on at once: a stream of events is not held up by a buffer. The head goes out with the first
//! bytes of the body, in one call.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::access_log::Sent;
use crate::h1::buffer::{BUFFER_BYTES, Inbox};
use crate::h1::chunked::{Decoder, LAST_CHUNK, SizeLine, Step};
use crate::h1::framing::Framing;
use crate::life::Life;
use crate::outlet::write_counted;

/// How passing an answer on ended.
#[derive(Debug)]
pub(crate) enum Passed {
    /// All of it was passed on.
    Whole,
    /// It was told to end, and did so cleanly.
    Ended,
    /// The target broke off.
    TargetBroke,
    /// The client took no more.
    ClientBroke(io::Error),
}

/// How an answer's body comes and goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Course {
    pub(crate) from: Framing,
    pub(crate) to: Framing,
}

/// Passes an answer on: its head, which was written already, and its body, of which some may be in the inbox.
///
/// `ending` is when it is to end before its own end. `sent` counts what goes out.
pub(crate) async fn pass<R, W>(
    course: Course,
    head: &[u8],
    (reader, inbox): (&mut R, &mut Inbox),
    (writer, life): (&mut W, &Life),
    ending: impl Future<Output = ()>,
    sent: &Sent,
) -> Passed
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut ending = pin!(ending);
    let mut body = Body::new(course, head, sent);
    loop {
        match body.write_what_is_there(inbox, writer, life).await {
            Err(Stop::Client(error)) => return Passed::ClientBroke(error),
            Err(Stop::Target) => return Passed::TargetBroke,
            Ok(true) => return Passed::Whole,
            Ok(false) => {}
        }
        let filled = poll_fn(|cx| {
            if ending.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            inbox.poll_fill(cx, reader, BUFFER_BYTES).map(Some)
        });
        match filled.await {
            Some(Ok(1..)) => {}
            Some(Ok(0)) if course.from == Framing::UntilClose => {
                return match body.write_end(writer, life).await {
                    Ok(()) => Passed::Whole,
                    Err(error) => Passed::ClientBroke(error),
                };
            }
            Some(_) => return Passed::TargetBroke,
            None => {
                return match body.write_end(writer, life).await {
                    Ok(()) => Passed::Ended,
                    Err(error) => Passed::ClientBroke(error),
                };
            }
        }
    }
}

/// Why nothing more is passed on.
enum Stop {
    Client(io::Error),
    Target,
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Client(error)
    }
}

/// An answer's body on its way.
struct Body<'h> {
    course: Course,
    /// The answer's head, until it has gone out.
    head: &'h [u8],
    sent: &'h Sent,
    left: u64,
    decoder: Decoder,
}

/// Chunks that are passed on in one call, at most.
const CHUNKS_MAX: usize = 2;

impl<'h> Body<'h> {
    fn new(course: Course, head: &'h [u8], sent: &'h Sent) -> Self {
        let left = if let Framing::Length(length) = course.from { length } else { 0 };
        Self { course, head, sent, left, decoder: Decoder::default() }
    }

    /// Writes what has come. True at the body's end.
    async fn write_what_is_there<W>(
        &mut self,
        inbox: &mut Inbox,
        writer: &mut W,
        life: &Life,
    ) -> Result<bool, Stop>
    where
        W: AsyncWrite + Unpin,
    {
        match self.course.from {
            Framing::None => {
                self.write(&[self.head], 0, writer, life).await?;
                Ok(true)
            }
            Framing::Length(_) => {
                let there = inbox.bytes().len();
                let take = usize::try_from(self.left).map_or(there, |left| left.min(there));
                self.write(&[self.head, &inbox.bytes()[..take]], take, writer, life).await?;
                inbox.consume(take);
                self.left -= take as u64;
                Ok(self.left == 0)
            }
            Framing::UntilClose => {
                self.write_piece(inbox.bytes(), writer, life).await?;
                inbox.clear();
                Ok(false)
            }
            Framing::Chunked => self.write_chunks(inbox, writer, life).await,
        }
    }

    async fn write_piece<W>(&mut self, piece: &[u8], writer: &mut W, life: &Life) -> io::Result<()>
    where
        W: AsyncWrite + Unpin,
    {
        let line = SizeLine::new(piece.len());
        match self.course.to {
            Framing::Chunked if !piece.is_empty() => {
                self.write(&[self.head, line.as_bytes(), piece, b"\r\n"], piece.len(), writer, life).await
            }
            _ => self.write(&[self.head, piece], piece.len(), writer, life).await,
        }
    }

    async fn write_chunks<W>(&mut self, inbox: &mut Inbox, writer: &mut W, life: &Life) -> Result<bool, Stop>
    where
        W: AsyncWrite + Unpin,
    {
        loop {
            let bytes = inbox.bytes();
            let mut chunks = [(0, 0); CHUNKS_MAX];
            let (mut count, mut at, mut is_over) = (0, 0, false);
            while count < CHUNKS_MAX && !is_over {
                match self.decoder.step(&bytes[at..]).map_err(|_| Stop::Target)? {
                    Step::Data { skip, length } => {
                        chunks[count] = (at + skip, length);
                        (count, at) = (count + 1, at + skip + length);
                    }
                    Step::More => {
                        at = bytes.len();
                        break;
                    }
                    Step::End(used) => {
                        at += used;
                        is_over = true;
                    }
                }
            }
            let is_framed = self.course.to == Framing::Chunked;
            let lines = chunks.map(|(_, length)| SizeLine::new(length));
            let mut pieces: [&[u8]; 2 + 3 * CHUNKS_MAX] = [b""; 2 + 3 * CHUNKS_MAX];
            pieces[0] = self.head;
            for (index, (start, length)) in chunks.iter().take(count).enumerate() {
                pieces[2 + 3 * index] = &bytes[*start..start + length];
                if is_framed {
                    pieces[1 + 3 * index] = lines[index].as_bytes();
                    pieces[3 + 3 * index] = b"\r\n";
                }
            }
            if is_over && is_framed {
                pieces[1 + 3 * CHUNKS_MAX] = LAST_CHUNK;
            }
            let length = chunks.iter().map(|(_, length)| length).sum();
            self.write(&pieces, length, writer, life).await?;
            inbox.consume(at);
            if is_over || inbox.is_empty() {
                return Ok(is_over);
            }
        }
    }

    /// Ends the body before, or at, its own end.
    async fn write_end<W>(&mut self, writer: &mut W, life: &Life) -> io::Result<()>
    where
        W: AsyncWrite + Unpin,
    {
        let end: &[u8] = if self.course.to == Framing::Chunked { LAST_CHUNK } else { b"" };
        self.write(&[self.head, end], 0, writer, life).await
    }

    /// Writes pieces, the first of which is the head if it has not gone out yet. So many bytes of them are the body's.
    /// (Where a client takes only a part of chunks, their framing counts, too.)
    async fn write<W>(&mut self, pieces: &[&[u8]], body: usize, writer: &mut W, life: &Life) -> io::Result<()>
    where
        W: AsyncWrite + Unpin,
    {
        let mut written = 0;
        let result = write_counted(writer, pieces, Some(life), &mut written).await;
        self.sent.add(written, self.head.len(), body);
        self.head = b"";
        result
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::h1::buffer::Buffers;
    use crate::life::Lives;

    async fn passed(course: Course, mut from: &[u8]) -> (Passed, String, u64) {
        let place = Lives::new(std::time::Duration::from_secs(60)).enter(&"http".into());
        let mut inbox = Inbox::new(&Rc::new(Buffers::default()));
        let mut to = Vec::new();
        let never = std::future::pending();
        let sent = Sent::default();
        let to_client = (&mut to, &*place.life);
        let passed = pass(course, b"H", (&mut from, &mut inbox), to_client, never, &sent).await;
        (passed, String::from_utf8(to).unwrap(), sent.body())
    }

    #[tokio::test]
    async fn an_answer_is_framed_for_who_gets_it() {
        let chunked = b"3\r\nabc\r\n4;x=y\r\ndefg\r\n1\r\nh\r\n0\r\nT: x\r\n\r\n";
        for (from, to, bytes, expected) in [
            (Framing::None, Framing::None, &b""[..], "H"),
            (Framing::Length(3), Framing::Length(3), b"abcdef", "Habc"),
            (Framing::Chunked, Framing::Chunked, chunked, "H3\r\nabc\r\n4\r\ndefg\r\n1\r\nh\r\n0\r\n\r\n"),
            (Framing::Chunked, Framing::UntilClose, chunked, "Habcdefgh"),
            (Framing::UntilClose, Framing::Chunked, b"abc", "H3\r\nabc\r\n0\r\n\r\n"),
            (Framing::UntilClose, Framing::UntilClose, b"abc", "Habc"),
        ] {
            let (passed, text, counted) = passed(Course { from, to }, bytes).await;
            assert!(matches!(passed, Passed::Whole), "{from:?}: {passed:?}");
            assert_eq!(text, expected, "{from:?} to {to:?}");
            let body: usize = match from {
                Framing::None => 0,
                Framing::Chunked => 8,
                _ => 3,
            };
            assert_eq!(counted, body as u64, "{from:?} to {to:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_short_does_not_look_whole() {
        let length = Course { from: Framing::Length(4), to: Framing::Length(4) };
        let (passed_length, _, counted) = passed(length, b"abc").await;
        assert!(matches!(passed_length, Passed::TargetBroke));
        assert_eq!(counted, 3);
        let chunked = Course { from: Framing::Chunked, to: Framing::Chunked };
        let (passed_chunks, text, _) = passed(chunked, b"3\r\nabc\r\n").await;
        assert!(matches!(passed_chunks, Passed::TargetBroke));
        assert!(!text.ends_with("0\r\n\r\n"), "{text}");
    }

    #[tokio::test]
    async fn a_stream_that_is_told_to_end_ends_cleanly() {
        let place = Lives::new(std::time::Duration::from_secs(60)).enter(&"http".into());
        let mut inbox = Inbox::new(&Rc::new(Buffers::default()));
        let (mut from, _open) = tokio::io::duplex(64);
        let mut to = Vec::new();
        let course = Course { from: Framing::UntilClose, to: Framing::Chunked };
        let now = std::future::ready(());
        let (to_client, sent) = ((&mut to, &*place.life), Sent::default());
        let passed = pass(course, b"H", (&mut from, &mut inbox), to_client, now, &sent).await;
        assert!(matches!(passed, Passed::Ended));
        assert_eq!(to, b"H0\r\n\r\n");
    }
}

//! The writing half of a client's connection.
//!
//! Owns: writing all of several pieces at once, and the limit on how long a client may not read. Never: knows what it
//! writes.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::time::Instant;

use crate::life::Life;

/// How long a client may take nothing of what is written to it. (As nginx's `send_timeout`.)
pub(crate) const STALL_TIME_MAX: Duration = Duration::from_secs(60);

/// Writes all of several pieces, in as few calls as the socket allows. `life` tells when the other side does not read.
pub(crate) async fn write_all<W>(writer: &mut W, pieces: &[&[u8]], life: Option<&Life>) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let mut written = 0;
    write_counted(writer, pieces, life, &mut written).await
}

/// The same, and counts what was written, also if it fails.
pub(crate) async fn write_counted<W>(
    writer: &mut W,
    pieces: &[&[u8]],
    life: Option<&Life>,
    written: &mut usize,
) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let all: usize = pieces.iter().map(|piece| piece.len()).sum();
    let result = loop {
        if *written == all {
            break Ok(());
        }
        match poll_fn(|cx| poll_some(cx, writer, pieces, *written, life)).await {
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => *written += count,
            Err(error) => break Err(error),
        }
    };
    if let Some(life) = life {
        life.due(None);
    }
    result
}

/// Pieces that are written in one call, at most.
const SLICES_MAX: usize = 8;

fn poll_some<W>(
    cx: &mut Context<'_>,
    writer: &mut W,
    pieces: &[&[u8]],
    written: usize,
    life: Option<&Life>,
) -> Poll<io::Result<usize>>
where
    W: AsyncWrite + Unpin,
{
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let (mut count, mut skip) = (0, written);
    for piece in pieces {
        if piece.len() <= skip {
            skip -= piece.len();
        } else if count < SLICES_MAX {
            slices[count] = IoSlice::new(&piece[skip..]);
            (count, skip) = (count + 1, 0);
        }
    }
    let polled = if count == 1 {
        Pin::new(writer).poll_write(cx, &slices[0])
    } else {
        Pin::new(writer).poll_write_vectored(cx, &slices[..count])
    };
    if polled.is_pending()
        && let Some(life) = life
    {
        life.due(Some(Instant::now() + life.stall_time()));
        ready!(life.poll_end(cx));
        return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
    }
    polled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_is_written_in_order_however_little_is_taken_at_a_time() {
        let (mut here, mut there) = tokio::io::duplex(7);
        let long = vec![b'x'; 100];
        let pieces: [&[u8]; 4] = [b"abc", b"", &long, b"end"];
        let expected = pieces.concat();
        let reading = async {
            let mut read = vec![0; expected.len()];
            tokio::io::AsyncReadExt::read_exact(&mut there, &mut read).await.unwrap();
            read
        };
        let (written, read) = tokio::join!(write_all(&mut here, &pieces, None), reading);
        written.unwrap();
        assert_eq!(read, expected);
    }
}

//! What has come from a socket and is not done with yet, and the buffers of a worker.
//!
//! Owns: who holds a buffer. A connection that waits for something holds none: it takes one from the worker when there
//! is something to read, and gives it back when all of that is done with. So ten thousand idle connections cost no
//! buffers.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// The size of a buffer for what clients send, in bytes.
pub(crate) const BUFFER_BYTES: usize = 32 * 1024;
/// The size of a buffer for what targets send, in bytes: 64 KiB with its head fits, which is what loopback carries at a time.
/// Reading such an answer as a whole takes two thirds of the CPU that two or three pieces do.
const ANSWER_BUFFER_BYTES: usize = 68 * 1024;
/// Free buffers that a worker keeps, at most.
const FREE_MAX: usize = 64;

/// Buffers of one size, of one worker.
#[derive(Debug)]
pub(crate) struct Buffers {
    size: usize,
    free: RefCell<Vec<Vec<u8>>>,
}

impl Default for Buffers {
    /// Those for what clients send.
    fn default() -> Self {
        Self { size: BUFFER_BYTES, free: RefCell::default() }
    }
}

impl Buffers {
    /// Those for what targets send.
    pub(crate) fn for_answers() -> Self {
        Self { size: ANSWER_BUFFER_BYTES, free: RefCell::default() }
    }

    fn take(&self) -> Vec<u8> {
        self.free.borrow_mut().pop().unwrap_or_else(|| vec![0; self.size])
    }

    fn put(&self, buffer: Vec<u8>) {
        let mut free = self.free.borrow_mut();
        if buffer.len() == self.size && free.len() < FREE_MAX {
            free.push(buffer);
        }
    }
}

/// What has come from one socket and is not done with yet.
#[derive(Debug)]
pub(crate) struct Inbox {
    buffers: Rc<Buffers>,
    /// Empty while nothing is held.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    pub(crate) fn new(buffers: &Rc<Buffers>) -> Self {
        Self { buffers: Rc::clone(buffers), bytes: Vec::new(), start: 0, end: 0 }
    }

    /// What is there.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// So many bytes are done with.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.is_empty() {
            self.release();
        }
    }

    /// Everything is done with.
    pub(crate) fn clear(&mut self) {
        self.start = self.end;
        self.release();
    }

    fn release(&mut self) {
        (self.start, self.end) = (0, 0);
        if !self.bytes.is_empty() {
            self.buffers.put(std::mem::take(&mut self.bytes));
        }
    }

    /// Reads more, behind what is there; at most until there are `most` bytes. 0 is the end. Cancel safe.
    pub(crate) fn poll_fill<R>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        most: usize,
    ) -> Poll<io::Result<usize>>
    where
        R: AsyncRead + Unpin,
    {
        self.make_room(most);
        let mut buffer = ReadBuf::new(&mut self.bytes[self.end..]);
        let polled = Pin::new(reader).poll_read(cx, &mut buffer);
        let read = buffer.filled().len();
        self.end += read;
        if self.is_empty() {
            self.release();
        }
        ready!(polled)?;
        Poll::Ready(Ok(read))
    }

    fn make_room(&mut self, most: usize) {
        if self.bytes.is_empty() {
            self.bytes = self.buffers.take();
        }
        if self.end < self.bytes.len() {
            return;
        }
        if 0 < self.start {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        } else if self.bytes.len() < most {
            self.bytes.resize((self.bytes.len() * 2).min(most), 0);
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn fill(inbox: &mut Inbox, mut from: &[u8]) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        match inbox.poll_fill(&mut cx, &mut from, 4 * BUFFER_BYTES) {
            Poll::Ready(Ok(read)) => read,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_buffer_is_held_only_while_there_is_something_in_it() {
        let buffers = Rc::new(Buffers::default());
        let mut inbox = Inbox::new(&buffers);
        assert_eq!(fill(&mut inbox, b"abc"), 3);
        assert_eq!((inbox.bytes(), buffers.free.borrow().len()), (&b"abc"[..], 0));
        inbox.consume(1);
        assert_eq!(fill(&mut inbox, b"d"), 1);
        assert_eq!(inbox.bytes(), b"bcd");
        inbox.consume(3);
        assert_eq!(buffers.free.borrow().len(), 1);
        assert_eq!(fill(&mut inbox, b""), 0);
        assert_eq!(buffers.free.borrow().len(), 1);
    }

    #[test]
    fn it_grows_as_far_as_it_may() {
        let buffers = Rc::new(Buffers::default());
        let mut inbox = Inbox::new(&buffers);
        let long = vec![b'x'; 8 * BUFFER_BYTES];
        let mut total = 0;
        for _ in 0..8 {
            total += fill(&mut inbox, &long);
        }
        assert_eq!((total, inbox.bytes().len()), (4 * BUFFER_BYTES, 4 * BUFFER_BYTES));
        inbox.consume(BUFFER_BYTES);
        assert_eq!(fill(&mut inbox, &long), BUFFER_BYTES, "what is done with makes room");
        drop(inbox);
        assert!(buffers.free.borrow().is_empty(), "a grown one is not kept");
    }
}

//! Where a request is worked on: its head, what a target gets, the answer's head, what the client gets.
//!
//! Owns: that memory, from one request to the next, whosever it is. A connection has a desk only while a request of its
//! own is under way: idle connections hold nothing, and a request allocates next to nothing.

use std::cell::RefCell;

use crate::h1::head::{AnswerHead, RequestHead};

/// Free desks that a worker keeps, at most.
const FREE_MAX: usize = 64;
/// Text that is kept for the next request, in bytes; what has grown longer is given back.
const TEXT_BYTES_MAX: usize = 4096;

/// One desk.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    /// The request's head, as the client sent it.
    pub(crate) head: RequestHead,
    /// The same, as a target gets it.
    pub(crate) text: Vec<u8>,
    pub(crate) answer: AnswerDesk,
}

/// The answer's part.
#[derive(Debug, Default)]
pub(crate) struct AnswerDesk {
    /// The answer's head, as the target sent it.
    pub(crate) head: AnswerHead,
    /// The same, as the client gets it.
    pub(crate) text: Vec<u8>,
}

/// The desks of one worker.
#[derive(Debug, Default)]
pub(crate) struct Desks {
    #[expect(clippy::vec_box, reason = "a desk is large, and handed from task to task")]
    free: RefCell<Vec<Box<Desk>>>,
}

impl Desks {
    pub(crate) fn take(&self) -> Box<Desk> {
        self.free.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn put(&self, mut desk: Box<Desk>) {
        desk.head.shrink();
        desk.answer.head.shrink();
        for text in [&mut desk.text, &mut desk.answer.text] {
            text.clear();
            text.shrink_to(TEXT_BYTES_MAX);
        }
        let mut free = self.free.borrow_mut();
        if free.len() < FREE_MAX {
            free.push(desk);
        }
    }
}

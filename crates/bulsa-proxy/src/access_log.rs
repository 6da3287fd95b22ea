//! The access log: a line for each request to a service that wants one, in the form that analysers read.
//!
//! Owns: what a line says ([`Entry`]), one worker's lines ([`Lines`]), and their way to whoever keeps them ([`Queue`]).
//! Never: opens a file, or makes a request wait. What can't be written in time is dropped and counted.
//!
//! ```text
//! request ─▶ Lines, one for each worker ── 32 KiB, or 250 ms ──▶ Queue ──▶ its thread ──▶ a file
//!            no lock, nothing allocated                           bounded    writes, and may be stuck there
//! ```
//!
//! A service without a log costs its requests a branch.

mod entry;
mod line;
mod queue;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

pub(crate) use self::entry::{Entry, Sent};
use self::line::Line;
pub(crate) use self::queue::Queue;

/// A worker's lines are handed over when they are so long, in bytes.
const BLOCK_BYTES: usize = 32 * 1024;

/// The lines of one worker that were not handed over yet.
#[derive(Debug)]
pub(crate) struct Lines {
    queue: Arc<Queue>,
    text: RefCell<Text>,
}

#[derive(Debug)]
struct Text {
    bytes: Vec<u8>,
    count: u64,
    /// The worker's date from which the stamp was made.
    date: Rc<str>,
    stamp: String,
}

impl Lines {
    pub(crate) fn new(queue: Arc<Queue>) -> Self {
        let text = Text { bytes: Vec::new(), count: 0, date: "".into(), stamp: String::new() };
        Self { queue, text: RefCell::new(text) }
    }

    /// Adds a line. `date` is the time as answers say it.
    fn add(&self, date: Rc<str>, line: &Line<'_>) {
        let text = &mut *self.text.borrow_mut();
        if !Rc::ptr_eq(&text.date, &date) {
            text.stamp = line::stamp(&date);
            text.date = date;
        }
        line.write(&mut text.bytes, &text.stamp);
        text.count += 1;
        if BLOCK_BYTES <= text.bytes.len() {
            text.hand_over(&self.queue);
        }
    }

    /// Hands over what there is.
    pub(crate) fn sweep(&self) {
        let text = &mut *self.text.borrow_mut();
        if !text.bytes.is_empty() {
            text.hand_over(&self.queue);
        }
    }
}

impl Text {
    fn hand_over(&mut self, queue: &Queue) {
        queue.push(&self.bytes, std::mem::take(&mut self.count));
        self.bytes.clear();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.sweep();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn line() -> Line<'static> {
        Line {
            from: [10, 0, 0, 7].into(),
            method: b"GET",
            path: b"/",
            minor: 1,
            status: 200,
            bytes: 5,
            referer: None,
            agent: None,
            id: "id",
            target: None,
            took: Duration::from_millis(12),
        }
    }

    #[test]
    fn lines_are_handed_over_when_they_are_many_or_when_time_has_come() {
        let queue = Arc::new(Queue::default());
        let lines = Lines::new(Arc::clone(&queue));
        let date: Rc<str> = "Sun, 06 Nov 1994 08:49:37 GMT".into();
        lines.sweep();
        lines.add(Rc::clone(&date), &line());
        assert_eq!(queue.waiting(), (0, 0));
        lines.sweep();
        let (one, count) = queue.waiting();
        assert_eq!(count, 1);
        let whole_blocks = u64::try_from(BLOCK_BYTES.div_ceil(one)).unwrap();
        for _ in 0..whole_blocks - 1 {
            lines.add(Rc::clone(&date), &line());
        }
        assert_eq!(queue.waiting().1, 1, "a line is missing to a block");
        lines.add(Rc::clone(&date), &line());
        assert_eq!(queue.waiting().1, 1 + whole_blocks);
        lines.add(date, &line());
        drop(lines);
        assert_eq!(queue.waiting().1, 2 + whole_blocks, "nothing is kept back at the end");
    }
}

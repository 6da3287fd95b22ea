//! From the workers to a file, by a thread that may be stuck there.
//!
//! Owns: the lines that wait, their bound, the writing thread, and the count of what was dropped. Never: holds its lock
//! while it writes: a disk that takes nothing holds up nobody, the lines that come meanwhile are dropped.
//!
//! A file is replaced by a newer one between two writes. Each gets so many bytes of this process and no more: whoever
//! bounds the file may be dead.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::Notify;

/// Lines that wait to be written, in bytes, at most.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// What a buffer that has been longer keeps for the next time, in bytes.
const KEPT_BYTES: usize = 256 * 1024;

/// The lines of all workers that are to be written.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// Lines that were not written.
    dropped: AtomicU64,
    writer_ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    lines: u64,
    /// Where they are to go from now on.
    next: Option<Destination>,
    has_writer: bool,
    /// Nothing more will come.
    is_closed: bool,
}

/// Where lines go.
struct Destination {
    to: Box<dyn Write + Send>,
    /// Bytes that it still gets.
    left: u64,
    /// The last line in it lacks its end.
    is_torn: bool,
    /// It was said that it takes nothing.
    is_told: bool,
}

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Destination").field("left", &self.left).finish_non_exhaustive()
    }
}

/// What the writer does next.
enum Work {
    Turn(Destination),
    Write,
    End,
}

impl Queue {
    /// Takes over lines, or drops and counts them.
    pub(super) fn push(&self, text: &[u8], lines: u64) {
        let mut state = self.state();
        if WAITING_BYTES_MAX < state.bytes.len() + text.len() {
            drop(state);
            self.dropped.fetch_add(lines, Ordering::Relaxed);
            return;
        }
        state.bytes.extend_from_slice(text);
        state.lines += lines;
        drop(state);
        self.changed.notify_one();
    }

    /// Has the lines written there from now on, `bytes_max` bytes at most (the last piece is written whole). Those that
    /// waited for a place to go to come first.
    pub(crate) fn direct(self: &Arc<Self>, to: Box<dyn Write + Send>, bytes_max: u64) -> io::Result<()> {
        let mut state = self.state();
        state.next = Some(Destination { to, left: bytes_max, is_torn: false, is_told: false });
        if !state.has_writer {
            let queue = Arc::clone(self);
            thread::Builder::new().name("proxy-log".to_owned()).spawn(move || queue.write())?;
            state.has_writer = true;
        }
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Says that nothing more will come: what waits is written, then the writer ends.
    pub(crate) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_one();
    }

    /// Waits until the writer has ended, if there is one.
    pub(crate) async fn written(&self) {
        // Made before the look: it hears of an end after it.
        let ended = self.writer_ended.notified();
        let has_writer = self.state().has_writer;
        if has_writer {
            ended.await;
        }
    }

    /// Lines that were not written, for whatever reason.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer's thread.
    fn write(&self) {
        let (mut to, mut text): (Option<Destination>, _) = (None, Vec::new());
        loop {
            match self.work(to.is_some(), &mut text) {
                Work::Turn(next) => to = Some(next),
                Work::Write => {
                    let lost = to.as_mut().map_or(0, |to| to.write(&text));
                    self.dropped.fetch_add(lost, Ordering::Relaxed);
                    to = to.filter(|to| 0 < to.left);
                    text.clear();
                    text.shrink_to(KEPT_BYTES);
                }
                Work::End => break,
            }
        }
        self.state().has_writer = false;
        self.writer_ended.notify_waiters();
    }

    /// Waits for something to do. Lines come in `text`, which is empty.
    fn work(&self, has_place: bool, text: &mut Vec<u8>) -> Work {
        let mut state = self.state();
        loop {
            if let Some(next) = state.next.take() {
                return Work::Turn(next);
            }
            if has_place && !state.bytes.is_empty() {
                std::mem::swap(&mut state.bytes, text);
                state.lines = 0;
                return Work::Write;
            }
            if state.is_closed {
                self.dropped.fetch_add(std::mem::take(&mut state.lines), Ordering::Relaxed);
                state.bytes.clear();
                return Work::End;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Bytes and lines that wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, u64) {
        let state = self.state();
        (state.bytes.len(), state.lines)
    }
}

impl Destination {
    /// Writes lines; how many of them were lost.
    fn write(&mut self, text: &[u8]) -> u64 {
        let mut end_of_torn: &[u8] = if self.is_torn { b"\n" } else { b"" };
        let mut rest = text;
        while !rest.is_empty() {
            let piece = if end_of_torn.is_empty() { rest } else { end_of_torn };
            match self.to.write(piece) {
                Ok(0) => return self.failed(text, rest, &io::ErrorKind::WriteZero.into()),
                Ok(count) if end_of_torn.is_empty() => {
                    rest = rest.get(count..).unwrap_or_default();
                    self.left = self.left.saturating_sub(count as u64);
                }
                Ok(_) => (end_of_torn, self.is_torn) = (b"", false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.failed(text, rest, &error),
            }
        }
        0
    }

    /// It took no more than what is before `rest`.
    fn failed(&mut self, text: &[u8], rest: &[u8], error: &io::Error) -> u64 {
        let before = text.len() - rest.len();
        if 0 < before {
            self.is_torn = text.get(before - 1) != Some(&b'\n');
        }
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(%error, "the access log cannot be written; what is lost of it is counted");
        }
        memchr::memchr_iter(b'\n', rest).count() as u64
    }
}

#[cfg(test)]
mod tests;

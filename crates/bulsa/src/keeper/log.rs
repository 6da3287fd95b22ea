//! The keeper's own log lines, to standard error. The keeper must never wait for whoever reads them: a line
//! that does not fit now is dropped, and the next one that fits says how many were.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The longest line, in bytes; a pipe that is ready takes this much without blocking.
const MAX_LINE_BYTES: usize = 2048;

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Writes one line.
pub(crate) fn line(text: Arguments<'_>) {
    let stderr = io::stderr();
    let mut fds = [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)];
    let no_wait = Timespec { tv_sec: 0, tv_nsec: 0 };
    if !matches!(poll(&mut fds, Some(&no_wait)), Ok(ready) if ready > 0) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let dropped = DROPPED.swap(0, Ordering::Relaxed);
    let mut line = format!("keeper: {text}");
    if dropped > 0 {
        line.push_str(&format!(" ({dropped} lines before this one were dropped)"));
    }
    let mut end = line.len().min(MAX_LINE_BYTES);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line.push('\n');
    if stderr.lock().write_all(line.as_bytes()).is_err() {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Formats and writes one line of the keeper's log.
macro_rules! log {
    ($($arg:tt)*) => { $crate::keeper::log::line(format_args!($($arg)*)) };
}
pub(crate) use log;

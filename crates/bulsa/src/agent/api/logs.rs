//! The logs of a project's replicas as one stream of lines.
//!
//! Owns: which files belong to the stream, how far each was read, and cutting them into lines. Never: writes or bounds
//! a log, or knows when a line was written: a replica writes straight to its file, so that nothing stands in its way.
//!
//! The files are those that the snapshot names. Following looks at their sizes every [`LOG_POLL`]; a replica that
//! appears later is read from its first line. What is read at once is bounded, so a replica that writes faster than
//! the reader takes is read more slowly, and its log's own bound then drops lines, which the stream says.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bulsa_core::wire::api::{LogLine, Snapshot};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::streams::Lines;
use crate::agent::process::logs::read_from;

/// How often the files are looked at while following: the longest that a line takes to be shown.
pub(super) const LOG_POLL: Duration = Duration::from_millis(200);
/// The last lines of a file are looked for in at most this much of its end, in bytes.
const TAIL_BYTES_MAX: u64 = 1 << 20;
/// At most this much of one file is read at a time, in bytes.
const CHUNK_BYTES_MAX: usize = 256 << 10;
/// When the server ends, so often is read what was written last: with [`CHUNK_BYTES_MAX`] 8 MiB of each file.
const REST_ROUNDS_MAX: usize = 32;
/// A longer line is cut, in bytes.
const LINE_BYTES_MAX: usize = 64 << 10;

/// What a reader wants to see.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) project: String,
    /// Only this service.
    pub(super) service: Option<String>,
    /// The last so many lines of each file at first.
    pub(super) tail: u32,
    /// Go on with what is written then.
    pub(super) follow: bool,
}

/// The stream.
pub(super) struct LogStream {
    published: watch::Receiver<Arc<Snapshot>>,
    wanted: Wanted,
    files: BTreeMap<PathBuf, Followed>,
    ticks: Option<tokio::time::Interval>,
    /// Whether the files that are there at the beginning were read.
    begun: bool,
}

/// One file, as far as it was read.
#[derive(Clone, Debug)]
struct Followed {
    replica: String,
    service: String,
    offset: u64,
    /// The bytes of a line whose end wasn't written yet.
    partial: Vec<u8>,
    /// Its replica went: nobody writes to it any more.
    is_left: bool,
}

impl LogStream {
    pub(super) fn new(published: watch::Receiver<Arc<Snapshot>>, wanted: Wanted) -> Self {
        Self { published, wanted, files: BTreeMap::new(), ticks: None, begun: false }
    }

    /// Adds the files of replicas that appeared, and marks those whose replica went.
    fn look_around(&mut self) {
        let snapshot = Arc::clone(&self.published.borrow());
        let services =
            snapshot.project(&self.wanted.project).into_iter().flat_map(|project| &project.services);
        let mut named = BTreeMap::new();
        for service in services {
            if self.wanted.service.as_ref().is_some_and(|wanted| *wanted != service.name) {
                continue;
            }
            for replica in &service.replicas {
                if let Some(log) = &replica.log {
                    named.insert(PathBuf::from(log), (replica.id.clone(), service.name.clone()));
                }
            }
        }
        for (path, file) in &mut self.files {
            file.is_left = !named.contains_key(path);
        }
        for (path, (replica, service)) in named {
            let fresh = || Followed { replica, service, offset: 0, partial: Vec::new(), is_left: false };
            self.files.entry(path).or_insert_with(fresh);
        }
    }

    /// Reads what is new in every file, off this thread. Given up halfway it has read nothing.
    async fn turn(&mut self) -> Vec<LogLine> {
        self.look_around();
        let mut files = self.files.clone();
        let (tail, first, last) = (self.wanted.tail, !self.begun, !self.wanted.follow);
        let read = tokio::task::spawn_blocking(move || {
            let mut lines = Vec::new();
            files.retain(|path, file| {
                let before = file.offset;
                lines.extend(if first { file.begin(path, tail, last) } else { file.advance(path) });
                // One whose replica went is read to its end, and then forgotten.
                let is_over = file.is_left && file.offset == before;
                if is_over {
                    file.end(&mut lines);
                }
                !is_over
            });
            (files, lines)
        });
        // The task only fails when the runtime goes down; then there is nothing more to show either.
        let Ok((files, lines)) = read.await else { return Vec::new() };
        (self.files, self.begun) = (files, true);
        lines
    }
}

impl Lines for LogStream {
    type Item = LogLine;

    async fn next(&mut self) -> Option<Vec<LogLine>> {
        loop {
            if self.begun {
                if !self.wanted.follow {
                    return None;
                }
                let ticks = self.ticks.get_or_insert_with(|| {
                    let mut ticks = interval(LOG_POLL);
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    ticks.reset();
                    ticks
                });
                ticks.tick().await;
            }
            let lines = self.turn().await;
            if !lines.is_empty() {
                return Some(lines);
            }
            let is_gone = self.published.borrow().project(&self.wanted.project).is_none();
            if is_gone || self.published.has_changed().is_err() {
                return None;
            }
        }
    }

    async fn rest(&mut self) -> Vec<LogLine> {
        let mut lines = Vec::new();
        for _ in 0..REST_ROUNDS_MAX {
            let more = self.turn().await;
            if more.is_empty() {
                break;
            }
            lines.extend(more);
        }
        self.files.values_mut().for_each(|file| file.end(&mut lines));
        lines
    }
}

impl Followed {
    /// The last `tail` lines, and one whose end isn't written yet if this is the `last` look; the file is then at its end.
    fn begin(&mut self, path: &Path, tail: u32, last: bool) -> Vec<LogLine> {
        let size = match fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) => return self.unreadable(path, &error),
        };
        self.offset = size.saturating_sub(TAIL_BYTES_MAX);
        let cut = self.offset > 0;
        let mut lines = Vec::new();
        while self.offset < size {
            let before = self.offset;
            lines.extend(self.advance(path));
            if self.offset == before {
                break;
            }
        }
        if cut && !lines.is_empty() {
            lines.remove(0);
        }
        if last {
            self.end(&mut lines);
        }
        lines.split_off(lines.len().saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX)))
    }

    /// What was written since the last look.
    fn advance(&mut self, path: &Path) -> Vec<LogLine> {
        match read_from(path, self.offset, CHUNK_BYTES_MAX) {
            Ok(chunk) => {
                let mut lines = Vec::new();
                if chunk.dropped > 0 && self.offset > 0 {
                    self.partial.clear();
                    lines.push(
                        self.line(format!("[{} bytes were dropped here: the log is bounded]", chunk.dropped)),
                    );
                }
                self.offset = chunk.next;
                self.cut(&chunk.bytes, &mut lines);
                lines
            }
            // A dead replica's log may be cleaned up at any time.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => self.unreadable(path, &error),
        }
    }

    /// Nothing more is written: a line without an end is one.
    fn end(&mut self, lines: &mut Vec<LogLine>) {
        if !self.partial.is_empty() {
            self.cut(b"\n", lines);
        }
    }

    /// Cuts `bytes` into lines; the rest waits for its end.
    fn cut(&mut self, bytes: &[u8], lines: &mut Vec<LogLine>) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if self.partial.last() == Some(&b'\n') || self.partial.len() >= LINE_BYTES_MAX {
                let whole = std::mem::take(&mut self.partial);
                let text = String::from_utf8_lossy(&whole);
                lines.push(self.line(text.trim_end_matches(['\n', '\r']).to_owned()));
            }
        }
    }

    /// The daemon's own log says why; the reader of a stream can do nothing about it.
    fn unreadable(&self, path: &Path, error: &io::Error) -> Vec<LogLine> {
        tracing::debug!(path = %path.display(), replica = %self.replica, %error, "a log can't be read");
        Vec::new()
    }

    fn line(&self, text: String) -> LogLine {
        LogLine { replica: self.replica.clone(), service: self.service.clone(), text }
    }
}

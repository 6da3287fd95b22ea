//! A small file of the replicas that run, for the keeper's successor.
//!
//! The environment of a process identifies it, but some programs overwrite theirs (`setproctitle`). So each
//! spawn, exit and acknowledgement is also a line in `run/replicas`. The file survives the keeper, and need not
//! survive the machine: nothing is synced, a torn last line is skipped, and the lines of another boot mean
//! nothing. A line that cannot be written (a full disk) costs only this second way of finding a replica; nothing
//! waits for it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::log::log;
use super::procfs;
use crate::link::messages::ExitRecord;

/// The file is written anew when it has this many lines more than it needs.
const SLACK_LINES: usize = 4096;

/// A replica, as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
    pub(crate) note: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Boot(String),
    Spawned(Entry),
    Exited(ExitRecord),
    Forgotten(String),
}

/// What a keeper that died left in its journal.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// Replicas that ran.
    pub(crate) running: BTreeMap<String, Entry>,
    /// Exit records that nobody had acknowledged, oldest first.
    pub(crate) exits: Vec<ExitRecord>,
}

/// The journal, open for appending.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: Option<File>,
    lines: usize,
}

impl Journal {
    /// Reads what the last keeper left. A missing or unreadable file left nothing.
    pub(crate) fn left(path: &Path) -> Left {
        let bytes = fs::read(path).unwrap_or_default();
        parse(&bytes, &procfs::boot_id())
    }

    /// A journal at `path`; [`Journal::rewrite`] must follow.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: None, lines: 0 }
    }

    /// Notes a spawn.
    pub(crate) fn spawned(&mut self, entry: Entry) {
        self.append(&Line::Spawned(entry));
    }

    /// Notes an exit.
    pub(crate) fn exited(&mut self, record: ExitRecord) {
        self.append(&Line::Exited(record));
    }

    /// Notes that an exit was acknowledged, or dropped.
    pub(crate) fn forgotten(&mut self, id: &str) {
        self.append(&Line::Forgotten(id.to_owned()));
    }

    /// Whether [`Journal::rewrite`] is due, with `live` replicas and exit records.
    pub(crate) fn is_long(&self, live: usize) -> bool {
        self.lines > live + SLACK_LINES
    }

    /// Writes the file anew, atomically.
    pub(crate) fn rewrite(&mut self, running: Vec<Entry>, exits: Vec<ExitRecord>) {
        let lines = std::iter::once(Line::Boot(procfs::boot_id()))
            .chain(running.into_iter().map(Line::Spawned))
            .chain(exits.into_iter().map(Line::Exited));
        match write_anew(&self.path, lines) {
            Ok((file, lines)) => (self.file, self.lines) = (Some(file), lines),
            Err(error) => {
                log!(
                    "the journal {} cannot be written: {error}; replicas are still found by environment",
                    self.path.display()
                );
                self.file = None;
                self.lines = 0;
            }
        }
    }

    fn append(&mut self, line: &Line) {
        self.lines += 1;
        let Some(file) = &mut self.file else { return };
        if let Err(error) = encode(line).and_then(|bytes| file.write_all(&bytes)) {
            log!("the journal {} cannot be written: {error}", self.path.display());
            // A part of a line may be in the file; the next rewrite starts afresh.
            self.file = None;
            self.lines += SLACK_LINES;
        }
    }
}

fn encode(line: &Line) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn write_anew(path: &Path, lines: impl Iterator<Item = Line>) -> io::Result<(File, usize)> {
    let new = path.with_extension("new");
    let mut bytes = Vec::new();
    let mut count = 0;
    for line in lines {
        bytes.extend(encode(&line)?);
        count += 1;
    }
    fs::write(&new, &bytes)?;
    fs::rename(&new, path)?;
    Ok((OpenOptions::new().append(true).mode(0o600).open(path)?, count))
}

fn parse(bytes: &[u8], boot: &str) -> Left {
    let mut left = Left::default();
    let mut same_boot = false;
    for line in bytes.split(|byte| *byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(Line::Boot(of)) => same_boot = of == boot,
            Ok(_) if !same_boot => return Left::default(),
            Ok(Line::Spawned(entry)) => {
                left.running.insert(entry.id.clone(), entry);
            }
            Ok(Line::Exited(record)) => {
                left.running.remove(&record.id);
                left.exits.push(record);
            }
            Ok(Line::Forgotten(id)) => left.exits.retain(|record| record.id != id),
            // The end, or a line that a killed keeper had not finished.
            Err(_) => {}
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::messages::ExitStatus;

    fn entry(id: &str) -> Entry {
        Entry { id: id.to_owned(), pid: 7, start_time: 8, note: "n".to_owned() }
    }

    fn exit(id: &str) -> ExitRecord {
        ExitRecord { id: id.to_owned(), pid: 7, start_time: 8, status: ExitStatus::Code(1), at_ms: 9 }
    }

    fn journal(dir: &Path) -> Journal {
        let mut journal = Journal::new(dir.join("replicas"));
        journal.rewrite(Vec::new(), Vec::new());
        journal
    }

    #[test]
    fn what_runs_and_what_is_unacknowledged_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal(dir.path());
        for id in ["a", "b", "c"] {
            journal.spawned(entry(id));
        }
        journal.exited(exit("a"));
        journal.exited(exit("b"));
        journal.forgotten("a");
        let left = Journal::left(&dir.path().join("replicas"));
        assert_eq!(left.running.keys().collect::<Vec<_>>(), ["c"]);
        assert_eq!(left.exits, [exit("b")]);
    }

    #[test]
    fn a_torn_last_line_is_skipped_and_the_rest_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal(dir.path());
        journal.spawned(entry("a"));
        journal.spawned(entry("b"));
        let path = dir.path().join("replicas");
        let bytes = fs::read(&path).unwrap();
        for cut in 1..20 {
            let left = parse(&bytes[..bytes.len() - cut], &procfs::boot_id());
            assert!(left.running.contains_key("a"), "cut {cut}");
        }
    }

    #[test]
    fn another_boot_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal(dir.path());
        journal.spawned(entry("a"));
        let bytes = fs::read(dir.path().join("replicas")).unwrap();
        assert_eq!(parse(&bytes, "another"), Left::default());
        assert_eq!(parse(b"", "another"), Left::default());
    }

    #[test]
    fn a_rewritten_journal_holds_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal(dir.path());
        journal.rewrite(vec![entry("a")], vec![exit("b")]);
        journal.spawned(entry("c"));
        let left = Journal::left(&dir.path().join("replicas"));
        assert_eq!(left.running.len(), 2);
        assert_eq!(left.exits, [exit("b")]);
    }

    #[test]
    fn a_journal_that_cannot_be_written_does_not_stop_anything() {
        let mut journal = Journal::new(PathBuf::from("/nowhere/replicas"));
        journal.rewrite(Vec::new(), Vec::new());
        journal.spawned(entry("a"));
        assert!(!journal.is_long(1));
    }
}

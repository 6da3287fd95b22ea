//! The files that replicas write their output to.
//!
//! Owns: where they are (`<root>/<project>/<service>/<replica id>.log`), how large one may get, how many of dead
//! replicas are kept, and reading them. Never: stands between a replica and its file. A replica writes to a plain
//! append-only file that it inherited, so that nothing blocks or is lost while no agent lives; a replica that writes
//! faster than [`bound`] is called grows its file until the next call.
//!
//! ```text
//!  0                    start of data                          size
//!  ├──── hole (no disk) ─────┼──────── last KEEP_BYTES ─────────┤◀── the replica appends
//! ```
//!
//! [`bound`] gives the front of the file back to the filesystem as a hole and leaves the size alone, so offsets into
//! a file stay true while it lives. Where the filesystem can't, the whole file is emptied: that loses the last lines,
//! which the file then says itself. Files are 0600 and directories 0700: output holds secrets.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use bulsa_core::ids::ReplicaId;
use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

mod read;

pub use self::read::{Chunk, read_from, tail};

/// How much of one replica's output is kept, in bytes.
pub const KEEP_BYTES: u64 = 8 << 20;

/// How much more a file may hold on disk before its front is given back, in bytes: fewer, larger holes.
pub const SLACK_BYTES: u64 = 1 << 20;

/// At most this many files of dead replicas are kept for a service.
pub const OLD_FILES_MAX: usize = 10;

/// At most this much output of dead replicas is kept on disk for a service, in bytes.
pub const OLD_BYTES_MAX: u64 = 32 << 20;

/// Holes begin and end at multiples of this, in bytes: the usual block.
const BLOCK_BYTES: u64 = 4096;

/// The unit of `st_blocks`, in bytes, whatever the filesystem's own block is.
const STAT_BLOCK_BYTES: u64 = 512;

/// The logs of all replicas, under one directory.
#[derive(Clone, Debug)]
pub struct Logs {
    root: PathBuf,
}

/// What [`bound`] did to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounded {
    /// It is small enough.
    Untouched,
    /// Its first bytes are gone, up to this offset.
    Punched {
        /// Where the data begins now, in bytes from the start of the file.
        start: u64,
    },
    /// The filesystem can't make holes, so all of it is gone, and a line in it says so.
    Emptied {
        /// How many bytes were dropped.
        bytes: u64,
    },
}

impl Logs {
    /// The logs under `root` (`<state dir>/logs`); nothing is made yet.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory of a service's logs.
    ///
    /// # Errors
    /// If `project` or `service` can't be part of a path (empty, `.`, `..`, or with a slash or a NUL).
    pub fn directory(&self, project: &str, service: &str) -> io::Result<PathBuf> {
        for name in [project, service] {
            if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
                let text = format!("`{name}` can't be the name of a directory for logs");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        }
        Ok(self.root.join(project).join(service))
    }

    /// Where a replica's log is.
    ///
    /// # Errors
    /// As [`Self::directory`].
    pub fn path(&self, project: &str, replica: &ReplicaId) -> io::Result<PathBuf> {
        Ok(self.directory(project, &replica.service)?.join(format!("{replica}.log")))
    }

    /// Opens a replica's log for appending, making it and its directories. The file goes to the replica as its
    /// standard output and error.
    ///
    /// # Errors
    /// If the name can't be a path or the filesystem refuses; the error names the path.
    pub fn open(&self, project: &str, replica: &ReplicaId) -> io::Result<(PathBuf, File)> {
        let path = self.path(project, replica)?;
        let named = |e: io::Error| {
            io::Error::new(e.kind(), format!("the log {} can't be opened: {e}", path.display()))
        };
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(named)?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(named)?;
        Ok((path, file))
    }

    /// Deletes logs of dead replicas of a service, the oldest first, beyond [`OLD_FILES_MAX`] and [`OLD_BYTES_MAX`].
    /// Those of `living` replicas stay, and count for neither. Returns what was deleted.
    ///
    /// # Errors
    /// If the directory can't be read or a file can't be deleted; what was deleted before stays deleted.
    pub fn prune(
        &self,
        project: &str,
        service: &str,
        living: &BTreeSet<ReplicaId>,
    ) -> io::Result<Vec<PathBuf>> {
        let directory = self.directory(project, service)?;
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut old = Vec::new();
        for entry in entries {
            let entry = entry?;
            // Whatever isn't a replica's log was put there by somebody else, and isn't ours to delete.
            let Some(replica) = replica_of(&entry.path()) else { continue };
            if living.contains(&replica) {
                continue;
            }
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            old.push((metadata.modified()?, metadata.blocks() * STAT_BLOCK_BYTES, entry.path()));
        }
        // The newest first.
        old.sort_unstable_by(|a, b| b.cmp(a));
        let (mut files, mut bytes) = (0, 0);
        let mut deleted = Vec::new();
        for (_, size, path) in old {
            files += 1;
            bytes += size;
            if files > OLD_FILES_MAX || bytes > OLD_BYTES_MAX {
                match fs::remove_file(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => deleted.push(path),
                }
            }
        }
        Ok(deleted)
    }
}

/// The replica whose log is at `path`, if it is one.
#[must_use]
pub fn replica_of(path: &Path) -> Option<ReplicaId> {
    path.file_name()?.to_str()?.strip_suffix(".log")?.parse().ok()
}

/// Keeps only the last [`KEEP_BYTES`] of a log on disk, once it holds [`SLACK_BYTES`] more. Safe while the replica
/// writes, and to call at any rate: a file that is small enough costs one `fstat`.
///
/// `file` must have been opened for appending, as [`Logs::open`] does.
///
/// # Errors
/// If the file can't be looked at, punched or emptied.
pub fn bound(file: &File) -> io::Result<Bounded> {
    bound_to(file, KEEP_BYTES, SLACK_BYTES, punch)
}

fn bound_to(
    file: &File,
    keep: u64,
    slack: u64,
    punch: impl Fn(&File, u64) -> rustix::io::Result<()>,
) -> io::Result<Bounded> {
    let metadata = file.metadata()?;
    let on_disk = metadata.blocks() * STAT_BLOCK_BYTES;
    if on_disk <= keep + slack {
        return Ok(Bounded::Untouched);
    }
    let start = metadata.size().saturating_sub(keep) / BLOCK_BYTES * BLOCK_BYTES;
    if start == 0 {
        // The filesystem allocates more than the file holds; there is nothing to give back.
        return Ok(Bounded::Untouched);
    }
    match punch(file, start) {
        Ok(()) => Ok(Bounded::Punched { start }),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
            // Writers append, so the next one writes at the new end whatever it wrote before.
            file.set_len(0)?;
            let bytes = metadata.size();
            let note = format!(
                "[bulsa] the {bytes} bytes of output before this line were dropped: this filesystem can't free the \
                 front of a file\n"
            );
            (&*file).write_all(note.as_bytes())?;
            Ok(Bounded::Emptied { bytes })
        }
        Err(e) => Err(e.into()),
    }
}

fn punch(file: &File, until: u64) -> rustix::io::Result<()> {
    fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, until)
}

#[cfg(test)]
mod tests;

//! A lock file that names its holder.
//!
//! The lock is `flock(2)`, so it ends with its holder however that dies. The file's text is only for people
//! and for telling a live holder from one that died a moment ago: between `fork` and `exec` a child of a
//! killed holder still carries the lock. That is wanted: whoever gets the lock knows that every child of
//! the dead holder has reached its program and can be found by its environment.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

/// How long to wait for a lock whose recorded holder is dead.
pub const DEAD_HOLDER_WAIT: Duration = Duration::from_secs(2);

/// How often to try meanwhile.
const RETRY: Duration = Duration::from_millis(2);

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error("{path} is held by process {pid}")]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Its holder; 0 when the file does not say.
        pid: i32,
    },
    /// The file cannot be used.
    #[error("the lock file {path} cannot be used: {error}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A held lock; dropping it releases it.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Takes the lock. A lock whose recorded holder is dead is waited for, at most [`DEAD_HOLDER_WAIT`].
    ///
    /// # Errors
    /// [`LockError::Held`] with the holder's pid when a living process has it.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        Self::acquire_within(path, Duration::ZERO)
    }

    /// As [`FileLock::acquire`], waiting for at most `wait` for a living holder too.
    ///
    /// # Errors
    /// As [`FileLock::acquire`].
    pub fn acquire_within(path: &Path, wait: Duration) -> Result<Self, LockError> {
        let failed = |error: io::Error| LockError::Io { path: path.to_owned(), error };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let started = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
            let (pid, alive) = holder(&mut file);
            if started.elapsed() >= if alive { wait } else { wait.max(DEAD_HOLDER_WAIT) } {
                return Err(LockError::Held { path: path.to_owned(), pid });
            }
            std::thread::sleep(RETRY);
        }
        record(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// The living process that a lock file names, without touching the lock.
#[must_use]
pub fn living_holder(path: &Path) -> Option<i32> {
    let (pid, alive) = holder(&mut File::open(path).ok()?);
    alive.then_some(pid)
}

fn record(file: &mut File) -> io::Result<()> {
    let pid = rustix::process::getpid().as_raw_pid();
    let start = crate::keeper::procfs::stat(pid)?.start_time;
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{pid} {start}")
}

/// The recorded holder, and whether it still lives.
fn holder(file: &mut File) -> (i32, bool) {
    let mut text = String::new();
    // An unreadable or half-written record counts as a dead holder: the wait is bounded either way.
    let read = file.rewind().and_then(|()| file.take(64).read_to_string(&mut text));
    let mut words = text.split_whitespace();
    let pid = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let start: Option<u64> = words.next().and_then(|word| word.parse().ok());
    let alive = read.is_ok()
        && pid > 0
        && crate::keeper::procfs::stat(pid).is_ok_and(|stat| Some(stat.start_time) == start && !stat.zombie);
    (pid, alive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = FileLock::acquire(&path).unwrap();
        let error = FileLock::acquire(&path).unwrap_err();
        let own = rustix::process::getpid().as_raw_pid();
        assert!(matches!(error, LockError::Held { pid, .. } if pid == own), "{error}");
        assert_eq!(living_holder(&path), Some(own));
        drop(held);
        FileLock::acquire(&path).unwrap();
    }

    #[test]
    fn nobody_holds_a_lock_that_is_not_there_or_whose_holder_is_dead() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(living_holder(&path), None);
        std::fs::write(&path, "999999999 1\n").unwrap();
        assert_eq!(living_holder(&path), None);
    }

    #[test]
    fn a_lock_in_a_missing_directory_names_the_path() {
        let error = FileLock::acquire(Path::new("/nowhere/lock")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/lock"), "{error}");
    }

    #[test]
    fn a_lock_left_by_a_dead_holder_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        // Held, but the record names a process that never was.
        let file = File::create(&path).unwrap();
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        (&file).write_all(b"999999999 1\n").unwrap();
        let waiter = std::thread::spawn({
            let path = path.clone();
            move || FileLock::acquire(&path).is_ok()
        });
        drop(file);
        assert!(waiter.join().unwrap());
    }
}

//! The daemon's own log in its state directory, where nobody reads its standard error.
//!
//! Owns: the file's name, mode and bound. Never: decides what is written to it, or reads it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

/// The file's name in the state directory. What it held before may be beside it, with `.1` behind its name.
pub(crate) const NAME: &str = "daemon.log";
/// A longer log is moved aside before it is opened anew, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// Opens it for appending, in a state directory that is made (0700) when missing. The number is its length so far.
///
/// # Errors
/// When the directory or the file can't be made or written.
pub(crate) fn open(state_dir: &Path) -> io::Result<(File, u64)> {
    DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
    let path = state_dir.join(NAME);
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > MAX_BYTES) {
        fs::rename(&path, state_dir.join(format!("{NAME}.1")))?;
    }
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
    let length = log.metadata()?.len();
    Ok((log, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join(NAME)).unwrap().set_len(MAX_BYTES + 1).unwrap();
        let (_, length) = open(dir.path()).unwrap();
        assert_eq!(length, 0);
        assert!(dir.path().join("daemon.log.1").exists());
    }
}

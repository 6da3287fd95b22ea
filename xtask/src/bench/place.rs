//! Where a run keeps its files.
//!
//! Owns: two temporary directories, one of them in memory for what the backend serves, and copies of the programs that
//! are run from this build. Never: leaves anything there.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::measure::Error;

/// What the backend serves at `/`, in bytes.
const SMALL_BYTES: usize = 1024;
/// And at `/64k`.
const LARGE_BYTES: usize = 64 * 1024;

/// The files of a run; gone when dropped.
#[derive(Debug)]
pub(super) struct Place {
    directory: TempDir,
    memory: TempDir,
}

impl Place {
    /// Makes it, with a copy of the `bulsa` that is measured, and of this program: a build that is made meanwhile
    /// doesn't exchange them.
    pub(super) fn new(bulsa: &Path) -> Result<Self, Error> {
        let shared = Path::new("/dev/shm");
        let memory = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
        let make = |parent: &Path| tempfile::Builder::new().prefix("bulsa-bench-").tempdir_in(parent);
        let place = Self { directory: make(&std::env::temp_dir())?, memory: make(&memory)? };
        // nginx' workers and Bulsa's proxy have few rights.
        for directory in [&place.directory, &place.memory] {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        }
        fs::copy(bulsa, place.bulsa())?;
        fs::copy("/proc/self/exe", place.xtask())?;
        fs::write(place.served().join("64k"), text(LARGE_BYTES))?;
        Ok(place)
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn bulsa(&self) -> PathBuf {
        self.path().join("bulsa")
    }

    pub(super) fn xtask(&self) -> PathBuf {
        self.path().join("xtask")
    }

    /// The directory that the backend serves files from.
    pub(super) fn served(&self) -> &Path {
        self.memory.path()
    }

    /// A new directory for one program.
    pub(super) fn directory_for(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path().join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

/// What the backend answers at `/`.
pub(super) fn small() -> String {
    text(SMALL_BYTES)
}

/// Letters that don't repeat at once, so that an answer that was mixed up is seen.
fn text(bytes: usize) -> String {
    (0..bytes).map(|n| char::from(b'a' + (n % 23 + n / 1024) as u8 % 26)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_has_its_size_and_no_letter_that_a_configuration_would_read() {
        assert_eq!((small().len(), text(LARGE_BYTES).len()), (SMALL_BYTES, LARGE_BYTES));
        assert!(small().chars().all(|letter| letter.is_ascii_lowercase()));
    }
}

//! The file of the proxies' access log, and the older ones beside it.
//!
//! Owns: where it is (`<root>/access.log`), that it is ours alone to read (0600), and when the next one is begun. Never:
//! writes a line: the proxies have the file open for appending, the older generations too, until they are given another.
//!
//! A file that somebody moved away or removed is begun anew at the next look, so that `logrotate` needs no signal.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// A file that is longer than this is put aside, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// What one proxy writes at most to one file, in bytes: it has its next one long before, unless no agent lives.
pub const PROXY_BYTES_MAX: u64 = 2 * FILE_BYTES_MAX;
/// So many older files are kept, `access.log.1` the youngest.
const OLD_FILES_MAX: u32 = 2;

/// The files.
#[derive(Clone, Debug)]
pub struct AccessLogFiles {
    path: PathBuf,
    bytes_max: u64,
}

impl AccessLogFiles {
    /// The files in the directory of logs; nothing is made yet.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { path: root.join("access.log"), bytes_max: FILE_BYTES_MAX }
    }

    /// Looks after the file that is `open`. Returns the one that is to be written to, where it is another: the first, or
    /// the next because this one is too long or was moved away.
    ///
    /// # Errors
    /// What the filesystem refused, with the path. The open file can be written to all the same.
    pub fn tend(&self, open: Option<&File>) -> io::Result<Option<File>> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("{} can't be kept: {error}", self.path.display()))
        };
        self.look(open).map_err(named)
    }

    fn look(&self, open: Option<&File>) -> io::Result<Option<File>> {
        let there = match fs::metadata(&self.path) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let open = open.map(File::metadata).transpose()?;
        if there.as_ref().is_some_and(|there| self.bytes_max < there.size()) {
            self.put_aside()?;
        } else if let (Some(there), Some(open)) = (&there, &open)
            && (there.dev(), there.ino()) == (open.dev(), open.ino())
        {
            return Ok(None);
        }
        if let Some(directory) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path).map(Some)
    }

    /// Moves the file to `access.log.1`, that one to `.2`, and so on; the oldest goes.
    fn put_aside(&self) -> io::Result<()> {
        for number in (1..OLD_FILES_MAX).rev() {
            match fs::rename(self.old(number), self.old(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.old(1))
    }

    fn old(&self, number: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn world() -> (tempfile::TempDir, AccessLogFiles) {
        let dir = tempfile::tempdir().unwrap();
        let files = AccessLogFiles { bytes_max: 10, ..AccessLogFiles::new(&dir.path().join("logs")) };
        (dir, files)
    }

    /// What is in the files, the newest first.
    fn texts(files: &AccessLogFiles) -> Vec<String> {
        let all = [files.path.clone(), files.old(1), files.old(2), files.old(3)];
        all.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
    }

    #[test]
    fn a_long_file_is_put_aside_and_only_two_old_ones_are_kept() {
        let (_dir, files) = world();
        let mut open = files.tend(None).unwrap().unwrap();
        for round in 1..=4 {
            write!(open, "round {round}").unwrap();
            assert!(files.tend(Some(&open)).unwrap().is_none(), "not too long yet");
            writeln!(open, " is over").unwrap();
            let next = files.tend(Some(&open)).unwrap().expect("the next one");
            // Who has the older one still writes to it.
            write!(open, "late").unwrap();
            open = next;
        }
        assert_eq!(texts(&files), ["", "round 4 is over\nlate", "round 3 is over\nlate"]);
    }

    #[test]
    fn a_new_agent_goes_on_with_the_file_and_one_that_was_moved_away_is_begun_anew() {
        let (dir, files) = world();
        let mut open = files.tend(None).unwrap().unwrap();
        write!(open, "one").unwrap();
        let mut again = files.tend(None).unwrap().unwrap();
        write!(again, " two").unwrap();
        assert_eq!(texts(&files), ["one two"]);
        fs::rename(&files.path, dir.path().join("moved")).unwrap();
        let mut open = files.tend(Some(&again)).unwrap().expect("another file");
        write!(open, "three").unwrap();
        assert_eq!(texts(&files), ["three"]);
        assert!(files.tend(Some(&open)).unwrap().is_none());
    }

    #[test]
    fn only_its_owner_may_read_it() {
        let (dir, files) = world();
        let open = files.tend(None).unwrap().unwrap();
        assert_eq!(open.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(dir.path().join("logs")).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_the_filesystem_refuses_is_said_with_the_path() {
        let (dir, files) = world();
        fs::write(dir.path().join("logs"), "no directory").unwrap();
        let error = files.tend(None).unwrap_err().to_string();
        assert!(error.contains("logs/access.log can't be kept"), "{error}");
    }
}

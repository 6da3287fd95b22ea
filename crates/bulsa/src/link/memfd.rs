//! Sealed memfds: immutable bytes behind a file descriptor.
//!
//! The writer fills a memfd and seals it against every further change, its seals included; the reader checks
//! the seals and the size before it reads, so that nobody can change bytes that were already checked.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create};

/// The largest spawn spec, in bytes: arguments and environment may be long.
pub const MAX_SPEC_BYTES: u64 = 4 * 1024 * 1024;

/// The largest route table, in bytes.
pub const MAX_TABLE_BYTES: u64 = 16 * 1024 * 1024;

/// The largest report of a proxy, in bytes.
pub const MAX_REPORT_BYTES: u64 = 16 * 1024 * 1024;

/// Why a memfd is refused.
#[derive(Debug, thiserror::Error)]
pub enum MemfdError {
    /// It could still be changed while it is read.
    #[error("a memfd is not sealed")]
    NotSealed,
    /// It is over the limit for its kind.
    #[error("a memfd holds {bytes} bytes; the limit is {limit}")]
    TooLarge {
        /// Its size, in bytes.
        bytes: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The kernel refused.
    #[error("a memfd failed: {0}")]
    Io(#[from] io::Error),
}

const SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// Makes a sealed memfd of `bytes`. The name shows up in `/proc/PID/fd` only.
///
/// # Errors
/// When memory or descriptors ran out.
pub fn sealed(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // A kernel before 6.3 does not know the flag that forbids running the memfd as a program.
    let fd = memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL).or_else(|_| memfd_create(name, flags))?;
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        written += rustix::io::retry_on_intr(|| rustix::io::pwrite(&fd, rest, written as u64))?;
    }
    fcntl_add_seals(&fd, SEALS)?;
    Ok(fd)
}

/// Reads a sealed memfd of at most `limit` bytes.
///
/// # Errors
/// When it is not sealed, too large, or not a memfd at all.
pub fn read(fd: impl AsFd, limit: u64) -> Result<Vec<u8>, MemfdError> {
    let fd = fd.as_fd();
    let seals = fcntl_get_seals(fd).map_err(|_| MemfdError::NotSealed)?;
    if !seals.contains(SEALS) {
        return Err(MemfdError::NotSealed);
    }
    let size = fstat(fd).map_err(io::Error::from)?.st_size;
    let bytes = u64::try_from(size).unwrap_or(u64::MAX);
    if bytes > limit {
        return Err(MemfdError::TooLarge { bytes, limit });
    }
    let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let count = rustix::io::retry_on_intr(|| rustix::io::pread(fd, &mut *rest, filled as u64))
            .map_err(io::Error::from)?;
        if count == 0 {
            return Err(MemfdError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        filled += count;
    }
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back() {
        let fd = sealed("test", b"hello").unwrap();
        assert_eq!(read(&fd, 5).unwrap(), b"hello");
        assert_eq!(read(&fd, 5).unwrap(), b"hello", "reading moves no position");
    }

    #[test]
    fn a_sealed_memfd_cannot_be_changed() {
        let fd = sealed("test", b"hello").unwrap();
        assert!(rustix::io::pwrite(&fd, b"x", 0).is_err());
        assert!(rustix::fs::ftruncate(&fd, 0).is_err());
    }

    #[test]
    fn an_unsealed_memfd_or_a_plain_file_is_refused() {
        let open = memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
        assert!(matches!(read(&open, 10), Err(MemfdError::NotSealed)));
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        assert!(matches!(read(&file, 10), Err(MemfdError::NotSealed)));
    }

    #[test]
    fn more_bytes_than_the_limit_are_refused() {
        let fd = sealed("test", b"hello").unwrap();
        assert!(matches!(read(&fd, 4), Err(MemfdError::TooLarge { bytes: 5, limit: 4 })));
    }
}

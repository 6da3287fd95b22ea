//! Files as a tar that is sent while it is written.
//!
//! Owns: what of a file is in its header, and the pieces on their way. Never: follows a symlink, keeps who owns a file on
//! this host, or holds more than a few pieces in memory.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use bulsa_core::wire::api::SyncOwner;
use bytes::Bytes;
use tokio::sync::mpsc;

/// A piece of the tar has about so many bytes.
pub(super) const PIECE: usize = 64 << 10;
/// So many pieces wait to be sent.
pub(super) const PIECES_WAITING: usize = 8;

/// Cuts what is written into pieces.
pub(super) struct Pieces<'a> {
    to: &'a mpsc::Sender<io::Result<Bytes>>,
    waiting: Vec<u8>,
}

impl<'a> Pieces<'a> {
    /// A write fails as a broken pipe once nobody takes them any more.
    pub(super) fn new(to: &'a mpsc::Sender<io::Result<Bytes>>) -> Self {
        Self { to, waiting: Vec::with_capacity(PIECE) }
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::replace(&mut self.waiting, Vec::with_capacity(PIECE)));
        if piece.is_empty() {
            return Ok(());
        }
        self.to.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Mode and time are kept.
pub(super) fn header(
    mode: u32,
    modified: i64,
    size: u64,
    kind: tar::EntryType,
    owner: SyncOwner,
) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode & 0o7777);
    header.set_mtime(u64::try_from(modified).unwrap_or(0));
    header.set_uid(owner.uid);
    header.set_gid(owner.gid);
    header.set_size(size);
    header
}

/// Adds what is at `path` now: a file, a symlink or a directory without what is in it.
pub(super) fn append(
    archive: &mut tar::Builder<Pieces<'_>>,
    path: &Path,
    place: &Path,
    owner: SyncOwner,
) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let kind = metadata.file_type();
    let of = |size, kind| header(metadata.permissions().mode(), metadata.mtime(), size, kind, owner);
    if kind.is_symlink() {
        let target = fs::read_link(path)?;
        archive.append_link(&mut of(0, tar::EntryType::Symlink), place, target)
    } else if kind.is_dir() {
        archive.append_data(&mut of(0, tar::EntryType::Directory), place, io::empty())
    } else if kind.is_file() {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        // A file that grows or shrinks while it is read must not break the tar.
        let whole = Whole { rest: size, file: file.take(size) };
        archive.append_data(&mut of(size, tar::EntryType::Regular), place, whole)
    } else {
        // Sockets, pipes and devices are nothing to copy.
        Ok(())
    }
}

/// A file of exactly so many bytes, or an error.
struct Whole {
    rest: u64,
    file: io::Take<File>,
}

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        if read == 0 && self.rest > 0 && !buffer.is_empty() {
            return Err(io::Error::other("it became shorter while it was read; try again"));
        }
        self.rest = self.rest.saturating_sub(read as u64);
        Ok(read)
    }
}

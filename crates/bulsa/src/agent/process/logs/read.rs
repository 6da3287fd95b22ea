//! Reading a log that has a hole at its front and grows at its end.
//!
//! Owns: the last lines of a log ([`tail`]) and following it ([`read_from`]), both bounded. Never: waits for output.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};

/// [`tail`] looks at no more than this much of the end of a file, in bytes.
const TAIL_BYTES_MAX: u64 = 1 << 20;

/// [`read_from`] reads at most this much at once, in bytes.
const CHUNK_BYTES_MAX: usize = 256 << 10;

/// How much [`tail`] reads at first, in bytes; then twice as much, and so on.
const FIRST_BYTES: u64 = 16 << 10;

/// A piece of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// What was read; empty at the end of the file. It may end within a line.
    pub bytes: Vec<u8>,
    /// Where to read next.
    pub next: u64,
    /// How many bytes that were asked for are gone: the front was freed, or the file was emptied.
    pub dropped: u64,
}

/// The last `lines` lines of the log, oldest first, or as many as its last MiB holds. A line without an
/// end counts. What isn't UTF-8 is replaced.
///
/// # Errors
/// If the file can't be opened or read.
pub fn tail(path: &Path, lines: usize) -> io::Result<Vec<String>> {
    let file = File::open(path)?;
    let size = file.metadata()?.size();
    let start = data_start(&file, size)?.max(size.saturating_sub(TAIL_BYTES_MAX));
    let mut want = FIRST_BYTES;
    loop {
        let from = size.saturating_sub(want).max(start);
        let bytes = read_between(&file, from, size)?;
        if from == start || ends(&bytes) > lines {
            return Ok(last_lines(&bytes, lines, from > 0));
        }
        want = want.saturating_mul(2);
    }
}

/// The log from `offset` on, at most `max` bytes (and never more than a fixed bound).
///
/// # Errors
/// If the file can't be opened or read.
pub fn read_from(path: &Path, offset: u64, max: usize) -> io::Result<Chunk> {
    let file = File::open(path)?;
    let size = file.metadata()?.size();
    // Behind the end: it was emptied since, and starts again at 0.
    let (asked, emptied) = if offset > size { (0, offset) } else { (offset, 0) };
    let from = data_start(&file, size)?.max(asked);
    let until = size.min(from.saturating_add(max.min(CHUNK_BYTES_MAX) as u64));
    let mut bytes = read_between(&file, from, until)?;
    let next = from + bytes.len() as u64;
    if from > asked {
        // A block that lies half in the hole begins with zeros.
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        bytes.drain(..zeros);
    }
    Ok(Chunk { bytes, next, dropped: emptied + (from - asked) })
}

/// Where the hole at the front ends: the size of the file if there is nothing but the hole.
fn data_start(file: &File, size: u64) -> io::Result<u64> {
    match seek(file, SeekFrom::Data(0)) {
        Ok(start) => Ok(start.min(size)),
        Err(Errno::NXIO) => Ok(size),
        // A filesystem that knows no holes has none.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(0),
        Err(e) => Err(e.into()),
    }
}

fn read_between(file: &File, from: u64, until: u64) -> io::Result<Vec<u8>> {
    let wanted = usize::try_from(until.saturating_sub(from)).unwrap_or(0);
    let mut bytes = vec![0; wanted];
    let mut read = 0;
    while read < wanted {
        match file.read_at(&mut bytes[read..], from + read as u64) {
            // Emptied while we read.
            Ok(0) => break,
            Ok(more) => read += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

fn ends(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}

/// The last `lines` lines of `bytes`, whose first line is left out if it is `cut`.
fn last_lines(bytes: &[u8], lines: usize, cut: bool) -> Vec<String> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    let skip = usize::from(cut);
    let found: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').skip(skip).collect();
    let from = found.len().saturating_sub(lines);
    let text = |line: &&[u8]| String::from_utf8_lossy(line).trim_end_matches('\r').to_owned();
    found[from..].iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_lines_are_taken_whole() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2, false), ["b", "c"]);
        assert_eq!(last_lines(b"a\nb\r\nc", 9, false), ["a", "b", "c"]);
        assert_eq!(last_lines(b"half\nb\nc\n", 9, true), ["b", "c"]);
        assert_eq!(last_lines(b"a\n\n", 2, false), ["a", ""]);
        assert_eq!(last_lines(b"", 2, false), [""; 0]);
        assert_eq!(last_lines(b"a\n", 0, false), [""; 0]);
        assert_eq!(last_lines(b"\xff\n", 1, false), ["\u{fffd}"]);
    }

    proptest! {
        #[test]
        fn the_last_lines_agree_with_a_simple_model(lines in proptest::collection::vec("[a-z]{0,4}", 1..20), n in 0..9_usize) {
            let text = lines.join("\n") + "\n";
            let expected = &lines[lines.len().saturating_sub(n)..];
            // One empty line is nothing at all: a file with only a line end has no last line worth showing.
            if text != "\n" {
                assert_eq!(last_lines(text.as_bytes(), n, false), expected);
            }
        }
    }
}

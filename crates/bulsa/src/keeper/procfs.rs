//! Reading `/proc`: who is who, and whether it still is.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The longest environment that is looked at, in bytes.
const MAX_ENVIRON_BYTES: u64 = 8 * 1024 * 1024;

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Dead, and not yet reaped.
    pub(crate) zombie: bool,
    /// Its parent.
    pub(crate) ppid: i32,
    /// Its process group.
    pub(crate) pgrp: i32,
    /// When the kernel started it, in clock ticks since boot: with the pid, its identity.
    pub(crate) start_time: u64,
    /// Its environment is not there: it is inside `execve`, or is none of the processes that we may look at.
    /// Never said of kernel threads.
    pub(crate) hides_environ: bool,
}

/// Reads `/proc/PID/stat`.
pub(crate) fn stat(pid: i32) -> io::Result<Stat> {
    let text = std::fs::read(format!("/proc/{pid}/stat"))?;
    parse_stat(&String::from_utf8_lossy(&text)).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is not understood"))
    })
}

/// The second field is the program's name, which may hold spaces and parentheses.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut words = rest.split_whitespace();
    let state = words.next()?;
    let ppid = words.next()?.parse().ok()?;
    let pgrp = words.next()?.parse().ok()?;
    let start_time = words.nth(16)?.parse().ok()?;
    let memory: u64 = words.next()?.parse().ok()?;
    let environ_end: u64 = words.nth(27)?.parse().ok()?;
    let zombie = matches!(state, "Z" | "X" | "x");
    let hides_environ = memory > 0 && environ_end == 0 && !zombie;
    Some(Stat { zombie, ppid, pgrp, start_time, hides_environ })
}

/// The environment that a process was started with, as far as it did not overwrite it; empty for zombies.
pub(crate) fn environ(pid: i32) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(format!("/proc/{pid}/environ"))?.take(MAX_ENVIRON_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The value of a variable in an environment block.
pub(crate) fn variable<'a>(environ: &'a [u8], name: &str) -> Option<&'a str> {
    environ.split(|byte| *byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        std::str::from_utf8(value).ok()
    })
}

/// Whether a process runs as our own user, so that we may look at its environment; root may look at all.
pub(crate) fn is_open_to_us(pid: i32) -> bool {
    let own = rustix::process::geteuid();
    own.is_root() || std::fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() == own.as_raw())
}

/// All processes.
pub(crate) fn pids() -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// The children of this process, which must have one thread only, zombies included.
pub(crate) fn children() -> io::Result<Vec<i32>> {
    let own = rustix::process::getpid().as_raw_pid();
    match std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")) {
        Ok(text) => Ok(text.split_whitespace().filter_map(|word| word.parse().ok()).collect()),
        // A kernel built without that file: look at everybody.
        Err(_) => {
            Ok(pids()?.into_iter().filter(|pid| stat(*pid).is_ok_and(|stat| stat.ppid == own)).collect())
        }
    }
}

/// Identifies the current boot; pids and start times mean nothing in another.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The ids of a user in `/etc/passwd`.
pub(crate) fn passwd_ids(passwd: &Path, user: &str) -> Option<(u32, u32)> {
    let text = std::fs::read_to_string(passwd).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(user) {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some((uid, gid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_parentheses_and_spaces_does_not_confuse() {
        let tail = |environ_end: u64| {
            let start = "S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1000 1 18446744073709551615";
            format!(
                "42 (a) R 1 (b c)) {start} 1 1 1 1 1 0 0 0 0 0 0 0 17 1 0 0 0 0 0 1 1 1 1 1 1 {environ_end} 0"
            )
        };
        let stat = Stat { zombie: false, ppid: 7, pgrp: 42, start_time: 98765, hides_environ: false };
        assert_eq!(parse_stat(&tail(9)), Some(stat));
        assert_eq!(parse_stat(&tail(0)), Some(Stat { hides_environ: true, ..stat }));
        assert_eq!(parse_stat("42 (a"), None);
        assert_eq!(parse_stat("42 (a) S 1"), None);
    }

    #[test]
    fn the_own_process_is_found() {
        let own = rustix::process::getpid().as_raw_pid();
        let own_stat = stat(own).unwrap();
        assert!(own_stat.start_time > 0 && !own_stat.hides_environ && !own_stat.zombie);
        assert!(pids().unwrap().contains(&own));
        assert!(stat(i32::MAX).is_err());
    }

    #[test]
    fn a_variable_is_matched_whole() {
        let block = b"AB=1\0A=2\0C=3=4\0";
        assert_eq!(variable(block, "A"), Some("2"));
        assert_eq!(variable(block, "C"), Some("3=4"));
        assert_eq!(variable(block, "B"), None);
    }

    #[test]
    fn a_user_is_looked_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwd");
        std::fs::write(&path, "root:x:0:0::/:/bin/sh\nbulsa:x:812:813::/:/bin/false\n").unwrap();
        assert_eq!(passwd_ids(&path, "bulsa"), Some((812, 813)));
        assert_eq!(passwd_ids(&path, "bul"), None);
    }
}

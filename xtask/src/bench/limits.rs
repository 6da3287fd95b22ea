//! How many files may be open: each connection is two of them in a proxy.
//!
//! Owns: raising the limit of this process, which the programs inherit that it starts. Never: lowers one.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Enough for all connections of a series, on both sides of a proxy with one process.
const FILES_WANTED: u64 = 65_536;
/// What a program needs beside its connections.
const FILES_BESIDE: u64 = 500;

/// Raises the limit as far as it is needed or allowed; what it is then.
pub(super) fn raise_files() -> u64 {
    let now = getrlimit(Resource::Nofile);
    let most = fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    let wanted = FILES_WANTED.min(most.unwrap_or(FILES_WANTED));
    let hard = now.maximum.map_or(wanted, |hard| hard.max(wanted));
    // Only root may go beyond the hard limit.
    for limit in [hard, now.maximum.unwrap_or(hard)] {
        if setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) }).is_ok() {
            return limit;
        }
    }
    now.current.unwrap_or(wanted)
}

/// How many connections a proxy of one process can carry with that many files.
pub(super) fn connections(files: u64) -> u64 {
    files.saturating_sub(FILES_BESIDE) / 2
}

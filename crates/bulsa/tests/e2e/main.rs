//! Everything, end to end: the real program, real processes, real signals, real sockets, under load.
//!
//! Each test has a state directory, ports and a daemon of its own, and looks at it by no way that a user doesn't have:
//! the command line, the local API and the kernel. Load comes from [`bulsa::load`], which counts every failure. What a
//! test started is ended with it, also when it fails.
//!
//! Nothing sleeps in the hope that something has happened by then: a test waits for an event or a snapshot, with a
//! limit that only a broken daemon reaches.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test may fail by panicking, helpers included, and says why it skips something"
)]

mod access_log;
mod agent_kills;
mod bad_input;
mod bad_releases;
mod commands;
mod drills;
mod faults;
mod follow;
mod healing;
mod holds;
mod hooks;
mod injuries;
mod jobs;
mod keeper_kills;
mod limits;
mod notify;
mod ports;
mod proxy_kills;
mod restarts;
mod since;
mod starved;
mod traffic;
mod trio;
mod two_deploys;
mod watch;
mod whys;
mod workers;
mod world;

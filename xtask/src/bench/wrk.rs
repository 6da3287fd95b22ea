//! `wrk`: as many requests as go over a fixed number of connections.
//!
//! Owns: its command line, and reading what it prints. Never: takes a number from it that it doesn't print whole.

use std::{io::Read as _, net::SocketAddr, process::Stdio, time::Duration};

use rustix::process::Signal;

use super::{group::Group, programs::Program, stop::Stop};
use crate::measure::Error;

/// Connections that are kept busy.
pub(super) const CONNECTIONS: usize = 64;
/// Threads of the client.
const THREADS: usize = 2;
/// How much longer it may take than it was told.
const EXTRA: Duration = Duration::from_secs(10);

/// What became of a load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Counted {
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) per_second: f64,
}

/// Keeps the connections busy for a time.
pub(super) fn run(
    wrk: &Program,
    target: SocketAddr,
    path: &str,
    close: bool,
    time: Duration,
    stop: &Stop,
) -> Result<Counted, Error> {
    let mut command = wrk.command();
    command.args(["--threads", &THREADS.to_string(), "--connections", &CONNECTIONS.to_string()]);
    // It knows whole seconds only: it is told to end before that.
    command.args(["--duration", &format!("{}s", (time + EXTRA).as_secs()), "--timeout", "5s"]);
    if close {
        command.args(["--header", "Connection: close"]);
    }
    command.arg(format!("http://{target}{path}")).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut group = Group::start(&mut command)?;
    stop.pause(time)?;
    group.signal(Signal::INT);
    let status = group.wait(EXTRA, stop)?;
    let mut text = String::new();
    // It has ended, and what it says fits into a pipe.
    if let Some(out) = &mut group.child().stdout {
        out.read_to_string(&mut text)?;
    }
    match status.success() {
        true => counted(&text).ok_or_else(|| format!("wrk says something unknown:\n{text}").into()),
        false => Err(format!("wrk failed ({status}):\n{text}").into()),
    }
}

/// Reads what wrk prints in the end.
fn counted(text: &str) -> Option<Counted> {
    let line = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name));
    let total = text.lines().find(|line| line.contains(" requests in "))?;
    let per_second = line("Requests/sec:")?.trim().parse().ok()?;
    let bad_statuses = match line("Non-2xx or 3xx responses:") {
        Some(count) => count.trim().parse().ok()?,
        None => 0,
    };
    let errors = match line("Socket errors:") {
        Some(kinds) => sum_of(kinds)?,
        None => 0,
    };
    let requests = total.split_whitespace().next()?.parse().ok()?;
    Some(Counted { requests, failed: bad_statuses + errors, per_second })
}

/// `connect 0, read 1, write 0, timeout 2` is 3.
fn sum_of(kinds: &str) -> Option<u64> {
    kinds.split(',').map(|kind| kind.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
Running 13s test @ http://127.0.0.1:18080/
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.08ms    1.22ms  21.31ms   89.56%
    Req/Sec    38.85k     4.23k   45.58k    67.50%
  154643 requests in 2.00s, 170.93MB read
Requests/sec:  77170.15
Transfer/sec:     85.30MB
";

    #[test]
    fn requests_and_rate_are_read() {
        let read = counted(GOOD).unwrap();
        assert_eq!(read, Counted { requests: 154_643, failed: 0, per_second: 77_170.15 });
        assert_eq!(counted("unable to connect to 127.0.0.1:1 Connection refused\n"), None);
    }

    #[test]
    fn whatever_failed_is_counted() {
        let bad = GOOD.replace(
            "Requests/sec:",
            "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 100\nRequests/sec:",
        );
        assert_eq!(counted(&bad).unwrap().failed, 110);
        assert_eq!(counted(&bad.replace("read 2", "read")), None);
    }
}

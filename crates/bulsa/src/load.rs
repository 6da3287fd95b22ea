//! An open-loop load generator: what the demo, the end-to-end tests and the long runs measure with.
//!
//! Owns: clients that behave as strangers would, and an exact account of what each of them got.
//! Never: talks to anything but loopback or a named service of a private network, sends a request twice, forgets a
//! failure, or knows what it is aimed at.
//!
//! *Open loop*: request `n` is due at `start + n / rate`, whatever became of the ones before it. Latency counts from
//! that moment and not from when it was sent, so a server (or this client) that stalls is charged for everybody who
//! had to wait (no coordinated omission).
//!
//! *Connections*: a share of the requests opens a connection of its own, the rest takes one from a pool of idle
//! keep-alive connections, oldest first. Right before the first byte of a request is written the connection is looked
//! at: where the server has closed it meanwhile, nothing is written and the request goes to another connection. That is
//! no re-send, since nothing was sent; it is counted as [`Report::unsent`]. From the first byte on the connection is
//! in use, and whatever happens to it then is a failure.
//!
//! *Windows*: each request belongs to the moment at which its answer was complete or its failure was known. Windows
//! that follow one another without a hole count every request exactly once.
//!
//! It runs in a thread with a runtime of its own; the caller holds a [`LoadHandle`].

mod client;
mod config;
mod pace;
mod record;
mod sockets;
mod tap;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use config::{Config, LoadError, Method, Shot, Sockets};
pub use record::{Connection, Failure, Kind, Mark, Report, SocketDrop, SocketReport};

pub(crate) use record::milliseconds;

use record::Log;

/// The field of an answer that names the release which gave it.
pub const RELEASE_FIELD: &str = "x-release";
/// Requests that one load may send in all: its memory is bounded by that, about 40 bytes each.
pub const REQUESTS_MAX: u64 = 2_000_000;
/// The longest that a load may run.
pub const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// Starts loads.
#[derive(Clone, Copy, Debug)]
pub struct Load;

impl Load {
    /// Starts the load in a thread of its own; the first request is due at once.
    ///
    /// # Errors
    /// Where the configuration is beyond a limit or names a target that isn't on loopback, or no thread can be had.
    pub fn start(config: Config) -> Result<LoadHandle, LoadError> {
        config.check()?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(LoadError::Start)?;
        let (connected, connected_seen) = watch::channel(0);
        let shared = Arc::new(Shared {
            config,
            log: Mutex::new(Log::default()),
            started: Instant::now(),
            connected,
            stop: CancellationToken::new(),
        });
        let (done, done_seen) = oneshot::channel();
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || {
                runtime.block_on(pace::run(&theirs));
                runtime.shutdown_background();
                // Nobody waits where the handle was dropped.
                done.send(()).ok();
            })
            .map_err(LoadError::Start)?;
        Ok(LoadHandle { shared, connected: connected_seen, done: done_seen })
    }
}

/// A running load. Dropping it ends the load.
#[derive(Debug)]
pub struct LoadHandle {
    shared: Arc<Shared>,
    connected: watch::Receiver<usize>,
    done: oneshot::Receiver<()>,
}

impl LoadHandle {
    /// Now, in the load's time.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.shared.mark()
    }

    /// `instant` in the load's time; its start where it was earlier.
    #[must_use]
    pub fn at(&self, instant: Instant) -> Mark {
        Mark(instant.saturating_duration_since(self.shared.started))
    }

    /// What ended after `from` and not after `to`.
    #[must_use]
    pub fn window(&self, from: Mark, to: Mark) -> Report {
        self.shared.log().report(from, to)
    }

    /// Waits until `count` WebSockets are connected at once; false where that takes longer than `limit`.
    pub async fn connected(&mut self, count: usize, limit: Duration) -> bool {
        let enough = self.connected.wait_for(|connected| *connected >= count);
        matches!(tokio::time::timeout(limit, enough).await, Ok(Ok(_)))
    }

    /// Sends nothing new, waits for what is under way (at most the request timeout), and reports on everything.
    pub async fn stop(self) -> Report {
        self.shared.stop.cancel();
        self.finish().await
    }

    /// The same, with a report on the requests whose paths are apart, and one on all others.
    pub async fn stop_apart(mut self, is_apart: impl Fn(&str) -> bool) -> (Report, Report) {
        self.shared.stop.cancel();
        let end = self.ended().await;
        let log = self.shared.log();
        let of = |apart: bool| log.report_of(Mark::START, end, |path| is_apart(path) == apart);
        (of(true), of(false))
    }

    /// Waits until the load ends by its own limits, and reports on everything.
    pub async fn finish(mut self) -> Report {
        let end = self.ended().await;
        self.shared.log().report(Mark::START, end)
    }

    async fn ended(&mut self) -> Mark {
        // An error says that the load's thread is gone, and then it sends nothing either.
        drop((&mut self.done).await);
        self.mark()
    }
}

impl Drop for LoadHandle {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

/// What the load's tasks and its handle share.
#[derive(Debug)]
struct Shared {
    config: Config,
    log: Mutex<Log>,
    started: Instant,
    /// How many WebSockets are connected now.
    connected: watch::Sender<usize>,
    stop: CancellationToken,
}

impl Shared {
    fn mark(&self) -> Mark {
        Mark(self.started.elapsed())
    }

    /// The log stays whole whatever panics elsewhere: each entry is one push.
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Spreads `seed` over 64 bits (splitmix64): the same load takes the same decisions each time.
fn scatter(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Whether an I/O error says that nobody listens.
fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

#[cfg(test)]
mod tests;

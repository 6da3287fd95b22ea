//! The faults of the home-made set-ups, through Bulsa: the same injuries, under the same kind of load.
//!
//! The app is Node with Express and `ws`, as two replicas. A tenth of the requests takes seconds, a fifth are POSTs, each
//! comes on a connection of its own. What the home-made set-ups did in their place is in `docs/home-made.md`, beside the
//! figures that these tests print. `BULSA_LONG=1` asks for the full times and counts.

mod app;
mod clients;
mod deaths;
mod deploys;
mod hangs;
mod ledger;
mod nginx;
mod sockets;
mod webs;

use std::time::Duration;

pub(crate) use self::app::children;

/// Whether the long forms are asked for.
fn is_long() -> bool {
    std::env::var_os("BULSA_LONG").is_some_and(|value| value == "1")
}

/// A number or a time, in the short form and in the long one.
fn long_or<T>(short: T, long: T) -> T {
    if is_long() { long } else { short }
}

/// How long a slow request takes: in the set-ups it was three seconds.
fn slow() -> Duration {
    Duration::from_secs(long_or(1, 3))
}

/// Seconds, for a line of figures.
fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

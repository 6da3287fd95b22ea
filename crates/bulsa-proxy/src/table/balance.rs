//! How a service's requests are spread, as it is written in a table.

use serde::{Deserialize, Serialize};

/// The largest weight of a target.
pub const WEIGHT_MAX: u32 = 1000;
/// The longest slow start that a table may ask for, in milliseconds (an hour).
pub const SLOW_START_MS_MAX: u64 = 3_600_000;

pub(super) fn weight_default() -> u32 {
    1
}

/// Which target gets a request, and when one is taken for bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Balance {
    /// Which of the ready targets gets a request.
    pub policy: Policy,
    /// Failures within [`Self::fail_timeout_ms`] after which a target gets nothing for as long. One death is one failure,
    /// however many requests it took down. 0 counts none. A target that refuses a connection gets nothing at once,
    /// whatever is said here.
    pub max_fails: u32,
    /// The window for failures and the first time out, in milliseconds; later ones in a row are longer.
    pub fail_timeout_ms: u64,
    /// How long a fresh target's share grows to its full weight, in milliseconds. 0: at once.
    pub slow_start_ms: u64,
    /// Connections to one target at most: requests in flight and tunnels. 0 is no limit.
    pub max_connections: u32,
    /// Requests in flight on one target at most. 0 is no limit.
    pub max_in_flight: u32,
}

impl Default for Balance {
    fn default() -> Self {
        Self {
            policy: Policy::RoundRobin,
            max_fails: 3,
            fail_timeout_ms: 10_000,
            slow_start_ms: 0,
            max_connections: 0,
            max_in_flight: 0,
        }
    }
}

/// Which of the ready targets gets a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Each in turn, by weight, evenly mixed.
    #[default]
    RoundRobin,
    /// The one with the fewest requests and tunnels for its weight.
    LeastConn,
    /// The better of two drawn at random, by requests in flight and how fast it has been answering.
    TwoChoices,
    /// Always the same one for a client's address, as long as it is ready.
    IpHash,
    /// The one that a signed cookie names; where there is none, the next in turn, which the answer's cookie names.
    Sticky,
}

//! The limits on clients that nobody sets but tests.

use std::time::Duration;

use crate::accept::CONNECTIONS_MAX;
use crate::outlet::STALL_TIME_MAX;
use crate::server::HEAD_TIME_MAX;

/// How long a balancer may take to say whose connection it passes on.
const PROXY_HEADER_TIME_MAX: Duration = Duration::from_secs(3);

/// How much a worker takes from its clients.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Client connections of one worker, at most.
    pub connections: usize,
    /// How long a client may take to send a request's head, from its first byte on or the connection's begin.
    pub head_time: Duration,
    /// How long a client may take no byte of an answer that waits for it.
    pub stall_time: Duration,
    /// How long a balancer may take to send its PROXY header.
    pub proxy_header_time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS_MAX,
            head_time: HEAD_TIME_MAX,
            stall_time: STALL_TIME_MAX,
            proxy_header_time: PROXY_HEADER_TIME_MAX,
        }
    }
}

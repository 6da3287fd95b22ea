//! The proxy over real loopback sockets.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may fail by panicking, helpers included"
)]

mod access_log;
mod balance;
mod drain;
mod forwarding;
mod health;
mod hold;
mod large;
mod limits;
mod payloads;
mod pipeline;
mod proxy_protocol;
mod races;
mod retry;
mod rules;
mod strictness;
mod support;
mod swap;
mod tcp;
mod tunnels;

//! Bulsa's data plane: an HTTP/1.1 reverse proxy, and one for whole TCP connections, whose targets may come, go and die
//! without a request noticing.
//!
//! It knows addresses, and nothing of containers, Compose files or stores. It is told by numbered [`Table`]s which
//! targets are ready, and answers by [`Report`]s on which table all its workers run and what is still in flight
//! where. So whoever stops a target can first wait until nothing can reach it any more.
//!
//! ```text
//!   Proxy ── orders (table, listeners, drain) ──▶ worker 0..n   one thread and runtime each, nothing shared
//!     ▲                                             │             on the path of a request
//!     └─────────── counters, "look again" ◀─────────┘
//!
//!   accept ▸ arrive ▸ server ▸ forward ▸ courier: [ wait: balance ▸ hold | pool ▸ attempt ▸ retry ] ▸ body | tunnel
//!                   ▸ tcp    ▸                    [ wait: balance ▸ hold ] ▸ tunnel
//! ```
//!
//! What it promises:
//! - Once [`Report::table`] is at least N, no request is sent to a target that table N leaves out, holds and retries
//!   included; a target that such a report shows without work gets none any more.
//! - A request that was not sent at all goes to another target, whatever its method. One that was sent and got not a
//!   byte of an answer goes once to another if it is idempotent and its body is still there; otherwise it is answered 502.
//! - A request that can be read in two ways is refused. The framing of one that is forwarded is always made anew.
//! - A target that refuses a connection gets nothing for a while; one that keeps failing, too, as long as the others
//!   don't. The last one stays unless it refuses.
//! - While a service has no ready target its requests wait, bounded in time and number, with their bodies unread.
//! - Tunnels stay with their target until they end or are told to. A TCP connection is one tunnel from the moment at
//!   which a target has taken it; before that it is held, and goes elsewhere when refused, as a request does.
//! - The workers never wait for the one who embeds the proxy. When that one dies, traffic flows on the last table.
//!
//! No limit is set on the size of a body or the time to answer. HTTP/1.1 is spoken on both sides by the code in `h1`.

#![forbid(unsafe_code)]

mod accept;
mod access_log;
mod addresses;
mod arrive;
mod attempt;
mod balance;
mod body;
mod bounds;
mod courier;
mod desk;
mod exchange;
mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod h1;
mod headers;
mod health;
mod hold;
mod life;
mod local;
mod orders;
mod outlet;
mod plan;
mod pool;
mod proxy;
mod proxy_header;
mod report;
mod request_body;
mod request_id;
mod respond;
mod retry;
mod route;
mod rules;
mod server;
mod table;
mod target;
mod tcp;
mod tunnel;
mod upstream;
mod wait;
mod worker;

pub use ipnet::IpNet;

#[doc(hidden)]
pub use crate::bounds::Bounds;

pub use crate::proxy::{Applied, GRACE_MAX, Options, Proxy, WORKERS_MAX};
pub use crate::report::{HeldReport, Report, SUSPECT_PATH_MAX, Suspect, TargetReport};
pub use crate::table::{
    Balance, CloseTunnels, HOLD_MS_MAX, HeaderRule, Hold, LISTENERS_MAX, Limits, ListenerRoutes,
    PAGE_BYTES_MAX, Policy, Protocol, ProxyHeader, ROUTES_MAX, Redirect, Route, Rules, SERVICES_MAX,
    SLOW_START_MS_MAX, Secret, Service, TABLE_VERSION, TABLE_VERSION_MIN, TARGETS_MAX, Table, TableError,
    Target, Times, WEIGHT_MAX, WITHIN_MS_MAX,
};

//! What a load sends, how fast, and where it ends.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{REQUESTS_MAX, TIME_MAX};

/// The highest rate, in requests/s: beyond it the client itself is what would be measured.
const RATE_MAX: u32 = 20_000;
/// WebSocket clients at most.
const SOCKETS_MAX: u32 = 2_000;
/// Requests under way at most, whatever is asked for.
const OUTSTANDING_MAX: usize = 20_000;

/// A load.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to; loopback only.
    pub target: SocketAddr,
    /// `NAME:PORT`: whom to look up for each connection, instead of [`Config::target`]; only addresses of a private
    /// network or of loopback are gone to.
    pub name: Option<String>,
    /// The `Host` field.
    pub host: String,
    /// Requests per second.
    pub rate: u32,
    /// What is sent, drawn by weight with a fixed seed.
    pub mix: Vec<Shot>,
    /// The share (0 to 1) of the requests that open a connection of their own.
    pub fresh: f64,
    /// An answer that takes longer than this from its due time is a failure.
    pub timeout: Duration,
    /// Requests in all; then it ends.
    pub requests: u64,
    /// Time in all; then it ends.
    pub time: Duration,
    /// Requests under way at most. One that is due beyond that is not sent, and is a failure ([`super::Kind::Cap`]).
    pub outstanding: usize,
    /// What every answer to a GET must contain; nothing is asked for where it is `None`.
    pub expect: Option<String>,
    /// WebSocket clients beside the requests.
    pub sockets: Option<Sockets>,
}

impl Config {
    /// 200 requests/s of [`Shot::usual_mix`] to `target`, a fifth of them on fresh connections, for at most ten minutes.
    #[must_use]
    pub fn to(target: SocketAddr) -> Self {
        Self {
            target,
            name: None,
            host: target.to_string(),
            rate: 200,
            mix: Shot::usual_mix(),
            fresh: 0.2,
            timeout: Duration::from_secs(10),
            requests: 200 * 600,
            time: Duration::from_secs(600),
            outstanding: 4000,
            expect: None,
            sockets: None,
        }
    }

    /// The same to a name of a container network, `api:3000`.
    #[must_use]
    pub fn to_name(name: &str) -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { name: Some(name.to_owned()), host: name.to_owned(), ..Self::to(nowhere) }
    }

    /// Every limit, each with its name in the message.
    pub(super) fn check(&self) -> Result<(), LoadError> {
        let beyond = |what, is: u64, max: u64| match is == 0 || is > max {
            true => Err(LoadError::Limit { what, is, max }),
            false => Ok(()),
        };
        if self.name.is_none() && !self.target.ip().is_loopback() {
            return Err(LoadError::NotLoopback(self.target));
        }
        beyond("rate", self.rate.into(), RATE_MAX.into())?;
        beyond("requests", self.requests, REQUESTS_MAX)?;
        beyond("time in s", self.time.as_secs_f64().ceil() as u64, TIME_MAX.as_secs())?;
        beyond("outstanding", self.outstanding as u64, OUTSTANDING_MAX as u64)?;
        beyond("weights of the mix", self.weights(), u32::MAX.into())?;
        beyond("sockets", self.sockets.as_ref().map_or(1, |sockets| sockets.count.into()), SOCKETS_MAX.into())
    }

    /// The sum of the mix's weights.
    pub(super) fn weights(&self) -> u64 {
        self.mix.iter().map(|shot| u64::from(shot.weight)).sum()
    }
}

/// Whether a load may go there: nobody else is to be bothered.
pub(super) fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_private(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local(),
    }
}

/// One kind of request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shot {
    /// How often it is drawn, against the sum of all weights.
    pub weight: u32,
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub path: String,
}

impl Shot {
    /// 72 % quick GETs, 8 % slow ones (300 ms), 18 % POSTs, 2 % slow POSTs: paths of the demo's app.
    #[must_use]
    pub fn usual_mix() -> Vec<Self> {
        let shot = |weight, method, path: &str| Self { weight, method, path: path.to_owned() };
        vec![
            shot(72, Method::Get, "/"),
            shot(8, Method::Get, "/slow?ms=300"),
            shot(18, Method::Post, "/echo"),
            shot(2, Method::Post, "/echo?ms=300"),
        ]
    }

    /// Only quick GETs of `path`.
    #[must_use]
    pub fn only_get(path: &str) -> Vec<Self> {
        vec![Self { weight: 1, method: Method::Get, path: path.to_owned() }]
    }
}

/// A request's method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Idempotent: whoever stands between may try it again.
    Get,
    /// Not idempotent; carries a body that must come back unchanged.
    Post,
}

impl Method {
    /// Whether doing it twice is the same as doing it once.
    #[must_use]
    pub const fn is_idempotent(self) -> bool {
        matches!(self, Self::Get)
    }
}

/// WebSocket clients, each of which sends a message every so often and expects it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sockets {
    /// How many.
    pub count: u32,
    /// Path and query.
    pub path: String,
    /// From one message to the next.
    pub every: Duration,
    /// A connection on which an echo takes longer counts as dropped.
    pub echo_timeout: Duration,
}

impl Sockets {
    /// `count` clients of `/ws`, a message a second each.
    #[must_use]
    pub fn new(count: u32) -> Self {
        Self {
            count,
            path: "/ws".to_owned(),
            every: Duration::from_secs(1),
            echo_timeout: Duration::from_secs(10),
        }
    }
}

/// Why a load could not start.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It would have bothered somebody else.
    #[error("load: {0} is not on loopback, and a load goes nowhere else")]
    NotLoopback(SocketAddr),
    /// Zero, or beyond a limit.
    #[error("load: {what} is {is}; it must be from 1 to {max}")]
    Limit {
        /// What.
        what: &'static str,
        /// Its value.
        is: u64,
        /// The limit.
        max: u64,
    },
    /// No thread or runtime.
    #[error("load: cannot start its thread: {0}")]
    Start(#[source] io::Error),
}

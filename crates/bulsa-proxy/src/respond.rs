//! The proxy's own answers: short, plain, and silent about what is behind it.
//!
//! Owns: the mapping from why to status, text and counter.
//! Never: names a target, an address or an error of the system.

use bytes::Bytes;

use crate::h1::head::BadHead;
use crate::headers::{Unfit, field};
use crate::report::{WorkerStats, count};

/// What `Retry-After` says when a service has no ready target, in seconds.
const RETRY_AFTER_S: &str = "1";

/// Why the proxy answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// What came is no request.
    Head(BadHead),
    /// It cannot be told where the request ends.
    Framing,
    /// The request cannot be forwarded.
    Unfit(Unfit),
    /// The request's head did not come in time.
    SlowHead,
    /// The client's own body failed on the way.
    BadBody,
    /// The client's own body came too slowly.
    SlowBody,
    /// No route takes it.
    NoRoute,
    /// The target gave no usable answer.
    BadGateway,
    /// The target gave no answer in the time that it has.
    TimedOut,
    /// No target was ready in time, or too many requests wait already.
    Unavailable,
    /// An outer balancer asks for the health of a service whose requests are held: it is well.
    Held,
}

impl Refusal {
    /// Counts it, unless it is the client's own.
    pub(crate) fn count(self, stats: &WorkerStats) {
        match self {
            Self::NoRoute => count(&stats.no_route),
            Self::BadGateway => count(&stats.bad_gateway),
            Self::Unavailable => count(&stats.unavailable),
            Self::TimedOut => count(&stats.timed_out),
            Self::Head(_) | Self::Framing | Self::BadBody => count(&stats.malformed),
            Self::Unfit(_) | Self::SlowHead | Self::SlowBody | Self::Held => {}
        }
    }

    /// Whether nothing more can be made of the connection: where the next request begins is not known.
    pub(crate) fn is_last(self) -> bool {
        matches!(
            self,
            Self::Head(_)
                | Self::Framing
                | Self::Unfit(Unfit::Target)
                | Self::SlowHead
                | Self::BadBody
                | Self::SlowBody
        )
    }

    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Head(BadHead::Malformed) | Self::Framing | Self::BadBody => 400,
            Self::Head(BadHead::Version) => 505,
            Self::Head(BadHead::TooLarge) => 431,
            Self::Head(BadHead::TargetTooLong) => 414,
            Self::Unfit(Unfit::Host | Unfit::Target | Unfit::Connection) => 400,
            Self::Unfit(Unfit::Connect) => 405,
            Self::Unfit(Unfit::Expectation) => 417,
            Self::SlowHead | Self::SlowBody => 408,
            Self::NoRoute => 404,
            Self::BadGateway => 502,
            Self::TimedOut => 504,
            Self::Unavailable => 503,
            Self::Held => 200,
        }
    }

    fn reason(self) -> &'static str {
        match self.status() {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            414 => "URI Too Long",
            417 => "Expectation Failed",
            431 => "Request Header Fields Too Large",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            504 => "Gateway Timeout",
            _ => "HTTP Version Not Supported",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Head(BadHead::Malformed) => "This is no request that can be read in one way only.\n",
            Self::Head(BadHead::Version) => "Only HTTP/1.1 and HTTP/1.0 are served here.\n",
            Self::Head(BadHead::TooLarge) => "The request's head is too large.\n",
            Self::Head(BadHead::TargetTooLong) => "The request's target is too long.\n",
            Self::Framing => "It cannot be told where the request ends.\n",
            Self::Unfit(Unfit::Host) => "The request needs exactly one valid Host.\n",
            Self::Unfit(Unfit::Connection) => "The request's Connection names too many fields.\n",
            Self::Unfit(Unfit::Target) => "The request's target is none.\n",
            Self::Unfit(Unfit::Connect) => "CONNECT is not served here.\n",
            Self::Unfit(Unfit::Expectation) => "The only expectation served here is 100-continue.\n",
            Self::SlowHead => "The request came too slowly.\n",
            Self::BadBody => "The request's body could not be read.\n",
            Self::SlowBody => "The request's body came too slowly.\n",
            Self::TimedOut => "The application did not answer in time.\n",
            Self::Held => "Requests are held, and will be answered shortly.\n",
            Self::NoRoute => "Nothing is served at this address.\n",
            Self::BadGateway => "The application broke off before it had answered.\n",
            Self::Unavailable => "The application is not ready. Please try again shortly.\n",
        }
    }
}

/// What an answer of the proxy's own has besides its reason.
#[derive(Debug, Default)]
pub(crate) struct Details<'r> {
    /// What is said instead of the usual text, in HTML, where a service is not ready.
    pub(crate) page: Option<Bytes>,
    /// The request's id.
    pub(crate) id: Option<&'r str>,
    pub(crate) keep: bool,
    /// The minor version that the client speaks.
    pub(crate) minor: u8,
    /// The request's method was `HEAD`.
    pub(crate) to_head: bool,
    pub(crate) date: &'r str,
}

/// The answer, whole.
pub(crate) fn write(refusal: Refusal, details: &Details<'_>) -> Vec<u8> {
    let page = details.page.as_ref().filter(|_| refusal == Refusal::Unavailable);
    let kind = if page.is_some() { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" };
    let text = page.map_or(refusal.text().as_bytes(), |page| page);
    let mut out = begin(refusal.status(), refusal.reason(), details);
    field(&mut out, b"Content-Type", kind.as_bytes());
    match refusal {
        Refusal::Unavailable => field(&mut out, b"Retry-After", RETRY_AFTER_S.as_bytes()),
        Refusal::Unfit(Unfit::Connect) => {
            field(&mut out, b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        }
        _ => {}
    }
    end(out, text, details)
}

/// A redirect, whole. `more` are fields that are written as they are.
pub(crate) fn redirect(status: u16, to: &str, more: &[u8], details: &Details<'_>) -> Vec<u8> {
    let reason = match status {
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        _ => "Permanent Redirect",
    };
    let mut out = begin(status, reason, details);
    field(&mut out, b"Location", to.as_bytes());
    out.extend_from_slice(more);
    end(out, b"", details)
}

fn begin(status: u16, reason: &str, details: &Details<'_>) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status} {reason}\r\n").into_bytes();
    field(&mut out, b"Date", details.date.as_bytes());
    if let Some(id) = details.id {
        field(&mut out, b"X-Request-Id", id.as_bytes());
    }
    match (details.keep, details.minor) {
        (false, _) => field(&mut out, b"Connection", b"close"),
        (true, 0) => field(&mut out, b"Connection", b"keep-alive"),
        (true, _) => {}
    }
    out
}

fn end(mut out: Vec<u8>, text: &[u8], details: &Details<'_>) -> Vec<u8> {
    field(&mut out, b"Content-Length", text.len().to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
    if !details.to_head {
        out.extend_from_slice(text);
    }
    out
}

//! The proxy's own answers: short, plain, and silent about what is behind it.
//!
//! Owns: the mapping from why to status, text and counter.
//! Never: names a target, an address or an error of the system.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::body::AnswerBody;
use crate::headers::Unfit;
use crate::report::{WorkerStats, count};

/// What `Retry-After` says when a service has no ready target, in seconds.
const RETRY_AFTER_S: &str = "1";

/// Why the proxy answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request cannot be forwarded.
    Unfit(Unfit),
    /// The client's own body failed on the way.
    BadBody,
    /// No route takes it.
    NoRoute,
    /// The target gave no usable answer.
    BadGateway,
    /// The client's own body came too slowly.
    SlowBody,
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
            Self::Unfit(_) | Self::BadBody | Self::SlowBody | Self::Held => {}
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Unfit(Unfit::Host) | Self::BadBody => StatusCode::BAD_REQUEST,
            Self::Unfit(Unfit::Connect) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unfit(Unfit::Expectation) => StatusCode::EXPECTATION_FAILED,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::Held => StatusCode::OK,
            Self::BadGateway => StatusCode::BAD_GATEWAY,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Unfit(Unfit::Host) => "The request needs exactly one valid Host.\n",
            Self::Unfit(Unfit::Connect) => "CONNECT is not served here.\n",
            Self::Unfit(Unfit::Expectation) => "The only expectation served here is 100-continue.\n",
            Self::BadBody => "The request's body could not be read.\n",
            Self::SlowBody => "The request's body came too slowly.\n",
            Self::TimedOut => "The application did not answer in time.\n",
            Self::Held => "Requests are held, and will be answered shortly.\n",
            Self::NoRoute => "Nothing is served at this address.\n",
            Self::BadGateway => "The application broke off before it had answered.\n",
            Self::Unavailable => "The application is not ready. Please try again shortly.\n",
        }
    }

    /// The answer. `page` takes the place of the text where a service is not ready.
    pub(crate) fn into_response(self, page: Option<Bytes>) -> Response<AnswerBody> {
        let page = page.filter(|_| self == Self::Unavailable);
        let kind = if page.is_some() { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" };
        let text = page.unwrap_or(Bytes::from_static(self.text().as_bytes()));
        let mut response = Response::new(AnswerBody::text(text));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        match self {
            Self::SlowBody => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Unavailable => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
            }
            Self::Unfit(Unfit::Connect) => {
                headers
                    .insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
            }
            _ => {}
        }
        response
    }
}

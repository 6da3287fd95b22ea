//! What is done to requests on a route besides sending them to a service, as it is written in a table.

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

/// Header rules of one kind on one route, at most.
const HEADER_RULES_MAX: usize = 64;

/// What else is done to requests on a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rules {
    /// Whether the service gets the path without the route's prefix.
    pub strip_prefix: bool,
    /// Answered at once, and not by the service.
    pub redirect: Option<Redirect>,
    /// Fields of the request that the service gets, in this order.
    pub request_headers: Vec<HeaderRule>,
    /// Fields of the answer that the client gets, in this order.
    pub response_headers: Vec<HeaderRule>,
}

/// Where a client is sent instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// The new address. `{host}`, `{path}` (what follows the route's prefix) and `{query}` (with its question mark) are
    /// filled in.
    pub to: String,
}

/// A field that is set, or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderRule {
    /// The field's name, any case.
    pub name: String,
    /// Its value, in the place of all that it had; `None` removes it.
    pub value: Option<String>,
}

impl Rules {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is wrong with them.
    pub(super) fn mistake(&self) -> Option<&'static str> {
        if self.redirect.as_ref().is_some_and(|redirect| !redirect.is_sound()) {
            return Some("redirects with a status or to an address that cannot be");
        }
        for rules in [&self.request_headers, &self.response_headers] {
            if HEADER_RULES_MAX < rules.len() {
                return Some("has more than 64 rules for header fields");
            }
            if !rules.iter().all(HeaderRule::is_sound) {
                return Some("sets a header field that cannot be, or that the proxy itself answers for");
            }
        }
        None
    }
}

impl Redirect {
    fn is_sound(&self) -> bool {
        [301, 302, 303, 307, 308].contains(&self.status)
            && !self.to.is_empty()
            && HeaderValue::from_str(&self.to).is_ok()
    }
}

impl HeaderRule {
    fn is_sound(&self) -> bool {
        // What frames the message or names the connection is the proxy's own affair.
        let own = [
            "connection",
            "content-length",
            "expect",
            "host",
            "keep-alive",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ];
        let Ok(name) = self.name.parse::<HeaderName>() else { return false };
        !own.contains(&name.as_str())
            && self.value.as_deref().is_none_or(|value| HeaderValue::from_str(value).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: Option<&str>) -> Rules {
        let rule = HeaderRule { name: name.to_owned(), value: value.map(str::to_owned) };
        Rules { request_headers: vec![rule], ..Rules::default() }
    }

    fn redirect(status: u16, to: &str) -> Rules {
        Rules { redirect: Some(Redirect { status, to: to.to_owned() }), ..Rules::default() }
    }

    #[test]
    fn only_what_can_be_sent_and_is_not_the_proxys_own_may_be_set() {
        assert_eq!(header("X-Frame-Options", Some("DENY")).mistake(), None);
        assert_eq!(header("Server", None).mistake(), None);
        assert!(header("Transfer-Encoding", Some("chunked")).mistake().is_some());
        assert!(header("a b", Some("c")).mistake().is_some());
        assert!(header("a", Some("b\r\nc: d")).mistake().is_some());
    }

    #[test]
    fn a_redirect_has_a_status_of_its_own_and_an_address() {
        assert_eq!(redirect(308, "https://{host}{path}{query}").mistake(), None);
        assert!(redirect(200, "/").mistake().is_some());
        assert!(redirect(301, "").mistake().is_some());
        assert!(redirect(301, "/\n").mistake().is_some());
    }
}

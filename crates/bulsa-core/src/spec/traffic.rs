//! How requests come to a service and are spread over its replicas: what its file asks of the proxy.
//!
//! Owns: routes with their rules, balancing, limits on times and numbers, and what a rule can say at all, so that the
//! loader and the wire refuse the same. Never: knows a target, or where a rule stands in a file.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::TrustedProxy;

/// Routes of one service, at most.
pub const ROUTES_MAX: usize = 100;
/// Header rules of one kind on one route, at most.
pub const HEADER_RULES_MAX: usize = 64;
/// The longest value of a header rule, and the longest address of a redirect, in bytes: every program takes it in a head.
pub const HEADER_BYTES_MAX: usize = 4096;
/// The largest page for requests that were held in vain, in bytes.
pub const PAGE_BYTES_MAX: usize = 64 * 1024;
/// The largest weight of a replica.
pub const WEIGHT_MAX: u32 = 1000;
/// The answers that send a client somewhere else.
pub const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];
/// What a redirect fills in.
pub const PLACEHOLDERS: [&str; 3] = ["host", "path", "query"];
/// Fields that frame a message or name its connection and its host: the proxy answers for them.
pub const OWN_FIELDS: [&str; 9] = [
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

/// `x-bulsa.limits`: what one client may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that one address may have open at once; 0 is no limit.
    pub connections_per_address: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_per_address: 4096 }
    }
}

/// `x-bulsa.route`: what of a published port comes to a service, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routing {
    /// The requests that are its own; at least one.
    pub routes: Vec<Route>,
    /// Peers whose connections begin with a PROXY protocol header.
    pub proxy_from: Vec<TrustedProxy>,
    /// The PROXY protocol header that a replica gets before the bytes of a TCP connection.
    pub send_proxy: Option<ProxyHeader>,
}

impl Default for Routing {
    fn default() -> Self {
        Self { routes: vec![Route::default()], proxy_from: Vec::new(), send_proxy: None }
    }
}

/// Which requests come to a service, and what is done to them. By default all of them, as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The host name that they ask for; `None` is every one.
    pub host: Option<String>,
    /// The path prefix, `/` for everything.
    pub path: String,
    /// What is done to them.
    pub rules: Rules,
}

impl Default for Route {
    fn default() -> Self {
        Self { host: None, path: "/".to_owned(), rules: Rules::default() }
    }
}

impl Route {
    /// What two routes on one port must not have in common: the host, and the path without its last slash.
    #[must_use]
    pub fn key(&self) -> (Option<&str>, &str) {
        (self.host.as_deref(), self.path.trim_end_matches('/'))
    }
}

/// What is done to requests on a route besides sending them to a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Whether replicas get the path without the route's prefix.
    pub strip_prefix: bool,
    /// Answered at once, and by no replica.
    pub redirect: Option<Redirect>,
    /// Fields of the request that replicas get; each name once.
    pub request_headers: Vec<HeaderRule>,
    /// Fields of the answer that clients get; each name once.
    pub response_headers: Vec<HeaderRule>,
}

/// Where clients are sent instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// One of [`REDIRECTS`].
    pub status: u16,
    /// The new address, with the [`PLACEHOLDERS`] in braces.
    pub to: String,
}

/// A header field that is set, or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderRule {
    /// The field's name.
    pub name: String,
    /// Its value, in the place of all that it had; `None` removes it.
    pub value: Option<String>,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyHeader {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// `x-bulsa.balance`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Which of the ready replicas gets a request.
    pub policy: Policy,
    /// Their shares, by ordinal; a replica beyond the list has the last one's. Empty: all the same.
    pub weights: Vec<u32>,
    /// Failures within [`Self::fail_timeout`] after which a replica gets nothing for as long; 0 counts none.
    pub max_fails: u32,
    /// The window for failures, and the first time out.
    pub fail_timeout: Duration,
    /// How long a fresh replica's share grows to its full weight.
    pub slow_start: Duration,
    /// Connections to one replica at most; 0 is no limit.
    pub max_conns: u32,
    /// Requests in flight on one replica at most; 0 is no limit.
    pub max_requests: u32,
}

impl Default for Balance {
    fn default() -> Self {
        Self {
            policy: Policy::RoundRobin,
            weights: Vec::new(),
            max_fails: 3,
            fail_timeout: Duration::from_secs(10),
            slow_start: Duration::ZERO,
            max_conns: 0,
            max_requests: 0,
        }
    }
}

impl Balance {
    /// The share of the replica with this ordinal (from 1).
    #[must_use]
    pub fn weight(&self, ordinal: u32) -> u32 {
        let index = usize::try_from(ordinal).unwrap_or(usize::MAX).saturating_sub(1);
        self.weights.get(index).or(self.weights.last()).copied().unwrap_or(1)
    }
}

/// Which of the ready replicas gets a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The one with the fewest requests and tunnels.
    LeastConn,
    /// The better of two drawn at random.
    TwoChoices,
    /// Always the same one for a client's address.
    IpHash,
    /// The one that a cookie of ours names.
    Sticky,
}

/// `x-bulsa.timeouts`; zero is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// From a request's last byte to its answer's first.
    pub first_byte: Duration,
    /// How long a tunnel may carry nothing.
    pub tunnel_idle: Duration,
    /// How long a tunnel may live at all.
    pub tunnel_life: Duration,
}

/// Why a redirect can't lead anywhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedirectError {
    /// It is too long for a header field.
    #[error("it is longer than {HEADER_BYTES_MAX} bytes")]
    Long,
    /// It has a blank, a control character, or a letter that isn't ASCII.
    #[error("{0:?} can't stand in an address as it is")]
    Character(char),
    /// It names something that isn't filled in.
    #[error("there is nothing called `{{{0}}}` to fill in")]
    Placeholder(String),
    /// A brace has no partner.
    #[error("a brace has no partner")]
    Brace,
    /// It doesn't begin as an address does.
    #[error("it is no address")]
    Address,
}

/// Checks the address that a redirect leads to.
///
/// # Errors
/// The first thing that can't be.
pub fn check_redirect(to: &str) -> Result<(), RedirectError> {
    if HEADER_BYTES_MAX < to.len() {
        return Err(RedirectError::Long);
    }
    if let Some(odd) = to.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(RedirectError::Character(odd));
    }
    let mut rest = to;
    while let Some(at) = rest.find(['{', '}']) {
        let inner = rest.get(at..).and_then(|from| from.strip_prefix('{')).ok_or(RedirectError::Brace)?;
        let (name, after) = inner.split_once('}').ok_or(RedirectError::Brace)?;
        if !PLACEHOLDERS.contains(&name) {
            return Err(RedirectError::Placeholder(name.to_owned()));
        }
        rest = after;
    }
    let after_scheme = to.strip_prefix("http://").or_else(|| to.strip_prefix("https://"));
    let is_address = match (after_scheme, to.strip_prefix('/')) {
        (Some(host), _) => {
            !host.is_empty() && !["/", "?", "#", "{path}", "{query}"].iter().any(|no| host.starts_with(no))
        }
        // `//other.example` is another host to a browser, and the client chooses what is in `{path}`.
        (None, Some(rest)) => !["/", "\\", "{path}"].iter().any(|no| rest.starts_with(no)),
        (None, None) => false,
    };
    if is_address { Ok(()) } else { Err(RedirectError::Address) }
}

/// Whether it can be the name of a header field.
#[must_use]
pub fn is_field_name(name: &str) -> bool {
    /// The longest name that anybody uses is a third of it.
    const NAME_BYTES_MAX: usize = 256;
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_token)
}

/// Whether it can be the value of a header field.
#[must_use]
pub fn is_field_value(value: &str) -> bool {
    let is_visible = |b: u8| b.is_ascii_graphic() || b == b' ' || b == b'\t';
    value.len() <= HEADER_BYTES_MAX && value.bytes().all(is_visible)
}

/// Whether the proxy itself answers for a header field.
#[must_use]
pub fn is_own_field(name: &str) -> bool {
    OWN_FIELDS.iter().any(|own| own.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_to_an_address_with_what_can_be_filled_in() {
        for to in [
            "https://{host}{path}{query}",
            "http://shop.example{path}",
            "https://shop.example:8443/a?b=c#d",
            "/new{path}{query}",
            "/",
        ] {
            assert_eq!(check_redirect(to), Ok(()), "{to}");
        }
        for (to, error) in [
            ("", RedirectError::Address),
            ("shop.example", RedirectError::Address),
            ("{path}", RedirectError::Address),
            ("//other.example", RedirectError::Address),
            ("/\\other.example", RedirectError::Address),
            ("/{path}", RedirectError::Address),
            ("https://", RedirectError::Address),
            ("https:///x", RedirectError::Address),
            ("https://{path}", RedirectError::Address),
            ("ftp://x", RedirectError::Address),
            ("https://{hots}", RedirectError::Placeholder("hots".to_owned())),
            ("https://{host", RedirectError::Brace),
            ("https://host}", RedirectError::Brace),
            ("https://a b", RedirectError::Character(' ')),
            ("https://한.example", RedirectError::Character('한')),
        ] {
            assert_eq!(check_redirect(to), Err(error), "{to}");
        }
        assert_eq!(check_redirect(&format!("/{}", "a".repeat(HEADER_BYTES_MAX))), Err(RedirectError::Long));
    }

    #[test]
    fn field_names_are_tokens_and_values_are_visible() {
        assert!(is_field_name("X-Frame-Options") && is_own_field("Transfer-Encoding"));
        for name in ["", "a b", "a:", "é", "a\n"] {
            assert!(!is_field_name(name), "{name}");
        }
        assert!(is_field_value("max-age=31536000; includeSubDomains") && is_field_value(""));
        assert!(!is_field_value("a\r\nb: c") && !is_field_value("é"));
    }

    #[test]
    fn replicas_beyond_the_list_of_weights_have_the_last_one() {
        let balance = |weights: &[u32]| Balance { weights: weights.to_vec(), ..Balance::default() };
        let of = |weights: &[u32]| [1, 2, 3].map(|ordinal| balance(weights).weight(ordinal));
        assert_eq!(of(&[]), [1, 1, 1]);
        assert_eq!(of(&[2]), [2, 2, 2]);
        assert_eq!(of(&[3, 1]), [3, 1, 1]);
    }
}

//! Which fields pass through the proxy, and which it sets.
//!
//! Owns: hop-by-hop fields, `X-Forwarded-*`, the request's host and target, and the signs of an upgrade.
//! Never: touches any other field; values, order and case go through as they came.
//!
//! Fields that `Connection` names are removed too, but it cannot name those that the application relies on for
//! who asks, for what, and how long the message is: otherwise a client could strip what a proxy has set.

use std::net::IpAddr;
use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{PathAndQuery, Uri};
use http::{Method, Version, request};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Fields that concern one connection only. `Upgrade` is among them; a tunnel sets it anew.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HTTP2_SETTINGS,
];

/// Why a request is answered at once, without asking a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// No host, more than one, or one that cannot be a host: 400.
    Host,
    /// `CONNECT`: 405.
    Connect,
    /// An expectation other than `100-continue`: 417.
    Expectation,
}

/// The host that a request is for, if it is fit to be forwarded at all.
///
/// An authority in the request's target wins over the `Host` field, which is set to it. Without either, which only
/// HTTP/1.0 may do, the host is empty.
pub(crate) fn screen(head: &mut request::Parts) -> Result<HeaderValue, Unfit> {
    if head.method == Method::CONNECT {
        return Err(Unfit::Connect);
    }
    if head.headers.get(EXPECT).is_some_and(|v| !v.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Unfit::Expectation);
    }
    if 1 < head.headers.get_all(HOST).iter().count() {
        return Err(Unfit::Host);
    }
    if let Some(authority) = head.uri.authority() {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Unfit::Host)?;
        head.headers.insert(HOST, host);
        make_origin_form(head);
    }
    match head.headers.get(HOST) {
        Some(host) if is_host(host.as_bytes()) => Ok(host.clone()),
        Some(_) => Err(Unfit::Host),
        None if head.version == Version::HTTP_10 => Ok(HeaderValue::from_static("")),
        None => Err(Unfit::Host),
    }
}

/// Turns `http://host/path` into `/path`.
fn make_origin_form(head: &mut request::Parts) {
    let path = head.uri.path_and_query().cloned();
    head.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
}

fn is_host(host: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_graphic() && !b"@/\\?#,\"<>".contains(b);
    host.iter().all(plain)
}

/// Whom a request is for that a trusted peer has passed on: the last address in `X-Forwarded-For` that is not trusted
/// itself, for whatever stands before it anybody may have written. The peer, if there is none.
pub(crate) fn client_behind(headers: &HeaderMap, peer: IpAddr, trusted: impl Fn(&IpAddr) -> bool) -> IpAddr {
    let mut last = peer;
    let values = headers.get_all(X_FORWARDED_FOR).into_iter().collect::<Vec<_>>();
    let texts = values.iter().rev().filter_map(|value| value.to_str().ok());
    for text in texts.flat_map(|text| text.rsplit(',')) {
        let Some(address) = address_of(text.trim()) else { return last };
        last = address;
        if !trusted(&address) {
            return address;
        }
    }
    last
}

/// An address as it is written in `X-Forwarded-For`: some put a port behind it.
fn address_of(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or(text);
    let parsed =
        bare.parse::<IpAddr>().or_else(|_| text.parse::<std::net::SocketAddr>().map(|addr| addr.ip()));
    parsed.ok().map(|address| address.to_canonical())
}

/// Whether a request asks to leave HTTP.
pub(crate) fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
}

/// Whether a request asks for a WebSocket: the only upgrade that is passed on.
pub(crate) fn asks_for_websocket(head: &request::Parts) -> bool {
    head.method == Method::GET
        && head.version == Version::HTTP_11
        && !head.headers.contains_key(TRANSFER_ENCODING)
        && head.headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0")
        && names(&head.headers, CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
        && is_websocket(&head.headers)
}

/// Whether `Upgrade` says WebSocket.
pub(crate) fn is_websocket(headers: &HeaderMap) -> bool {
    names(headers, UPGRADE).any(|token| token.eq_ignore_ascii_case("websocket"))
}

/// Sets the two fields that say "WebSocket" to the next hop.
pub(crate) fn set_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Removes what concerns only the connection that the message came on.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> =
            names(headers, CONNECTION).filter_map(|token| token.parse().ok()).filter(may_be_named).collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Whether `Connection` may name the field.
fn may_be_named(name: &HeaderName) -> bool {
    let kept = ["host", "content-length", "cookie", "set-cookie", "authorization", "forwarded", "x-real-ip"];
    !kept.contains(&name.as_str()) && !name.as_str().starts_with("x-forwarded-")
}

/// Sets `X-Forwarded-For`, `-Proto` and `-Host`, and drops what the proxy itself answers.
///
/// A trusted peer's fields are kept and it is appended to the list; anybody else's are replaced, and their other
/// claims about where they come from are removed.
pub(crate) fn set_forwarded(headers: &mut HeaderMap, peer: IpAddr, trusted: bool, host: &HeaderValue) {
    headers.remove(EXPECT);
    if !trusted {
        remove_claims(headers);
    }
    let mut list = Vec::new();
    for known in headers.get_all(X_FORWARDED_FOR) {
        list.extend_from_slice(known.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(peer.to_string().as_bytes());
    if let Ok(list) = HeaderValue::from_maybe_shared(bytes::Bytes::from(list)) {
        headers.insert(X_FORWARDED_FOR, list);
    }
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    if !host.is_empty() {
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
    }
}

fn remove_claims(headers: &mut HeaderMap) {
    let claims = |name: &&HeaderName| {
        let name = name.as_str();
        // Some applications read `x_forwarded_for` as the same field.
        name.len() > 11 && name.starts_with('x') && name.replace('_', "-").starts_with("x-forwarded-")
    };
    let found: Vec<HeaderName> = headers.keys().filter(claims).cloned().collect();
    for name in found.iter().chain([&FORWARDED, &X_REAL_IP]) {
        headers.remove(name);
    }
}

/// The `timeout` of a `Keep-Alive` field.
pub(crate) fn keep_alive_timeout(headers: &HeaderMap) -> Option<Duration> {
    let parameter = |token: &str| {
        let (name, value) = token.split_once('=')?;
        if !name.trim().eq_ignore_ascii_case("timeout") {
            return None;
        }
        value.trim().parse().ok().map(Duration::from_secs)
    };
    names(headers, KEEP_ALIVE).find_map(parameter)
}

/// The comma-separated parts of all fields of one name.
fn names(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(target: &str, fields: &[(&'static str, &str)]) -> request::Parts {
        let mut builder = Request::builder().uri(target);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn text(headers: &HeaderMap, name: &str) -> String {
        let all: Vec<_> = headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect();
        all.join("|")
    }

    #[test]
    fn the_authority_of_the_target_wins_over_the_host_field() {
        let mut head = head("http://real.example:81/a?b", &[("host", "other")]);
        assert_eq!(screen(&mut head).unwrap(), "real.example:81");
        assert_eq!(text(&head.headers, "host"), "real.example:81");
        assert_eq!(head.uri, "/a?b");
    }

    #[test]
    fn an_absolute_target_without_a_path_gets_one() {
        let mut bare = head("http://a", &[]);
        screen(&mut bare).unwrap();
        assert_eq!(bare.uri, "/");
        let mut query = head("http://a?x=1", &[]);
        screen(&mut query).unwrap();
        assert_eq!(query.uri, "/?x=1");
    }

    #[test]
    fn a_request_needs_exactly_one_valid_host() {
        for fields in [&[][..], &[("host", "a"), ("host", "b")], &[("host", "a b")], &[("host", "u@h")]] {
            assert_eq!(screen(&mut head("/", fields)), Err(Unfit::Host), "{fields:?}");
        }
        let mut old = head("/", &[]);
        old.version = Version::HTTP_10;
        assert_eq!(screen(&mut old).unwrap(), "");
    }

    #[test]
    fn connect_and_unknown_expectations_are_unfit() {
        let mut connect = head("/", &[("host", "a")]);
        connect.method = Method::CONNECT;
        assert_eq!(screen(&mut connect), Err(Unfit::Connect));
        assert_eq!(screen(&mut head("/", &[("host", "a"), ("expect", "tea")])), Err(Unfit::Expectation));
        assert!(screen(&mut head("/", &[("host", "a"), ("expect", "100-Continue")])).is_ok());
    }

    #[test]
    fn only_a_websocket_request_asks_for_a_tunnel() {
        let fields = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
        assert!(asks_for_websocket(&head("/", &fields)));
        assert!(!asks_for_websocket(&head("/", &fields[..1])));
        assert!(!asks_for_websocket(&head("/", &fields[1..])));
        assert!(!asks_for_websocket(&head("/", &[("connection", "upgrade"), ("upgrade", "h2c")])));
        let mut post = head("/", &fields);
        post.method = Method::POST;
        assert!(!asks_for_websocket(&post));
        let with_body = [fields[0], fields[1], ("content-length", "5")];
        assert!(!asks_for_websocket(&head("/", &with_body)));
    }

    #[test]
    fn hop_by_hop_and_nominated_fields_go_but_not_the_vital_ones() {
        let mut headers = head(
            "/",
            &[
                ("connection", "close, x-once, Host, cookie, x-forwarded-for, content-length, authorization"),
                ("x-once", "1"),
                ("host", "a"),
                ("cookie", "c"),
                ("x-forwarded-for", "1.1.1.1"),
                ("content-length", "3"),
                ("authorization", "b"),
                ("keep-alive", "timeout=5"),
                ("te", "trailers"),
                ("upgrade", "h2c"),
                ("http2-settings", "x"),
                ("proxy-connection", "close"),
                ("transfer-encoding", "chunked"),
                ("x-kept", "yes"),
            ],
        )
        .headers;
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "content-length", "cookie", "host", "x-forwarded-for", "x-kept"]);
    }

    #[test]
    fn a_strangers_claims_are_replaced() {
        let mut headers = head(
            "/",
            &[
                ("x-forwarded-for", "6.6.6.6"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "evil"),
                ("x-forwarded-prefix", "/evil"),
                ("x_forwarded_for", "6.6.6.6"),
                ("x-real-ip", "6.6.6.6"),
                ("forwarded", "for=6.6.6.6"),
                ("expect", "100-continue"),
            ],
        )
        .headers;
        set_forwarded(&mut headers, "9.9.9.9".parse().unwrap(), false, &HeaderValue::from_static("shop"));
        assert_eq!(text(&headers, "x-forwarded-for"), "9.9.9.9");
        assert_eq!(text(&headers, "x-forwarded-proto"), "http");
        assert_eq!(text(&headers, "x-forwarded-host"), "shop");
        assert_eq!(headers.len(), 3);
    }

    #[test]
    fn a_trusted_peer_is_appended_and_believed() {
        let mut headers = head(
            "/",
            &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2"), ("x-forwarded-proto", "https")],
        )
        .headers;
        set_forwarded(&mut headers, "9.9.9.9".parse().unwrap(), true, &HeaderValue::from_static("shop"));
        assert_eq!(text(&headers, "x-forwarded-for"), "1.1.1.1, 2.2.2.2, 9.9.9.9");
        assert_eq!(text(&headers, "x-forwarded-proto"), "https");
        assert_eq!(text(&headers, "x-forwarded-host"), "shop");
    }

    #[test]
    fn the_client_behind_trusted_peers_is_the_last_that_is_none() {
        let of = |list: &'static str| {
            let headers = head("/", &[("x-forwarded-for", list)]).headers;
            let trusted = |address: &IpAddr| address.to_string().starts_with("10.");
            client_behind(&headers, "10.0.0.1".parse().unwrap(), trusted).to_string()
        };
        assert_eq!(of("6.6.6.6, 1.1.1.1, 10.0.0.2"), "1.1.1.1");
        assert_eq!(of("1.1.1.1:4711"), "1.1.1.1");
        assert_eq!(of("[2001:db8::1]:80, 10.0.0.2"), "2001:db8::1");
        assert_eq!(of("10.0.0.3, 10.0.0.2"), "10.0.0.3");
        assert_eq!(of("unknown, 10.0.0.2"), "10.0.0.2");
        assert_eq!(of(""), "10.0.0.1");
    }

    #[test]
    fn the_keep_alive_timeout_is_read() {
        let headers = head("/", &[("keep-alive", "max=100, Timeout=5")]).headers;
        assert_eq!(keep_alive_timeout(&headers), Some(Duration::from_secs(5)));
        assert_eq!(keep_alive_timeout(&head("/", &[("keep-alive", "max=1")]).headers), None);
    }
}

//! Which fields pass through the proxy, and which it sets.
//!
//! Owns: hop-by-hop fields, `X-Forwarded-*`, the request's host and target, the request's id, and the signs of an
//! upgrade.
//! Never: touches any other field; values, order and case go through as they came.
//!
//! Fields that `Connection` names are removed too, but it cannot name those that the application relies on for
//! who asks, for what, and how long the message is: otherwise a client could strip what a proxy has set.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use http::uri::Uri;
use memchr::memchr;

use crate::h1::fields::{Known, tokens};
use crate::h1::framing::Framing;
use crate::h1::head::{AnswerHead, RequestHead};
use crate::rules::RouteRules;
use crate::tunnel::handshake;

/// Fields and options that `Connection` may name, at most: no client has reason for more.
const NOMINATED_MAX: usize = 10;

/// Why a request is answered at once, without asking a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// No host, more than one, or one that cannot be a host: 400.
    Host,
    /// `Connection` names more than [`NOMINATED_MAX`]: 400.
    Connection,
    /// A target that is none: 400.
    Target,
    /// `CONNECT`: 405.
    Connect,
    /// An expectation other than `100-continue`: 417.
    Expectation,
}

/// What a request is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Screened<'h> {
    /// Without either of an authority and a `Host`, which only HTTP/1.0 may do, empty.
    pub(crate) host: Cow<'h, str>,
    /// A path with its query, or `*`.
    pub(crate) target: Cow<'h, str>,
    /// The client waits for leave to send its body.
    pub(crate) expects_leave: bool,
}

/// Looks whether a request is fit to be forwarded at all, and what it is for. An authority in the request's target wins
/// over the `Host` field.
pub(crate) fn screen(head: &RequestHead) -> Result<Screened<'_>, Unfit> {
    if head.method() == b"CONNECT" {
        return Err(Unfit::Connect);
    }
    let mut expectations = head.all(Known::Expect);
    let expectation = expectations.next();
    if expectations.next().is_some()
        || expectation.is_some_and(|one| !one.eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(Unfit::Expectation);
    }
    if NOMINATED_MAX < head.all(Known::Connection).flat_map(tokens).count() {
        return Err(Unfit::Connection);
    }
    let mut hosts = head.all(Known::Host);
    let field = hosts.next();
    if hosts.next().is_some() || field.is_some_and(|host| !is_host(host)) {
        return Err(Unfit::Host);
    }
    let (authority, target) = target_of(head.target(), head.method())?;
    let host = match (authority, field) {
        (Some(authority), _) => authority,
        (None, Some(field)) => Cow::Borrowed(std::str::from_utf8(field).map_err(|_| Unfit::Host)?),
        (None, None) if head.minor == 0 => Cow::Borrowed(""),
        (None, None) => return Err(Unfit::Host),
    };
    Ok(Screened { host, target, expects_leave: expectation.is_some() && head.minor == 1 })
}

/// The authority in a target, if there is one, and the target without it.
fn target_of<'t>(target: &'t str, method: &[u8]) -> Result<(Option<Cow<'t, str>>, Cow<'t, str>), Unfit> {
    if memchr(b'#', target.as_bytes()).is_some() {
        return Err(Unfit::Target);
    }
    if target.starts_with('/') || (target == "*" && method == b"OPTIONS") {
        return Ok((None, Cow::Borrowed(target)));
    }
    let uri: Uri = target.parse().map_err(|_| Unfit::Target)?;
    let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(Unfit::Target);
    };
    if !is_host(authority.as_str().as_bytes()) {
        return Err(Unfit::Host);
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok((Some(Cow::Owned(authority.to_string())), Cow::Owned(path)))
}

fn is_host(host: &[u8]) -> bool {
    let is_sign = |b: &u8| matches!(b, b'@' | b'/' | b'\\' | b'?' | b'#' | b',' | b'"' | b'<' | b'>');
    let plain = |b: &u8| b.is_ascii_graphic() && !is_sign(b);
    host.iter().all(plain)
}

/// Whether a request asks for a WebSocket, as RFC 6455, 4.2.1 wants it: the only upgrade that is passed on.
pub(crate) fn asks_for_websocket(head: &RequestHead, framing: Framing) -> bool {
    head.method() == b"GET"
        && head.minor == 1
        && framing == Framing::None
        && names(head.all(Known::Connection), b"upgrade")
        && names(head.all(Known::Upgrade), b"websocket")
        && handshake::key(head).is_some()
}

/// Whether an answer's `101` is for the WebSocket that was asked for.
pub(crate) fn is_websocket(head: &AnswerHead, request: &RequestHead) -> bool {
    let mut protocols = head.all(Known::Upgrade).flat_map(tokens);
    let is_websocket = protocols.next().is_some_and(|one| one.eq_ignore_ascii_case(b"websocket"));
    is_websocket
        && protocols.next().is_none()
        && names(head.all(Known::Connection), b"upgrade")
        && handshake::key(request).is_some_and(|key| handshake::accepts(head, key))
}

/// Whether one of the values names this token.
fn names<'v>(mut values: impl Iterator<Item = &'v [u8]>, token: &[u8]) -> bool {
    values.any(|value| tokens(value).any(|one| one.eq_ignore_ascii_case(token)))
}

/// Whether the client keeps its connection after this request, as far as it says.
pub(crate) fn client_keeps(head: &RequestHead) -> bool {
    keeps(head.minor, || head.all(Known::Connection))
}

/// Whether the target keeps its connection after this answer, as far as it says.
pub(crate) fn target_keeps(head: &AnswerHead) -> bool {
    keeps(head.minor, || head.all(Known::Connection))
}

fn keeps<'v, I: Iterator<Item = &'v [u8]>>(minor: u8, connection: impl Fn() -> I) -> bool {
    !names(connection(), b"close") && (minor == 1 || names(connection(), b"keep-alive"))
}

/// The names that `Connection` makes hop-by-hop, besides those that are so anyhow.
fn nominated<'v>(values: impl Iterator<Item = &'v [u8]>) -> Vec<&'v [u8]> {
    let usual: [&[u8]; 3] = [b"close", b"keep-alive", b"upgrade"];
    let is_usual = |name: &&[u8]| usual.iter().any(|one| one.eq_ignore_ascii_case(name));
    values.flat_map(tokens).filter(|name| !is_usual(name)).take(NOMINATED_MAX).collect()
}

fn is_nominated(nominated: &[&[u8]], known: Known, name: &[u8]) -> bool {
    nominated.iter().any(|one| one.eq_ignore_ascii_case(name)) && known.may_be_nominated(name)
}

/// Whom a request is for that a trusted peer has passed on: the last address in `X-Forwarded-For` that is not trusted
/// itself, for whatever stands before it anybody may have written. The peer, if there is none.
pub(crate) fn client_behind(head: &RequestHead, peer: IpAddr, trusted: impl Fn(&IpAddr) -> bool) -> IpAddr {
    let mut last = peer;
    let texts = head.all(Known::XForwardedFor).rev().filter_map(|value| std::str::from_utf8(value).ok());
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

/// What a request is rewritten by.
#[derive(Debug)]
pub(crate) struct Rewriting<'r> {
    pub(crate) screened: &'r Screened<'r>,
    pub(crate) framing: Framing,
    pub(crate) websocket: bool,
    /// The peer's address in words.
    pub(crate) peer: &'r str,
    /// The peer's `X-Forwarded-*` are kept and added to; anybody else's are replaced, and their other claims about where
    /// they come from are removed.
    pub(crate) is_trusted: bool,
    /// The request's id.
    pub(crate) id: &'r str,
    pub(crate) rules: Option<&'r RouteRules>,
}

/// Writes the head that a target gets.
pub(crate) fn write_request(out: &mut Vec<u8>, head: &RequestHead, by: &Rewriting<'_>) {
    let target = &by.screened.target;
    let stripped = by.rules.and_then(|rules| rules.strip(target));
    for part in [head.method(), b" ", stripped.as_deref().unwrap_or(target).as_bytes(), b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    field(out, b"Host", by.screened.host.as_bytes());
    let nominated = nominated(head.all(Known::Connection));
    let (mut has_proto, mut has_host) = (false, false);
    for (known, name, value) in head.fields() {
        let passes = match known {
            Known::Other => true,
            Known::Host | Known::Expect | Known::ContentLength | Known::XRequestId | Known::XForwardedFor => {
                false
            }
            Known::XForwardedProto => {
                has_proto |= by.is_trusted;
                by.is_trusted
            }
            Known::XForwardedHost => {
                has_host |= by.is_trusted;
                by.is_trusted
            }
            Known::XForwardedPrefix => by.is_trusted && stripped.is_none(),
            Known::XForwardedOther | Known::XRealIp | Known::Forwarded => by.is_trusted,
            known => !known.is_hop_by_hop(),
        };
        let is_ruled = by.rules.is_some_and(|rules| rules.sets_on_request(name));
        if passes && !is_ruled && !is_nominated(&nominated, known, name) {
            field(out, name, value);
        }
    }
    write_forwarded(out, head, by, has_proto, has_host);
    if let Some(prefix) = by.rules.filter(|_| stripped.is_some()).and_then(RouteRules::stripped_prefix) {
        field(out, b"X-Forwarded-Prefix", prefix.as_bytes());
    }
    field(out, b"X-Request-Id", by.id.as_bytes());
    if by.websocket {
        out.extend_from_slice(b"Connection: upgrade\r\nUpgrade: websocket\r\n");
    }
    match by.framing {
        Framing::Length(length) => length_field(out, length),
        Framing::Chunked => field(out, b"Transfer-Encoding", b"chunked"),
        // A request that says that it has no body is told on as such: some applications want to be told.
        Framing::None if head.get(Known::ContentLength).is_some() => field(out, b"Content-Length", b"0"),
        Framing::None | Framing::UntilClose => {}
    }
    if let Some(rules) = by.rules {
        rules.write_request(out);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_forwarded(
    out: &mut Vec<u8>,
    head: &RequestHead,
    by: &Rewriting<'_>,
    has_proto: bool,
    has_host: bool,
) {
    out.extend_from_slice(b"X-Forwarded-For: ");
    if by.is_trusted {
        for known in head.all(Known::XForwardedFor) {
            out.extend_from_slice(known);
            out.extend_from_slice(b", ");
        }
    }
    out.extend_from_slice(by.peer.as_bytes());
    out.extend_from_slice(b"\r\n");
    if !has_proto {
        field(out, b"X-Forwarded-Proto", b"http");
    }
    if !has_host && !by.screened.host.is_empty() {
        field(out, b"X-Forwarded-Host", by.screened.host.as_bytes());
    }
}

/// What an answer is rewritten by.
#[derive(Debug)]
pub(crate) struct Answering<'r> {
    pub(crate) framing: Framing,
    /// The connection is kept after it.
    pub(crate) keep: bool,
    /// The minor version that the client speaks.
    pub(crate) minor: u8,
    pub(crate) cookie: Option<&'r str>,
    pub(crate) rules: Option<&'r RouteRules>,
    /// The time, for an answer that does not say when it was made.
    pub(crate) date: &'r str,
}

/// Writes the head of an answer that the client gets.
pub(crate) fn write_answer(out: &mut Vec<u8>, head: &AnswerHead, by: &Answering<'_>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    number(out, u64::from(head.status));
    for part in [b" ", head.reason(), b"\r\n"] {
        out.extend_from_slice(part);
    }
    let nominated = nominated(head.all(Known::Connection));
    let (mut has_date, mut has_length) = (false, false);
    for (known, name, value) in head.fields() {
        let passes = match known {
            Known::Other => true,
            Known::Date => {
                has_date = true;
                true
            }
            // Said of what would have been sent, where nothing is: to `HEAD`, and with 304.
            Known::ContentLength => {
                let passes =
                    by.framing == Framing::None && 200 <= head.status && head.status != 204 && !has_length;
                has_length |= passes;
                passes
            }
            known => !known.is_hop_by_hop(),
        };
        let is_ruled = by.rules.is_some_and(|rules| rules.sets_on_response(name));
        if passes && !is_ruled && !is_nominated(&nominated, known, name) {
            field(out, name, value);
        }
    }
    if !has_date && 200 <= head.status {
        field(out, b"Date", by.date.as_bytes());
    }
    match by.framing {
        Framing::Length(length) => length_field(out, length),
        Framing::Chunked => field(out, b"Transfer-Encoding", b"chunked"),
        Framing::None | Framing::UntilClose => {}
    }
    if let Some(cookie) = by.cookie {
        field(out, b"Set-Cookie", cookie.as_bytes());
    }
    write_connection(out, head.status, by.keep, by.minor);
    if let Some(rules) = by.rules {
        rules.write_response(out);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_connection(out: &mut Vec<u8>, status: u16, keep: bool, minor: u8) {
    if status == 101 {
        out.extend_from_slice(b"Connection: upgrade\r\nUpgrade: websocket\r\n");
    } else if 200 <= status {
        match (keep, minor) {
            (true, 0) => field(out, b"Connection", b"keep-alive"),
            (false, _) => field(out, b"Connection", b"close"),
            (true, _) => {}
        }
    }
}

/// Writes one field.
pub(crate) fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

fn length_field(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"Content-Length: ");
    number(out, length);
    out.extend_from_slice(b"\r\n");
}

/// Writes a number in digits.
fn number(out: &mut Vec<u8>, number: u64) {
    // As many as the greatest number has.
    let mut digits = [0; 20];
    let (mut start, mut rest) = (digits.len(), number);
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Whether an answer is a stream of events that ends when somebody ends it.
pub(crate) fn is_stream(head: &AnswerHead) -> bool {
    let kind = head.get(Known::ContentType).unwrap_or_default();
    let kind = kind.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    [&b"text/event-stream"[..], b"multipart/x-mixed-replace"].iter().any(|one| one.eq_ignore_ascii_case(kind))
}

/// The `timeout` of a `Keep-Alive` field.
pub(crate) fn keep_alive_timeout(head: &AnswerHead) -> Option<Duration> {
    let parameter = |token: &[u8]| {
        let (name, value) = std::str::from_utf8(token).ok()?.split_once('=')?;
        if !name.trim().eq_ignore_ascii_case("timeout") {
            return None;
        }
        value.trim().parse().ok().map(Duration::from_secs)
    };
    head.all(Known::KeepAlive).flat_map(tokens).find_map(parameter)
}

#[cfg(test)]
mod tests;

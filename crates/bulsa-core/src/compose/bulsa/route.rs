//! `x-bulsa.route`: which requests come to a service, and what is done to them.
//!
//! Owns: one mapping or a list of them, and what can't be within one. What depends on the protocol, or on other services,
//! is checked later.

use super::super::{
    canonical,
    diagnostic::{Diagnostic, Diagnostics, Pos},
    keys,
    model::{Bulsa, Route},
    read,
    tree::{Entry, Kind, Node},
};
use super::{peers, set, url_path};
use crate::spec::{
    self, HeaderRule, Protocol, ProxyHeader, Redirect,
    traffic::{self, HEADER_BYTES_MAX, HEADER_RULES_MAX, PLACEHOLDERS, REDIRECTS, ROUTES_MAX, RedirectError},
};

/// The longest host name of a route, in bytes, as DNS has it.
const MAX_HOST_BYTES: usize = 253;
/// What a redirect answers unless it says something else: for ever, and with the same method.
const REDIRECT_STATUS: u16 = 308;

const PROTOCOLS: &[(&str, Protocol)] = &[("http", Protocol::Http), ("tcp", Protocol::Tcp)];
const VERSIONS: &[(&str, ProxyHeader)] = &[("v1", ProxyHeader::V1), ("v2", ProxyHeader::V2)];

pub(super) fn read(bulsa: &mut Bulsa, node: &Node, path: &str, diags: &mut Diagnostics) {
    let items = match &node.kind {
        Kind::Sequence(items) => items,
        Kind::Mapping(_) => return one(bulsa, node, path, diags),
        Kind::Scalar(_) => {
            diags.push(read::wrong(node, path, "a mapping such as {host: shop.example}, or a list of them"));
            return;
        }
    };
    if items.is_empty() || ROUTES_MAX < items.len() {
        diags.push(
            Diagnostic::error(&node.pos, format!("{path} has {} entries", items.len()))
                .expected(format!("1 to {ROUTES_MAX} routes")),
        );
        return;
    }
    for (i, item) in items.iter().enumerate() {
        let path = format!("{path}[{i}]");
        one(bulsa, item, &path, diags);
        twice(&bulsa.routes, &path, diags);
    }
}

fn one(bulsa: &mut Bulsa, node: &Node, path: &str, diags: &mut Diagnostics) {
    let mistakes = diags.errors();
    let mut it = Route::new(&node.pos);
    let spec::Route { host, path: prefix, rules } = &mut it.route;
    read::keys(node, path, &keys::BULSA_ROUTE, diags, |entry, path, diags| {
        let node = &entry.value;
        it.at.insert(entry.key.clone(), entry.key_pos.clone());
        match entry.key.as_str() {
            "host" => *host = route_host(node, path, diags),
            "path" => set(prefix, route_path(node, path, diags)),
            "protocol" => {
                let found = read::choice(node, path, PROTOCOLS, &["tls", "grpc"], diags);
                once(&mut bulsa.protocol, found, entry, path, diags);
            }
            "proxy_protocol" => {
                let found = peers::read(node, path, diags);
                once(&mut bulsa.proxy_from, found, entry, path, diags);
            }
            "send_proxy" => {
                let found = read::choice(node, path, VERSIONS, &[], diags);
                once(&mut bulsa.send_proxy, found, entry, path, diags);
            }
            "strip_prefix" => set(&mut rules.strip_prefix, read::boolean(node, path, diags)),
            "redirect" => rules.redirect = redirect(node, path, diags),
            "request_headers" => rules.request_headers = headers(node, path, diags),
            _ => rules.response_headers = headers(node, path, diags),
        }
    });
    it.is_whole = mistakes == diags.errors();
    if it.is_whole {
        contradictions(&it, path, diags);
    }
    bulsa.routes.push(it);
}

/// What is said of the service as a whole stands in one of its routes.
fn once<T>(
    field: &mut Option<(T, Pos)>,
    found: Option<T>,
    entry: &Entry,
    path: &str,
    diags: &mut Diagnostics,
) {
    match field {
        Some((_, first)) => diags.push(
            Diagnostic::error(
                &entry.key_pos,
                format!("{path}: `{}` is said twice of one service", entry.key),
            )
            .hint(format!("the other one is at {first}; it counts for all routes: remove one of them")),
        ),
        None => *field = found.map(|found| (found, entry.key_pos.clone())),
    }
}

/// Rules of one route that leave nothing to each other.
fn contradictions(it: &Route, path: &str, diags: &mut Diagnostics) {
    let rules = &it.route.rules;
    let mut wrong = |key: &str, what: &str, hint: &str| {
        let pos = it.at.get(key).unwrap_or(&it.pos);
        diags.push(Diagnostic::error(pos, format!("{path}.{key}: {what}")).hint(hint));
    };
    if rules.redirect.is_some() {
        if rules.strip_prefix {
            let hint = "remove it: what `{path}` stands for begins after the route's prefix";
            wrong("strip_prefix", "a redirect sends nothing to the service", hint);
        }
        if !rules.request_headers.is_empty() {
            let hint = "remove it, or the redirect; `response_headers` are sent with a redirect";
            wrong("request_headers", "a redirect sends nothing to the service", hint);
        }
    } else if rules.strip_prefix && it.route.key().1.is_empty() {
        let hint = "say which prefix with `path`, such as /api, or remove `strip_prefix`";
        wrong("strip_prefix", "the path is `/`, which leaves no prefix to strip", hint);
    }
}

/// Of two equal routes only one would ever be asked.
fn twice(routes: &[Route], path: &str, diags: &mut Diagnostics) {
    let Some((last, earlier)) = routes.split_last().filter(|(last, _)| last.is_whole) else { return };
    let same = |route: &&Route| route.is_whole && route.route.key() == last.route.key();
    if let Some(first) = earlier.iter().find(same) {
        diags.push(
            Diagnostic::error(&last.pos, format!("{path}: its host and path are those of another route"))
                .hint(format!("the other one is at {}; remove one of them", first.pos)),
        );
    }
}

fn route_host(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<String> {
    let text = read::text(node, path, diags)?;
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if text.len() <= MAX_HOST_BYTES && text.split('.').all(label) {
        return Some(text.to_ascii_lowercase());
    }
    diags.push(
        Diagnostic::error(&node.pos, format!("{path}: {text:?} is no host name"))
            .expected("a name such as shop.example, without scheme, port or path"),
    );
    None
}

/// A path prefix: requests are compared with it without their query.
fn route_path(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<String> {
    let found = url_path(node, path, diags)?;
    if found.contains('?') {
        diags.push(
            Diagnostic::error(
                &node.pos,
                format!("{path}: {found:?} has a query, and routes don't look at it"),
            )
            .expected("a path such as /api"),
        );
        return None;
    }
    Some(found)
}

/// The address alone, or `{to: …, status: 301}`.
fn redirect(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<Redirect> {
    let mut status = Some(REDIRECT_STATUS);
    let mut to = None;
    if let Kind::Mapping(_) = node.kind {
        read::keys(node, path, &keys::BULSA_REDIRECT, diags, |entry, path, diags| match entry.key.as_str() {
            "status" => status = redirect_status(&entry.value, path, diags),
            _ => to = address(&entry.value, path, diags),
        });
        if node.get("to").is_none() {
            diags.push(
                Diagnostic::error(&node.pos, format!("{path} has no `to`"))
                    .expected("redirect: {to: \"https://{host}{path}{query}\", status: 308}"),
            );
        }
    } else {
        to = address(node, path, diags);
    }
    Some(Redirect { status: status?, to: to? })
}

fn redirect_status(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<u16> {
    let number = read::number(node, path, 0..=u32::from(u16::MAX), diags)?;
    let status = u16::try_from(number).ok().filter(|status| REDIRECTS.contains(status));
    if status.is_none() {
        let known = REDIRECTS.map(|status| status.to_string()).join(", ");
        diags.push(read::wrong(node, path, &format!("one of {known}")));
    }
    status
}

fn address(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<String> {
    let text = read::text(node, path, diags)?;
    let Err(error) = traffic::check_redirect(text) else { return Some(text.to_owned()) };
    let mistake = Diagnostic::error(&node.pos, format!("{path} is {text:?}: {error}"));
    diags.push(match &error {
        RedirectError::Placeholder(name) => {
            let known = PLACEHOLDERS.map(|name| format!("`{{{name}}}`")).join(", ");
            mistake.expected(format!("one of {known}")).nearest(name, PLACEHOLDERS)
        }
        RedirectError::Character(_) => mistake.hint("write it in percent-encoding, a host name in punycode"),
        RedirectError::Long => mistake,
        RedirectError::Brace | RedirectError::Address => mistake.expected(
            "an address such as https://shop.example{path}{query}, or a path such as /new{path}{query}",
        ),
    });
    None
}

/// Fields by name; nothing removes one. In the order of their names, so that moving a line makes no other release.
fn headers(node: &Node, path: &str, diags: &mut Diagnostics) -> Vec<HeaderRule> {
    let entries = read::mapping(node, path, diags).unwrap_or_default();
    if HEADER_RULES_MAX < entries.len() {
        diags.push(
            Diagnostic::error(&node.pos, format!("{path} has {} entries", entries.len()))
                .expected(format!("at most {HEADER_RULES_MAX}")),
        );
        return Vec::new();
    }
    let mut rules: Vec<HeaderRule> = Vec::with_capacity(entries.len());
    for entry in entries {
        let Some(rule) = header(entry, path, diags) else { continue };
        if rules.iter().any(|other| other.name.eq_ignore_ascii_case(&rule.name)) {
            diags.push(
                Diagnostic::error(
                    &entry.key_pos,
                    format!("{path}: the field `{}` is there twice", entry.key),
                )
                .hint("the case of its letters makes no other field; remove one of them"),
            );
            continue;
        }
        rules.push(rule);
    }
    rules.sort_by_key(|rule| rule.name.to_ascii_lowercase());
    rules
}

fn header(entry: &Entry, path: &str, diags: &mut Diagnostics) -> Option<HeaderRule> {
    let name = entry.key.as_str();
    let path = format!("{path}.{name}");
    if !traffic::is_field_name(name) {
        diags.push(
            Diagnostic::error(&entry.key_pos, format!("{path}: {name:?} can't be a header field's name"))
                .expected("letters, digits and `-`, such as X-Frame-Options"),
        );
        return None;
    }
    if traffic::is_own_field(name) {
        diags.push(
            Diagnostic::error(&entry.key_pos, format!("{path}: Bulsa's proxy answers for `{name}` itself"))
                .hint("remove it: the field says how a message is sent, or to whom"),
        );
        return None;
    }
    Some(HeaderRule { name: name.to_owned(), value: header_value(&entry.value, &path, diags)? })
}

/// What a field is set to; `Some(None)` removes it. A number or truth value is taken as it is written.
fn header_value(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<Option<String>> {
    let Some(scalar) = node.scalar() else {
        diags.push(read::wrong(node, path, "a text, or nothing (`null`), which removes the field"));
        return None;
    };
    if canonical::is_null(node) {
        return Some(None);
    }
    let value = scalar.value.trim();
    if traffic::is_field_value(value) {
        return Some(Some(value.to_owned()));
    }
    diags.push(
        Diagnostic::error(&node.pos, format!("{path} can't be sent as a header field"))
            .expected(format!("one line of ASCII, at most {HEADER_BYTES_MAX} bytes")),
    );
    None
}

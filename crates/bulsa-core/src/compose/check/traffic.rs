//! What a service asks of the proxy, against what is spoken on its ports and what others ask.
//!
//! Owns: what plain TCP doesn't have, and whether two services ask for the same requests. Never: guesses what is spoken;
//! where the file doesn't say it, nothing is a mistake.

use crate::spec::{Policy, Protocol};

use super::super::{
    diagnostic::{Diagnostic, Diagnostics, Pos},
    model::{Bulsa, Service},
};

/// Looks at one service.
pub(super) fn check(service: &Service, diags: &mut Diagnostics) {
    if is_tcp(service) {
        only_http(service, diags);
    } else if let (Some(Protocol::Http), Some((_, pos))) = (spoken(service), &service.bulsa.send_proxy) {
        let text = format!(
            "services.{}.x-bulsa.route.send_proxy: a PROXY header comes before plain TCP, and this is HTTP",
            service.name
        );
        let hint =
            "remove it: over HTTP the replicas find the client in X-Forwarded-For; or say `protocol: tcp`";
        diags.push(Diagnostic::error(pos, text).hint(hint));
    }
}

/// Whether the file says that plain TCP is spoken on all its ports.
pub(super) fn is_tcp(service: &Service) -> bool {
    spoken(service) == Some(Protocol::Tcp)
}

/// Whether the same requests are on a route of both. Of a route with mistakes nobody knows.
pub(super) fn share_a_route(a: &Service, b: &Service) -> bool {
    let routes = || a.bulsa.routes.iter().chain(&b.bulsa.routes);
    routes().all(|route| route.is_whole) && keys(a).iter().any(|key| keys(b).contains(key))
}

/// The hosts and paths of its routes; without any it has them all.
fn keys(service: &Service) -> Vec<(Option<&str>, &str)> {
    let keys: Vec<_> = service.bulsa.routes.iter().map(|route| route.route.key()).collect();
    if keys.is_empty() { vec![(None, "")] } else { keys }
}

/// What is spoken on its ports, where the file says it of all of them.
fn spoken(service: &Service) -> Option<Protocol> {
    if let Some(said) = service.bulsa.protocol() {
        return Some(said);
    }
    let of_port = |protocol: Option<&str>| match protocol {
        Some("http") => Some(Protocol::Http),
        Some("tcp") => Some(Protocol::Tcp),
        _ => None,
    };
    let first = of_port(service.ports.first()?.app_protocol.as_deref())?;
    let is_same = service.ports.iter().all(|port| of_port(port.app_protocol.as_deref()) == Some(first));
    (is_same && service.docker.is_some()).then_some(first)
}

/// Names everything that only HTTP has.
fn only_http(service: &Service, diags: &mut Diagnostics) {
    let bulsa = &service.bulsa;
    let mut wrong = |key: &str, pos: &Pos, why: &str| {
        let text = format!("services.{}.x-bulsa.{key}: {why}", service.name);
        diags
            .push(Diagnostic::error(pos, text).hint("remove it, or say `protocol: http` in `x-bulsa.route`"));
    };
    for (key, pos, why) in in_routes(bulsa) {
        wrong(&format!("route.{key}"), pos, why);
    }
    let at = |key: &str, is_asked: bool| bulsa.at.get(key).filter(|_| is_asked);
    for (key, is_asked, why) in [
        (
            "balance.policy",
            bulsa.balance.policy == Policy::Sticky,
            "`sticky` needs a cookie, and plain TCP has none",
        ),
        (
            "balance.max_requests",
            bulsa.balance.max_requests > 0,
            "plain TCP has no requests; `max_conns` counts",
        ),
        (
            "timeouts.first_byte",
            !bulsa.times.first_byte.is_zero(),
            "plain TCP has no requests to wait for an answer to",
        ),
        ("hold.page", bulsa.page.is_some(), "nobody would see a page over plain TCP"),
        ("access_log", bulsa.access_log, "plain TCP has no requests to write a line about"),
    ] {
        if let Some(pos) = at(key, is_asked) {
            wrong(key, pos, why);
        }
    }
}

/// What a route asks that TCP doesn't have: the key, its place, and why.
fn in_routes(bulsa: &Bulsa) -> Vec<(&'static str, &Pos, &'static str)> {
    let mut found = Vec::new();
    for it in bulsa.routes.iter().filter(|it| it.is_whole) {
        let rules = &it.route.rules;
        for (key, is_asked, why) in [
            ("host", it.route.host.is_some(), "plain TCP has no host names"),
            ("path", it.route.path != "/", "plain TCP has no paths"),
            ("strip_prefix", rules.strip_prefix, "plain TCP has no paths"),
            ("redirect", rules.redirect.is_some(), "plain TCP has no redirects"),
            ("request_headers", !rules.request_headers.is_empty(), "plain TCP has no header fields"),
            ("response_headers", !rules.response_headers.is_empty(), "plain TCP has no header fields"),
        ] {
            if let Some(pos) = it.at.get(key).filter(|_| is_asked) {
                found.push((key, pos, why));
            }
        }
    }
    found
}

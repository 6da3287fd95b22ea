//! Which service answers a request: listener, host and path.
//!
//! Owns: the compiled, read-only form of a [`Table`]'s routes.
//! Never: knows targets' health, or changes after it was built.
//!
//! The order: routes that name the request's host come before those for any host; among these the longest
//! matching path prefix wins. A prefix matches whole segments: `/api` takes `/api` and `/api/x`, not `/apix`.
//! The path is compared with its dot segments resolved, so that `/public/../admin` is `/admin` here as it is
//! in the application; what is forwarded are the original bytes.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::rules::RouteRules;
use crate::table::{ListenerRoutes, Protocol, Table};

/// Where a request leads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'r> {
    /// The service's index in the table.
    pub(crate) service: usize,
    pub(crate) rules: Option<&'r Arc<RouteRules>>,
}

/// The routes of all listeners of one table.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    listeners: HashMap<String, Matcher>,
    /// Those that speak TCP. Apart, so that the question costs a request nothing where there are none.
    tcp: HashSet<String>,
}

/// The routes of one listener.
#[derive(Debug, Default)]
struct Matcher {
    by_host: HashMap<String, Vec<Prefix>>,
    any_host: Vec<Prefix>,
}

/// A path prefix without its last slash (the root is empty), and where it leads.
#[derive(Debug)]
struct Prefix {
    path: String,
    service: usize,
    rules: Option<Arc<RouteRules>>,
}

impl Routes {
    /// Compiles the routes of a table.
    pub(crate) fn compile(table: &Table) -> Self {
        let listeners = table.listeners.iter().map(|l| (l.name.clone(), Matcher::compile(l))).collect();
        let tcp = table.listeners.iter().filter(|l| l.protocol == Protocol::Tcp);
        Self { listeners, tcp: tcp.map(|l| l.name.clone()).collect() }
    }

    /// What is spoken on a listener. `None`: the table does not name it.
    pub(crate) fn protocol(&self, listener: &str) -> Option<Protocol> {
        if self.is_tcp(listener) {
            return Some(Protocol::Tcp);
        }
        self.listeners.contains_key(listener).then_some(Protocol::Http)
    }

    /// Whether a listener speaks TCP.
    pub(crate) fn is_tcp(&self, listener: &str) -> bool {
        !self.tcp.is_empty() && self.tcp.contains(listener)
    }

    /// Finds the index of the service that a TCP listener's connections go to.
    pub(crate) fn find_tcp(&self, listener: &str) -> Option<usize> {
        let found = self.is_tcp(listener).then(|| self.find(listener, "", "/")).flatten();
        found.map(|found| found.service)
    }

    /// Finds where a request leads. `host` may carry a port; `path` begins with a slash.
    pub(crate) fn find(&self, listener: &str, host: &str, path: &str) -> Option<Found<'_>> {
        let matcher = self.listeners.get(listener)?;
        let path = resolve_dots(path)?;
        let exact = if matcher.by_host.is_empty() {
            None
        } else {
            matcher.by_host.get(host_key(host).as_ref()).and_then(|prefixes| longest(prefixes, &path))
        };
        exact.or_else(|| longest(&matcher.any_host, &path))
    }
}

impl Matcher {
    fn compile(listener: &ListenerRoutes) -> Self {
        let mut matcher = Self::default();
        for route in &listener.routes {
            let path = resolve_dots(&route.path).unwrap_or(Cow::Borrowed("/"));
            let path = path.trim_end_matches('/').to_owned();
            let rules = RouteRules::compile(&route.rules, &path).map(Arc::new);
            let prefix = Prefix { path, service: route.service, rules };
            match &route.host {
                Some(host) => {
                    matcher.by_host.entry(host_key(host).into_owned()).or_default().push(prefix);
                }
                None => matcher.any_host.push(prefix),
            }
        }
        for prefixes in matcher.by_host.values_mut().chain([&mut matcher.any_host]) {
            // The sort is stable: of two equal routes the first one written wins.
            prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.path.len()));
        }
        matcher
    }
}

impl Prefix {
    fn matches(&self, path: &str) -> bool {
        path.strip_prefix(self.path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

fn longest<'r>(prefixes: &'r [Prefix], path: &str) -> Option<Found<'r>> {
    let prefix = prefixes.iter().find(|prefix| prefix.matches(path))?;
    Some(Found { service: prefix.service, rules: prefix.rules.as_ref() })
}

/// The host as it is compared: without port, without the root's dot, in lower case.
fn host_key(host: &str) -> Cow<'_, str> {
    let host = match host.rfind(':') {
        // A colon inside brackets belongs to an IPv6 address.
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        return Cow::Owned(host.to_ascii_lowercase());
    }
    Cow::Borrowed(host)
}

/// Resolves `.` and `..` segments, also when their dots are percent-encoded. `None`: the path climbs above the root.
fn resolve_dots(path: &str) -> Option<Cow<'_, str>> {
    // `OPTIONS *` has no path; it asks about the whole server.
    if !path.starts_with('/') {
        return Some(Cow::Borrowed("/"));
    }
    // A segment of dots begins with one, written out or in percent.
    let may_be_dots = |slash: usize| matches!(path.as_bytes().get(slash + 1), Some(b'.' | b'%'));
    if !memchr::memchr_iter(b'/', path.as_bytes()).any(may_be_dots) {
        return Some(Cow::Borrowed(path));
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_dots = false;
    for segment in path[1..].split('/') {
        ends_in_dots = true;
        match dots(segment) {
            Some(1) => {}
            Some(_) => {
                kept.pop()?;
            }
            None => {
                kept.push(segment);
                ends_in_dots = false;
            }
        }
    }
    let mut resolved = String::with_capacity(path.len());
    for segment in &kept {
        resolved.push('/');
        resolved.push_str(segment);
    }
    if ends_in_dots {
        resolved.push('/');
    }
    Some(Cow::Owned(resolved))
}

/// The number of dots, if the segment is `.` or `..` in plain or percent-encoded form.
fn dots(segment: &str) -> Option<usize> {
    if segment.is_empty() || segment.len() > 6 {
        return None;
    }
    let mut rest = segment;
    let mut count = 0;
    while !rest.is_empty() {
        rest = match rest.as_bytes() {
            [b'.', ..] => &rest[1..],
            [b'%', b'2', b'e' | b'E', ..] => &rest[3..],
            _ => return None,
        };
        count += 1;
    }
    (count <= 2).then_some(count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::table::Route;

    fn routes(list: &[(Option<&str>, &str)]) -> Routes {
        let routes =
            list.iter().enumerate().map(|(service, (host, path))| Route::new(host.as_deref(), path, service));
        let listener = ListenerRoutes::http("http", routes.collect());
        Routes::compile(&Table { listeners: vec![listener], ..Table::empty(1) })
    }

    fn found(routes: &Routes, listener: &str, host: &str, path: &str) -> Option<usize> {
        routes.find(listener, host, path).map(|found| found.service)
    }

    #[track_caller]
    fn check(list: &[(Option<&str>, &str)], host: &str, path: &str, expected: Option<usize>) {
        assert_eq!(found(&routes(list), "http", host, path), expected, "{host}{path}");
    }

    #[test]
    fn an_exact_host_comes_before_any_host() {
        let list = [(None, "/"), (Some("shop.example"), "/")];
        check(&list, "shop.example", "/x", Some(1));
        check(&list, "Shop.Example.:8080", "/x", Some(1));
        check(&list, "other.example", "/x", Some(0));
    }

    #[test]
    fn a_host_without_the_path_falls_back_to_any_host() {
        check(&[(None, "/"), (Some("a"), "/api")], "a", "/", Some(0));
    }

    #[test]
    fn the_longest_prefix_wins_in_any_order() {
        let list = [(None, "/"), (None, "/api/v2"), (None, "/api")];
        check(&list, "h", "/api/v2/x", Some(1));
        check(&list, "h", "/api/v1", Some(2));
        check(&list, "h", "/", Some(0));
    }

    #[test]
    fn a_prefix_matches_whole_segments() {
        let list = [(None, "/api/")];
        check(&list, "h", "/api", Some(0));
        check(&list, "h", "/api/x", Some(0));
        check(&list, "h", "/apix", None);
    }

    #[test]
    fn an_ipv6_host_keeps_its_brackets_and_loses_its_port() {
        check(&[(Some("[::1]"), "/")], "[::1]:80", "/", Some(0));
        check(&[(Some("[::1]"), "/")], "[::1]", "/", Some(0));
    }

    #[test]
    fn dot_segments_are_resolved_before_matching() {
        let list = [(None, "/public"), (None, "/admin")];
        check(&list, "h", "/public/../admin/x", Some(1));
        check(&list, "h", "/public/%2E%2e/admin", Some(1));
        check(&list, "h", "/public/./x", Some(0));
        check(&list, "h", "/public/...", Some(0));
        check(&list, "h", "/../public", None);
    }

    #[test]
    fn the_asterisk_form_is_routed_as_the_root() {
        check(&[(None, "/")], "h", "*", Some(0));
        check(&[(None, "/api")], "h", "*", None);
    }

    #[test]
    fn an_unknown_listener_has_no_routes() {
        assert_eq!(found(&routes(&[(None, "/")]), "other", "h", "/"), None);
    }

    #[test]
    fn only_a_tcp_listener_has_a_service_for_whole_connections() {
        let listener = ListenerRoutes::tcp("db", 3);
        let http = ListenerRoutes::http("http", vec![Route::to(3)]);
        let routes = Routes::compile(&Table { listeners: vec![listener, http], ..Table::empty(1) });
        let of = |name| (routes.protocol(name), routes.find_tcp(name));
        assert_eq!(of("db"), (Some(Protocol::Tcp), Some(3)));
        assert_eq!(of("http"), (Some(Protocol::Http), None));
        assert_eq!(of("other"), (None, None));
    }

    /// The rule, written down naively: try every route and keep the most specific one.
    fn model(list: &[(Option<String>, String)], host: &str, path: &str) -> Option<usize> {
        let segments = |path: &str| {
            let trimmed = path.trim_end_matches('/');
            trimmed.split('/').skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        let wanted: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
        let mut best: Option<((bool, usize), usize)> = None;
        for (index, (route_host, route_path)) in list.iter().enumerate() {
            let prefix = segments(route_path);
            let host_fits = route_host.as_deref().is_none_or(|h| h.eq_ignore_ascii_case(host));
            if !host_fits || !wanted.starts_with(&prefix) {
                continue;
            }
            let rank = (route_host.is_some(), prefix.iter().map(|s| s.len() + 1).sum());
            if best.is_none_or(|(known, _)| known < rank) {
                best = Some((rank, index));
            }
        }
        best.map(|(_, index)| index)
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_naive_rule(
            list in prop::collection::vec(
                (prop::option::of("[abAB]"), "(/[ab]{1,2}){0,3}/?").prop_map(|(h, p)| (h, if p.is_empty() { "/".into() } else { p })),
                0..8,
            ),
            host in "[ab]",
            path in "(/[ab]{1,2}){1,4}",
        ) {
            let borrowed: Vec<_> = list.iter().map(|(h, p)| (h.as_deref(), p.as_str())).collect();
            prop_assert_eq!(found(&routes(&borrowed), "http", &host, &path), model(&list, &host, &path));
        }

        #[test]
        fn resolving_never_panics_and_leaves_no_dots(path in "(/(\\.|\\.\\.|%2e|%2E\\.|a|é|%41|))*") {
            if let Some(resolved) = resolve_dots(&path) {
                prop_assert!(resolved.starts_with('/'));
                prop_assert!(resolved.split('/').all(|s| dots(s).is_none()));
            }
        }
    }
}

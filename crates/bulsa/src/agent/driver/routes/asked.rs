//! What a file asks of the proxy, in the proxy's own words.
//!
//! Owns: one function per kind of wish. Never: lets through more than the proxy takes: a table that it refuses keeps
//! everybody's routes from it.

use std::time::Duration;

use bulsa_core::spec::{self, Check};
use bulsa_proxy::{
    Balance, HOLD_MS_MAX, HeaderRule, Hold, Policy, ProxyHeader, Redirect, Route, Rules, SLOW_START_MS_MAX,
    Times, WEIGHT_MAX,
};

/// Whole milliseconds, at most so many: what the proxy takes is bounded, whatever a file asks for.
pub(super) fn millis(time: Duration, max: u64) -> u64 {
    u64::try_from(time.as_millis()).map_or(max, |ms| ms.min(max))
}

/// How requests are spread.
pub(super) fn balance(asked: &spec::Balance) -> Balance {
    Balance {
        policy: match asked.policy {
            spec::Policy::RoundRobin => Policy::RoundRobin,
            spec::Policy::LeastConn => Policy::LeastConn,
            spec::Policy::TwoChoices => Policy::TwoChoices,
            spec::Policy::IpHash => Policy::IpHash,
            spec::Policy::Sticky => Policy::Sticky,
        },
        max_fails: asked.max_fails,
        fail_timeout_ms: millis(asked.fail_timeout, u64::MAX),
        slow_start_ms: millis(asked.slow_start, SLOW_START_MS_MAX),
        max_connections: asked.max_conns,
        max_in_flight: asked.max_requests,
    }
}

/// The share of the replica with this ordinal.
pub(super) fn weight(asked: &spec::Balance, ordinal: u32) -> u32 {
    asked.weight(ordinal).clamp(1, WEIGHT_MAX)
}

/// How long things may take.
pub(super) fn times(asked: spec::Times) -> Times {
    Times {
        first_byte_ms: millis(asked.first_byte, u64::MAX),
        tunnel_idle_ms: millis(asked.tunnel_idle, u64::MAX),
        tunnel_life_ms: millis(asked.tunnel_life, u64::MAX),
    }
}

/// What happens to requests while no target is ready, or `held` by somebody: those of a service that somebody stopped
/// don't wait.
pub(super) fn hold(asked: &spec::Hold, stopped: bool, held: bool) -> Hold {
    let (time_ms, requests) =
        if stopped { (0, 0) } else { (millis(asked.time, HOLD_MS_MAX), asked.requests) };
    Hold { time_ms, requests, on: held && !stopped, page: asked.page.clone() }
}

/// A route to the service with this index.
pub(super) fn route(asked: &spec::Route, service: usize) -> Route {
    let headers = |rules: &[spec::HeaderRule]| {
        let rule =
            |rule: &spec::HeaderRule| HeaderRule { name: rule.name.clone(), value: rule.value.clone() };
        rules.iter().map(rule).collect()
    };
    let redirect = |to: &spec::Redirect| Redirect { status: to.status, to: to.to.clone() };
    let rules = Rules {
        strip_prefix: asked.rules.strip_prefix,
        redirect: asked.rules.redirect.as_ref().map(redirect),
        request_headers: headers(&asked.rules.request_headers),
        response_headers: headers(&asked.rules.response_headers),
    };
    Route { rules, ..Route::new(asked.host.as_deref(), &asked.path, service) }
}

/// The PROXY header that a target gets.
pub(super) fn send_proxy(asked: spec::ProxyHeader) -> ProxyHeader {
    match asked {
        spec::ProxyHeader::V1 => ProxyHeader::V1,
        spec::ProxyHeader::V2 => ProxyHeader::V2,
    }
}

/// Where an outer balancer asks whether a service is well: where its own check asks its port. `/` is everybody's start
/// page too, and whoever comes for that is to wait for it.
pub(super) fn health_path(service: &spec::Service, port: Option<u16>) -> Option<String> {
    let Check::Http { port: asked, path, .. } = &service.probe.check else { return None };
    let first = service.ports.first().map(|port| port.target);
    let is_of_port = match port {
        // A process has one port, and a check that names another asks something else.
        None => asked.is_none(),
        Some(port) => asked.or(first) == Some(port),
    };
    let path = path.split_once('?').map_or(path.as_str(), |(path, _)| path);
    (service.probe.declared && is_of_port && path != "/").then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(lines: &str) -> spec::Service {
        use bulsa_core::compose::{LoadInput, ReadError, SourceFile, load};
        let text = format!("services:\n  web:\n    command: x\n    ports: ['80:3000', '81:3001']\n{lines}");
        let files = vec![SourceFile { path: "compose.yaml".to_owned(), text }];
        let loaded = load(LoadInput::new(files, "/srv/shop", &mut |_: &str| Err(ReadError::NotFound)));
        loaded.spec.unwrap_or_else(|| panic!("{}", loaded.diagnostics)).services.remove("web").unwrap()
    }

    #[test]
    fn no_file_can_ask_the_proxy_for_more_than_it_takes() {
        assert_eq!(millis(Duration::from_secs(2), HOLD_MS_MAX), 2000);
        assert_eq!(millis(Duration::from_secs(100 * 3600), HOLD_MS_MAX), HOLD_MS_MAX);
        let asked = spec::Balance { slow_start: Duration::MAX, weights: vec![0, 9999], ..Default::default() };
        assert_eq!(balance(&asked).slow_start_ms, SLOW_START_MS_MAX);
        assert_eq!([weight(&asked, 1), weight(&asked, 2), weight(&asked, 3)], [1, WEIGHT_MAX, WEIGHT_MAX]);
    }

    #[test]
    fn what_nobody_asks_is_the_proxys_own_default() {
        let web = service("");
        assert_eq!(balance(&web.balance), Balance::default());
        assert_eq!(times(web.times), Times::default());
        assert_eq!(hold(&web.hold, false, false), Hold::default());
        assert_eq!(route(&web.routing.routes[0], 3), Route::to(3));
    }

    #[test]
    fn what_is_stopped_is_answered_at_once_though_it_is_held() {
        let web = service("");
        assert_eq!(hold(&web.hold, false, true), Hold { on: true, ..Hold::default() });
        for held in [false, true] {
            let stopped = hold(&web.hold, true, held);
            assert_eq!((stopped.time_ms, stopped.requests, stopped.on), (0, 0, false));
        }
    }

    #[test]
    fn an_outer_balancer_asks_where_the_services_own_check_asks() {
        let of = |lines: &str, port| health_path(&service(lines), port);
        let up = "    x-bulsa: {probe: {path: '/up?full=1'}}\n";
        assert_eq!(of(up, None).as_deref(), Some("/up"));
        assert_eq!(of(up, Some(3000)).as_deref(), Some("/up"));
        assert_eq!(of(up, Some(3001)), None);
        assert_eq!(of("    x-bulsa: {probe: {path: /up, port: 9000}}\n", None), None, "another port");
        assert_eq!(of("    x-bulsa: {probe: {path: /}}\n", None), None, "users come there too");
        assert_eq!(of("", None), None, "nobody asked for a check");
        assert_eq!(of("    healthcheck: {test: [CMD, ./check]}\n", None), None);
    }
}

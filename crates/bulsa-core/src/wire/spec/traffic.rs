//! What a file asks of the proxy, as it is stored and sent.
//!
//! Owns: the wire forms of [`crate::spec::traffic`]; each is left out where it says nothing, so that a Spec from before it
//! has the same hash. Never: lets in what the proxy would refuse: one bad route would keep every project's table from it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{PortV1, SpecWireError, TrustedProxyV1, convert, is_default};
use crate::spec::{
    Balance, HeaderRule, Limits, Policy, Port, ProxyHeader, Redirect, Route, Routing, Rules, Times,
    traffic::{self, HEADER_RULES_MAX, REDIRECTS, ROUTES_MAX, WEIGHT_MAX},
};

/// A [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsV1 {
    /// Connections of one address; 0 is no limit.
    pub connections_per_address: u32,
}

impl Default for LimitsV1 {
    fn default() -> Self {
        Limits::default().into()
    }
}

impl From<Limits> for LimitsV1 {
    fn from(limits: Limits) -> Self {
        Self { connections_per_address: limits.connections_per_address }
    }
}

impl From<LimitsV1> for Limits {
    fn from(wire: LimitsV1) -> Self {
        Self { connections_per_address: wire.connections_per_address }
    }
}

/// A [`Balance`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BalanceV1 {
    /// Which replica gets a request.
    pub policy: PolicyV1,
    /// Shares by ordinal.
    pub weights: Vec<u32>,
    /// Failures that count; 0 counts none.
    pub max_fails: u32,
    /// The window for them.
    pub fail_timeout_ms: u64,
    /// How long a fresh replica's share grows.
    pub slow_start_ms: u64,
    /// Connections to one replica; 0 is no limit.
    pub max_conns: u32,
    /// Requests in flight on one replica; 0 is no limit.
    pub max_requests: u32,
}

impl Default for BalanceV1 {
    fn default() -> Self {
        (&Balance::default()).into()
    }
}

/// A [`Policy`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named as in the Spec, and explained there")]
pub enum PolicyV1 {
    #[default]
    RoundRobin,
    LeastConn,
    TwoChoices,
    IpHash,
    Sticky,
}

convert::same_names!(PolicyV1 = Policy { RoundRobin, LeastConn, TwoChoices, IpHash, Sticky });

impl From<&Balance> for BalanceV1 {
    fn from(balance: &Balance) -> Self {
        Self {
            policy: balance.policy.into(),
            weights: balance.weights.clone(),
            max_fails: balance.max_fails,
            fail_timeout_ms: convert::ms(balance.fail_timeout),
            slow_start_ms: convert::ms(balance.slow_start),
            max_conns: balance.max_conns,
            max_requests: balance.max_requests,
        }
    }
}

pub(super) fn balance(wire: BalanceV1, service: &str) -> Result<Balance, SpecWireError> {
    convert::require(wire.weights.iter().all(|weight| (1..=WEIGHT_MAX).contains(weight)), || {
        format!("{service}: a weight isn't from 1 to {WEIGHT_MAX}")
    })?;
    Ok(Balance {
        policy: wire.policy.into(),
        weights: wire.weights,
        max_fails: wire.max_fails,
        fail_timeout: Duration::from_millis(wire.fail_timeout_ms),
        slow_start: Duration::from_millis(wire.slow_start_ms),
        max_conns: wire.max_conns,
        max_requests: wire.max_requests,
    })
}

/// A [`Times`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "named as in the Spec, and explained there")]
pub struct TimesV1 {
    pub first_byte_ms: u64,
    pub tunnel_idle_ms: u64,
    pub tunnel_life_ms: u64,
}

impl From<Times> for TimesV1 {
    fn from(times: Times) -> Self {
        Self {
            first_byte_ms: convert::ms(times.first_byte),
            tunnel_idle_ms: convert::ms(times.tunnel_idle),
            tunnel_life_ms: convert::ms(times.tunnel_life),
        }
    }
}

impl From<TimesV1> for Times {
    fn from(wire: TimesV1) -> Self {
        Self {
            first_byte: Duration::from_millis(wire.first_byte_ms),
            tunnel_idle: Duration::from_millis(wire.tunnel_idle_ms),
            tunnel_life: Duration::from_millis(wire.tunnel_life_ms),
        }
    }
}

/// A [`Routing`]. The host and path of its first route stand in each port, where they were before there could be more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoutingV1 {
    /// All routes; none where there is one that has a host and a path and no rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteV1>,
    /// Peers that send a PROXY header.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proxy_from: Vec<TrustedProxyV1>,
    /// The PROXY header that a replica gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_proxy: Option<ProxyHeader>,
}

/// A [`Route`] with its rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteV1 {
    /// The host name.
    pub host: Option<String>,
    /// The path prefix.
    pub path: String,
    /// Whether replicas get the path without it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub strip_prefix: bool,
    /// Where clients are sent instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<RedirectV1>,
    /// Fields of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub request_headers: Vec<HeaderRuleV1>,
    /// Fields of the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub response_headers: Vec<HeaderRuleV1>,
}

/// A [`Redirect`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in the Spec, and explained there")]
pub struct RedirectV1 {
    pub status: u16,
    pub to: String,
}

/// A [`HeaderRule`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in the Spec, and explained there")]
pub struct HeaderRuleV1 {
    pub name: String,
    pub value: Option<String>,
}

impl From<&Routing> for RoutingV1 {
    fn from(routing: &Routing) -> Self {
        let is_in_ports = matches!(&routing.routes[..], [only] if only.rules == Rules::default());
        Self {
            routes: if is_in_ports { Vec::new() } else { routing.routes.iter().map(route_to_wire).collect() },
            proxy_from: routing.proxy_from.iter().map(convert::proxy_to_wire).collect(),
            send_proxy: routing.send_proxy,
        }
    }
}

pub(super) fn port_to_wire(port: &Port, routing: &Routing) -> PortV1 {
    let first = routing.routes.first().cloned().unwrap_or_default();
    PortV1 {
        host: port.host,
        published: port.published,
        target: port.target,
        route_host: first.host,
        route_path: first.path,
        protocol: port.protocol,
    }
}

pub(super) fn routing(wire: RoutingV1, ports: &[PortV1], service: &str) -> Result<Routing, SpecWireError> {
    let in_port = |port: &PortV1| Route {
        host: port.route_host.clone(),
        path: port.route_path.clone(),
        rules: Rules::default(),
    };
    let mut routes: Vec<Route> = wire.routes.into_iter().map(route_from_wire).collect();
    if routes.is_empty() {
        routes.push(ports.first().map(in_port).unwrap_or_default());
    }
    convert::require(routes.len() <= ROUTES_MAX, || format!("{service} has more than {ROUTES_MAX} routes"))?;
    for route in &routes {
        convert::require(route.path.starts_with('/'), || format!("{service}: {:?} is no path", route.path))?;
        check_rules(&route.rules, service)?;
    }
    let proxy_from = wire.proxy_from.into_iter().map(convert::proxy_from_wire);
    Ok(Routing { routes, proxy_from: proxy_from.collect::<Result<_, _>>()?, send_proxy: wire.send_proxy })
}

fn check_rules(rules: &Rules, service: &str) -> Result<(), SpecWireError> {
    if let Some(redirect) = &rules.redirect {
        convert::require(REDIRECTS.contains(&redirect.status), || {
            format!("{service}: a redirect has the status {}", redirect.status)
        })?;
        traffic::check_redirect(&redirect.to).map_err(|error| {
            SpecWireError::Invalid(format!("{service}: the redirect to {:?}: {error}", redirect.to))
        })?;
    }
    for headers in [&rules.request_headers, &rules.response_headers] {
        convert::require(headers.len() <= HEADER_RULES_MAX, || {
            format!("{service} has more than {HEADER_RULES_MAX} rules for header fields")
        })?;
        for HeaderRule { name, value } in headers {
            let is_sound = traffic::is_field_name(name)
                && !traffic::is_own_field(name)
                && value.as_deref().is_none_or(traffic::is_field_value);
            convert::require(is_sound, || format!("{service}: the header field {name:?} can't be set"))?;
        }
    }
    Ok(())
}

fn route_to_wire(route: &Route) -> RouteV1 {
    let headers = |rules: &[HeaderRule]| {
        let rule = |rule: &HeaderRule| HeaderRuleV1 { name: rule.name.clone(), value: rule.value.clone() };
        rules.iter().map(rule).collect()
    };
    let redirect = |to: &Redirect| RedirectV1 { status: to.status, to: to.to.clone() };
    RouteV1 {
        host: route.host.clone(),
        path: route.path.clone(),
        strip_prefix: route.rules.strip_prefix,
        redirect: route.rules.redirect.as_ref().map(redirect),
        request_headers: headers(&route.rules.request_headers),
        response_headers: headers(&route.rules.response_headers),
    }
}

fn route_from_wire(wire: RouteV1) -> Route {
    let headers = |rules: Vec<HeaderRuleV1>| {
        rules.into_iter().map(|rule| HeaderRule { name: rule.name, value: rule.value }).collect()
    };
    Route {
        host: wire.host,
        path: wire.path,
        rules: Rules {
            strip_prefix: wire.strip_prefix,
            redirect: wire.redirect.map(|to| Redirect { status: to.status, to: to.to }),
            request_headers: headers(wire.request_headers),
            response_headers: headers(wire.response_headers),
        },
    }
}

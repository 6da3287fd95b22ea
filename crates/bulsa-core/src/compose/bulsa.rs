//! `x-bulsa`, at the top and in a service: what Compose cannot say.
//!
//! Owns: its keys and their bounds. What is valid but comes later is an error that says so.

use std::{net::IpAddr, time::Duration};

use crate::spec::{AppPort, Bake, Drain, Handover, Hold, Keep, Protocol, Role, Rolling, TrustedProxy};

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    duration, keys,
    model::{Bulsa, Probe},
    read,
    scalar::Value,
    tree::{Kind, Node, Scalar},
};

/// At most this many releases have running replicas.
const MAX_RELEASES: u32 = 10;
/// At most this many address blocks are trusted: each is looked at for every request.
const MAX_TRUSTED: usize = 100;
/// At most this many requests wait for a target.
const MAX_HELD: u32 = 100_000;
/// More passes or failures in a row than this say nothing.
const MAX_THRESHOLD: u32 = 1000;
/// The longest host name of a route, in bytes, as DNS has it.
const MAX_HOST_BYTES: usize = 253;

/// The top's `x-bulsa`.
pub(super) fn top(node: &Node, diags: &mut Diagnostics) -> (Keep, Option<Vec<TrustedProxy>>) {
    let mut keep = Keep::default();
    let mut trusted = None;
    read::keys(node, "x-bulsa", &keys::BULSA_TOP, diags, |entry, path, diags| match entry.key.as_str() {
        "engine" => {
            // Said again, and no more: what a service has (`image`, `build`, `command`) decides.
            read::choice(&entry.value, path, &[("process", ()), ("docker", ())], &["swarm"], diags);
        }
        "keep" => keep = self::keep(&entry.value, path, diags),
        _ => trusted = trusted_proxies(&entry.value, path, diags),
    });
    (keep, trusted)
}

fn keep(node: &Node, path: &str, diags: &mut Diagnostics) -> Keep {
    let mut keep = Keep::default();
    read::keys(node, path, &keys::BULSA_KEEP, diags, |entry, path, diags| match entry.key.as_str() {
        "releases" => set(&mut keep.releases, read::number(&entry.value, path, 2..=MAX_RELEASES, diags)),
        _ => set(&mut keep.warm, read::duration(&entry.value, path, duration::KEEP, diags)),
    });
    keep
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn trusted_proxies(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<Vec<TrustedProxy>> {
    let names = read::texts(node, path, diags)?;
    if names.len() > MAX_TRUSTED {
        diags.push(
            Diagnostic::error(&node.pos, format!("{path} has {} entries", names.len()))
                .expected(format!("at most {MAX_TRUSTED}")),
        );
        return None;
    }
    let Kind::Sequence(items) = &node.kind else { return None };
    let mut trusted = Vec::with_capacity(names.len());
    for (name, item) in names.iter().zip(items) {
        match trusted_proxy(name) {
            Some(proxy) => trusted.push(proxy),
            None => diags.push(
                Diagnostic::error(&item.pos, format!("{path}: {name:?} is no address block"))
                    .expected("`loopback`, `project`, an address, or a block such as 10.0.0.0/8")
                    .nearest(name, ["loopback", "project"]),
            ),
        }
    }
    Some(trusted)
}

fn trusted_proxy(text: &str) -> Option<TrustedProxy> {
    match text {
        "loopback" => return Some(TrustedProxy::Loopback),
        "project" => return Some(TrustedProxy::Project),
        _ => {}
    }
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let all = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        Some(bits) => bits.parse::<u8>().ok().filter(|bits| *bits <= all)?,
        None => all,
    };
    Some(TrustedProxy::Block(address, bits))
}

const ROLES: &[(&str, Role)] =
    &[("app", Role::App), ("shared", Role::Shared), ("worker", Role::Worker), ("job", Role::Job)];
const HANDOVERS: &[(&str, Handover)] = &[
    ("overlap", Handover::Overlap),
    ("stop_first", Handover::StopFirst),
    ("rolling", Handover::Rolling(Rolling { parallelism: 1, stop_first: false, delay: Duration::ZERO })),
];

/// A service's `x-bulsa`.
pub(super) fn service(node: &Node, path: &str, diags: &mut Diagnostics) -> Bulsa {
    let mut bulsa = Bulsa::default();
    read::keys(node, path, &keys::BULSA, diags, |entry, path, diags| {
        let node = &entry.value;
        match entry.key.as_str() {
            "role" => {
                bulsa.role = read::choice(node, path, ROLES, &[], diags).map(|role| (role, node.pos.clone()));
            }
            "route" => route(&mut bulsa, node, path, diags),
            "probe" => bulsa.probe = Some(probe(node, path, diags)),
            "gate" => read::keys(node, path, &keys::BULSA_GATE, diags, |entry, path, diags| {
                bulsa.gate_timeout = read::duration(&entry.value, path, duration::WAIT, diags);
            }),
            "balance" => read::keys(node, path, &keys::BULSA_BALANCE, diags, |entry, path, diags| {
                let later = ["least_conn", "ip_hash", "sticky"];
                read::choice(&entry.value, path, &[("round_robin", ())], &later, diags);
            }),
            "drain" => bulsa.drain = drain(node, path, diags),
            "hold" => bulsa.hold = hold(node, path, diags),
            "bake" => bulsa.bake = bake(node, path, diags),
            "handover" => {
                let later = ["drain_then_start", "singleton"];
                bulsa.handover = read::choice(node, path, HANDOVERS, &later, diags);
            }
            _ => bulsa.app_port = app_port(node, path, diags).map(|port| (port, node.pos.clone())),
        }
    });
    bulsa
}

fn route(bulsa: &mut Bulsa, node: &Node, path: &str, diags: &mut Diagnostics) {
    read::keys(node, path, &keys::BULSA_ROUTE, diags, |entry, path, diags| {
        let node = &entry.value;
        match entry.key.as_str() {
            "host" => bulsa.route_host = route_host(node, path, diags),
            "path" => bulsa.route_path = url_path(node, path, diags),
            _ => {
                let known = [("http", Protocol::Http), ("tcp", Protocol::Tcp)];
                bulsa.route_protocol = read::choice(node, path, &known, &["tls", "grpc"], diags);
            }
        }
    });
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

/// A path as it stands in a request line, with its query.
fn url_path(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<String> {
    let text = read::text(node, path, diags)?;
    if text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Some(text.to_owned());
    }
    diags.push(
        Diagnostic::error(&node.pos, format!("{path}: {text:?} is no path of a URL"))
            .expected("a text that starts with `/`, such as /health"),
    );
    None
}

fn probe(node: &Node, path: &str, diags: &mut Diagnostics) -> Probe {
    let mut probe = Probe::default();
    read::keys(node, path, &keys::BULSA_PROBE, diags, |entry, path, diags| {
        let node = &entry.value;
        match entry.key.as_str() {
            "path" => probe.path = url_path(node, path, diags),
            "port" => {
                let port = read::number(node, path, 1..=65535, diags);
                probe.port = port.and_then(|port| u16::try_from(port).ok());
            }
            "interval" => probe.interval = read::duration(node, path, duration::PROBE, diags),
            "timeout" => probe.timeout = read::duration(node, path, duration::PROBE, diags),
            "rise" => probe.rise = read::number(node, path, 1..=MAX_THRESHOLD, diags),
            _ => probe.fall = read::number(node, path, 1..=MAX_THRESHOLD, diags),
        }
    });
    probe
}

fn drain(node: &Node, path: &str, diags: &mut Diagnostics) -> Drain {
    let mut drain = Drain::default();
    read::keys(node, path, &keys::BULSA_DRAIN, diags, |entry, path, diags| {
        let node = &entry.value;
        match entry.key.as_str() {
            "requests" => set(&mut drain.requests, read::duration(node, path, duration::WAIT, diags)),
            "websockets" => set(&mut drain.websockets, read::duration(node, path, duration::KEEP, diags)),
            _ => set(&mut drain.stagger, read::duration(node, path, duration::WAIT, diags)),
        }
    });
    drain
}

fn hold(node: &Node, path: &str, diags: &mut Diagnostics) -> Hold {
    let mut hold = Hold::default();
    read::keys(node, path, &keys::BULSA_HOLD, diags, |entry, path, diags| match entry.key.as_str() {
        "time" => set(&mut hold.time, read::duration(&entry.value, path, duration::HOLD, diags)),
        _ => set(&mut hold.requests, read::number(&entry.value, path, 0..=MAX_HELD, diags)),
    });
    hold
}

fn bake(node: &Node, path: &str, diags: &mut Diagnostics) -> Bake {
    let mut bake = Bake::default();
    read::keys(node, path, &keys::BULSA_BAKE, diags, |entry, path, diags| match entry.key.as_str() {
        "time" => set(&mut bake.time, read::duration(&entry.value, path, duration::WAIT, diags)),
        _ => set(&mut bake.errors, percent(&entry.value, path, diags)),
    });
    bake
}

/// `5%`, as a share from 0 to 1.
fn percent(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<f64> {
    let text = match node.scalar().map(Scalar::resolve) {
        Some(Value::Text(text)) => text,
        _ => "",
    };
    let number =
        text.strip_suffix('%').map(str::trim).filter(|n| n.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    let share = number.and_then(|n| n.parse::<f64>().ok()).filter(|n| (0.0..=100.0).contains(n));
    if share.is_none() {
        diags.push(read::wrong(node, path, "a share from 0% to 100%, such as 5%"));
    }
    // Whole parts per million, as they are stored.
    share.map(|percent| (percent * 10_000.0).round() / 1_000_000.0)
}

/// `3000`, or `{port: 3000, isolate: true}`.
fn app_port(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<AppPort> {
    let number = |node: &Node, path: &str, diags: &mut Diagnostics| {
        read::number(node, path, 1..=65535, diags).and_then(|port| u16::try_from(port).ok())
    };
    if let Kind::Scalar(_) = node.kind {
        return number(node, path, diags).map(AppPort::Fixed);
    }
    let (mut port, mut isolate) = (None, false);
    read::keys(node, path, &keys::BULSA_APP_PORT, diags, |entry, path, diags| match entry.key.as_str() {
        "port" => port = number(&entry.value, path, diags),
        _ => isolate = read::boolean(&entry.value, path, diags).unwrap_or(false),
    });
    if matches!(node.kind, Kind::Mapping(_)) && node.get("port").is_none() {
        diags.push(
            Diagnostic::error(&node.pos, format!("{path} has no `port`"))
                .expected("app_port: 3000, or app_port: {port: 3000, isolate: true}"),
        );
    }
    port.map(if isolate { AppPort::Isolated } else { AppPort::Fixed })
}

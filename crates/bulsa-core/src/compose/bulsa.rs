//! `x-bulsa`, at the top and in a service: what Compose cannot say.
//!
//! Owns: its keys and their bounds. What is valid but comes later is an error that says so.

mod balance;
mod hold;
mod notify;
mod peers;
mod recycle;
mod route;

use std::time::Duration;

use crate::notify::Notify;
use crate::spec::{AppPort, Bake, Drain, Handover, Keep, Limits, Role, Rolling, TrustedProxy};

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
/// More connections of one address than this are no limit.
const MAX_CONNECTIONS: u32 = 1_000_000;
/// At most this many replicas of a service are kept ready besides.
const MAX_SPARE: u32 = 100;
/// More passes or failures in a row than this say nothing.
const MAX_THRESHOLD: u32 = 1000;

pub(super) use hold::page;

/// The top's `x-bulsa`.
#[derive(Default)]
pub(super) struct Top {
    pub(super) keep: Keep,
    pub(super) limits: Limits,
    pub(super) notify: Notify,
    pub(super) trusted: Option<Vec<TrustedProxy>>,
}

/// Reads the top's `x-bulsa`.
pub(super) fn top(node: &Node, diags: &mut Diagnostics) -> Top {
    let mut top = Top::default();
    read::keys(node, "x-bulsa", &keys::BULSA_TOP, diags, |entry, path, diags| match entry.key.as_str() {
        "engine" => {
            // Said again, and no more: what a service has (`image`, `build`, `command`) decides.
            read::choice(&entry.value, path, &[("process", ()), ("docker", ())], &["swarm"], diags);
        }
        "keep" => top.keep = keep(&entry.value, path, diags),
        "limits" => top.limits = limits(&entry.value, path, diags),
        "notify" => top.notify.webhooks = notify::webhooks(&entry.value, path, diags),
        "heartbeat" => top.notify.heartbeat = notify::heartbeat(&entry.value, path, diags),
        _ => top.trusted = peers::read(&entry.value, path, diags),
    });
    top
}

fn limits(node: &Node, path: &str, diags: &mut Diagnostics) -> Limits {
    let mut limits = Limits::default();
    read::keys(node, path, &keys::BULSA_LIMITS, diags, |entry, path, diags| {
        let number = read::number(&entry.value, path, 0..=MAX_CONNECTIONS, diags);
        set(&mut limits.connections_per_address, number);
    });
    limits
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
            "route" => route::read(&mut bulsa, node, path, diags),
            "probe" => bulsa.probe = Some(probe(node, path, diags)),
            "gate" => read::keys(node, path, &keys::BULSA_GATE, diags, |entry, path, diags| {
                bulsa.gate_timeout = read::duration(&entry.value, path, duration::WAIT, diags);
            }),
            "balance" => balance::read(&mut bulsa, node, path, diags),
            "timeouts" => balance::times(&mut bulsa, node, path, diags),
            "drain" => bulsa.drain = drain(node, path, diags),
            "hold" => hold::read(&mut bulsa, node, path, diags),
            "access_log" => {
                bulsa.at.insert(entry.key.clone(), entry.key_pos.clone());
                set(&mut bulsa.access_log, read::boolean(node, path, diags));
            }
            "spare" => {
                bulsa.at.insert(entry.key.clone(), entry.key_pos.clone());
                set(&mut bulsa.care.spare, read::number(node, path, 0..=MAX_SPARE, diags));
            }
            "recycle" => {
                bulsa.at.insert(entry.key.clone(), entry.key_pos.clone());
                recycle::read(&mut bulsa, node, path, diags);
            }
            "heartbeat" => {
                bulsa.at.insert(entry.key.clone(), entry.key_pos.clone());
                bulsa.heartbeat = read::duration(node, path, duration::BEAT, diags);
            }
            "bake" => bulsa.bake = bake(node, path, diags),
            "drill" => drill(node, path, &mut bulsa.drill_block, diags),
            "handover" => {
                let later = ["drain_then_start", "singleton"];
                bulsa.handover = read::choice(node, path, HANDOVERS, &later, diags);
            }
            _ => bulsa.app_port = app_port(node, path, diags).map(|port| (port, node.pos.clone())),
        }
    });
    bulsa
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

fn drill(node: &Node, path: &str, block: &mut Option<String>, diags: &mut Diagnostics) {
    read::keys(node, path, &keys::BULSA_DRILL, diags, |entry, path, diags| {
        *block = url_path(&entry.value, path, diags);
    });
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

//! `x-bulsa.balance` and `x-bulsa.timeouts`: how requests are spread, and how long things may take.

use super::{
    super::{
        diagnostic::{Diagnostic, Diagnostics},
        duration, keys,
        model::Bulsa,
        read,
        service::MAX_REPLICAS,
        tree::{Kind, Node},
    },
    set,
};
use crate::spec::{Policy, traffic::WEIGHT_MAX};

/// More failures than this within one window say nothing.
const MAX_FAILS: u32 = 1000;
/// More connections to one replica, or requests on it, are no limit.
const MAX_AT_ONCE: u32 = 1_000_000;

const POLICIES: &[(&str, Policy)] = &[
    ("round_robin", Policy::RoundRobin),
    ("least_conn", Policy::LeastConn),
    ("two_choices", Policy::TwoChoices),
    ("ip_hash", Policy::IpHash),
    ("sticky", Policy::Sticky),
];

pub(super) fn read(bulsa: &mut Bulsa, node: &Node, path: &str, diags: &mut Diagnostics) {
    let Bulsa { balance, at, .. } = bulsa;
    read::keys(node, path, &keys::BULSA_BALANCE, diags, |entry, path, diags| {
        at.insert(format!("balance.{}", entry.key), entry.key_pos.clone());
        let node = &entry.value;
        match entry.key.as_str() {
            "policy" => set(&mut balance.policy, read::choice(node, path, POLICIES, &[], diags)),
            "weight" => set(&mut balance.weights, weights(node, path, diags)),
            "max_fails" => set(&mut balance.max_fails, read::number(node, path, 0..=MAX_FAILS, diags)),
            "fail_timeout" => {
                set(&mut balance.fail_timeout, read::duration(node, path, duration::PROBE, diags));
            }
            "slow_start" => set(&mut balance.slow_start, read::duration(node, path, duration::GROW, diags)),
            "max_conns" => set(&mut balance.max_conns, read::number(node, path, 0..=MAX_AT_ONCE, diags)),
            _ => set(&mut balance.max_requests, read::number(node, path, 0..=MAX_AT_ONCE, diags)),
        }
    });
}

/// One weight for all replicas, or a list by ordinal.
fn weights(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<Vec<u32>> {
    let Kind::Sequence(items) = &node.kind else {
        return read::number(node, path, 1..=WEIGHT_MAX, diags).map(|weight| vec![weight]);
    };
    if !u32::try_from(items.len()).is_ok_and(|count| (1..=MAX_REPLICAS).contains(&count)) {
        diags.push(Diagnostic::error(&node.pos, format!("{path} has {} entries", items.len())).expected(
            format!("1 to {MAX_REPLICAS}, one for each replica; the last counts for all further ones"),
        ));
        return None;
    }
    let read = items.iter().enumerate();
    // All of them are looked at before the first mistake counts.
    let read: Vec<_> =
        read.map(|(i, item)| read::number(item, &format!("{path}[{i}]"), 1..=WEIGHT_MAX, diags)).collect();
    read.into_iter().collect()
}

pub(super) fn times(bulsa: &mut Bulsa, node: &Node, path: &str, diags: &mut Diagnostics) {
    let Bulsa { times, at, .. } = bulsa;
    read::keys(node, path, &keys::BULSA_TIMEOUTS, diags, |entry, path, diags| {
        at.insert(format!("timeouts.{}", entry.key), entry.key_pos.clone());
        let node = &entry.value;
        match entry.key.as_str() {
            "first_byte" => set(&mut times.first_byte, read::duration(node, path, duration::WAIT, diags)),
            "tunnel_idle" => set(&mut times.tunnel_idle, read::duration(node, path, duration::KEEP, diags)),
            _ => set(&mut times.tunnel_life, read::duration(node, path, duration::KEEP, diags)),
        }
    });
}

//! Lists of peers: `trusted_proxies`, and from whom a PROXY protocol header is expected.

use std::net::IpAddr;

use super::super::{
    diagnostic::{Diagnostic, Diagnostics},
    read,
    tree::{Kind, Node},
};
use crate::spec::TrustedProxy;

/// At most this many address blocks: each is looked at for every connection.
const MAX_PEERS: usize = 100;

pub(super) fn read(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<Vec<TrustedProxy>> {
    let names = read::texts(node, path, diags)?;
    if names.len() > MAX_PEERS {
        diags.push(
            Diagnostic::error(&node.pos, format!("{path} has {} entries", names.len()))
                .expected(format!("at most {MAX_PEERS}")),
        );
        return None;
    }
    let Kind::Sequence(items) = &node.kind else { return None };
    let mut peers = Vec::with_capacity(names.len());
    for (name, item) in names.iter().zip(items) {
        match peer(name) {
            Some(peer) => peers.push(peer),
            None => diags.push(
                Diagnostic::error(&item.pos, format!("{path}: {name:?} is no address block"))
                    .expected("`loopback`, `project`, an address, or a block such as 10.0.0.0/8")
                    .nearest(name, ["loopback", "project"]),
            ),
        }
    }
    Some(peers)
}

fn peer(text: &str) -> Option<TrustedProxy> {
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

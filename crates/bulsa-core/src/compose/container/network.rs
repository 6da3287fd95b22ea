//! `networks`, `network_mode`, `expose`, names and addresses.

use super::{
    super::{
        diagnostic::{Diagnostic, Diagnostics},
        model::Docker,
        read,
        tree::{Entry, Kind, Node},
    },
    values::{self, fields},
};
use crate::spec::container::{Attachment, NetworkMode, PortNumber};

/// At most this many ports are named by `expose`, ranges expanded.
const MAX_EXPOSED: usize = 4096;

pub(super) fn key(docker: &mut Docker, entry: &Entry, path: &str, diags: &mut Diagnostics) -> bool {
    let node = &entry.value;
    let container = &mut docker.container;
    match entry.key.as_str() {
        "networks" => networks(docker, node, path, diags),
        "network_mode" => {
            docker.at.network_mode = Some(node.pos.clone());
            container.network_mode = network_mode(node, path, diags);
        }
        "expose" => container.expose = expose(node, path, diags),
        "hostname" => container.hostname = values::word(node, path, diags),
        "domainname" => container.domainname = values::word(node, path, diags),
        "mac_address" => container.isolation.mac_address = values::word(node, path, diags),
        "extra_hosts" => container.extra_hosts = hosts(node, path, diags),
        "dns" => container.dns = values::words(node, path, diags),
        "dns_search" => container.dns_search = values::words(node, path, diags),
        "dns_opt" => container.dns_options = values::words(node, path, diags),
        "external_links" => container.external_links = values::words(node, path, diags),
        "links" => {
            docker.at.links = Some(node.pos.clone());
            container.links = values::words(node, path, diags)
                .into_iter()
                .map(|link| match link.split_once(':') {
                    Some((service, alias)) => (service.to_owned(), alias.to_owned()),
                    None => (link.clone(), link),
                })
                .collect();
        }
        _ => return false,
    }
    true
}

fn networks(docker: &mut Docker, node: &Node, path: &str, diags: &mut Diagnostics) {
    match &node.kind {
        Kind::Mapping(entries) => {
            for entry in entries {
                let path = format!("{path}.{}", entry.key);
                let attachment = attachment(&entry.value, &path, diags);
                docker.container.networks.insert(entry.key.clone(), attachment);
                docker.at.networks.insert(entry.key.clone(), entry.key_pos.clone());
            }
        }
        _ => {
            for (item, path) in values::items(node, path, diags) {
                if let Some(name) = values::word(item, &path, diags) {
                    docker.container.networks.insert(name.clone(), Attachment::default());
                    docker.at.networks.insert(name, item.pos.clone());
                }
            }
        }
    }
}

fn attachment(node: &Node, path: &str, diags: &mut Diagnostics) -> Attachment {
    let mut it = Attachment::default();
    fields(node, path, diags, |entry, path, diags| {
        let node = &entry.value;
        match entry.key.as_str() {
            "aliases" => it.aliases = values::words(node, path, diags),
            "driver_opts" => it.driver_options = values::pairs(node, path, diags),
            "gw_priority" => it.gateway_priority = values::integer(node, path, values::ANY, diags),
            "interface_name" => it.interface_name = values::word(node, path, diags),
            "ipv4_address" => it.ipv4 = parsed(node, path, "an IPv4 address", diags),
            "ipv6_address" => it.ipv6 = parsed(node, path, "an IPv6 address", diags),
            "link_local_ips" => it.link_local_ips = values::words(node, path, diags),
            "mac_address" => it.mac_address = values::word(node, path, diags),
            _ => it.priority = values::integer(node, path, values::ANY, diags).unwrap_or(0),
        }
    });
    it
}

fn parsed<T: std::str::FromStr>(node: &Node, path: &str, what: &str, diags: &mut Diagnostics) -> Option<T> {
    let found = read::text(node, path, diags)?.parse().ok();
    if found.is_none() {
        diags.push(read::wrong(node, path, what));
    }
    found
}

fn network_mode(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<NetworkMode> {
    let text = read::text(node, path, diags)?;
    Some(match text.split_once(':') {
        Some(("service", name)) => NetworkMode::Service(name.to_owned()),
        Some(("container", name)) => NetworkMode::Container(name.to_owned()),
        _ => match text {
            "none" => NetworkMode::None,
            "host" => NetworkMode::Host,
            "bridge" | "default" => NetworkMode::Bridge,
            other => NetworkMode::Named(other.to_owned()),
        },
    })
}

/// `80`, `80/udp`, `90-92/udp`.
fn expose(node: &Node, path: &str, diags: &mut Diagnostics) -> Vec<PortNumber> {
    let mut ports: Vec<PortNumber> = Vec::new();
    for (item, path) in values::items(node, path, diags) {
        let Some(text) = values::word(item, &path, diags) else { continue };
        let Some(found) = exposed(&text) else {
            diags
                .push(Diagnostic::error(&item.pos, format!("{path}: {text:?} is no port")).expected(
                    "a port or a range, with a protocol where it isn't TCP: 80, 53/udp, 8000-8002",
                ));
            continue;
        };
        if ports.len() + found.len() > MAX_EXPOSED {
            diags.push(Diagnostic::error(
                &item.pos,
                format!("{path}: there are more than {MAX_EXPOSED} ports"),
            ));
            break;
        }
        for port in found {
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
    }
    ports
}

fn exposed(text: &str) -> Option<Vec<PortNumber>> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
    let good = first > 0 && first <= last && matches!(protocol, "tcp" | "udp" | "sctp");
    good.then(|| (first..=last).map(|port| PortNumber { port, protocol: protocol.to_owned() }).collect())
}

/// `name=address`, `name:address`, or a mapping; an address may be `host-gateway`, or stand in brackets.
pub(super) fn hosts(node: &Node, path: &str, diags: &mut Diagnostics) -> Vec<(String, String)> {
    let mut hosts = Vec::new();
    let mut add = |name: &str, address: &str| {
        let address = address.trim_start_matches('[').trim_end_matches(']');
        hosts.push((name.to_owned(), address.to_owned()));
    };
    if let Kind::Mapping(entries) = &node.kind {
        for entry in entries {
            for address in values::words(&entry.value, &format!("{path}.{}", entry.key), diags) {
                add(&entry.key, &address);
            }
        }
        return hosts;
    }
    for (item, path) in values::items(node, path, diags) {
        let Some(text) = values::word(item, &path, diags) else { continue };
        match text.split_once('=').or_else(|| text.split_once(':')) {
            Some((name, address)) if !name.is_empty() && !address.is_empty() => add(name, address),
            _ => diags.push(
                Diagnostic::error(&item.pos, format!("{path}: {text:?} is no name with an address"))
                    .expected("NAME=ADDRESS, or NAME=host-gateway"),
            ),
        }
    }
    hosts
}

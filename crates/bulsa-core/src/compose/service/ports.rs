//! `ports`, in canonical form, as Bulsa's proxy can take them.

use std::net::IpAddr;

use super::super::{
    canonical,
    diagnostic::{Diagnostic, Diagnostics},
    model::Port,
    read,
    tree::Node,
};

const NO_UDP: &str = "remove it, or publish it by other means";

const TCP: &str = "tcp";

/// Reads them. With a container (`docker`) other protocols than TCP and several published ports for one target are
/// possible; who may have them depends on the role.
pub(super) fn read(node: &Node, path: &str, docker: bool, diags: &mut Diagnostics) -> Vec<Port> {
    let items = canonical::items(node).iter().enumerate();
    items.filter_map(|(i, item)| port(item, &format!("{path}[{i}]"), docker, diags)).collect()
}

fn port(node: &Node, path: &str, docker: bool, diags: &mut Diagnostics) -> Option<Port> {
    let mut port = Port {
        pos: node.pos.clone(),
        name: None,
        mode: "ingress".to_owned(),
        host_ip: None,
        target: 0,
        published: None,
        published_to: None,
        protocol: TCP.to_owned(),
        app_protocol: None,
    };
    let mut good = true;
    read::entries(node, path, diags, |entry, path, diags| {
        let node = &entry.value;
        let read = match entry.key.as_str() {
            "target" => read::number(node, path, 1..=65535, diags).map(|n| port.target = to_port(n)),
            "published" => published(node, path, docker, diags).map(|(first, last)| {
                port.published = first;
                port.published_to = last;
            }),
            "host_ip" => host_ip(node, path, diags).map(|ip| port.host_ip = Some(ip)),
            "name" => read::text(node, path, diags).map(|name| port.name = Some(name.to_owned())),
            "mode" => read::choice(node, path, &[("ingress", "ingress"), ("host", "host")], &[], diags)
                .map(|mode| port.mode = mode.to_owned()),
            "protocol" => protocol(node, path, docker, diags).map(|protocol| port.protocol = protocol),
            "app_protocol" => {
                read::text(node, path, diags).map(|name| port.app_protocol = Some(name.to_owned()))
            }
            _ => Some(()),
        };
        good &= read.is_some();
    });
    // A mistake in the entry leaves it out, so that no second message follows from it.
    (good && port.target > 0).then_some(port)
}

fn to_port(n: u32) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

fn protocol(node: &Node, path: &str, docker: bool, diags: &mut Diagnostics) -> Option<String> {
    if docker {
        return read::choice(node, path, &[(TCP, TCP), ("udp", "udp"), ("sctp", "sctp")], &[], diags)
            .map(str::to_owned);
    }
    let protocol = read::text(node, path, diags)?;
    if protocol == TCP {
        return Some(TCP.to_owned());
    }
    diags.push(
        Diagnostic::error(&node.pos, format!("{path}: Bulsa's proxy carries TCP only, not {protocol}"))
            .hint(NO_UDP),
    );
    None
}

fn host_ip(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<IpAddr> {
    let text = read::text(node, path, diags)?;
    let found = text.trim_start_matches('[').trim_end_matches(']').parse().ok();
    if found.is_none() {
        diags.push(Diagnostic::error(&node.pos, format!("{path}: `{text}` is no IP address")));
    }
    found
}

/// A number or its text; nothing and `""` let the system choose. A range has its last port too.
fn published(
    node: &Node,
    path: &str,
    docker: bool,
    diags: &mut Diagnostics,
) -> Option<(Option<u16>, Option<u16>)> {
    match node.scalar().map(|scalar| scalar.value.as_str()) {
        Some("") => return Some((None, None)),
        Some(text) if docker && text.contains('-') => return range(node, text, path, diags),
        Some(text) if text.contains('-') && !text.starts_with('-') => {
            let mistake =
                format!("{path}: a range of published ports for one port of the program isn't supported yet");
            diags.push(Diagnostic::error(&node.pos, mistake).hint("publish one port"));
            return None;
        }
        _ => {}
    }
    read::number(node, path, 0..=65535, diags).map(|n| (Some(to_port(n)), None))
}

/// `8000-8010`
fn range(node: &Node, text: &str, path: &str, diags: &mut Diagnostics) -> Option<(Option<u16>, Option<u16>)> {
    let ends = text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    match ends {
        Some((first, last)) if first <= last => Some((Some(first), Some(last))),
        _ => {
            let mistake = format!("{path}: {text:?} is no range of ports");
            diags.push(Diagnostic::error(&node.pos, mistake).expected("FIRST-LAST, as in 8000-8010"));
            None
        }
    }
}

//! `ports`: `8080:3000`, `127.0.0.1:8080:3000`, `3000`, ranges, and the long form.

use std::net::IpAddr;

use super::super::{
    diagnostic::{Diagnostic, Diagnostics},
    keys,
    model::Port,
    read,
    scalar::Value,
    tree::{Kind, Node},
};

/// At most this many ports of one service, ranges expanded: each takes a listener.
const MAX_PORTS: usize = 1024;
const FORMS: &str =
    "CONTAINER, HOST:CONTAINER or IP:HOST:CONTAINER, each a port or a range such as 8000-8002";

pub(super) fn read(node: &Node, path: &str, diags: &mut Diagnostics) -> Vec<Port> {
    let Kind::Sequence(items) = &node.kind else {
        diags.push(read::wrong(node, path, "a list").hint("for example: ports: [\"8080:3000\"]"));
        return Vec::new();
    };
    let mut ports: Vec<Port> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let found = match &item.kind {
            Kind::Mapping(_) => long(item, &path, diags).into_iter().collect(),
            Kind::Scalar(_) => short(item, &path, diags),
            Kind::Sequence(_) => {
                diags.push(read::wrong(item, &path, FORMS));
                Vec::new()
            }
        };
        if ports.len() + found.len() > MAX_PORTS {
            diags.push(
                Diagnostic::error(&item.pos, format!("{path}: the service has more than {MAX_PORTS} ports"))
                    .hint("publish fewer ports"),
            );
            return ports;
        }
        ports.extend(found);
    }
    ports
}

fn short(node: &Node, path: &str, diags: &mut Diagnostics) -> Vec<Port> {
    let text = match node.scalar().map(super::super::tree::Scalar::resolve) {
        Some(Value::Int(n)) => n.to_string(),
        Some(Value::Text(text)) => text.to_owned(),
        _ => {
            diags.push(read::wrong(node, path, FORMS));
            return Vec::new();
        }
    };
    match parse_short(&text) {
        Ok(parsed) => parsed
            .into_iter()
            .map(|(host_ip, published, target)| Port {
                pos: node.pos.clone(),
                name: None,
                mode: "ingress".to_owned(),
                host_ip,
                target,
                published,
            })
            .collect(),
        Err(why) => {
            let mistake = Diagnostic::error(&node.pos, format!("{path}: {text:?}: {why}"));
            diags.push(match why {
                PortError::Protocol(_) => mistake.hint(NO_UDP),
                _ => mistake.expected(FORMS),
            });
            Vec::new()
        }
    }
}

const NO_UDP: &str = "remove it, or publish it by other means";

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum PortError {
    #[error("`{0}` is no port from 1 to 65535")]
    Number(String),
    #[error("`{0}` is no IP address")]
    Address(String),
    #[error("`{0}` is no range that goes up")]
    Range(String),
    #[error("the two ranges have {0} and {1} ports")]
    Lengths(usize, usize),
    #[error("a range of published ports for one port of the program isn't supported yet")]
    Choice,
    #[error("Bulsa's proxy carries TCP only, not {0}")]
    Protocol(String),
    #[error("the program's port is missing")]
    NoTarget,
}

type Parsed = (Option<IpAddr>, Option<u16>, u16);

fn parse_short(text: &str) -> Result<Vec<Parsed>, PortError> {
    let text = match text.split_once('/') {
        Some((ports, "tcp")) => ports,
        Some((_, other)) => return Err(PortError::Protocol(other.to_owned())),
        None => text,
    };
    let (rest, target) = text.rsplit_once(':').map_or((None, text), |(rest, target)| (Some(rest), target));
    if target.is_empty() {
        return Err(PortError::NoTarget);
    }
    let (host, published) = match rest {
        None => (None, ""),
        Some(rest) => match rest.rsplit_once(':') {
            // `[::1]:3000` would be an address without a published port.
            Some(_) if rest.ends_with(']') => return Err(PortError::Number(rest.to_owned())),
            Some((host, published)) => (Some(host), published),
            None => (None, rest),
        },
    };
    let host = host.map(address).transpose()?;
    let targets = range(target)?;
    let published = if published.is_empty() { Vec::new() } else { range(published)? };
    if targets.contains(&0) {
        return Err(PortError::Number("0".to_owned()));
    }
    match (published.len(), targets.len()) {
        (0, _) => Ok(targets.into_iter().map(|target| (host, None, target)).collect()),
        (p, t) if p == t => Ok(published.into_iter().zip(targets).map(|(p, t)| (host, Some(p), t)).collect()),
        (_, 1) => Err(PortError::Choice),
        (p, t) => Err(PortError::Lengths(p, t)),
    }
}

/// An IPv6 address stands in brackets.
fn address(text: &str) -> Result<IpAddr, PortError> {
    let error = || PortError::Address(text.to_owned());
    match text.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
        Some(inside) => inside.and_then(|inside| inside.parse().ok()).map(IpAddr::V6).ok_or_else(error),
        None => text.parse().map(IpAddr::V4).map_err(|_| error()),
    }
}

fn range(text: &str) -> Result<Vec<u16>, PortError> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits).ok_or_else(|| PortError::Number(text.to_owned()))
    };
    match text.split_once('-') {
        None => Ok(vec![port(text)?]),
        Some((first, last)) => {
            let (first, last) = (port(first)?, port(last)?);
            if first > last { Err(PortError::Range(text.to_owned())) } else { Ok((first..=last).collect()) }
        }
    }
}

fn long(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<Port> {
    let mut port = Port {
        pos: node.pos.clone(),
        name: None,
        mode: "ingress".to_owned(),
        host_ip: None,
        target: 0,
        published: None,
    };
    let mut good = true;
    read::keys(node, path, &keys::PORT, diags, |entry, path, diags| {
        let node = &entry.value;
        let read = match entry.key.as_str() {
            "target" => read::number(node, path, 1..=65535, diags).map(|n| port.target = to_port(n)),
            "published" => published(node, path, diags).map(|published| port.published = published),
            "host_ip" => host_ip(node, path, diags).map(|ip| port.host_ip = Some(ip)),
            "name" => read::text(node, path, diags).map(|name| port.name = Some(name.to_owned())),
            "mode" => read::choice(node, path, &[("ingress", "ingress"), ("host", "host")], &[], diags)
                .map(|mode| port.mode = mode.to_owned()),
            _ => protocol(node, path, diags),
        };
        good &= read.is_some();
    });
    if port.target == 0 && node.get("target").is_none() {
        diags.push(
            Diagnostic::error(&node.pos, format!("{path} has no `target`"))
                .expected("target: the port that the program listens on"),
        );
    }
    // A mistake in the entry leaves it out, so that no second message follows from it.
    (good && port.target > 0).then_some(port)
}

fn to_port(n: u32) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

fn protocol(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<()> {
    let protocol = read::text(node, path, diags)?;
    if protocol == "tcp" {
        return Some(());
    }
    diags.push(
        Diagnostic::error(&node.pos, format!("{path}: {}", PortError::Protocol(protocol.to_owned())))
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

/// A number or its text; nothing and `""` let the system choose.
fn published(node: &Node, path: &str, diags: &mut Diagnostics) -> Option<Option<u16>> {
    match node.scalar().map(super::super::tree::Scalar::resolve) {
        Some(Value::Null | Value::Text("")) => return Some(None),
        Some(Value::Text(text)) if text.contains('-') && range(text).is_ok() => {
            diags.push(Diagnostic::error(&node.pos, format!("{path}: {}", PortError::Choice)));
            return None;
        }
        _ => {}
    }
    read::number(node, path, 0..=65535, diags).map(|n| Some(to_port(n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> String {
        match parse_short(text) {
            Ok(ports) => ports
                .into_iter()
                .map(|(host, published, target)| {
                    let host = host.map_or(String::new(), |host| format!("{host} "));
                    format!("{host}{}>{target}", published.map_or("-".to_owned(), |p| p.to_string()))
                })
                .collect::<Vec<_>>()
                .join(","),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_short_form_is_read() {
        for (text, expected) in [
            ("8080:3000", "8080>3000"),
            ("127.0.0.1:8080:3000", "127.0.0.1 8080>3000"),
            ("3000", "->3000"),
            (":80", "->80"),
            ("80:80/tcp", "80>80"),
            ("8000-8002:9000-9002", "8000>9000,8001>9001,8002>9002"),
            ("80-82", "->80,->81,->82"),
            ("[::1]:6000:6001", "::1 6000>6001"),
            ("1.2.3.4::80", "1.2.3.4 ->80"),
            ("0:80", "0>80"),
            ("80:80/udp", "Bulsa's proxy carries TCP only, not udp"),
            ("a:80", "`a` is no port from 1 to 65535"),
            ("70000:1", "`70000` is no port from 1 to 65535"),
            ("80:0", "`0` is no port from 1 to 65535"),
            ("80:", "the program's port is missing"),
            ("", "the program's port is missing"),
            ("80-82:90", "a range of published ports for one port of the program isn't supported yet"),
            ("80-81:90-92", "the two ranges have 2 and 3 ports"),
            ("82-80", "`82-80` is no range that goes up"),
            ("localhost:1:2", "`localhost` is no IP address"),
            ("::1:80:80", "`::1` is no IP address"),
            ("[::1]:80", "`[::1]` is no port from 1 to 65535"),
            ("+1:2", "`+1` is no port from 1 to 65535"),
        ] {
            assert_eq!(check(text), expected, "{text}");
        }
    }
}

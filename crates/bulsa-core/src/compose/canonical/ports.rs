//! `ports`: `8080:3000`, `127.0.0.1:8080:3000`, `3000`, ranges, `/udp`; each becomes long entries.

use std::net::{IpAddr, Ipv6Addr};

use super::{
    super::{
        diagnostic::{Diagnostic, Diagnostics},
        read,
        scalar::Value,
        tree::{Kind, Node, Scalar},
    },
    entry, mapping, plain, text,
};

/// At most this many ports of one service, ranges expanded: each takes a listener.
const MAX_PORTS: usize = 1024;
const FORMS: &str =
    "CONTAINER, HOST:CONTAINER or IP:HOST:CONTAINER, each a port or a range such as 8000-8002";

/// Expands the short entries of the list.
pub(super) fn expand(node: &mut Node, path: &str, diags: &mut Diagnostics) -> bool {
    let Kind::Sequence(items) = &mut node.kind else {
        diags.push(read::wrong(node, path, "a list").hint("for example: ports: [\"8080:3000\"]"));
        return false;
    };
    let mut ports: Vec<Node> = Vec::new();
    for (i, mut item) in items.drain(..).enumerate() {
        let path = format!("{path}[{i}]");
        let pos = item.pos.clone();
        match &mut item.kind {
            Kind::Mapping(entries) => {
                for (key, value) in [("mode", "ingress"), ("protocol", "tcp")] {
                    if entries.iter().all(|entry| entry.key != key) {
                        entries.push(entry(key, text(value, &pos)));
                    }
                }
                ports.push(item);
            }
            Kind::Scalar(_) => ports.extend(short(&item, &path, diags)),
            Kind::Sequence(_) => diags.push(read::wrong(&item, &path, FORMS)),
        }
        if ports.len() > MAX_PORTS {
            diags.push(
                Diagnostic::error(&pos, format!("{path}: the service has more than {MAX_PORTS} ports"))
                    .hint("publish fewer ports, or use `network_mode: host`, which publishes none"),
            );
            ports.truncate(MAX_PORTS);
            break;
        }
    }
    *items = ports;
    true
}

fn short(node: &Node, path: &str, diags: &mut Diagnostics) -> Vec<Node> {
    let whole = match node.scalar().map(Scalar::resolve) {
        Some(Value::Int(n)) => n.to_string(),
        Some(Value::Text(text)) => text.to_owned(),
        _ => {
            diags.push(read::wrong(node, path, FORMS));
            return Vec::new();
        }
    };
    let mut found = match parse(&whole) {
        Ok(found) => found,
        Err(why) => {
            let mistake = Diagnostic::error(&node.pos, format!("{path}: {whole:?}: {why}"));
            diags.push(mistake.expected(match why {
                PortError::Protocol(_) => "tcp, udp or sctp after the `/`",
                _ => FORMS,
            }));
            return Vec::new();
        }
    };
    // Compose sorts the ports of one range by their text.
    found.sort_by_key(|port| format!("{}/{}", port.target, port.protocol));
    let long = |port: Short| {
        let pos = &node.pos;
        let mut entries = vec![entry("mode", text("ingress", pos))];
        entries.extend(port.host.map(|host| entry("host_ip", text(host.to_string(), pos))));
        entries.push(entry("target", plain(port.target, pos)));
        entries.extend(port.published.map(|published| entry("published", text(published, pos))));
        entries.push(entry("protocol", text(port.protocol, pos)));
        mapping(entries, pos)
    };
    found.into_iter().map(long).collect()
}

struct Short {
    host: Option<IpAddr>,
    published: Option<String>,
    target: u16,
    protocol: String,
}

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
    #[error("`{0}` is no protocol")]
    Protocol(String),
    #[error("the program's port is missing")]
    NoTarget,
}

fn parse(whole: &str) -> Result<Vec<Short>, PortError> {
    let (ports, protocol) = whole.split_once('/').unwrap_or((whole, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(PortError::Protocol(protocol));
    }
    let (rest, target) = ports.rsplit_once(':').map_or((None, ports), |(rest, target)| (Some(rest), target));
    if target.is_empty() {
        return Err(PortError::NoTarget);
    }
    let (host, published) = match rest {
        None => ("", ""),
        // `[::1]:3000` would be an address without a published port.
        Some(rest) if rest.ends_with(']') => return Err(PortError::Number(rest.to_owned())),
        Some(rest) => rest.rsplit_once(':').unwrap_or(("", rest)),
    };
    let host = if host.is_empty() { None } else { Some(address(host)?) };
    let targets = range(target)?;
    let published = if published.is_empty() { Vec::new() } else { range(published)? };
    if targets.contains(&0) {
        return Err(PortError::Number("0".to_owned()));
    }
    let port = |target: &u16, published: Option<String>| Short {
        host,
        published,
        target: *target,
        protocol: protocol.clone(),
    };
    match (published.as_slice(), targets.as_slice()) {
        ([], targets) => Ok(targets.iter().map(|target| port(target, None)).collect()),
        ([first, .., last], [target]) => Ok(vec![port(target, Some(format!("{first}-{last}")))]),
        (published, targets) if published.len() == targets.len() => {
            let pairs = published.iter().zip(targets);
            Ok(pairs.map(|(published, target)| port(target, Some(published.to_string()))).collect())
        }
        (published, targets) => Err(PortError::Lengths(published.len(), targets.len())),
    }
}

/// An IPv6 address stands in brackets or bare.
fn address(text: &str) -> Result<IpAddr, PortError> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let found = match bare {
        Some(inside) => inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    };
    found.ok_or_else(|| PortError::Address(text.to_owned()))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> String {
        match parse(text) {
            Ok(ports) => ports
                .into_iter()
                .map(|port| {
                    let host = port.host.map_or(String::new(), |host| format!("{host} "));
                    let protocol = if port.protocol == "tcp" { "" } else { port.protocol.as_str() };
                    format!("{host}{}>{}{protocol}", port.published.as_deref().unwrap_or("-"), port.target)
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
            ("::1:80:80", "::1 80>80"),
            ("1.2.3.4::80", "1.2.3.4 ->80"),
            ("0:80", "0>80"),
            ("80:80/UDP", "80>80udp"),
            ("80-82:90", "80-82>90"),
            ("80:80/http", "`http` is no protocol"),
            ("a:80", "`a` is no port from 1 to 65535"),
            ("70000:1", "`70000` is no port from 1 to 65535"),
            ("80:0", "`0` is no port from 1 to 65535"),
            ("80:", "the program's port is missing"),
            ("", "the program's port is missing"),
            ("80-81:90-92", "the two ranges have 2 and 3 ports"),
            ("82-80", "`82-80` is no range that goes up"),
            ("localhost:1:2", "`localhost` is no IP address"),
            ("[::1]:80", "`[::1]` is no port from 1 to 65535"),
            ("+1:2", "`+1` is no port from 1 to 65535"),
        ] {
            assert_eq!(check(text), expected, "{text}");
        }
    }
}

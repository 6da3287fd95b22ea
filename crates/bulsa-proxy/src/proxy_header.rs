//! The PROXY protocol, versions 1 and 2: who a connection is from, said by the balancer that passes it on.
//!
//! Owns: reading a header off a client's socket, and making one for a target.
//! Never: reads a byte beyond the header, or decides who may send one; see [`crate::arrive`].
//!
//! The form is that of haproxy's `proxy-protocol.txt`. Version 1 is a line of text, version 2 binary with further fields,
//! which are read over.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::table::ProxyHeader;

/// The longest header of version 1, in bytes.
const V1_BYTES_MAX: usize = 107;
/// What version 1 begins with.
const V1_BEGIN: &[u8] = b"PROXY ";
/// What version 2 begins with.
const V2_BEGIN: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// What comes before the variable part of version 2, in bytes.
const V2_FIXED_BYTES: usize = 16;
/// The longest variable part of version 2, in bytes: addresses, and what a balancer tells of TLS and networks.
const V2_REST_BYTES_MAX: usize = 2048;
/// Version 2, and the connection is somebody else's.
const V2_PROXY: u8 = 0x21;
/// Version 2, and the connection is the sender's own.
const V2_LOCAL: u8 = 0x20;
const V2_TCP4: u8 = 0x11;
const V2_TCP6: u8 = 0x21;

/// Where a connection comes from and goes to, as its client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

impl Ends {
    /// Those of a socket.
    pub(crate) fn of(stream: &TcpStream) -> io::Result<Self> {
        Ok(Self { source: stream.peer_addr()?, destination: stream.local_addr()? })
    }
}

/// Reads the header that a connection begins with. `None`: the connection is the sender's own, or it doesn't know.
///
/// # Errors
/// `InvalidData` if it doesn't begin with a header; else what the socket said.
pub(crate) async fn read(stream: &mut TcpStream) -> io::Result<Option<Ends>> {
    // No header of any version is shorter.
    let mut begin = [0; V2_BEGIN.len()];
    stream.read_exact(&mut begin).await?;
    if begin == V2_BEGIN {
        return read_v2(stream).await;
    }
    if begin.starts_with(V1_BEGIN) {
        return read_v1(stream, &begin).await;
    }
    Err(bad())
}

async fn read_v1(stream: &mut TcpStream, begin: &[u8]) -> io::Result<Option<Ends>> {
    let mut line = [0; V1_BYTES_MAX];
    line[..begin.len()].copy_from_slice(begin);
    let mut filled = begin.len();
    while filled < V1_BYTES_MAX {
        // Looked at first, so that nothing behind the line is taken.
        let seen = stream.peek(&mut line[filled..]).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = memchr::memchr(b'\n', &line[filled..filled + seen]).map(|end| end + 1);
        let taken = end.unwrap_or(seen);
        stream.read_exact(&mut line[filled..filled + taken]).await?;
        filled += taken;
        if end.is_some() {
            return parse_v1(&line[..filled]).ok_or_else(bad);
        }
    }
    Err(bad())
}

async fn read_v2(stream: &mut TcpStream) -> io::Result<Option<Ends>> {
    let mut fixed = [0; V2_FIXED_BYTES - V2_BEGIN.len()];
    stream.read_exact(&mut fixed).await?;
    let [command, family, high, low] = fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let mut rest = [0; V2_REST_BYTES_MAX];
    let rest = rest.get_mut(..length).ok_or_else(bad)?;
    stream.read_exact(rest).await?;
    parse_v2(command, family, rest).ok_or_else(bad)
}

fn bad() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no PROXY protocol header")
}

/// Parses a whole line. The outer `None`: it is none.
fn parse_v1(line: &[u8]) -> Option<Option<Ends>> {
    let text = std::str::from_utf8(line.strip_suffix(b"\r\n")?).ok()?;
    let mut parts = text.split(' ');
    if parts.next() != Some("PROXY") {
        return None;
    }
    let ends = match parts.next()? {
        // Whatever else it says is to be ignored.
        "UNKNOWN" => return Some(None),
        "TCP4" => ends_v1::<Ipv4Addr>(&mut parts)?,
        "TCP6" => ends_v1::<Ipv6Addr>(&mut parts)?,
        _ => return None,
    };
    parts.next().is_none().then_some(Some(ends))
}

fn ends_v1<'t, A: FromStr + Into<IpAddr>>(parts: &mut impl Iterator<Item = &'t str>) -> Option<Ends> {
    let mut address = || parts.next()?.parse::<A>().ok().map(A::into);
    let (source, destination) = (address()?, address()?);
    let mut port = || {
        let text = parts.next()?;
        let plain = text == "0" || text.starts_with(|c: char| ('1'..='9').contains(&c));
        plain.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (from, to) = (port()?, port()?);
    Some(Ends { source: SocketAddr::new(source, from), destination: SocketAddr::new(destination, to) })
}

/// Parses what follows the fixed begin. The outer `None`: it is none.
fn parse_v2(command: u8, family: u8, rest: &[u8]) -> Option<Option<Ends>> {
    match command {
        V2_LOCAL => return Some(None),
        V2_PROXY => {}
        _ => return None,
    }
    match family {
        V2_TCP4 => ends_v2::<4>(rest).map(Some),
        V2_TCP6 => ends_v2::<16>(rest).map(Some),
        // Not known to the sender, or nothing that comes over TCP.
        _ if family >> 4 <= 3 && family & 0xf <= 2 => Some(None),
        _ => None,
    }
}

fn ends_v2<const N: usize>(rest: &[u8]) -> Option<Ends>
where
    [u8; N]: Into<IpAddr>,
{
    let (source, rest) = rest.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (from, rest) = rest.split_first_chunk::<2>()?;
    let (to, _) = rest.split_first_chunk::<2>()?;
    let address = |ip: [u8; N], port: [u8; 2]| SocketAddr::new(ip.into(), u16::from_be_bytes(port));
    Some(Ends { source: address(*source, *from), destination: address(*destination, *to) })
}

/// Makes the header that a target gets.
pub(crate) fn write(version: ProxyHeader, ends: Ends) -> Vec<u8> {
    let [source, destination] = [ends.source, ends.destination];
    let ips = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Ips::V4(source, destination),
        // Both in one family.
        (source, destination) => Ips::V6(mapped(source), mapped(destination)),
    };
    let ports = (source.port(), destination.port());
    match version {
        ProxyHeader::V1 => write_v1(ips, ports),
        ProxyHeader::V2 => write_v2(ips, ports),
    }
}

#[derive(Debug, Clone, Copy)]
enum Ips {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn write_v1(ips: Ips, (from, to): (u16, u16)) -> Vec<u8> {
    let text = match ips {
        Ips::V4(source, destination) => format!("PROXY TCP4 {source} {destination} {from} {to}\r\n"),
        Ips::V6(source, destination) => format!("PROXY TCP6 {source} {destination} {from} {to}\r\n"),
    };
    text.into_bytes()
}

fn write_v2(ips: Ips, (from, to): (u16, u16)) -> Vec<u8> {
    let (family, addresses) = match ips {
        Ips::V4(source, destination) => (V2_TCP4, [source.octets(), destination.octets()].concat()),
        Ips::V6(source, destination) => (V2_TCP6, [source.octets(), destination.octets()].concat()),
    };
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    let length = (addresses.len() + ports.len()) as u16;
    let mut header = V2_BEGIN.to_vec();
    header.extend([V2_PROXY, family]);
    header.extend(length.to_be_bytes());
    header.extend(addresses);
    header.extend(ports);
    header
}

#[cfg(test)]
mod tests;

//! Which loopback port a new replica gets.
//!
//! Owns: choosing a port that nothing uses and that the kernel won't give to an outgoing connection in the meantime.
//! Never: keeps the port open (the replica must bind it itself) or remembers who has it; the caller passes the ports
//! of its living replicas in.
//!
//! A port inside the ephemeral range can be taken by any outgoing connection between the choice and the replica's
//! bind, and then the replica dies of something that nobody did wrong. So ports come from [`PREFERRED`] less the
//! ephemeral range and less what the administrator reserved for others; where that leaves too few, from
//! [`FURTHER`]. The search goes round: it goes on after the last port given, from a random start, so that a port just
//! freed (whose old clients may still try it) comes last again, also after a restart of the agent.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    ops::RangeInclusive,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt},
    rand::{GetRandomFlags, getrandom},
};

/// Where ports come from first.
pub const PREFERRED: RangeInclusive<u16> = 20_000..=32_767;

/// Where else they come from when [`PREFERRED`] has fewer than 256 left.
pub const FURTHER: [RangeInclusive<u16>; 2] = [10_000..=19_999, 32_768..=65_535];

/// This many candidates are enough not to look in [`FURTHER`].
const ENOUGH: usize = 256;

/// At most this many ports are tried for one allocation (each costs a few system calls).
const TRIES_MAX: usize = 1024;

const RANGE_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED_FILE: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// Why there is no port for a replica.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The ephemeral range leaves nothing.
    #[error(
        "no port for replicas: net.ipv4.ip_local_port_range ({low}-{high}) and ip_local_reserved_ports cover all of \
         10000-65535, so the kernel may give any of them to an outgoing connection; running replicas go on; narrow \
         the range, for example `sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"`"
    )]
    NothingOutsideEphemeral {
        /// The lowest ephemeral port.
        low: u16,
        /// The highest ephemeral port.
        high: u16,
    },
    /// Every port tried is taken.
    #[error(
        "no port for replicas: {tried} ports were tried and all are in use; running replicas go on; look with `ss -ltn`"
    )]
    AllTaken {
        /// How many were looked at.
        tried: usize,
    },
    /// The kernel's settings can't be read or understood.
    #[error("no port for replicas: {what} can't be read: {source}")]
    Settings {
        /// The file.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Trying a port failed for a reason that says nothing of the port (no file descriptors left, …).
    #[error("no port for replicas: trying port {port} failed: {source}")]
    Trial {
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
}

/// Gives out ports, one after the other.
#[derive(Debug)]
pub struct PortAllocator {
    candidates: Vec<u16>,
    next: usize,
}

impl PortAllocator {
    /// Reads this host's settings.
    ///
    /// # Errors
    /// If they can't be read, or leave no port.
    pub fn from_host() -> Result<Self, PortError> {
        let settings = |what, source| PortError::Settings { what, source };
        let range = fs::read_to_string(RANGE_FILE).map_err(|e| settings(RANGE_FILE, e))?;
        let ephemeral = parse_range(&range).ok_or_else(|| settings(RANGE_FILE, invalid(&range)))?;
        let reserved = match fs::read_to_string(RESERVED_FILE) {
            Ok(text) => parse_ports(&text).ok_or_else(|| settings(RESERVED_FILE, invalid(&text)))?,
            // Kernels built without the setting reserve nothing.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(settings(RESERVED_FILE, e)),
        };
        let mut random = [0_u8; 2];
        // Without randomness the search starts at the bottom: worse, and no reason to start nothing.
        let start =
            getrandom(&mut random, GetRandomFlags::NONBLOCK).map_or(0, |_| u16::from_ne_bytes(random));
        Self::new(ephemeral, &reserved, usize::from(start))
    }

    /// From given settings; the search begins at the `start`-th candidate (modulo their number).
    ///
    /// # Errors
    /// If they leave no port.
    pub fn new(
        ephemeral: RangeInclusive<u16>,
        reserved: &[RangeInclusive<u16>],
        start: usize,
    ) -> Result<Self, PortError> {
        let free =
            |port: &u16| !ephemeral.contains(port) && !reserved.iter().any(|range| range.contains(port));
        let mut candidates: Vec<u16> = PREFERRED.filter(free).collect();
        for range in FURTHER {
            if candidates.len() < ENOUGH {
                candidates.extend(range.filter(free));
            }
        }
        if candidates.is_empty() {
            let (low, high) = (*ephemeral.start(), *ephemeral.end());
            return Err(PortError::NothingOutsideEphemeral { low, high });
        }
        let next = start % candidates.len();
        Ok(Self { candidates, next })
    }

    /// A port that isn't `in_use` and that nobody on this host has bound at the moment.
    ///
    /// # Errors
    /// If none of the next 1024 candidates is free, or none can be tried.
    pub fn allocate(&mut self, in_use: &BTreeSet<u16>) -> Result<u16, PortError> {
        let tries = self.candidates.len().min(TRIES_MAX);
        let mut tried = 0;
        for step in 0..self.candidates.len() {
            let index = (self.next + step) % self.candidates.len();
            let port = self.candidates[index];
            if in_use.contains(&port) {
                continue;
            }
            if is_free(port).map_err(|e| PortError::Trial { port, source: e.into() })? {
                self.next = (index + 1) % self.candidates.len();
                return Ok(port);
            }
            tried += 1;
            if tried == tries {
                break;
            }
        }
        Err(PortError::AllTaken { tried })
    }
}

/// Whether a program could bind `port` now, on every address of both families.
///
/// Bound without `SO_REUSEADDR`, as a program may do it: connections of the port's last owner that still linger count
/// as use.
fn is_free(port: u16) -> Result<bool, Errno> {
    if !can_bind(AddressFamily::INET, port)? {
        return Ok(false);
    }
    match can_bind(AddressFamily::INET6, port) {
        // A host without IPv6 has nothing to clash with there.
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => Ok(true),
        other => other,
    }
}

fn can_bind(family: AddressFamily, port: u16) -> Result<bool, Errno> {
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let bound = if family == AddressFamily::INET6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
        bind(&socket, &SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0))
    } else {
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))
    };
    match bound {
        Ok(()) => Ok(true),
        Err(Errno::ADDRINUSE | Errno::ACCESS) => Ok(false),
        Err(e) => Err(e),
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("`{}` is no range of ports", text.trim_end()))
}

/// `32768 60999`, apart by any blanks.
fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut words = text.split_ascii_whitespace();
    let (low, high) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (words.next().is_none() && low <= high).then_some(low..=high)
}

/// `8080,9148-9150`, or nothing.
fn parse_ports(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let parts = text.trim().split(',').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            Some(low.parse().ok()?..=high.parse().ok()?)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const LINUX: RangeInclusive<u16> = 32_768..=60_999;

    #[test]
    fn the_kernels_settings_are_read() {
        assert_eq!(parse_range("32768\t60999\n"), Some(LINUX));
        assert_eq!(parse_ports("\n"), Some(vec![]));
        assert_eq!(parse_ports("8080,9148-9150\n"), Some(vec![8080..=8080, 9148..=9150]));
        for bad in ["", "1", "9 8", "1 2 3", "x y"] {
            assert_eq!(parse_range(bad), None, "{bad}");
        }
        assert_eq!(parse_ports("80,x"), None);
    }

    #[test]
    fn ports_come_from_outside_the_ephemeral_and_reserved_ranges() {
        let all = PortAllocator::new(LINUX, &[20_000..=20_009], 0).unwrap();
        assert_eq!(all.candidates.first(), Some(&20_010));
        assert_eq!(all.candidates.last(), Some(&32_767));

        let beside = PortAllocator::new(10_000..=61_000, &[], 0).unwrap();
        assert_eq!(beside.candidates.first(), Some(&61_001));
    }

    #[test]
    fn an_ephemeral_range_that_covers_everything_is_an_error_that_says_so() {
        let error = PortAllocator::new(1024..=65_535, &[], 0).unwrap_err().to_string();
        assert!(error.contains("ip_local_port_range (1024-65535)"), "{error}");
        assert!(error.contains("sysctl -w"), "{error}");
    }

    #[test]
    fn a_freed_port_is_not_given_again_at_once() {
        let mut allocator = PortAllocator::new(LINUX, &[], 100).unwrap();
        let first = allocator.allocate(&BTreeSet::new()).unwrap();
        let second = allocator.allocate(&BTreeSet::new()).unwrap();
        assert!(second > first, "{first} {second}");
    }

    #[test]
    fn ports_that_are_bound_or_in_use_are_passed_over() {
        let fresh = || PortAllocator::new(LINUX, &[], 5000).unwrap();
        let mut probe = fresh();
        let free = probe.allocate(&BTreeSet::new()).unwrap();
        let after = probe.allocate(&BTreeSet::new()).unwrap();

        assert_eq!(fresh().allocate(&BTreeSet::from([free])).unwrap(), after);
        for address in ["127.0.0.1", "0.0.0.0", "[::1]", "[::]"] {
            let Ok(held) = TcpListener::bind(format!("{address}:{free}")) else { continue };
            assert_ne!(fresh().allocate(&BTreeSet::new()).unwrap(), free, "{address}");
            drop(held);
        }
    }

    #[test]
    fn a_host_with_every_candidate_taken_gets_an_error() {
        let mut one = PortAllocator { candidates: vec![20_000], next: 0 };
        let error = one.allocate(&BTreeSet::from([20_000])).unwrap_err();
        assert!(matches!(error, PortError::AllTaken { tried: 0 }), "{error}");
    }

    #[test]
    fn this_hosts_settings_give_a_port() {
        let port = PortAllocator::from_host().unwrap().allocate(&BTreeSet::new()).unwrap();
        TcpListener::bind(("127.0.0.1", port)).unwrap();
    }
}

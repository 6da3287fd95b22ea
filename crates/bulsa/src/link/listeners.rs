//! Opening listening sockets: several per address, so that each worker thread of the proxy has its own queue.
//!
//! `SO_REUSEPORT` also lets a second program of the same user share the port unseen. So an address is first tried
//! without it: whoever listens there already is noticed, and named if `/proc` tells (`holder`).

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr, set_socket_reuseport};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with};

mod holder;

/// Connections that the kernel keeps per socket while no proxy accepts. The kernel caps it at `somaxconn`.
pub const BACKLOG: i32 = 4096;

/// The most sockets for one address.
pub const MAX_SOCKETS: usize = 256;

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenAddr {
    /// The address; `None` is every address of both families.
    pub host: Option<IpAddr>,
    /// The port; 0 lets the kernel choose one.
    pub port: u16,
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Some(host) => SocketAddr::new(host, self.port).fmt(f),
            None => write!(f, "port {}", self.port),
        }
    }
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another program listens there.
    #[error(
        "{addr} is in use{by}; stop that program, or publish another port",
        by = .holder.as_ref().map(|holder| format!(" by {holder}")).unwrap_or_default()
    )]
    InUse {
        /// What was asked for.
        addr: ListenAddr,
        /// Name and pid of the program, if they can be found.
        holder: Option<String>,
    },
    /// We may not.
    #[error(
        "{addr} may not be listened on: ports below net.ipv4.ip_unprivileged_port_start (usually 1024) \
         need root; publish a higher port, or run the daemon as root"
    )]
    Denied {
        /// What was asked for.
        addr: ListenAddr,
    },
    /// No interface has this address.
    #[error("{addr} cannot be listened on: this machine has no such address")]
    NoSuchAddress {
        /// What was asked for.
        addr: ListenAddr,
    },
    /// Anything else.
    #[error("{addr} cannot be listened on: {error}")]
    Io {
        /// What was asked for.
        addr: ListenAddr,
        /// Why.
        error: io::Error,
    },
}

/// Opens `count` sockets (1 to [`MAX_SOCKETS`]) that listen on one address, all on the same port.
/// Without a host they take IPv4 and IPv6, or IPv4 alone where the machine has no IPv6.
///
/// # Errors
/// Names the address, and who holds it if that is the reason.
pub fn open_listeners(addr: ListenAddr, count: usize) -> Result<Vec<TcpListener>, ListenError> {
    let failed = |errno: Errno| explain(addr, errno);
    let count = count.clamp(1, MAX_SOCKETS);
    let opened = match addr.host {
        Some(host) => open(SocketAddr::new(host, addr.port), count),
        None => match open(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), addr.port), count) {
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
                open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), addr.port), count)
            }
            done => done,
        },
    };
    opened.map_err(failed)
}

fn open(addr: SocketAddr, count: usize) -> Result<Vec<TcpListener>, Errno> {
    // Bound but not listening, it reserves the port until the real ones listen.
    let probe = socket(addr)?;
    bind(&probe, &addr)?;
    let bound: SocketAddr = getsockname(&probe)?.try_into()?;
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = socket(addr)?;
        set_socket_reuseport(&socket, true)?;
        bind(&socket, &bound)?;
        listen(&socket, BACKLOG)?;
        listeners.push(TcpListener::from(socket));
    }
    Ok(listeners)
}

fn socket(addr: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    set_socket_reuseaddr(&socket, true)?;
    if addr.is_ipv6() {
        // Both families only where every address is meant.
        set_ipv6_v6only(&socket, !addr.ip().is_unspecified())?;
    }
    Ok(socket)
}

fn explain(addr: ListenAddr, errno: Errno) -> ListenError {
    match errno {
        Errno::ADDRINUSE => ListenError::InUse { addr, holder: holder::of_port(addr.port) },
        Errno::ACCESS | Errno::PERM => ListenError::Denied { addr },
        Errno::ADDRNOTAVAIL => ListenError::NoSuchAddress { addr },
        errno => ListenError::Io { addr, error: errno.into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn loopback(port: u16) -> ListenAddr {
        ListenAddr { host: Some(Ipv4Addr::LOCALHOST.into()), port }
    }

    #[test]
    fn all_sockets_listen_on_the_port_that_the_kernel_chose() {
        let sockets = open_listeners(loopback(0), 4).unwrap();
        let ports: Vec<u16> = sockets.iter().map(|one| one.local_addr().unwrap().port()).collect();
        assert_ne!(ports[0], 0);
        assert_eq!(ports, [ports[0]; 4]);
        TcpStream::connect(("127.0.0.1", ports[0])).unwrap();
    }

    #[test]
    fn without_a_host_both_families_are_taken() {
        let sockets = open_listeners(ListenAddr { host: None, port: 0 }, 1).unwrap();
        let addr = sockets[0].local_addr().unwrap();
        TcpStream::connect(("127.0.0.1", addr.port())).unwrap();
        if addr.is_ipv6() {
            TcpStream::connect(("::1", addr.port())).unwrap();
        }
    }

    #[test]
    fn a_port_that_this_very_program_listens_on_is_in_use_and_its_holder_is_named() {
        let sockets = open_listeners(loopback(0), 2).unwrap();
        let port = sockets[0].local_addr().unwrap().port();
        for addr in [loopback(port), ListenAddr { host: None, port }] {
            let error = open_listeners(addr, 1).unwrap_err();
            let own = format!("process {}", std::process::id());
            assert!(error.to_string().contains(&own), "{error}");
        }
    }

    #[test]
    fn an_address_that_the_machine_does_not_have_is_said() {
        let addr = ListenAddr { host: Some(Ipv4Addr::new(192, 0, 2, 1).into()), port: 0 };
        assert!(matches!(open_listeners(addr, 1), Err(ListenError::NoSuchAddress { .. })));
    }
}

//! Whether a replica listens, where, and whether it is really the replica.
//!
//! Owns: the answer that the gate needs before the first probe ([`check`]), and what a replica listens on altogether
//! ([`listeners_of`]). Never: connects to anything. That a socket accepts connections proves no life; that is the
//! probe's part.
//!
//! ```text
//!  the kernel's sockets ──▶ listeners (address, inode, user) ─┐
//!  /proc/…/fd of the replica's processes ──▶ inodes ──────────┴─▶ ours | a stranger's | on other ports
//! ```
//!
//! Made to be called every 10 to 50 ms: the kernel is asked for listeners alone, and what is read besides are the open
//! files of the replica's own processes, together well under a millisecond. Every process of the host is looked at
//! (some milliseconds) only when the port has a listener that the replica doesn't explain.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, socket_with},
};

use self::table::Listener;

mod diag;
mod owners;
mod table;

/// What a replica should listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected<'a> {
    /// The process that was started for the replica.
    pub pid: u32,
    /// The value of its [`TASK_VARIABLE`](super::TASK_VARIABLE): finds processes that left its tree.
    pub task: Option<&'a str>,
    /// The port that it was told (or is known) to use.
    pub port: u16,
    /// The port that is accepted instead: the target half of `ports` for a program that ignores `PORT`.
    pub fallback: Option<u16>,
    /// The replica's address where it has a network namespace of its own.
    pub isolated: Option<IpAddr>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listening {
    /// The replica listens; connect here.
    At(SocketAddr),
    /// Nobody listens on the port yet.
    NotYet,
    /// Another program has the port.
    Stranger {
        /// Its process, if it may be looked into.
        pid: Option<u32>,
        /// Its name, likewise.
        name: Option<String>,
        /// The user that opened the socket.
        uid: u32,
    },
    /// The replica listens, on these ports (sorted) and not on its own. It may still come to it: the first port that
    /// a program opens need not be the last.
    OtherPort {
        /// Where it listens.
        ports: Vec<u16>,
    },
    /// The replica listens on this address inside its own network namespace, where nobody outside can reach it.
    Unreachable(SocketAddr),
}

/// Looks once.
///
/// # Errors
/// If the kernel's tables can't be read. A replica that is gone listens nowhere; its death is reported elsewhere.
pub fn check(expected: &Expected<'_>) -> io::Result<Listening> {
    let listeners = seen_by(expected)?;
    let near = inodes(&owners::family(expected.pid));
    let ours: Vec<&Listener> = listeners.iter().filter(|listener| near.contains(&listener.inode)).collect();
    if let Some(found) = at_expected(&ours, expected)? {
        return Ok(found);
    }
    let unexplained: Vec<&Listener> = listeners
        .iter()
        .filter(|l| l.address.port() == expected.port || Some(l.address.port()) == expected.fallback)
        .filter(|l| !near.contains(&l.inode))
        .collect();
    if !unexplained.is_empty() {
        let far = inodes(&owners::everyone(expected.pid, expected.task));
        let ours: Vec<&Listener> = listeners.iter().filter(|l| far.contains(&l.inode)).collect();
        if let Some(found) = at_expected(&ours, expected)? {
            return Ok(found);
        }
    }
    if let Some(theirs) = unexplained.iter().find(|l| l.address.port() == expected.port) {
        return Ok(stranger(expected, theirs)?.unwrap_or(Listening::NotYet));
    }
    let ports: BTreeSet<u16> = ours.iter().map(|listener| listener.address.port()).collect();
    if ports.is_empty() {
        return Ok(Listening::NotYet);
    }
    Ok(Listening::OtherPort { ports: ports.into_iter().collect() })
}

/// Every TCP address that the processes of replica `pid` listen on, sorted.
///
/// # Errors
/// If the kernel's tables can't be read. A replica that is gone listens nowhere.
pub fn listeners_of(pid: u32, task: Option<&str>) -> io::Result<Vec<SocketAddr>> {
    let listeners = table_of(pid)?;
    let ours = inodes(&owners::everyone(pid, task));
    let mut addresses: Vec<SocketAddr> =
        listeners.iter().filter(|listener| ours.contains(&listener.inode)).map(|l| l.address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// The processes of replica `pid` that have a listener on `port` open, whoever of them opened it.
///
/// # Errors
/// If the kernel's tables can't be read. A replica that is gone has none.
pub fn serving(pid: u32, task: Option<&str>, port: u16) -> io::Result<BTreeSet<u32>> {
    let listeners = table_of(pid)?;
    let on_port: BTreeSet<u64> =
        listeners.iter().filter(|l| l.address.port() == port).map(|l| l.inode).collect();
    let serves = |pid: &u32| owners::sockets(*pid).any(|inode| on_port.contains(&inode));
    Ok(owners::everyone(pid, task).into_iter().filter(serves).collect())
}

/// The listeners among which the replica's must be.
fn seen_by(expected: &Expected<'_>) -> io::Result<Vec<Listener>> {
    if expected.isolated.is_none()
        && let Ok(listeners) = diag::listeners()
    {
        return Ok(listeners);
    }
    // Another namespace, or a kernel that can't be asked: slower, and as good.
    table_of(expected.pid)
}

/// The listeners in the network namespace of `pid`; none if it is gone or a zombie.
fn table_of(pid: u32) -> io::Result<Vec<Listener>> {
    let gone = [Errno::NOENT, Errno::SRCH, Errno::INVAL];
    match table::listeners(pid) {
        Err(e) if Errno::from_io_error(&e).is_some_and(|errno| gone.contains(&errno)) => Ok(Vec::new()),
        other => other,
    }
}

fn inodes(processes: &BTreeSet<u32>) -> BTreeSet<u64> {
    processes.iter().flat_map(|pid| owners::sockets(*pid)).collect()
}

/// Where to connect, if one of the replica's listeners is on the expected port, or else on the one accepted instead.
fn at_expected(ours: &[&Listener], expected: &Expected<'_>) -> io::Result<Option<Listening>> {
    for port in [Some(expected.port), expected.fallback].into_iter().flatten() {
        let addresses: Vec<SocketAddr> =
            ours.iter().map(|listener| listener.address).filter(|address| address.port() == port).collect();
        if let Some(found) = choose(&addresses, expected.isolated, dual_stack)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Of several listeners on one port the one to connect to: v4 before v6, and any that can be reached before none.
fn choose(
    addresses: &[SocketAddr],
    isolated: Option<IpAddr>,
    dual_stack: impl Fn(u16) -> io::Result<bool>,
) -> io::Result<Option<Listening>> {
    let mut sorted = addresses.to_vec();
    // Any-addresses first, then v4 before v6.
    sorted.sort_unstable_by_key(|address| (!address.ip().is_unspecified(), *address));
    let mut hidden = None;
    for address in sorted {
        let reachable = match (isolated, address.ip()) {
            (Some(own), IpAddr::V4(Ipv4Addr::UNSPECIFIED) | IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Some(own),
            (Some(_), ip) if ip.is_loopback() => None,
            (None, IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Some(Ipv4Addr::LOCALHOST.into()),
            (None, IpAddr::V6(Ipv6Addr::UNSPECIFIED)) if dual_stack(address.port())? => {
                Some(Ipv4Addr::LOCALHOST.into())
            }
            (None, IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Some(Ipv6Addr::LOCALHOST.into()),
            (_, ip) => Some(ip),
        };
        match reachable {
            Some(ip) => return Ok(Some(Listening::At(SocketAddr::new(ip, address.port())))),
            None => hidden = Some(Listening::Unreachable(address)),
        }
    }
    Ok(hidden)
}

/// Whether a listener on `[::]:port` of this host takes v4 too. The table doesn't tell, so v4 is tried: it can be bound
/// only if nobody has it. Nothing listens on the trial socket, so no connection can meet it.
fn dual_stack(port: u16) -> io::Result<bool> {
    let trial = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    match bind(&trial, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
        Err(Errno::ADDRINUSE) => Ok(true),
        Ok(()) => Ok(false),
        // A privileged port that this process may not try: dual-stack is the rule.
        Err(Errno::ACCESS | Errno::PERM) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

/// Who has this listener; `None` if it is gone by now.
fn stranger(expected: &Expected<'_>, listener: &Listener) -> io::Result<Option<Listening>> {
    let uid = listener.uid;
    for owner in owners::all_processes() {
        if owners::sockets(owner).any(|inode| inode == listener.inode) {
            return Ok(Some(Listening::Stranger { pid: Some(owner), name: owners::name(owner), uid }));
        }
    }
    // Nobody seen: closed since the table was read, or the owner may not be looked into.
    let still = seen_by(expected)?.iter().any(|l| l.inode == listener.inode);
    Ok(still.then_some(Listening::Stranger { pid: None, name: None, uid }))
}

#[cfg(test)]
mod tests;

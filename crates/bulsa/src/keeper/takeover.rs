//! Taking sockets and route table from a proxy that outlived its keeper.
//!
//! Each proxy listens on a socket that its keeper made for it, in a directory that only the keeper's user can enter.
//! A successor connects and says `TakeOver`; the proxy hands over all that it serves, and the connection is
//! its keeper link from then on. A proxy faces the network, so what it says of itself is not believed: its
//! process was found by its environment, and everything that it sends is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::AtFlags;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use super::adopt::{self, Marked};
use super::log::log;
use super::peer::{PartialSet, Peer, SharedFds};
use super::proxies::Proxy;
use crate::link::messages::{FromProxy, PROTOCOL, ToProxy};
use crate::link::{Link, LinkError, Message};

/// How long a proxy may take to hand everything over.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(2);
/// The most messages of one handover.
const MAX_MESSAGES: usize = 10_000;
/// Keepers that wait to be accepted: there is at most one.
const BACKLOG: i32 = 4;

/// What one proxy handed over.
#[derive(Debug)]
pub(crate) struct Handover {
    pub(crate) proxy: Proxy,
    sockets: BTreeMap<String, SharedFds>,
    table: Option<(u64, Rc<OwnedFd>)>,
}

/// What all living proxies handed over.
#[derive(Debug, Default)]
pub(crate) struct TakenOver {
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) sockets: BTreeMap<String, SharedFds>,
    pub(crate) table: Option<(u64, Rc<OwnedFd>)>,
    /// The highest generation of which anything was found.
    pub(crate) last_generation: u64,
}

impl TakenOver {
    /// Adds a newer proxy's handover.
    pub(crate) fn add(&mut self, handover: Handover) {
        log!("proxy {} goes on under this keeper", handover.proxy.generation);
        let Handover { mut proxy, sockets, table } = handover;
        // Its keeper may have died while it was still handing out what older proxies have.
        for (name, set) in &self.sockets {
            if !sockets.contains_key(name) {
                proxy.peer.send_set(set, |more| ToProxy::Socket { name: name.clone(), more });
            }
        }
        self.sockets.extend(sockets);
        let number = |table: &Option<(u64, _)>| table.as_ref().map(|(number, _)| *number);
        if number(&table) >= number(&self.table) {
            self.table = table;
        } else if let Some((number, table)) = &self.table {
            proxy.peer.send(&ToProxy::Table { number: *number }, vec![Rc::clone(table)]);
        }
        self.proxies.push(proxy);
    }
}

fn socket_name(generation: u64) -> String {
    format!("proxy-{generation}.sock")
}

/// The address of a proxy's socket. It goes through the open directory, because the path of a socket is limited
/// to about a hundred bytes and that of a state directory is not.
fn address(run_dir: &OwnedFd, generation: u64) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{}", run_dir.as_raw_fd(), socket_name(generation)))?)
}

fn seqpacket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags | SocketFlags::CLOEXEC, None)?)
}

/// The generations that have a socket file.
pub(crate) fn socket_files(run_path: &Path) -> BTreeSet<u64> {
    let generation = |entry: io::Result<std::fs::DirEntry>| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_prefix("proxy-")?.strip_suffix(".sock")?.parse().ok()
    };
    std::fs::read_dir(run_path).map(|entries| entries.filter_map(generation).collect()).unwrap_or_default()
}

/// Removes the socket file of a dead proxy.
pub(crate) fn remove_socket(run_dir: &OwnedFd, generation: u64) {
    match rustix::fs::unlinkat(run_dir, socket_name(generation), AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => log!("the socket file of proxy {generation} stays: {error}"),
    }
}

/// Makes the socket on which a new proxy will wait for a successor of this keeper.
pub(crate) fn listener(run_dir: &OwnedFd, generation: u64) -> io::Result<OwnedFd> {
    remove_socket(run_dir, generation);
    let socket = seqpacket(SocketFlags::NONBLOCK)?;
    bind(&socket, &address(run_dir, generation)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Takes a living proxy over.
pub(crate) fn take(run_dir: &OwnedFd, generation: u64, process: &Marked) -> Result<Handover, LinkError> {
    let pidfd = adopt::open_verified(process.pid, process.start_time).ok_or(LinkError::Closed)?;
    // Not blocking: where too many keepers wait already, nobody is accepting.
    let socket = seqpacket(SocketFlags::NONBLOCK)?;
    connect(&socket, &address(run_dir, generation)?).map_err(io::Error::from)?;
    let link = Link::new(socket)?;
    link.send(&ToProxy::TakeOver { protocol: PROTOCOL }, &[])?;
    let deadline = Instant::now() + TAKEOVER_LIMIT;
    match next(&link, deadline)?.body {
        FromProxy::TakenOver { protocol: PROTOCOL, generation: of, .. } if of == generation => {}
        FromProxy::TakenOver { .. } => return Err(LinkError::Protocol("it is another proxy")),
        _ => return Err(LinkError::Protocol("it did not begin with TakenOver")),
    }
    let (mut sockets, mut table, mut partial) = (BTreeMap::new(), None, PartialSet::default());
    for _ in 0..MAX_MESSAGES {
        let Message { body, fds } = next(&link, deadline)?;
        match body {
            FromProxy::Socket { name, more } => {
                if let Some(set) = partial.add(&name, fds, more)? {
                    sockets.insert(name, set);
                }
            }
            FromProxy::Table { number } => table = Some((number, Rc::new(Message::<()>::one_fd(fds)?))),
            FromProxy::TakenOver { .. } => return Err(LinkError::Protocol("it began twice")),
            FromProxy::Done => {
                let identity = (process.pid, process.start_time);
                let proxy = Proxy::adopted(generation, identity, pidfd, Peer::new(link));
                return Ok(Handover { proxy, sockets, table });
            }
        }
    }
    Err(LinkError::Protocol("the handover does not end"))
}

fn next(link: &Link, deadline: Instant) -> Result<Message<FromProxy>, LinkError> {
    loop {
        match link.recv() {
            Err(error) if error.would_block() => {}
            done => return done,
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = left.try_into().map_err(|_| LinkError::Protocol("no time is left"))?;
        match poll(&mut [PollFd::from_borrowed_fd(link.as_fd(), PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(LinkError::Io(io::ErrorKind::TimedOut.into())),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(LinkError::Io(error.into())),
        }
    }
}

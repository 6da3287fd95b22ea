//! Tunnels: what an upgraded connection becomes, and a TCP connection is once its target has taken it.
//!
//! Owns: the copying of bytes both ways, and how a tunnel ends.
//! Never: looks at the bytes. (Framing, so that a WebSocket ends with a Close 1012, is to come between reading and
//! writing in [`copy`], and before the write side is shut.)
//!
//! A tunnel stays with its target whatever the table says. It ends when one side closes, when it is told to, or at the
//! deadline of a shutdown. The end is clean: what was read is still written, both sides get a FIN, and what
//! they still send is read for a moment, so that the kernel does not turn the FIN into a reset.
//!
//! Each direction has its own end: a FIN is passed on when the bytes before it are, and the other direction goes on.
//! Nothing is read that cannot be kept: [`BUFFER_BYTES`] for each direction, the rest stays with the sender. Of a TCP
//! connection a reset is passed on as a reset, lest what was cut short look whole.
//!
//! Tunnels that are told to end are spread over the window that was asked for: the n-th of m gets a random moment in
//! the n-th m-th of it. So they neither end together nor leave gaps, and clients do not come back as a herd.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use crate::target::{InTunnel, Outcome, TargetStats};
use crate::upstream::UpstreamIo;

/// What is read at a time in one direction, in bytes.
const BUFFER_BYTES: usize = 8 * 1024;
/// How long both sides may take to become bare sockets after the `101`.
const UPGRADE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long an ending tunnel may take to write what it has read and to hear the other side's end.
pub(crate) const END_TIME_MAX: Duration = Duration::from_secs(1);
/// A peer that is silent for so long is asked by the kernel whether it is still there.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(60);
/// The time between two such questions.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// The number of such questions without an answer after which the peer is taken for gone.
const KEEP_ALIVE_PROBES: u32 = 4;

/// The open tunnels of one worker.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    open: RefCell<BTreeMap<u64, Rc<Handle>>>,
    next: Cell<u64>,
    ended: Notify,
}

#[derive(Debug)]
struct Handle {
    target: Arc<TargetStats>,
    end_at: Cell<Option<Instant>>,
    changed: Notify,
}

impl Handle {
    fn end_at(&self, moment: Instant) {
        if self.end_at.get().is_none_or(|known| moment < known) {
            self.end_at.set(Some(moment));
            self.changed.notify_waiters();
        }
    }

    /// Waits for the moment at which the tunnel is to end.
    async fn ending(&self) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let Some(moment) = self.end_at.get() else {
                changed.await;
                continue;
            };
            tokio::select! {
                () = sleep_until(moment) => return,
                () = changed => {}
            }
        }
    }
}

impl Tunnels {
    /// Ends the tunnels on a target over a window, those that are to end already excepted. `random` gives numbers
    /// from 0 to 1.
    pub(crate) fn end_on(&self, target: &str, within: Duration, now: Instant, random: impl Fn() -> f64) {
        let open = self.open.borrow();
        let told: Vec<_> =
            open.values().filter(|t| t.target.id() == target && t.end_at.get().is_none()).collect();
        let slice = within.div_f64(told.len().max(1) as f64);
        for (index, tunnel) in told.iter().enumerate() {
            tunnel.end_at(now + slice.mul_f64(index as f64 + random()));
        }
    }

    /// Ends all tunnels now.
    pub(crate) fn end_all(&self, now: Instant) {
        for tunnel in self.open.borrow().values() {
            tunnel.end_at(now);
        }
    }

    /// Waits until no tunnel is open. For one waiter.
    pub(crate) async fn all_ended(&self) {
        while !self.open.borrow().is_empty() {
            self.ended.notified().await;
        }
    }

    fn add(&self, target: &Arc<TargetStats>) -> (u64, Rc<Handle>) {
        let number = self.next.get();
        self.next.set(number + 1);
        let target = Arc::clone(target);
        let handle = Rc::new(Handle { target, end_at: Cell::new(None), changed: Notify::new() });
        self.open.borrow_mut().insert(number, Rc::clone(&handle));
        (number, handle)
    }
}

/// A place among the open tunnels; dropping it leaves.
#[derive(Debug)]
pub(crate) struct Tunnel {
    tunnels: Rc<Tunnels>,
    number: u64,
    handle: Rc<Handle>,
    counted: InTunnel,
}

impl Tunnel {
    /// Enters a tunnel into the list, so that it can be told to end from now on.
    pub(crate) fn enter(tunnels: &Rc<Tunnels>, counted: InTunnel) -> Self {
        let (number, handle) = tunnels.add(counted.stats());
        Self { tunnels: Rc::clone(tunnels), number, handle, counted }
    }

    /// Waits until both sides are bare sockets, then copies until the end.
    pub(crate) async fn run(self, client: OnUpgrade, target: OnUpgrade) {
        let sides = async { tokio::try_join!(client, target) };
        let (client, target) = match timeout(UPGRADE_TIME_MAX, sides).await {
            Ok(Ok(sides)) => sides,
            Ok(Err(error)) => return tracing::debug!(%error, "a tunnel did not come about"),
            Err(_) => return tracing::debug!("a tunnel did not come about in time"),
        };
        let Some((client, from_client)) = client_socket(client) else { return };
        let Some((target, from_target)) = target_socket(target) else { return };
        self.copy_both(Side::new(client, from_client), Side::new(target, from_target)).await;
    }

    /// Copies between two bare sockets until the end, and counts a target that reset the connection before it had sent
    /// a byte.
    pub(crate) async fn pass_through(self, client: TcpStream, target: TcpStream) {
        let broke = self.copy_both(Side::new(client, Bytes::new()), Side::new(target, Bytes::new())).await;
        let Some(Broke { client, target, by_target, answered }) = broke else { return };
        if by_target && !answered {
            self.counted.count(Outcome::BrokenOff);
        }
        for socket in [client, target] {
            if let Err(error) = socket.set_zero_linger() {
                tracing::debug!(%error, "a reset is passed on as an ordinary end");
            }
        }
    }

    /// Returns when both sides have ended. If one broke, both sockets are given back as they are.
    async fn copy_both(&self, client: Side, target: Side) -> Option<Broke> {
        let Side { socket: mut client, first } = client;
        let Side { socket: mut target, first: glued } = target;
        keep_alive(&client);
        keep_alive(&target);
        let (asked, answered) = (Cell::new(false), Cell::new(!glued.is_empty()));
        let broken = {
            let (mut from_client, mut to_client) = client.split();
            let (mut from_target, mut to_target) = target.split();
            let up = copy(&mut from_client, &mut to_target, first, &self.handle, &asked);
            let down = copy(&mut from_target, &mut to_client, glued, &self.handle, &answered);
            let overdue = async {
                self.handle.ending().await;
                tokio::time::sleep(END_TIME_MAX).await;
            };
            tokio::select! {
                result = async { tokio::try_join!(judge(up, Whose::Client), judge(down, Whose::Target)) } => {
                    result.map_or_else(Some, |(up, down)| up.or(down))
                }
                () = overdue => None,
            }
        };
        if let Some(by) = broken {
            return Some(Broke { client, target, by_target: by == Whose::Target, answered: answered.get() });
        }
        tokio::join!(hear_out(client), hear_out(target));
        None
    }
}

/// One side of a tunnel: its socket, and the bytes that came glued to the message before.
struct Side {
    socket: TcpStream,
    first: Bytes,
}

impl Side {
    fn new(socket: TcpStream, first: Bytes) -> Self {
        Self { socket, first }
    }
}

/// What is left of a tunnel that broke.
struct Broke {
    client: TcpStream,
    target: TcpStream,
    /// Whether it was the target's socket that failed.
    by_target: bool,
    /// Whether a byte had come from the target.
    answered: bool,
}

/// At which end the copying of one direction broke off.
#[derive(Debug)]
enum Broken {
    Reading(io::Error),
    Writing(io::Error),
}

/// Whose socket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Client,
    Target,
}

/// Copies one direction and says whose socket broke: as an error, if the tunnel is to end at once. A side that takes no
/// more may have said why (a database that is full does, and closes): what came from it is still passed on.
async fn judge(
    copying: impl Future<Output = Result<(), Broken>>,
    from: Whose,
) -> Result<Option<Whose>, Whose> {
    let to = if from == Whose::Client { Whose::Target } else { Whose::Client };
    match copying.await {
        Ok(()) => Ok(None),
        Err(Broken::Writing(error)) => {
            tracing::debug!(%error, whose = ?to, "a side of a tunnel takes no more");
            Ok(Some(to))
        }
        Err(Broken::Reading(error)) => {
            tracing::debug!(%error, whose = ?from, "a side of a tunnel broke");
            Err(from)
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.tunnels.open.borrow_mut().remove(&self.number);
        self.tunnels.ended.notify_one();
    }
}

fn client_socket(upgraded: Upgraded) -> Option<(TcpStream, Bytes)> {
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}

fn target_socket(upgraded: Upgraded) -> Option<(TcpStream, Bytes)> {
    let parts = upgraded.downcast::<TokioIo<UpstreamIo>>().ok()?;
    Some((parts.io.into_inner().into_stream(), parts.read_buf))
}

/// Copies one direction until its end or until the tunnel is to end, then shuts the write side. `first` are the bytes
/// that came glued to the message before; `began` is set with the first byte that is read.
async fn copy<R, W>(
    from: &mut R,
    to: &mut W,
    first: Bytes,
    handle: &Handle,
    began: &Cell<bool>,
) -> Result<(), Broken>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    to.write_all(&first).await.map_err(Broken::Writing)?;
    drop(first);
    let mut ending = pin!(handle.ending());
    let mut buffer = vec![0_u8; BUFFER_BYTES];
    loop {
        let read = tokio::select! {
            biased;
            () = &mut ending => break,
            read = from.read(&mut buffer) => read.map_err(Broken::Reading)?,
        };
        if read == 0 {
            break;
        }
        began.set(true);
        to.write_all(&buffer[..read]).await.map_err(Broken::Writing)?;
    }
    to.shutdown().await.map_err(Broken::Writing)
}

/// Reads a socket whose write side is shut until the other side's end, for a moment.
async fn hear_out(mut socket: TcpStream) {
    // After a deadline the write side may not be shut yet; twice does no harm.
    if let Err(error) = socket.shutdown().await {
        tracing::debug!(%error, "a tunnel's socket was gone already");
        return;
    }
    let mut buffer = vec![0_u8; BUFFER_BYTES];
    let to_end = async { while socket.read(&mut buffer).await.is_ok_and(|read| 0 < read) {} };
    if timeout(END_TIME_MAX, to_end).await.is_err() {
        tracing::debug!("a tunnel's peer did not close its side");
    }
}

/// Lets the kernel find out about peers that have vanished without a word.
fn keep_alive(socket: &TcpStream) {
    let set = sockopt::set_socket_keepalive(socket, true)
        .and_then(|()| sockopt::set_tcp_keepidle(socket, KEEP_ALIVE_IDLE))
        .and_then(|()| sockopt::set_tcp_keepintvl(socket, KEEP_ALIVE_INTERVAL))
        .and_then(|()| sockopt::set_tcp_keepcnt(socket, KEEP_ALIVE_PROBES));
    if let Err(error) = set {
        tracing::debug!(%error, "a tunnel's socket has no keep-alive");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::InFlight;

    fn tunnel(tunnels: &Rc<Tunnels>, id: &str) -> Tunnel {
        let addr = "127.0.0.1:1".parse().unwrap();
        let stats = Arc::new(TargetStats::new(id.into(), addr, 1, 1, Arc::default()));
        Tunnel::enter(tunnels, InFlight::begin(&stats, 0).into_tunnel())
    }

    #[tokio::test]
    async fn tunnels_on_a_target_end_spread_over_the_window() {
        let tunnels = Rc::new(Tunnels::default());
        let open: Vec<_> = (0..4).map(|_| tunnel(&tunnels, "a")).collect();
        let other = tunnel(&tunnels, "b");
        let now = Instant::now();
        tunnels.end_on("a", Duration::from_secs(4), now, || 0.5);
        let moments: Vec<_> = open.iter().map(|t| t.handle.end_at.get().unwrap() - now).collect();
        assert_eq!(moments, [500, 1500, 2500, 3500].map(Duration::from_millis));
        assert_eq!(other.handle.end_at.get(), None);
        tunnels.end_on("a", Duration::ZERO, now, || 0.5);
        assert_eq!(open[3].handle.end_at.get(), Some(now + Duration::from_millis(3500)), "told already");
    }

    #[tokio::test(start_paused = true)]
    async fn a_nearer_end_replaces_a_farther_one() {
        let tunnels = Rc::new(Tunnels::default());
        let open = tunnel(&tunnels, "a");
        let now = Instant::now();
        tunnels.end_on("a", Duration::from_secs(60), now, || 1.0);
        let told = async {
            tokio::task::yield_now().await;
            tunnels.end_all(now);
        };
        tokio::join!(open.handle.ending(), told);
        assert!(Instant::now() < now + Duration::from_secs(60));
        drop(open);
        assert!(tunnels.open.borrow().is_empty());
    }
}

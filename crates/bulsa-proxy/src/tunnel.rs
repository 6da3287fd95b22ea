//! Tunnels: what an upgraded connection becomes, and a TCP connection is once its target has taken it.
//!
//! Owns: the list of the open ones, the sockets from the upgrade to the last FIN, and who is told when to end.
//! Never: changes a byte that passes. The bytes are carried in `way` and `carry`; `frames` follows a WebSocket's frames,
//! so that it can be ended by a `close` between two of them; `handshake` is what the `101` must say before.
//!
//! A tunnel stays with its target until one side closes it, its service's limits on time are reached, it is told to end,
//! or a shutdown's deadline has come. The end is clean: a WebSocket gets a Close; of other bytes what was read is still
//! written; both sides get a FIN, and what they still send is read for a moment, so that the kernel does not turn the FIN
//! into a reset and the Close is lost with it.
//!
//! Each direction has its own end: a FIN is passed on when the bytes before it are, and the other direction goes on.
//! Nothing is read that cannot be kept, and an idle tunnel keeps nothing. Of a TCP connection a reset is passed on as a
//! reset, lest what was cut short look whole. (Its bytes take the same way as a WebSocket's, through this process: what
//! `splice` would save is a copy, and it would cost each tunnel two pipes.)
//!
//! Tunnels that are told to end are spread over the window that was asked for: the n-th of m gets a random moment in
//! the n-th m-th of it. So they neither end together nor leave gaps, and clients do not come back as a herd.

mod carry;
mod close;
mod frames;
pub(crate) mod handshake;
mod way;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use rustix::net::sockopt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use self::carry::{Carrier, Whose};
use self::frames::Follower;
pub use self::frames::follow_frames;
use self::way::{Way, poll_discard};
use crate::table::Times;
use crate::target::{InTunnel, Outcome, TargetStats};

/// How long each of two things may take at a tunnel's end, where nobody hurries it: that both sides answer a Close, or
/// that what was read is written; and that both sides are heard to end.
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
    /// The worker ends: there is less time for a clean end.
    hurried: Cell<bool>,
    /// Of the task that carries.
    waker: RefCell<Option<Waker>>,
}

impl Handle {
    fn end_at(&self, moment: Instant) {
        if self.end_at.get().is_none_or(|known| moment < known) {
            self.end_at.set(Some(moment));
        }
        self.wake();
    }

    fn hurry(&self, now: Instant) {
        self.hurried.set(true);
        self.end_at(now);
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Has the task woken when it is told something.
    fn wake_on_change(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }
}

/// Limits on the time of a tunnel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// How long it may carry nothing in either direction.
    pub(crate) idle: Option<Duration>,
    /// How long it may live at all.
    pub(crate) life: Option<Duration>,
}

impl Bounds {
    /// Those that a table asks for.
    pub(crate) fn of(times: &Times) -> Self {
        let limit = |millis: u64| (0 < millis).then(|| Duration::from_millis(millis));
        Self { idle: limit(times.tunnel_idle_ms), life: limit(times.tunnel_life_ms) }
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

    /// Ends all tunnels now, those that are ending already sooner than they would: within twice [`END_TIME_MAX`].
    pub(crate) fn end_all(&self, now: Instant) {
        for tunnel in self.open.borrow().values() {
            tunnel.hurry(now);
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
        let handle = Rc::new(Handle {
            target,
            end_at: Cell::default(),
            hurried: Cell::default(),
            waker: RefCell::default(),
        });
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
    bounds: Bounds,
}

impl Tunnel {
    /// Enters a tunnel into the list, so that it can be told to end from now on.
    pub(crate) fn enter(tunnels: &Rc<Tunnels>, counted: InTunnel, bounds: Bounds) -> Self {
        let (number, handle) = tunnels.add(counted.stats());
        Self { tunnels: Rc::clone(tunnels), number, handle, counted, bounds }
    }

    /// Carries a WebSocket's frames between two sockets until the end. Each side comes with the bytes that were glued to
    /// the message before.
    pub(crate) async fn run(self, client: (TcpStream, Bytes), target: (TcpStream, Bytes)) {
        let ((client, from_client), (target, from_target)) = (client, target);
        let up = Way::new(from_client, Some(Follower::of_client()));
        let down = Way::new(from_target, Some(Follower::of_server()));
        if let Some(Broke { client, target, .. }) = self.carry((client, up), (target, down)).await {
            // A Close may be on its way to the side that is left.
            tokio::join!(hear_out(client), hear_out(target));
        }
    }

    /// Carries the bytes between two sockets until the end, and counts a target that reset the connection before it had
    /// sent one.
    pub(crate) async fn pass_through(self, client: TcpStream, target: TcpStream) {
        let (up, down) = (Way::new(Bytes::new(), None), Way::new(Bytes::new(), None));
        let broke = self.carry((client, up), (target, down)).await;
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

    /// Waits for the moment at which it is to end.
    pub(crate) async fn ending(&self) {
        loop {
            let told = poll_fn(|cx| {
                self.handle.wake_on_change(cx);
                self.handle.end_at.get().map_or(Poll::Pending, Poll::Ready)
            });
            let moment = told.await;
            let mut alarm = pin!(sleep_until(moment));
            let is_over = poll_fn(|cx| {
                self.handle.wake_on_change(cx);
                if self.handle.end_at.get() != Some(moment) {
                    return Poll::Ready(false);
                }
                alarm.as_mut().poll(cx).map(|()| true)
            });
            if is_over.await {
                return;
            }
        }
    }

    /// Counts how it ended.
    pub(crate) fn count(&self, outcome: Outcome) {
        self.counted.count(outcome);
    }

    /// Returns when both sides have ended. If one broke, both sockets are given back as they are.
    async fn carry(&self, (client, up): (TcpStream, Way), (target, down): (TcpStream, Way)) -> Option<Broke> {
        keep_alive(&client);
        keep_alive(&target);
        let mut carrier = Carrier::new(&self.handle, self.bounds, (client, up), (target, down));
        let broken = poll_fn(|cx| carrier.poll(cx)).await;
        let answered = carrier.is_answered();
        let (client, target) = carrier.into_sides();
        if let Some(by) = broken {
            return Some(Broke { client, target, by_target: by == Whose::Target, answered });
        }
        tokio::join!(hear_out(client), hear_out(target));
        None
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

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.tunnels.open.borrow_mut().remove(&self.number);
        self.tunnels.ended.notify_one();
    }
}

/// Shuts a socket's write side and reads until the other side's end, for a moment.
async fn hear_out(mut socket: TcpStream) {
    // It may be shut already; twice does no harm.
    if let Err(error) = socket.shutdown().await {
        tracing::debug!(%error, "a tunnel's socket was gone already");
        return;
    }
    let to_end = poll_fn(|cx| {
        while let Ok(1..) = ready!(poll_discard(cx, &mut socket, |_| {})) {}
        Poll::Ready(())
    });
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

    pub(super) fn tunnel(tunnels: &Rc<Tunnels>, id: &str) -> Tunnel {
        let addr = "127.0.0.1:1".parse().unwrap();
        let stats = Arc::new(TargetStats::new(id.into(), addr, 1, 1, Arc::default()));
        Tunnel::enter(tunnels, InFlight::begin(&stats, 0).into_tunnel(), Bounds::default())
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

    #[tokio::test]
    async fn a_nearer_end_replaces_a_farther_one() {
        let tunnels = Rc::new(Tunnels::default());
        let open = tunnel(&tunnels, "a");
        let now = Instant::now();
        tunnels.end_on("a", Duration::from_secs(60), now, || 1.0);
        tunnels.end_all(now);
        assert_eq!(open.handle.end_at.get(), Some(now));
        tunnels.end_all(now + Duration::from_secs(1));
        assert_eq!(open.handle.end_at.get(), Some(now));
        drop(open);
        assert!(tunnels.open.borrow().is_empty());
    }

    #[test]
    fn a_limit_of_nothing_is_none() {
        let times = Times { tunnel_idle_ms: 0, tunnel_life_ms: 5, ..Times::default() };
        assert_eq!(Bounds::of(&times), Bounds { idle: None, life: Some(Duration::from_millis(5)) });
    }
}

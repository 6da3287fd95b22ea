//! One worker: a thread with a runtime of its own that shares nothing with the others on the path of a request.
//!
//! Owns: its view of the table, its accept loops, its tunnels, and how it ends.
//! Never: waits for the control side. It follows the newest [`Orders`] as they are; how they came about, or that
//! some were passed over, does not matter to it.
//!
//! ```text
//! Serving ─ drain ─▶ Draining: accepts nothing, every answer says `Connection: close`
//!                      └─ after a moment ─▶ ClosingIdle: idle client connections are closed
//!                           └─ all gone, or the deadline ─▶ tunnels end ─▶ Ended
//! ```

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use rustix::net::sockopt;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::accept::accept_forever;
use crate::access_log::Lines;
use crate::addresses::Addresses;
use crate::balance::mix;
use crate::bounds::Bounds;
use crate::desk::Desks;
use crate::h1::buffer::Buffers;
use crate::health::Fault;
use crate::hold::Room;
use crate::life::Lives;
use crate::local::{CurrentTable, LocalService, LocalTable, LocalTarget};
use crate::orders::{Orders, Phase, Shared};
use crate::plan::Plan;
use crate::report::{WorkerStats, count};
use crate::retry::Failure;
use crate::target::Outcome;
use crate::tunnel::{END_TIME_MAX, Tunnels};
use crate::upstream::ConnectError;

/// How long idle client connections are kept after a drain has begun, so that clients hear `Connection: close` with
/// an answer rather than lose a request to a closing socket.
const IDLE_GRACE: Duration = Duration::from_secs(3);
/// How often idle connections to targets, and those that wait for an answer, are looked through.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);
/// What is left for connections to end after the deadline of a drain.
const LAST_MOMENTS: Duration = Duration::from_millis(200);

/// The state of one worker, within its thread.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) index: usize,
    shared: Arc<Shared>,
    table: CurrentTable,
    table_changed: Notify,
    buffers: Rc<Buffers>,
    answer_buffers: Rc<Buffers>,
    desks: Desks,
    lives: Rc<Lives>,
    /// The time in words, as answers say it; not more than a moment old.
    date: RefCell<(u64, Rc<str>)>,
    lines: Lines,
    tunnels: Rc<Tunnels>,
    slots: Arc<Semaphore>,
    connection_ended: Notify,
    phase: Cell<Phase>,
    listening: RefCell<BTreeMap<String, Listening>>,
    random: Cell<u64>,
}

/// The accept loops of one listener on one worker.
#[derive(Debug)]
struct Listening {
    sockets: Arc<Vec<StdListener>>,
    loops: Vec<AbortHandle>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        for accepting in &self.loops {
            accepting.abort();
        }
    }
}

impl Worker {
    pub(crate) fn new(index: usize, shared: Arc<Shared>) -> Rc<Self> {
        let slots = Arc::new(Semaphore::new(shared.bounds.connections));
        let lives = Lives::new(shared.bounds.stall_time);
        let lines = Lines::new(Arc::clone(&shared.access_log));
        Rc::new(Self {
            index,
            shared,
            table: CurrentTable::new(LocalTable::empty(Arc::default())),
            table_changed: Notify::new(),
            buffers: Rc::default(),
            answer_buffers: Rc::new(Buffers::for_answers()),
            desks: Desks::default(),
            lives,
            date: RefCell::new((0, "".into())),
            lines,
            tunnels: Rc::default(),
            slots,
            connection_ended: Notify::new(),
            phase: Cell::new(Phase::Serving),
            listening: RefCell::default(),
            random: Cell::new(RandomState::new().build_hasher().finish()),
        })
    }

    /// Follows the orders until they are to end, and have been followed.
    pub(crate) async fn run(self: Rc<Self>, mut orders: watch::Receiver<Arc<Orders>>) {
        self.tell_time();
        drop(tokio::task::spawn_local(Rc::clone(&self).sweep_forever()));
        let mut drain = None;
        loop {
            let newest = Arc::clone(&orders.borrow_and_update());
            self.follow(&newest);
            if drain.is_none() && newest.drain.is_some() {
                drain = Some(tokio::task::spawn_local(Rc::clone(&self).drain(orders.clone())));
            }
            drop(newest);
            let drained = async {
                match &mut drain {
                    Some(drain) => drain.await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = orders.changed() => if changed.is_err() { break },
                _ = drained => break,
            }
        }
        self.enter(Phase::Ended);
        self.listening.borrow_mut().clear();
    }

    /// Takes over what is new in the orders, then says so.
    fn follow(self: &Rc<Self>, orders: &Orders) {
        if self.table().plan.number < orders.plan.number {
            self.take_plan(Arc::clone(&orders.plan));
        }
        if orders.drain.is_none() {
            self.listen(&orders.listeners);
        } else {
            self.listening.borrow_mut().clear();
            self.enter(Phase::Draining);
        }
        let stats = self.stats();
        stats.table.store(orders.plan.number, Ordering::SeqCst);
        stats.settled.store(orders.number, Ordering::SeqCst);
        self.shared.signal.raise();
    }

    fn take_plan(self: &Rc<Self>, plan: Arc<Plan>) {
        let old = self.table();
        self.table.set(old.next(plan, self.index));
        let new = self.table();
        if new.plan.routes_differ(&old.plan) {
            old.disperse();
            self.lives.leave(|listener| new.plan.routes.protocol(listener).is_some());
        }
        for service in new.services() {
            self.let_out(service);
        }
        new.abandon();
        self.table_changed.notify_waiters();
        self.apply_orders_to_tunnels();
    }

    /// Ends the tunnels that the current table wants ended.
    pub(crate) fn apply_orders_to_tunnels(&self) {
        let now = Instant::now();
        for close in &self.table().plan.close_tunnels {
            self.tunnels.end_on(&close.target, Duration::from_millis(close.within_ms), now, || self.random());
        }
    }

    /// A random number from 0 to 1; good enough to spread things in time (the splitmix64 sequence).
    pub(crate) fn random(&self) -> f64 {
        (self.random_bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// 64 random bits, not fit for secrets.
    pub(crate) fn random_bits(&self) -> u64 {
        let state = self.random.get();
        self.random.set(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
        mix(state)
    }

    fn listen(self: &Rc<Self>, wanted: &BTreeMap<String, Arc<Vec<StdListener>>>) {
        let mut listening = self.listening.borrow_mut();
        listening.retain(|name, known| wanted.get(name).is_some_and(|w| Arc::ptr_eq(w, &known.sockets)));
        for (name, sockets) in wanted {
            if !listening.contains_key(name) {
                let loops = self.accept_on(name, sockets);
                listening.insert(name.clone(), Listening { sockets: Arc::clone(sockets), loops });
            }
        }
    }

    /// Starts the accept loops for this worker's share of a listener's sockets.
    fn accept_on(self: &Rc<Self>, name: &str, sockets: &[StdListener]) -> Vec<AbortHandle> {
        let name: Rc<str> = name.into();
        let mut loops = Vec::new();
        for socket in share(sockets.len(), self.index, self.shared.stats.len()) {
            let listener = sockets[socket].try_clone().and_then(|listener| {
                // Each connection that is accepted inherits it.
                sockopt::set_tcp_nodelay(&listener, true)?;
                tokio::net::TcpListener::from_std(listener)
            });
            match listener {
                Ok(listener) => {
                    let accepting = accept_forever(Rc::clone(self), Rc::clone(&name), listener);
                    loops.push(tokio::task::spawn_local(accepting).abort_handle());
                }
                Err(error) => {
                    self.stats().accept_errors.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%error, listener = &*name, "a worker cannot use a listening socket");
                }
            }
        }
        loops
    }

    /// Brings the worker to its end: all connections gone, or the deadline.
    async fn drain(self: Rc<Self>, mut orders: watch::Receiver<Arc<Orders>>) {
        let begun = Instant::now();
        let deadline = |orders: &watch::Receiver<Arc<Orders>>| orders.borrow().drain.unwrap_or(begun);
        loop {
            let until = deadline(&orders);
            let idle_until = until.min(begun + IDLE_GRACE);
            tokio::select! {
                () = self.all_ended() => return,
                () = sleep_until(idle_until), if self.phase.get() == Phase::Draining => {
                    self.enter(Phase::ClosingIdle);
                }
                () = sleep_until(until), if self.phase.get() == Phase::ClosingIdle => break,
                changed = orders.changed() => if changed.is_err() { break },
            }
        }
        let now = Instant::now();
        self.tunnels.end_all(now);
        let last = now + END_TIME_MAX * 2 + LAST_MOMENTS;
        if timeout_at(last, self.tunnels.all_ended()).await.is_err() {
            tracing::warn!("tunnels did not end in time and are cut");
        }
    }

    async fn all_ended(&self) {
        while 0 < self.stats().connections.load(Ordering::Relaxed) {
            self.connection_ended.notified().await;
        }
    }

    /// Closes idle connections to targets when their time is up, says when a target is stalled, and hands over what
    /// there is of the access log.
    async fn sweep_forever(self: Rc<Self>) {
        loop {
            sleep(SWEEP_INTERVAL).await;
            self.tell_time();
            self.lines.sweep();
            self.lives.sweep(Instant::now());
            if self.table().sweep(Instant::now()) {
                self.shared.signal.raise();
            }
        }
    }

    /// Notes that there is no connection to a target, and says what that means for who wanted one.
    pub(crate) fn cannot_connect(
        self: &Rc<Self>,
        service: &LocalService,
        target: &LocalTarget,
        error: &ConnectError,
    ) -> Failure {
        match error {
            ConnectError::Refused(error) => {
                tracing::debug!(target = target.stats.id(), %error, "a target did not take a connection");
                self.leave_out(service, target);
                Failure::Refused
            }
            ConnectError::Local(error) => {
                tracing::warn!(%error, "no connection to a target could be opened for want of resources");
                count(&self.stats().local_errors);
                Failure::Local
            }
        }
    }

    /// Leaves out a target that did not take a connection, for a while.
    pub(crate) fn leave_out(self: &Rc<Self>, service: &LocalService, target: &LocalTarget) {
        target.stats.count(self.index, Outcome::Refused);
        target.close_idle();
        self.failed(service, target, Fault::Refused, Instant::now());
    }

    /// Notes that a request met a fault at a target.
    pub(crate) fn failed(&self, service: &LocalService, target: &LocalTarget, fault: Fault, now: Instant) {
        let (rules, traffic) = (&service.plan.rules, target.stats.traffic());
        if target.stats.health().failed(fault, rules, traffic, now).is_some() {
            tracing::debug!(target = target.stats.id(), ?fault, "a target is left out for a while");
            self.shared.signal.raise();
        }
    }

    /// Notes that a target answered a request that was sent at that moment.
    pub(crate) fn succeeded(
        self: &Rc<Self>,
        service: &LocalService,
        target: &LocalTarget,
        sent: Instant,
        now: Instant,
    ) {
        if target.stats.health().succeeded(sent, &service.plan.rules, now) {
            self.let_out(service);
            self.shared.signal.raise();
        }
    }

    /// Lets out who waits for a service, as far as its targets are ready, and looks after the others as long as a target
    /// may be ready again by itself.
    pub(crate) fn let_out(self: &Rc<Self>, service: &LocalService) {
        let Some(until) = service.look(Instant::now()) else { return };
        // One of these for each service at a time.
        if !service.room.is_watched.replace(true) {
            let (worker, room) = (Rc::clone(self), Rc::clone(&service.room));
            drop(tokio::task::spawn_local(worker.watch(room, until)));
        }
    }

    async fn watch(self: Rc<Self>, room: Rc<Room>, first: Instant) {
        let mut next = Some(first);
        while let Some(until) = next {
            sleep_until(until).await;
            let table = self.table();
            let service = table.services().iter().find(|service| Rc::ptr_eq(&service.room, &room));
            next = service.and_then(|service| service.look(Instant::now()));
        }
        room.is_watched.set(false);
    }

    pub(crate) fn bounds(&self) -> &Bounds {
        &self.shared.bounds
    }

    pub(crate) fn addresses(&self) -> &Arc<Addresses> {
        &self.shared.addresses
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    fn enter(&self, phase: Phase) {
        if (self.phase.get() as u8) < phase as u8 {
            self.phase.set(phase);
            match phase {
                Phase::ClosingIdle => self.lives.end_idle(),
                Phase::Ended => self.lives.cut_all(),
                Phase::Serving | Phase::Draining => {}
            }
        }
    }

    pub(crate) fn stats(&self) -> &WorkerStats {
        &self.shared.stats[self.index]
    }

    pub(crate) fn table(&self) -> Rc<LocalTable> {
        self.table.get()
    }

    /// Waits for the next table.
    pub(crate) async fn table_change(&self) {
        self.table_changed.notified().await;
    }

    /// For what clients send.
    pub(crate) fn buffers(&self) -> &Rc<Buffers> {
        &self.buffers
    }

    /// For what targets send.
    pub(crate) fn answer_buffers(&self) -> &Rc<Buffers> {
        &self.answer_buffers
    }

    pub(crate) fn desks(&self) -> &Desks {
        &self.desks
    }

    pub(crate) fn lives(&self) -> &Rc<Lives> {
        &self.lives
    }

    /// The time as answers say it (RFC 9110, 5.6.7).
    pub(crate) fn date(&self) -> Rc<str> {
        Rc::clone(&self.date.borrow().1)
    }

    /// Its part of the access log.
    pub(crate) fn lines(&self) -> &Lines {
        &self.lines
    }

    fn tell_time(&self) {
        let now = SystemTime::now();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut date = self.date.borrow_mut();
        if date.0 != second {
            *date = (second, httpdate::fmt_http_date(now).into());
        }
    }

    pub(crate) fn tunnels(&self) -> &Rc<Tunnels> {
        &self.tunnels
    }

    pub(crate) fn slots(&self) -> &Arc<Semaphore> {
        &self.slots
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.phase.get() != Phase::Serving
    }

    pub(crate) fn connection_ended(&self) {
        self.connection_ended.notify_one();
    }
}

/// The indices of the sockets that one worker accepts from: its share, or one that it has in common with others.
fn share(sockets: usize, worker: usize, workers: usize) -> Vec<usize> {
    match sockets {
        0 => Vec::new(),
        _ if sockets < workers => vec![worker % sockets],
        _ => (worker..sockets).step_by(workers).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_socket_is_accepted_from_and_every_worker_accepts() {
        for sockets in 1..6 {
            for workers in 1..6 {
                let shares: Vec<_> = (0..workers).map(|worker| share(sockets, worker, workers)).collect();
                assert!(shares.iter().all(|share| !share.is_empty()), "{sockets} sockets, {workers} workers");
                let mut all: Vec<_> = shares.concat();
                all.sort_unstable();
                all.dedup();
                assert_eq!(all, (0..sockets).collect::<Vec<_>>());
            }
        }
        assert!(share(0, 0, 2).is_empty());
    }

    #[test]
    fn random_numbers_stay_between_0_and_1_and_differ() {
        let worker = Worker::new(0, Arc::new(Shared::new(0, Arc::default(), Bounds::default())));
        let numbers: Vec<_> = (0..1000).map(|_| worker.random()).collect();
        assert!(numbers.iter().all(|n| (0.0..1.0).contains(n)));
        let mean = numbers.iter().sum::<f64>() / 1000.0;
        assert!((0.4..0.6).contains(&mean), "{mean}");
    }
}

//! The handle by which a proxy is started, ordered and asked.
//!
//! Owns: the workers' threads, the newest [`Orders`], and the registry of targets.
//! Never: stands on the path of a request, or waits for a worker: orders are published, and each worker takes the
//! newest when it gets to it. Whether all have is in the report.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bounds::Bounds;
use crate::orders::{Orders, Shared};
use crate::plan::Registry;
use crate::report::{Report, Signal, WorkerStats};
use crate::table::{Table, TableError};
use crate::worker::Worker;

/// Workers, at most.
pub const WORKERS_MAX: usize = 256;
/// The longest grace that a shutdown can be given. Longer ones are cut to it.
pub const GRACE_MAX: Duration = Duration::from_secs(7 * 86_400);

/// How a proxy is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// The number of worker threads, 1 to [`WORKERS_MAX`].
    pub workers: usize,
}

/// What became of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It was published. [`Report::table`] tells when all workers run on it.
    Taken,
    /// Its number is not higher than that of the newest table; nothing was done.
    Old,
}

/// A running proxy. Dropping it ends it at once.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    /// Locked by whoever embeds the proxy only, never by a worker.
    registry: Mutex<Registry>,
    orders: watch::Sender<Arc<Orders>>,
    threads: Vec<JoinHandle<()>>,
}

impl Proxy {
    /// Starts the workers on a table, without listeners.
    ///
    /// # Errors
    /// `InvalidInput` for a number of workers out of bounds or a table that fails [`Table::check`]; else what the
    /// system said when a thread or its runtime could not be made.
    pub fn start(options: Options, table: &Table) -> io::Result<Self> {
        Self::start_within(options, table, Bounds::default())
    }

    /// Starts with other limits on clients than the usual ones.
    ///
    /// # Errors
    /// As [`Self::start`].
    #[doc(hidden)]
    pub fn start_within(options: Options, table: &Table, bounds: Bounds) -> io::Result<Self> {
        let workers = options.workers;
        if !(1..=WORKERS_MAX).contains(&workers) {
            let text = format!("the proxy needs 1 to {WORKERS_MAX} workers, not {workers}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        table.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let signal = Arc::new(Signal::default());
        let shared = Arc::new(Shared::new(workers, Arc::clone(&signal), bounds));
        let mut registry = Registry::new(workers, signal);
        let plan = Arc::new(registry.compile(table, 0));
        let orders = Orders { number: 1, plan, listeners: BTreeMap::new(), drain: None };
        let (orders, receiver) = watch::channel(Arc::new(orders));
        let mut proxy = Self { shared, registry: Mutex::new(registry), orders, threads: Vec::new() };
        let (started, starting) = mpsc::sync_channel(workers);
        for index in 0..workers {
            proxy.threads.push(spawn(index, Arc::clone(&proxy.shared), receiver.clone(), started.clone())?);
        }
        drop(started);
        for _ in 0..workers {
            starting.recv().map_err(|_| io::Error::other("a worker of the proxy died at its start"))??;
        }
        Ok(proxy)
    }

    /// Accepts connections on these sockets from now on. They are the sockets of one address, already listening;
    /// they are spread over the workers, and shared where there are fewer sockets than workers. A listener of
    /// the same name is replaced.
    ///
    /// # Errors
    /// `InvalidInput` without a socket; else what the system said when a socket could not be made non-blocking.
    pub fn add_listener(&self, name: &str, sockets: Vec<TcpListener>) -> io::Result<()> {
        if sockets.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("listener `{name}` has no socket"),
            ));
        }
        for socket in &sockets {
            socket.set_nonblocking(true)?;
        }
        let sockets = Arc::new(sockets);
        self.order(|orders| {
            orders.listeners.insert(name.to_owned(), sockets);
        });
        Ok(())
    }

    /// Stops accepting on a listener and closes this process's copies of its sockets. Connections that were
    /// accepted go on. Returns false if there is no such listener.
    pub fn remove_listener(&self, name: &str) -> bool {
        let known = self.orders.borrow().listeners.contains_key(name);
        if known {
            self.order(|orders| {
                orders.listeners.remove(name);
            });
        }
        known
    }

    /// Publishes a table, unless a newer or the same one is there already.
    ///
    /// # Errors
    /// The table is not sound; the current one stays.
    pub fn apply(&self, table: &Table) -> Result<Applied, TableError> {
        table.check()?;
        let mut registry = self.registry();
        if table.number <= self.orders.borrow().plan.number {
            return Ok(Applied::Old);
        }
        let plan = Arc::new(registry.compile(table, self.acknowledged()));
        // Published under the registry's lock, so that two callers cannot swap the order.
        self.order(|orders| orders.plan = plan);
        Ok(Applied::Taken)
    }

    /// Reports how the proxy stands.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut registry = self.registry();
        // First the acknowledgements, then the counters: see the module of reports.
        let table = self.acknowledged();
        let newest = self.orders.borrow().number;
        let stats = &self.shared.stats;
        let sum = |field: fn(&WorkerStats) -> &AtomicU64| -> u64 {
            stats.iter().map(|stats| field(stats).load(Ordering::Relaxed)).sum()
        };
        Report {
            table,
            settled: stats.iter().all(|stats| newest <= stats.settled.load(Ordering::SeqCst)),
            workers_ended: stats.iter().filter(|stats| stats.ended.load(Ordering::SeqCst)).count(),
            targets: registry.report_targets(table),
            held: registry.report_held(),
            connections: sum(|s| &s.connections),
            accepted: sum(|s| &s.accepted),
            accept_errors: sum(|s| &s.accept_errors),
            no_route: sum(|s| &s.no_route),
            bad_gateway: sum(|s| &s.bad_gateway),
            unavailable: sum(|s| &s.unavailable),
            retried: sum(|s| &s.retried),
            local_errors: sum(|s| &s.local_errors),
            refused_clients: sum(|s| &s.refused_clients),
            evicted: sum(|s| &s.evicted),
            malformed: sum(|s| &s.malformed),
            timed_out: sum(|s| &s.timed_out),
            over_budget: sum(|s| &s.over_budget),
            lost_to_idle_close: sum(|s| &s.lost_to_idle_close),
            access_log_dropped: Some(self.shared.access_log.dropped()),
            suspects: self.shared.last_suspects(),
        }
    }

    /// Waits until a report may say something new: a table or listener taken over by a worker, a connection that a
    /// target did not take, the end of the last request on a target that is no longer routed, a worker's end. Many such
    /// changes are one. For one waiter at a time; cancel safe; needs no runtime of a certain kind.
    pub async fn changed(&self) {
        self.shared.signal.wait().await;
    }

    /// Begins the end: nothing more is accepted, every answer says `Connection: close`, idle client connections are
    /// closed after a few seconds, requests in flight finish. At the deadline tunnels are ended and what is left is cut.
    /// Called again it moves the deadline. Returns at once; see [`Self::ended`].
    pub fn shutdown(&self, grace: Duration) {
        let deadline = Instant::now() + grace.min(GRACE_MAX);
        self.order(|orders| {
            orders.listeners.clear();
            orders.drain = Some(deadline);
        });
    }

    /// Has the access log of services that want one written there from now on, `bytes_max` bytes at most, by a thread of
    /// its own that may be stuck there. Lines that came before wait for it, within bounds; see
    /// [`Report::access_log_dropped`].
    ///
    /// # Errors
    /// What the system said when the thread could not be made.
    pub fn write_access_log(&self, to: Box<dyn Write + Send>, bytes_max: u64) -> io::Result<()> {
        self.shared.access_log.direct(to, bytes_max)
    }

    /// Waits until the rest of the access log is written, once all workers have ended. Where its file takes nothing, that
    /// may be never.
    pub async fn access_log_written(&self) {
        self.shared.access_log.close();
        self.shared.access_log.written().await;
    }

    /// Waits until all workers have ended.
    pub async fn ended(&self) {
        // Each thread drops its last receiver at its very end.
        self.orders.closed().await;
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        self.orders.send_modify(|current| {
            let mut orders = Orders::clone(current);
            orders.number += 1;
            change(&mut orders);
            *current = Arc::new(orders);
        });
    }

    /// The number of the newest table that every worker runs on.
    fn acknowledged(&self) -> u64 {
        self.shared.stats.iter().map(|stats| stats.table.load(Ordering::SeqCst)).min().unwrap_or(0)
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // Nothing in the registry is left half-changed by a panic that would be worth dying for again.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shutdown(Duration::ZERO);
        self.shared.access_log.close();
    }
}

/// Starts one worker's thread, which reports once whether its runtime could be made.
fn spawn(
    index: usize,
    shared: Arc<Shared>,
    orders: watch::Receiver<Arc<Orders>>,
    started: mpsc::SyncSender<io::Result<()>>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("proxy-{index}")).spawn(move || {
        let _ending = Ending { index, shared: Arc::clone(&shared), _orders: orders.clone() };
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let (runtime, result) = match runtime {
            Ok(runtime) => (Some(runtime), Ok(())),
            Err(error) => (None, Err(error)),
        };
        if started.send(result).is_err() {
            return;
        }
        drop(started);
        if let Some(runtime) = runtime {
            runtime.block_on(Worker::new(index, shared).run(orders));
        }
    })
}

/// Notes that a worker's thread has ended, also by a panic.
struct Ending {
    index: usize,
    shared: Arc<Shared>,
    /// The last receiver to go; see [`Proxy::ended`].
    _orders: watch::Receiver<Arc<Orders>>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.shared.stats[self.index].ended.store(true, Ordering::SeqCst);
        self.shared.signal.raise();
    }
}

//! The loops that keep probing.
//!
//! Owns: one loop for each replica of the plan, and the reports. Level-triggered: the driver says what should be
//! probed now, as often as it likes, and loops are started, changed and ended to match. Never: two runs for one
//! replica at the same time, more than [`PROBES_AT_ONCE`] altogether, or more than [`REPORTS_MAX`] reports waiting
//! (loops wait then, so that a driver that is behind isn't driven further behind).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bulsa_core::spec::Check;
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{ProbePlan, ProbeResult, ProbeRunner, schedule::Schedule};

/// At most this many runs are under way at the same time.
pub const PROBES_AT_ONCE: usize = 64;

/// At most this many reports wait for the driver.
pub const REPORTS_MAX: usize = 256;

/// What one run of a loop found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The replica, as the plan names it.
    pub key: String,
    /// Counts the runs of one prober: a later run has a greater number, whoever it was for.
    pub sequence: u64,
    /// When the run started.
    pub started: Instant,
    /// When it ended.
    pub at: Instant,
    /// What it found.
    pub result: ProbeResult,
}

/// Keeps probing what the plan says. Dropping it ends every loop.
#[derive(Debug)]
pub struct Prober<R> {
    loops: BTreeMap<String, Loop>,
    /// Tasks of replicas that left the plan and may not have noticed yet.
    leaving: BTreeMap<String, JoinHandle<()>>,
    shared: Shared<R>,
}

#[derive(Debug)]
struct Loop {
    plan: watch::Sender<Arc<ProbePlan>>,
    now: Arc<Notify>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared<R> {
    runner: Arc<R>,
    permits: Arc<Semaphore>,
    sequence: Arc<AtomicU64>,
    reports: mpsc::Sender<Report>,
}

impl<R> Clone for Shared<R> {
    fn clone(&self) -> Self {
        Self {
            runner: Arc::clone(&self.runner),
            permits: Arc::clone(&self.permits),
            sequence: Arc::clone(&self.sequence),
            reports: self.reports.clone(),
        }
    }
}

impl<R: ProbeRunner> Prober<R> {
    /// A prober without loops, and where its reports arrive. Loops run on the tokio runtime that
    /// [`Self::set_plan`] is called on.
    pub fn new(runner: R) -> (Self, mpsc::Receiver<Report>) {
        let (reports, receiver) = mpsc::channel(REPORTS_MAX);
        let shared = Shared {
            runner: Arc::new(runner),
            permits: Arc::new(Semaphore::new(PROBES_AT_ONCE)),
            sequence: Arc::default(),
            reports,
        };
        (Self { loops: BTreeMap::new(), leaving: BTreeMap::new(), shared }, receiver)
    }

    /// Makes the loops match `plan`: ends those that aren't in it (a run under way is abandoned and not reported),
    /// tells those that are what changed, starts the others.
    ///
    /// A report of a run that ended before this call may still be in the queue.
    pub fn set_plan(&mut self, plan: BTreeMap<String, ProbePlan>) {
        self.leaving.retain(|_, task| !task.is_finished());
        let wanted = |key: &String| plan.get(key).is_some_and(|plan| plan.check != Check::Up);
        // A loop only ends by itself if it panicked; it is started again like a new one.
        let ending = self.loops.extract_if(.., |key, running| !wanted(key) || running.task.is_finished());
        self.leaving.extend(ending.map(|(key, ended)| (key, ended.task)));
        for (key, plan) in plan {
            if plan.check == Check::Up {
                continue;
            }
            match self.loops.get(&key) {
                Some(running) => {
                    running.plan.send_if_modified(|current| {
                        let changed = **current != plan;
                        if changed {
                            *current = Arc::new(plan);
                        }
                        changed
                    });
                }
                None => {
                    let before = self.leaving.remove(&key);
                    let started = self.start(key.clone(), plan, before);
                    self.loops.insert(key, started);
                }
            }
        }
    }

    /// Makes the loop of `key` run at once, or again right after the run under way. Does nothing for a key that isn't
    /// in the plan.
    pub fn probe_now(&self, key: &str) {
        if let Some(running) = self.loops.get(key) {
            running.now.notify_one();
        }
    }

    fn start(&self, key: String, plan: ProbePlan, before: Option<JoinHandle<()>>) -> Loop {
        let (sender, plans) = watch::channel(Arc::new(plan));
        let now = Arc::new(Notify::new());
        let probing = Probing { key, plans, now: Arc::clone(&now), shared: self.shared.clone() };
        let task = tokio::spawn(async move {
            if let Some(before) = before
                && let Err(error) = before.await
            {
                tracing::error!(key = probing.key, %error, "a probe loop failed and is started again");
            }
            probing.go().await;
        });
        Loop { plan: sender, now, task }
    }
}

/// The loop's replica left the plan.
struct Left;

struct Probing<R> {
    key: String,
    plans: watch::Receiver<Arc<ProbePlan>>,
    now: Arc<Notify>,
    shared: Shared<R>,
}

impl<R: ProbeRunner> Probing<R> {
    async fn go(mut self) {
        let mut schedule = Schedule::default();
        let mut plan = self.current();
        let mut first = Instant::now() + plan.offset;
        loop {
            match self.wait(&plan, &schedule, first).await {
                Err(Left) => return,
                Ok(Some(changed)) => {
                    if !changed.probes_the_same(&plan) {
                        (schedule, first) = (Schedule::default(), schedule.earliest(Instant::now()));
                    }
                    plan = changed;
                    continue;
                }
                Ok(None) => {}
            }
            match self.run_once(&mut plan, &mut schedule).await {
                Err(Left) => return,
                Ok(Ended::Reported) => {}
                Ok(Ended::Abandoned) => {
                    (schedule, first) = (Schedule::default(), schedule.earliest(Instant::now()));
                }
            }
        }
    }

    fn current(&mut self) -> Arc<ProbePlan> {
        Arc::clone(&self.plans.borrow_and_update())
    }

    /// Waits until a run is due or asked for (`None`), or the plan changed.
    async fn wait(
        &mut self,
        plan: &ProbePlan,
        schedule: &Schedule,
        first: Instant,
    ) -> Result<Option<Arc<ProbePlan>>, Left> {
        let mut due = schedule.due(plan, first);
        loop {
            tokio::select! {
                biased;
                changed = self.plans.changed() => {
                    changed.map_err(|_| Left)?;
                    return Ok(Some(self.current()));
                }
                () = self.now.notified() => due = due.min(schedule.earliest(Instant::now())),
                () = sleep_until(due) => return Ok(None),
            }
        }
    }

    /// One run, from the permit to the report. `plan` follows changes of the timing meanwhile.
    async fn run_once(&mut self, plan: &mut Arc<ProbePlan>, schedule: &mut Schedule) -> Result<Ended, Left> {
        let shared = self.shared.clone();
        let timeout = schedule.timeout(plan);
        let current = if timeout == plan.timeout {
            Arc::clone(plan)
        } else {
            Arc::new(ProbePlan { timeout, ..(**plan).clone() })
        };
        let run = async move {
            // The semaphore is never closed; were it, running without a permit would still be right.
            let _permit = shared.permits.acquire().await;
            let started = Instant::now();
            let result = shared.runner.run(current).await;
            (started, result)
        };
        let mut run = std::pin::pin!(run);
        schedule.start(Instant::now());
        let (started, result) = loop {
            tokio::select! {
                biased;
                changed = self.plans.changed() => {
                    changed.map_err(|_| Left)?;
                    let before = std::mem::replace(plan, self.current());
                    if !plan.probes_the_same(&before) {
                        return Ok(Ended::Abandoned);
                    }
                }
                ended = &mut run => break ended,
            }
        };
        schedule.start(started);
        schedule.end(&result);
        self.report(started, result).await?;
        Ok(Ended::Reported)
    }

    async fn report(&mut self, started: Instant, result: ProbeResult) -> Result<(), Left> {
        let sequence = self.shared.sequence.fetch_add(1, Ordering::Relaxed);
        let report = Report { key: self.key.clone(), sequence, started, at: Instant::now(), result };
        let reports = self.shared.reports.clone();
        let mut sending = std::pin::pin!(reports.send(report));
        // A change of the plan waits; only leaving it ends the wait for room.
        let mut plans = self.plans.clone();
        loop {
            tokio::select! {
                biased;
                sent = &mut sending => return sent.map_err(|_| Left),
                changed = plans.changed() => changed.map_err(|_| Left)?,
            }
        }
    }
}

enum Ended {
    Reported,
    Abandoned,
}

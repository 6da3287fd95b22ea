//! The loops under tokio's paused clock, with a runner that does what the test says.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bulsa_core::spec::{Accept, Check};
use proptest::prelude::*;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::super::{
    MIN_GAP, PROBES_AT_ONCE, ProbePlan, ProbeResult, ProbeRunner, ProbeTarget, Prober, QUICK_RETRIES_MAX,
    REPORTS_MAX, RETRY_AFTER, Report,
};

const INTERVAL: Duration = Duration::from_secs(2);

/// Gives prepared results, each after a while; passes at once when there is none.
#[derive(Clone, Default)]
struct Fake {
    results: Arc<Mutex<VecDeque<(Duration, ProbeResult)>>>,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    abandoned: Arc<AtomicUsize>,
    takes: Duration,
}

struct Running<'a>(&'a Fake, bool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        if !self.1 {
            self.0.abandoned.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl ProbeRunner for Fake {
    async fn run(&self, _plan: Arc<ProbePlan>) -> ProbeResult {
        let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let mut running = Running(self, false);
        let next = self.results.lock().unwrap().pop_front();
        let (takes, result) = next.unwrap_or((self.takes, ProbeResult::Pass { took: self.takes }));
        sleep(takes).await;
        running.1 = true;
        result
    }
}

impl Fake {
    fn with(results: impl IntoIterator<Item = ProbeResult>) -> Self {
        let fake = Self::default();
        fake.results.lock().unwrap().extend(results.into_iter().map(|result| (Duration::ZERO, result)));
        fake
    }

    fn slow(takes: Duration) -> Self {
        Self { takes, ..Self::default() }
    }
}

fn failed() -> ProbeResult {
    ProbeResult::Fail { evidence: "no".to_owned(), no_answer: false }
}

fn could_not() -> ProbeResult {
    ProbeResult::CouldNotRun { reason: "no".to_owned() }
}

fn plan() -> ProbePlan {
    ProbePlan {
        check: Check::Http { port: None, path: "/".to_owned(), host: None, accept: Accept::Success },
        target: ProbeTarget::default(),
        interval: INTERVAL,
        timeout: Duration::from_secs(1),
        offset: Duration::ZERO,
        fast: false,
    }
}

fn only(key: &str, plan: ProbePlan) -> BTreeMap<String, ProbePlan> {
    BTreeMap::from([(key.to_owned(), plan)])
}

fn elsewhere() -> ProbePlan {
    ProbePlan {
        target: ProbeTarget { addr: Some(([127, 0, 0, 1], 9).into()), ..ProbeTarget::default() },
        ..plan()
    }
}

/// Milliseconds from `start` at which the next `count` runs started.
async fn starts(reports: &mut mpsc::Receiver<Report>, start: Instant, count: usize) -> Vec<u128> {
    let mut found = Vec::new();
    for _ in 0..count {
        found.push((reports.recv().await.unwrap().started - start).as_millis());
    }
    found
}

#[tokio::test(start_paused = true)]
async fn runs_come_after_the_offset_and_then_at_the_interval() {
    let (mut prober, mut reports) = Prober::new(Fake::slow(Duration::from_millis(300)));
    let start = Instant::now();
    prober.set_plan(only("web", ProbePlan { offset: Duration::from_millis(70), ..plan() }));
    assert_eq!(starts(&mut reports, start, 3).await, [70, 2070, 4070]);
}

#[tokio::test(start_paused = true)]
async fn reports_say_what_was_found_when_and_in_which_order() {
    let fake = Fake::with([failed()]);
    let (mut prober, mut reports) = Prober::new(fake);
    let start = Instant::now();
    prober.set_plan(only("web", plan()));
    let first = reports.recv().await.unwrap();
    assert_eq!((first.key.as_str(), first.at - start, &first.result), ("web", Duration::ZERO, &failed()));
    assert!(reports.recv().await.unwrap().sequence > first.sequence);
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_the_next_run_comes_soon_but_not_for_ever() {
    let failures = usize::try_from(QUICK_RETRIES_MAX).unwrap() + 2;
    let (mut prober, mut reports) = Prober::new(Fake::with(std::iter::repeat_with(failed).take(failures)));
    let start = Instant::now();
    prober.set_plan(only("web", plan()));
    let starts = starts(&mut reports, start, failures + 1).await;
    let gaps: Vec<u128> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let (quick, then) = gaps.split_at(failures - 2);
    assert!(quick.iter().all(|gap| *gap == RETRY_AFTER.as_millis()), "{gaps:?}");
    assert_eq!(then, [2000, 2000]);
}

#[tokio::test(start_paused = true)]
async fn before_the_first_verdict_the_interval_alone_counts() {
    let (mut prober, mut reports) = Prober::new(Fake::with([failed(), failed()]));
    let start = Instant::now();
    prober.set_plan(only("web", ProbePlan { interval: Duration::from_millis(10), fast: true, ..plan() }));
    assert_eq!(starts(&mut reports, start, 3).await, [0, 10, 20]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_could_not_be_run_is_not_hurried() {
    let (mut prober, mut reports) = Prober::new(Fake::with([could_not(), could_not()]));
    let start = Instant::now();
    prober.set_plan(only("web", ProbePlan { interval: Duration::from_millis(10), fast: true, ..plan() }));
    assert_eq!(starts(&mut reports, start, 3).await, [0, 200, 400]);
}

#[tokio::test(start_paused = true)]
async fn a_changed_interval_counts_from_the_last_run() {
    let (mut prober, mut reports) = Prober::new(Fake::default());
    let start = Instant::now();
    prober.set_plan(only("web", plan()));
    reports.recv().await.unwrap();
    sleep(Duration::from_millis(500)).await;
    prober.set_plan(only("web", ProbePlan { interval: Duration::from_secs(1), ..plan() }));
    assert_eq!(starts(&mut reports, start, 2).await, [1000, 2000]);
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_says_the_same_changes_nothing() {
    let fake = Fake::slow(Duration::from_millis(700));
    let (mut prober, mut reports) = Prober::new(fake.clone());
    let start = Instant::now();
    for _ in 0..100 {
        prober.set_plan(only("web", plan()));
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(starts(&mut reports, start, 2).await, [0, 2000]);
    assert_eq!(fake.abandoned.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_target_is_probed_at_once_and_the_old_run_abandoned() {
    let fake = Fake::slow(Duration::from_millis(700));
    let (mut prober, mut reports) = Prober::new(fake.clone());
    let start = Instant::now();
    prober.set_plan(only("web", plan()));
    sleep(Duration::from_millis(100)).await;
    prober.set_plan(only("web", elsewhere()));
    assert_eq!(starts(&mut reports, start, 1).await, [100]);
    assert_eq!(fake.abandoned.load(Ordering::SeqCst), 1);
    // Between two runs too.
    sleep(Duration::from_millis(100)).await;
    prober.set_plan(only("web", plan()));
    assert_eq!(starts(&mut reports, start, 1).await, [900]);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_leaves_the_plan_is_not_probed_or_reported_any_more() {
    let fake = Fake::slow(Duration::from_millis(700));
    let (mut prober, mut reports) = Prober::new(fake.clone());
    prober.set_plan(only("web", plan()));
    sleep(Duration::from_millis(100)).await;
    prober.set_plan(BTreeMap::new());
    sleep(INTERVAL * 3).await;
    assert!(reports.try_recv().is_err());
    assert_eq!(fake.abandoned.load(Ordering::SeqCst), 1);
    // And back again.
    prober.set_plan(only("web", plan()));
    reports.recv().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_only_asked_to_be_up_has_no_loop() {
    let (mut prober, mut reports) = Prober::new(Fake::default());
    prober.set_plan(only("web", ProbePlan { check: Check::Up, ..plan() }));
    sleep(INTERVAL * 3).await;
    assert!(reports.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_asked_for_comes_at_once() {
    let (mut prober, mut reports) = Prober::new(Fake::default());
    let start = Instant::now();
    prober.set_plan(only("web", plan()));
    reports.recv().await.unwrap();
    sleep(Duration::from_millis(300)).await;
    prober.probe_now("web");
    prober.probe_now("nobody");
    assert_eq!(starts(&mut reports, start, 2).await, [300, 2300]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_asked_for_during_a_run_follows_it_once() {
    let fake = Fake::slow(Duration::from_millis(700));
    let (mut prober, mut reports) = Prober::new(fake.clone());
    let start = Instant::now();
    prober.set_plan(only("web", plan()));
    sleep(Duration::from_millis(100)).await;
    for _ in 0..5 {
        prober.probe_now("web");
    }
    assert_eq!(starts(&mut reports, start, 3).await, [0, 700, 2700]);
    assert_eq!(fake.most.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn asking_all_the_time_is_bounded() {
    let (mut prober, mut reports) = Prober::new(Fake::default());
    let start = Instant::now();
    prober.set_plan(only("web", plan()));
    for _ in 0..1000 {
        prober.probe_now("web");
        sleep(Duration::from_micros(100)).await;
    }
    prober.set_plan(BTreeMap::new());
    drop(prober);
    let mut count = 0;
    while reports.recv().await.is_some() {
        count += 1;
    }
    let possible = (start.elapsed().as_millis() / MIN_GAP.as_millis()) + 1;
    assert!(count <= possible, "{count} runs, {possible} possible");
}

#[tokio::test(start_paused = true)]
async fn no_more_than_so_many_run_at_once_and_every_one_gets_its_turn() {
    let fake = Fake::slow(Duration::from_millis(500));
    let (mut prober, mut reports) = Prober::new(fake.clone());
    let all = PROBES_AT_ONCE * 2;
    prober.set_plan((0..all).map(|i| (format!("web-{i}"), plan())).collect());
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..all {
        seen.insert(reports.recv().await.unwrap().key);
    }
    assert_eq!((seen.len(), fake.most.load(Ordering::SeqCst)), (all, PROBES_AT_ONCE));
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_is_behind_makes_loops_wait_and_they_still_end() {
    let fake = Fake::default();
    let (mut prober, mut reports) = Prober::new(fake.clone());
    prober.set_plan((0..REPORTS_MAX + 10).map(|i| (format!("web-{i}"), plan())).collect());
    sleep(INTERVAL * 10).await;
    assert_eq!(reports.len(), REPORTS_MAX);
    prober.set_plan(BTreeMap::new());
    sleep(INTERVAL).await;
    for _ in 0..REPORTS_MAX {
        reports.recv().await.unwrap();
    }
    sleep(INTERVAL).await;
    assert!(reports.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_panicked_is_started_again() {
    #[derive(Default)]
    struct Panics(AtomicUsize);
    impl ProbeRunner for Panics {
        async fn run(&self, _plan: Arc<ProbePlan>) -> ProbeResult {
            assert!(self.0.fetch_add(1, Ordering::SeqCst) > 0, "the first run panics");
            failed()
        }
    }
    let (mut prober, mut reports) = Prober::new(Panics::default());
    prober.set_plan(only("web", plan()));
    sleep(Duration::from_millis(1)).await;
    prober.set_plan(only("web", plan()));
    assert_eq!(reports.recv().await.unwrap().result, failed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is planned and asked for in whatever order: one run for a replica at a time, and none for one that
    /// isn't planned any more.
    #[test]
    fn any_sequence_of_plans_keeps_to_one_run_for_each(steps in proptest::collection::vec((0..6_u8, 0..900_u64), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let fake = Fake::slow(Duration::from_millis(300));
            let (mut prober, mut reports) = Prober::new(fake.clone());
            for (step, wait) in steps {
                match step {
                    0 => prober.set_plan(BTreeMap::new()),
                    1 => prober.set_plan(only("web", plan())),
                    2 => prober.set_plan(only("web", elsewhere())),
                    3 => prober.set_plan(only("web", ProbePlan { fast: true, interval: MIN_GAP, ..plan() })),
                    4 => {
                        prober.set_plan(BTreeMap::new());
                        prober.set_plan(only("web", plan()));
                    }
                    _ => prober.probe_now("web"),
                }
                sleep(Duration::from_millis(wait)).await;
                while reports.try_recv().is_ok() {}
            }
            prober.set_plan(BTreeMap::new());
            sleep(INTERVAL).await;
            assert_eq!(fake.running.load(Ordering::SeqCst), 0);
            assert!(fake.most.load(Ordering::SeqCst) <= 1);
        });
    }
}

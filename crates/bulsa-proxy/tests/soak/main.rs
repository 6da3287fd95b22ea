//! Mixed load on one proxy while its backends fall ill and its table changes, and the account of every request.
//!
//! Twenty seconds in every test run. `BULSA_SOAK_MINUTES=N` asks for longer (30 with `BULSA_LONG=1`), `BULSA_SOAK_SEED=S` for
//! other dice; `cargo xtask soak proxy` sets both. What a run shows is printed (`--nocapture`), a line per minute.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test may fail by panicking, helpers included, and tells what it has seen"
)]

mod backends;
mod clients;
mod dice;
mod director;
mod wire;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use bulsa_proxy::{Options, Proxy, Report};

use crate::backends::Deeds;
use crate::clients::{Account, CROWD, Client};
use crate::dice::Dice;
use crate::director::Director;

const WORKERS: usize = 2;
const SHORT: Duration = Duration::from_secs(20);
const LONG_MINUTES: u64 = 30;
const SEED: u64 = 5;
/// From one injury or change to the next, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 50..400;
const MINUTE: Duration = Duration::from_secs(60);
/// How long all may take to come to rest.
const REST_MAX: Duration = Duration::from_secs(20);
/// What the process may grow by from a third of the time on, in percent, and in any case, in KiB.
const GROWTH_MAX: u64 = 10;
const GROWTH_FREE: u64 = 8 * 1024;
/// File descriptors that the process may have more of in the end.
const DESCRIPTORS_MORE_MAX: usize = 2;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn time() -> Duration {
    let is_long = std::env::var_os("BULSA_LONG").is_some_and(|value| value == "1");
    let minutes = number("BULSA_SOAK_MINUTES").or(is_long.then_some(LONG_MINUTES));
    minutes.map_or(SHORT, |minutes| MINUTE * minutes as u32)
}

/// The memory of this process, in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn start_clients(
    addr: std::net::SocketAddr,
    account: &Arc<Account>,
    dice: &mut Dice,
    stop: &Arc<AtomicBool>,
) -> JoinHandle<()> {
    let (account, stop, mut dice) = (Arc::clone(account), Arc::clone(stop), dice.fork());
    spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ids = Arc::new(AtomicU64::new(1));
            let mut all = tokio::task::JoinSet::new();
            for manner in CROWD.iter().flat_map(|(manner, count)| std::iter::repeat_n(*manner, *count)) {
                let (account, ids) = (Arc::clone(&account), Arc::clone(&ids));
                let client = Client { manner, addr, account, dice: dice.fork(), ids };
                all.spawn(client.run(Arc::clone(&stop)));
            }
            all.join_all().await;
        });
    })
}

/// Waits until the report is as wanted.
fn until(proxy: &Proxy, what: &str, wanted: impl Fn(&Report) -> bool) -> Report {
    let end = Instant::now() + REST_MAX;
    loop {
        let report = proxy.report();
        if wanted(&report) {
            return report;
        }
        assert!(Instant::now() < end, "{what}: never so: {report:#?}");
        sleep(Duration::from_millis(20));
    }
}

fn line(since: Instant, account: &Account, report: &Report, deeds: &Deeds) -> String {
    let at = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    format!(
        "{:>5} s: {} sent, {} whole, {} cut, {} aborted, 404 {}, 502 {}, 503 {}, 504 {}; {} at backends, {} retried, \
         {} over budget, {} lost to idle closes; {} MiB, {} connections, {} descriptors",
        since.elapsed().as_secs(),
        at(&account.sent),
        at(&account.whole),
        at(&account.cut),
        at(&account.aborted),
        at(&account.no_route),
        at(&account.bad_gateway),
        at(&account.unavailable),
        at(&account.timed_out),
        at(&deeds.requests),
        report.retried,
        report.over_budget,
        report.lost_to_idle_close,
        memory() / 1024,
        report.connections,
        descriptors(),
    )
}

#[test]
fn under_mixed_load_and_random_faults_every_request_is_accounted_for_and_nothing_is_left_over() {
    let (time, seed) = (time(), number("BULSA_SOAK_SEED").unwrap_or(SEED));
    eprintln!("soak of the proxy: {} s, seed {seed}", time.as_secs());
    let mut dice = Dice::new(seed);
    let at_start = descriptors();
    let (deeds, account) = (Arc::new(Deeds::default()), Arc::new(Account::default()));
    let (backends, backends_thread) = backends::start(&deeds, &mut dice);
    let mut director = Director::new(backends, dice.fork());
    let proxy = Proxy::start(Options { workers: WORKERS }, &director.table(&[])).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    proxy.add_listener("http", vec![listener]).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let clients = start_clients(addr, &account, &mut dice, &stop);

    let begun = Instant::now();
    let (mut next_line, mut samples) = (begun + MINUTE, Vec::new());
    while begun.elapsed() < time {
        sleep(Duration::from_millis(dice.number(PAUSE_MS)));
        director.act(&proxy);
        director.totals(&proxy.report());
        samples.push(memory());
        if next_line <= Instant::now() {
            next_line += MINUTE;
            eprintln!("{}", line(begun, &account, &proxy.report(), &deeds));
        }
    }
    director.heal(&proxy);
    stop.store(true, Ordering::SeqCst);
    clients.join().expect("no panic in a client");
    let report = until(&proxy, "all is at rest", |report| {
        report.connections == 0
            && report.held.is_empty()
            && report.targets.iter().all(|target| target.in_flight == 0 && target.tunnels == 0)
    });
    eprintln!("{}", line(begun, &account, &report, &deeds));
    let told = account.told.lock().unwrap().clone();
    check_account(&account, &report, &deeds, director.totals(&report).sums());
    assert!(told.is_empty(), "{told:#?}");
    // Idle connections to backends are closed when their time is over.
    let end = Instant::now() + REST_MAX;
    while 0 < deeds.open.load(Ordering::SeqCst) {
        assert!(
            Instant::now() < end,
            "{} connections are left at backends",
            deeds.open.load(Ordering::SeqCst)
        );
        sleep(Duration::from_millis(20));
    }
    check_memory(&samples);

    proxy.shutdown(Duration::ZERO);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(proxy.ended());
    drop((runtime, proxy, director));
    backends_thread.join().expect("no panic in a backend");
    // The workers' last descriptors are closed by their threads' ends.
    let end = Instant::now() + REST_MAX;
    while at_start + DESCRIPTORS_MORE_MAX < descriptors() {
        assert!(Instant::now() < end, "{} descriptors, {at_start} at the start", descriptors());
        sleep(Duration::from_millis(20));
    }
}

fn check_account(account: &Account, report: &Report, deeds: &Deeds, [requests, broken, timed_out]: [u64; 3]) {
    let at = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    let [whole, cut, aborted] = [&account.whole, &account.cut, &account.aborted].map(at);
    let [odd, none, stuck, crossed] = [&account.odd, &account.none, &account.stuck, &account.crossed].map(at);
    assert_eq!((odd, none, stuck, crossed), (0, 0, 0, 0), "{account:#?}");
    assert_eq!(at(&account.sent), account.ends(), "every request ends in one way: {account:#?}");
    // What those were answered that went away nobody has seen: each equation may be wrong by that.
    let is_about = |counted: u64, seen: u64| (seen..=seen + aborted).contains(&counted);
    for (what, counted, seen) in [
        ("404", report.no_route, &account.no_route),
        ("502", report.bad_gateway, &account.bad_gateway),
        ("503", report.unavailable, &account.unavailable),
        ("504", report.timed_out, &account.timed_out),
    ] {
        assert!(is_about(counted, at(seen)), "{what}: {counted} counted, {} seen", at(seen));
    }
    assert!(cut <= at(&deeds.cut), "{cut} answers are cut, {} of them by backends", at(&deeds.cut));
    // Of what was sent to targets, the rest was answered: to the end, or counted as broken when it was cut.
    let answered = requests - broken - timed_out;
    assert!(answered.abs_diff(whole) <= aborted, "{answered} answered, {whole} seen: {report:#?}");
    assert_eq!((report.malformed, report.refused_clients, report.accept_errors), (0, 0, 0));
    assert_eq!((report.local_errors, report.workers_ended), (0, 0));
}

fn check_memory(samples: &[u64]) {
    let middle = |part: &[u64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part[part.len() / 2]
    };
    let third = samples.len() / 3;
    let (before, after) = (middle(&samples[third..2 * third]), middle(&samples[2 * third..]));
    eprintln!("memory: {before} KiB in the second third, {after} KiB in the last");
    let most = before + (before * GROWTH_MAX / 100).max(GROWTH_FREE);
    assert!(after <= most, "{after} KiB of memory, {before} KiB before");
}

//! Idle connections that a target closes in the very moment in which a request is sent on them.
//!
//! The short form is for every test run; `BULSA_LONG=1` asks for a million requests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulsa_proxy::{Report, Target};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::support::*;

/// Client connections, each with one request at a time.
const CLIENTS: usize = 64;
/// The longest time that the targets keep an idle connection.
const KEPT_MAX: Duration = Duration::from_millis(50);
/// How many requests are lost to such a close at most: one in so many.
const LOST_ONE_IN: usize = 100_000;
/// What may be lost besides while it is not yet known how the targets behave, on each worker.
const LOST_AT_FIRST: usize = 2;
const WORKERS: usize = 2;

fn requests() -> usize {
    if std::env::var_os("BULSA_LONG").is_some_and(|value| value == "1") { 1_000_000 } else { 20_000 }
}

/// Numbers that look random and are the same in each run (the splitmix64 sequence).
fn draw(number: usize) -> usize {
    let mut bits = (number as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((bits ^ (bits >> 31)) >> 1) as usize
}

/// Seven of ten are GET, one is PUT, two are POST.
fn method(number: usize) -> &'static str {
    match draw(number) % 10 {
        0..7 => "GET",
        7 => "PUT",
        _ => "POST",
    }
}

fn request(number: usize) -> String {
    let body = "x".repeat(1 + draw(number) / 10 % 200);
    match method(number) {
        "GET" => get(&format!("/{number}")),
        method => post(&format!("/{number}"), &body).replacen("POST", method, 1),
    }
}

/// How a target behaves.
#[derive(Debug, Clone, Copy)]
struct Manner {
    /// Of a thousand answers, those behind which the connection is closed at once.
    at_once: usize,
    /// Of a thousand answers, those behind which it is closed when the next request has come, which is not read.
    in_flight: usize,
    /// Of a thousand POSTs, those that are run, and answered by closing the connection.
    deaths: usize,
}

/// What the targets ran: how often each request.
#[derive(Debug)]
struct Ran(Vec<AtomicU8>);

impl Ran {
    fn new(requests: usize) -> Arc<Self> {
        Arc::new(Self((0..requests).map(|_| AtomicU8::new(0)).collect()))
    }

    fn count(&self, number: usize) -> u8 {
        self.0[number].load(Ordering::SeqCst)
    }

    /// Serves one connection until it is time to close it.
    async fn serve(self: Arc<Self>, mut wire: Wire, manner: Manner, mut chance: usize) {
        while let Some(message) = wire.message().await {
            let number: usize = message.line().split(['/', ' ']).nth(2).unwrap().parse().unwrap();
            self.0[number].fetch_add(1, Ordering::SeqCst);
            chance = draw(chance);
            if message.line().starts_with("POST") && chance / 1000 % 1000 < manner.deaths {
                return;
            }
            wire.write(&ok("x")).await;
            let end = chance % 1000;
            if end < manner.at_once {
                return;
            }
            if end < manner.at_once + manner.in_flight {
                drop(wire.stream.readable().await);
                return;
            }
            // Whatever has come in the moment in which the time is over is not read.
            let kept = KEPT_MAX.mul_f64((chance >> 20) as f64 / (usize::MAX >> 21) as f64);
            tokio::select! {
                biased;
                () = sleep(kept) => return,
                ready = wire.stream.readable() => ready.unwrap(),
            }
        }
    }
}

/// The targets, on a thread of their own; they end with the sender. Returns their addresses.
async fn upstreams(manners: &[Manner], ran: &Arc<Ran>) -> (Vec<SocketAddr>, mpsc::Sender<()>) {
    let (manners, ran) = (manners.to_vec(), Arc::clone(ran));
    let (alive, mut ended) = mpsc::channel::<()>(1);
    let (bound, binding) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut addrs = Vec::new();
            for manner in manners {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                addrs.push(listener.local_addr().unwrap());
                let ran = Arc::clone(&ran);
                let seed = addrs.len();
                tokio::spawn(async move {
                    for chance in draw(seed).. {
                        let (stream, _) = listener.accept().await.unwrap();
                        tokio::spawn(Arc::clone(&ran).serve(Wire::new(stream), manner, chance));
                    }
                });
            }
            bound.send(addrs).unwrap();
            ended.recv().await;
        });
    });
    (binding.await.unwrap(), alive)
}

/// What became of the requests that were not answered with 200: what the client saw.
type Failed = Arc<Mutex<HashMap<usize, String>>>;

/// One client connection, until the numbers run out.
async fn ask_on(addr: SocketAddr, next: Arc<AtomicUsize>, requests: usize, failed: Failed) {
    let mut wire = Wire::connect(addr).await;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if requests <= number {
            return;
        }
        wire.write(&request(number)).await;
        match timeout(PATIENCE, wire.message()).await {
            Ok(Some(answer)) if answer.status() == 200 => {}
            Ok(Some(answer)) => drop(failed.lock().unwrap().insert(number, answer.line().to_owned())),
            other => {
                failed.lock().unwrap().insert(number, format!("{other:?}"));
                wire = Wire::connect(addr).await;
            }
        }
    }
}

/// What a run has shown.
struct Seen {
    requests: usize,
    ran: Arc<Ran>,
    failed: HashMap<usize, String>,
    report: Report,
}

impl Seen {
    /// What holds however the targets behave.
    fn check(&self) {
        let idempotent: Vec<_> =
            self.failed.iter().filter(|(number, _)| method(**number) != "POST").collect();
        assert!(idempotent.is_empty(), "{} idempotent requests failed: {idempotent:?}", idempotent.len());
        for number in 0..self.requests {
            let (ran, has_failed) = (self.ran.count(number), self.failed.contains_key(&number));
            assert!(has_failed || 0 < ran, "request {number} was answered and not run");
            assert!(method(number) != "POST" || ran <= 1, "POST {number} ran {ran} times");
        }
        let report = &self.report;
        assert_eq!(report.bad_gateway, self.failed.len() as u64, "{:?}", self.failed);
        assert_eq!((report.over_budget, report.unavailable, report.timed_out), (0, 0, 0), "{report:?}");
    }
}

fn targets(addrs: &[SocketAddr], generation: usize) -> Vec<Target> {
    let target = |(index, addr): (usize, &SocketAddr)| Target::new(&format!("{generation}-{index}"), *addr);
    addrs.iter().enumerate().map(target).collect()
}

/// Sends all requests. Each time so many have been sent, the targets get new names: nothing is known of them then.
async fn run(manners: &[Manner], requests: usize, forget_each: Option<usize>) -> Seen {
    let ran = Ran::new(requests);
    let (addrs, _alive) = upstreams(manners, &ran).await;
    let rig = Rig::with_workers(WORKERS, &table(1, &targets(&addrs, 0))).await;
    let (next, failed) = (Arc::new(AtomicUsize::new(0)), Failed::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(ask_on(rig.addr, Arc::clone(&next), requests, Arc::clone(&failed))))
        .collect();
    if let Some(each) = forget_each {
        for generation in 1..requests / each {
            while next.load(Ordering::Relaxed) < generation * each {
                sleep(Duration::from_millis(1)).await;
            }
            rig.apply(&table(1 + generation as u64, &targets(&addrs, generation))).await;
        }
    }
    for client in clients {
        client.await.expect("no panic in a client");
    }
    let report = rig.until(|report| report.targets.iter().all(|target| target.in_flight == 0)).await;
    let failed = std::mem::take(&mut *failed.lock().unwrap());
    Seen { requests, ran, failed, report }
}

#[tokio::test]
async fn targets_that_close_idle_connections_at_random_cost_no_idempotent_request_and_hardly_a_post() {
    let manners = [
        Manner { at_once: 0, in_flight: 0, deaths: 0 },
        Manner { at_once: 100, in_flight: 0, deaths: 0 },
        Manner { at_once: 0, in_flight: 50, deaths: 0 },
    ];
    let begun = std::time::Instant::now();
    let seen = run(&manners, requests(), None).await;
    seen.check();
    let (lost, retried) = (seen.failed.len(), seen.report.retried);
    eprintln!("{} requests, {lost} POSTs lost, {retried} retried, {:?}", seen.requests, begun.elapsed());
    assert_eq!(seen.report.lost_to_idle_close, lost as u64);
    assert!(seen.report.targets.iter().all(|target| !target.left_out), "closing what is idle is no fault");
    assert!(seen.failed.keys().all(|number| seen.ran.count(*number) == 0), "what failed was not run");
    let most = seen.requests / LOST_ONE_IN + LOST_AT_FIRST * WORKERS;
    assert!(lost <= most, "{lost} of {} requests were lost, at most {most} may be", seen.requests);
}

#[tokio::test]
async fn a_post_runs_once_at_targets_that_nothing_is_known_of_and_that_die_with_some() {
    let manners = [Manner { at_once: 50, in_flight: 20, deaths: 10 }; 3];
    let seen = run(&manners, requests() / 2, Some(500)).await;
    seen.check();
    let lost = seen.failed.keys().filter(|number| seen.ran.count(**number) == 0).count() as u64;
    let (counted, retried) = (seen.report.lost_to_idle_close, seen.report.retried);
    eprintln!("{} requests, {lost} POSTs lost unrun, {counted} counted, {retried} retried", seen.requests);
    // What died with a POST that it had run, on a connection that had been idle, looks the same from here.
    assert!((lost..=seen.failed.len() as u64).contains(&counted), "{:?}", seen.report);
    assert!(0 < retried);
}

//! The promise that everything else relies on: once a table is acknowledged and a target of an older one has nothing
//! in flight, it may be killed, and nobody notices.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::support::*;

/// The time between two requests of the open-loop client.
const INTERVAL: Duration = Duration::from_micros(700);
const SWAPS: u64 = 60;
const REQUESTS_PER_SWAP: usize = 20;

/// What the client saw of requests that failed.
type Failed = Arc<Mutex<Vec<String>>>;

/// Sends requests at a fixed pace, however the answers come, on connections kept and new; counts those that fail.
async fn load(addr: std::net::SocketAddr, stop: Arc<AtomicBool>, failed: Failed) -> usize {
    let mut next = Instant::now();
    let mut asked = Vec::new();
    let kept = Arc::new(tokio::sync::Mutex::new(Vec::<Wire>::new()));
    while !stop.load(Ordering::Relaxed) {
        let (failed, kept, number) = (Arc::clone(&failed), Arc::clone(&kept), asked.len());
        asked.push(tokio::spawn(async move {
            let known = if number % 3 == 0 { None } else { kept.lock().await.pop() };
            let mut wire = match known {
                Some(wire) => wire,
                None => Wire::connect(addr).await,
            };
            let request = if number % 4 == 0 { post("/", "body") } else { get("/") };
            wire.write(&request).await;
            match wire.message().await {
                Some(answer) if answer.status() == 200 => kept.lock().await.push(wire),
                other => failed.lock().unwrap().push(format!("request {number}: {other:?}")),
            }
        }));
        next += INTERVAL;
        sleep_until(next).await;
    }
    let count = asked.len();
    for one in asked {
        patient(one).await.expect("no panic in the client");
    }
    count
}

/// A backend that takes a moment for some answers, so that requests are in flight at each swap.
async fn backend() -> Backend {
    Backend::serving(|mut wire, seen| async move {
        while seen.next(&mut wire).await.is_some() {
            if seen.count() % 5 == 0 {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            wire.write(&ok("x")).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_target_killed_after_the_acknowledgement_and_its_last_request_is_missed_by_nobody() {
    let mut live = backend().await;
    let rig = Rig::with_workers(2, &table(1, &[live.target("1")])).await;
    let (stop, failed) = (Arc::new(AtomicBool::new(false)), Failed::default());
    let client = tokio::spawn(load(rig.addr, Arc::clone(&stop), Arc::clone(&failed)));
    for number in 2..=SWAPS {
        let old = (number - 1).to_string();
        let next = backend().await;
        if number % 3 == 0 {
            // Now and then with a moment in which there is no target at all: requests are held.
            rig.apply(&table(number * 2 - 1, &[])).await;
        }
        rig.apply(&table(number * 2, &[next.target(&number.to_string())])).await;
        rig.until(|report| report.targets.iter().all(|t| t.id != old || t.in_flight == 0)).await;
        live.kill().await;
        next.seen.at_least(REQUESTS_PER_SWAP).await;
        live = next;
    }
    stop.store(true, Ordering::Relaxed);
    let count = patient(client).await.unwrap();
    let failed = std::mem::take(&mut *failed.lock().unwrap());
    assert!(failed.is_empty(), "{} of {count} requests failed: {:#?}", failed.len(), failed.first());
    assert!(1000 < count, "{count} requests are no load");
    let report = rig.until(|report| report.targets.iter().all(|t| t.in_flight == 0)).await;
    assert_eq!((report.bad_gateway, report.unavailable), (0, 0));
    assert!(report.targets.len() < 8, "targets of old tables are forgotten: {}", report.targets.len());
}

//! Hangs where the file's check takes its time, or where all replicas hang at once.

use std::time::Duration;

use rustix::process::Signal;

use super::{caught_up, figures, last_of, load_on, long_or, now_ms, patience, replicas, spread, web};
use crate::{
    traffic::answers,
    world::{kill, pid},
};

const BACK_MAX: Duration = Duration::from_secs(10);
const OUT_MAX: Duration = Duration::from_secs(2);

/// Baseline: 105 s (95 to 115) with autoheal. The first run takes all of its 5 s; what confirms it needn't.
#[tokio::test]
async fn the_only_replica_hangs_with_a_check_every_thirty_seconds_in_its_file() {
    let world = web(&[("INTERVAL", "30s"), ("TIMEOUT", "5s"), ("RETRIES", "3")]).await;
    let load = load_on(&world).await;
    let mut back = Vec::new();
    for _ in 0..long_or(1, 5) {
        let victim = replicas(&world).await.remove(0);
        let (before, at) = (world.last_event().await, now_ms());
        kill(pid(victim.pid.unwrap()), Signal::STOP);
        back.push(last_of(&world, before, "replica.ready", 1, at).await);
        answers(&load, 25).await;
        caught_up(&load).await;
    }
    let report = load.stop().await;
    eprintln!("hang, one replica, 30 s / 5 s / 3: back after {}; {}", spread(&back), figures(&report));
    assert!(back.iter().all(|time| *time < BACK_MAX * patience()), "{back:?}");
    assert_eq!(report.failed, 0, "{:#?}", report.failures);
}

/// What was sent to one of them is sent once more when that one is replaced, and what comes later waits.
#[tokio::test]
async fn when_all_hang_new_requests_wait() {
    let world = web(&[("REPLICAS", "4")]).await;
    let load = load_on(&world).await;
    let victims = replicas(&world).await;
    let (before, at) = (world.last_event().await, now_ms());
    victims.iter().for_each(|one| kill(pid(one.pid.unwrap()), Signal::STOP));
    let out = last_of(&world, before, "replica.suspect", 4, at).await;
    last_of(&world, before, "replica.ready", 4, at).await;
    answers(&load, 25).await;
    caught_up(&load).await;
    let report = load.stop().await;
    eprintln!("all hang: the last one out after {out:.2?}; {}", figures(&report));
    assert!(out < OUT_MAX * patience(), "{out:?}");
    assert_eq!(report.failed, 0, "{:#?}", report.failures);
}

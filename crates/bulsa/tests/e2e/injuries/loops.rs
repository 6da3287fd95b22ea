//! A program that ends at its start, for ever.

use std::{fs, time::Duration};

use bulsa_core::wire::api::{ServiceState, Snapshot, Why};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::{is_long, long_or};
use crate::{
    watch::only,
    world::{World, kill, pid},
};

/// The share of a core that it may take, daemon and all. A build for debugging takes several times what is measured.
const SHARE_MAX: f64 = 0.02;
const SHARE_DEBUG: f64 = 0.10;

/// CPU time of a process and of its children that were waited for.
fn used(pid: i32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11..15].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_secs_f64(ticks as f64 / super::TICKS_PER_SECOND)
}

/// Baseline: 8.9 starts a second and 85 % of a core (node's cluster).
#[tokio::test]
async fn a_program_that_ends_at_its_start_costs_next_to_nothing_and_why_has_its_last_line() {
    let mut world = World::new("queue.yaml");
    let flag = world.path("flag");
    world.set("FLAG", flag.to_str().unwrap());
    world.up().await;
    let before = world.well("shop").await;
    fs::write(&flag, "").unwrap();
    kill(pid(only(&before).1.replicas[0].pid.unwrap()), Signal::KILL);
    let loops = |s: &Snapshot| (only(s).1.state == ServiceState::CrashLooping).then_some(());
    world.until("a crash loop", loops).await;
    // The quick tries of its beginning are over.
    let is_slow = |s: &Snapshot| {
        let next = only(s).1.next_retry_at_ms?;
        (next > s.at_ms + 2_000).then_some(())
    };
    world.until("slower tries", is_slow).await;
    let snapshot = world.snapshot().await;
    let daemon = [snapshot.agent.pid, snapshot.keeper_pid, snapshot.proxies[0].pid].map(pid);
    let all = || daemon.iter().map(|pid| used(*pid)).sum::<Duration>();
    let (from, begun, restarts) = (all(), Instant::now(), only(&snapshot).1.restarts);
    sleep(Duration::from_secs(long_or(8, 120))).await;
    let share = (all() - from).as_secs_f64() / begun.elapsed().as_secs_f64();
    let after = world.snapshot().await;
    let tries = only(&after).1.restarts - restarts;
    let why: Why =
        serde_json::from_value(world.run(&["why", "queue", "--json"]).await.exits(0).json()).unwrap();
    eprintln!(
        "ends at its start, for ever: {:.2} % of a core over {:.0} s, {tries} tries; {}",
        share * 100.0,
        begun.elapsed().as_secs_f64(),
        why.verdict
    );
    let most = if cfg!(debug_assertions) { SHARE_DEBUG } else { SHARE_MAX };
    assert!(share < most, "{share}");
    assert!(why.verdict.contains("ECONNREFUSED") && why.verdict.contains("exited with 3"), "{}", why.verdict);
    if is_long() {
        let reason = only(&after).1.reason.clone().unwrap_or_default();
        assert!(reason.contains("retried slowly"), "it is parked: {reason}");
    }
}

//! What lives and answers nobody: alone, all at once, and under a main process that notices nothing.

use std::time::Duration;

use rustix::process::Signal;

use super::{caught_up, figures, last_of, load_on, long_or, now_ms, patience, replicas, spread, web};
use crate::{
    traffic::answers,
    world::{World, kill, pid},
};

/// With default settings.
const BACK_MAX: Duration = Duration::from_secs(10);
const OUT_MAX: Duration = Duration::from_secs(2);

/// Stops all replicas at once, so many times; until the last place serves again, each time.
async fn hang_all(world: &World, times: usize, count: usize) -> (Vec<Duration>, bulsa::load::Report) {
    let load = load_on(world).await;
    let mut back = Vec::new();
    for _ in 0..times {
        let victims = replicas(world).await;
        assert_eq!(victims.len(), count);
        let (before, at) = (world.last_event().await, now_ms());
        victims.iter().for_each(|one| kill(pid(one.pid.unwrap()), Signal::STOP));
        back.push(last_of(world, before, "replica.ready", count, at).await);
        answers(&load, 25).await;
        caught_up(&load).await;
    }
    (back, load.stop().await)
}

#[tokio::test]
async fn the_only_replica_hangs_with_default_settings() {
    let world = web(&[]).await;
    let (back, report) = hang_all(&world, long_or(1, 5), 1).await;
    eprintln!("hang, one replica, defaults: back after {}; {}", spread(&back), figures(&report));
    assert!(back.iter().all(|time| *time < BACK_MAX * patience()), "{back:?}");
    assert_eq!(report.failed, 0, "{:#?}", report.failures);
}

/// Baseline: 13, 25, 36 and 49 s, one after another.
#[tokio::test]
async fn four_hang_at_once_and_are_replaced_side_by_side() {
    let world = web(&[("REPLICAS", "4")]).await;
    let (back, report) = hang_all(&world, long_or(1, 5), 4).await;
    eprintln!("four hang at once: the last one back after {}; {}", spread(&back), figures(&report));
    assert!(back.iter().all(|time| *time < BACK_MAX * patience()), "{back:?}");
    assert_eq!(report.failed, 0, "{:#?}", report.failures);
}

/// Baseline: never noticed, or after autoheal's 105 s.
#[tokio::test]
async fn an_app_that_dies_under_a_shell_that_lives_on_is_out_at_once() {
    let command = "${BULSA} __demo-app & wait; exec sleep 600".replace("${BULSA}", crate::world::BULSA);
    let world = web(&[("COMMAND", &command), ("REPLICAS", "2")]).await;
    let load = load_on(&world).await;
    let (mut out, mut back) = (Vec::new(), Vec::new());
    for _ in 0..long_or(1, 5) {
        let victim = replicas(&world).await.remove(0);
        let main = pid(victim.pid.unwrap());
        let apps = crate::faults::children(main);
        assert_eq!(apps.len(), 1, "the app below its shell: {apps:?}");
        let (before, at) = (world.last_event().await, now_ms());
        kill(apps[0], Signal::KILL);
        out.push(last_of(&world, before, "replica.suspect", 1, at).await);
        back.push(last_of(&world, before, "replica.ready", 1, at).await);
        answers(&load, 25).await;
    }
    let report = load.stop().await;
    eprintln!(
        "app dead under its shell: out after {}, back after {}; {}",
        spread(&out),
        spread(&back),
        figures(&report)
    );
    assert!(
        out.iter().all(|time| *time < OUT_MAX * patience())
            && back.iter().all(|time| *time < BACK_MAX * patience()),
        "{out:?} {back:?}"
    );
    assert_eq!(report.failed, 0, "{:#?}", report.failures);
}

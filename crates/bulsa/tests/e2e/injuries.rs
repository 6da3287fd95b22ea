//! The injuries of the home-made set-ups on the process engine, under open-loop load, and what comes of them.
//!
//! Each prints what it measured; `BULSA_LONG=1` asks for as many runs as the rows of `docs/healing.md` have. What other
//! tests hurt in the same way is not here: `faults` (a hang and deaths of workers, two replicas), `starved` (a busy host),
//! `runs` (22 kills in a minute), `whys` (a crash loop's words).

mod deaths;
mod disk;
#[path = "../support/figures.rs"]
mod figures;
mod hangs;
mod loops;
mod many;
mod silence;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulsa::load::{Config, Load, LoadHandle, Mark, Shot};
use bulsa_core::wire::api::{Event, ReplicaView, Snapshot};

use self::figures::{figures, spread};
use crate::{
    traffic::answers,
    watch::only,
    world::{LIMIT, LOOK_EVERY, World, kill, pid},
};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

/// Requests a second.
const RATE: u32 = 50;
/// What `/proc` counts CPU time in: the same on every Linux, whatever the kernel's own clock is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Whether the long forms are asked for.
fn is_long() -> bool {
    std::env::var_os("BULSA_LONG").is_some_and(|value| value == "1")
}

/// A number in the short form and in the long one.
fn long_or<T>(short: T, long: T) -> T {
    if is_long() { long } else { short }
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A service with everything at its default but these variables, and it is well.
async fn web(variables: &[(&'static str, &str)]) -> World {
    let mut world = World::new("injuries.yaml");
    for (name, value) in variables {
        world.set(name, *value);
    }
    world.up().await;
    world.well("injuries").await;
    world
}

/// Quick GETs, 50 a second, each on a connection of its own, for clients that wait 30 s.
async fn load_on(world: &World) -> LoadHandle {
    let config = Config {
        rate: RATE,
        mix: Shot::only_get("/"),
        fresh: 1.0,
        timeout: Duration::from_secs(30),
        ..Config::to(world.target())
    };
    let load = Load::start(config).unwrap();
    answers(&load, 20).await;
    load
}

/// Waits until those that had to wait are answered, so that the next injury doesn't meet them again.
async fn caught_up(load: &LoadHandle) {
    let end = Instant::now() + LIMIT;
    loop {
        let now = load.mark();
        let due = (now.since(Mark::START).as_secs_f64() * f64::from(RATE)) as u64;
        if load.window(Mark::START, now).requests + u64::from(RATE) / 5 >= due {
            return;
        }
        assert!(Instant::now() < end, "some wait for ever");
        sleep(LOOK_EVERY).await;
    }
}

/// The replicas that run now.
async fn replicas(world: &World) -> Vec<ReplicaView> {
    only(&world.well("injuries").await).1.replicas.clone()
}

/// Kills a replica; from the signal to its successor's readiness.
async fn killed_and_back(world: &World, victim: &ReplicaView) -> Duration {
    let at = now_ms();
    kill(pid(victim.pid.unwrap()), Signal::KILL);
    let is_next = |one: &&ReplicaView| {
        one.ordinal == victim.ordinal && one.attempt > victim.attempt && one.state == "ready"
    };
    let next = |snapshot: &Snapshot| {
        let service = snapshot.projects.first()?.services.first()?;
        service.replicas.iter().find(is_next).map(|one| one.since_ms)
    };
    Duration::from_millis(world.until("its successor", next).await.saturating_sub(at))
}

/// How many times longer a verdict may take: a host that is short of CPU gives everybody more time, by design.
fn patience() -> u32 {
    let text = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let waited = text.split_whitespace().find_map(|word| word.strip_prefix("avg10=")?.parse::<f64>().ok());
    if waited.is_some_and(|percent| percent > 20.0) { 3 } else { 1 }
}

/// Waits for so many events of a kind after `before`; how long after `at_ms` the last of them came.
async fn last_of(world: &World, before: u64, kind: &str, count: usize, at_ms: u64) -> Duration {
    let mut seen: Vec<Event> = Vec::new();
    let mut after = before;
    while seen.len() < count {
        let event = world.event(after, kind, |event| event.kind == kind).await;
        after = event.id;
        seen.push(event);
    }
    Duration::from_millis(seen.last().unwrap().at_ms.saturating_sub(at_ms))
}

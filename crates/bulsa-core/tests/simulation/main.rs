//! A seeded simulation of the whole loop: observe, decide, act, against a fake world.
//!
//! The world has an engine whose replicas start slowly, never, crash, hang and flap; proxies that acknowledge late,
//! fall silent and die; an agent that is killed between any two steps; and events that come late, twice or not at
//! all. After every step the invariants 1 to 6 of the design are checked, and at the end, when the world has gone
//! quiet, that everything is as it should be.
//!
//! Each part also counts what happened in it ([`tally`]) and fails where too little did, so that the simulation can't
//! silently stop exercising something.
//!
//! A failure prints its seed. `BULSA_SIM_SEED=N` replays one seed with its log, `BULSA_SIM_SEEDS=N` runs more of
//! them than [`SEEDS`].

#![expect(clippy::expect_used, reason = "a world that isn't as it must be ends the run")]
#![expect(clippy::print_stdout, reason = "a replay shows its log, and each part what it counted")]

mod agent;
mod check;
mod humans;
mod rng;
mod tally;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use tally::Tally;
use world::World;

/// How many seeds a normal test run tries.
const SEEDS: u64 = 600;
/// The seeds are split over so many tests, so that they run side by side.
const PARTS: u64 = 6;

#[expect(clippy::disallowed_methods, reason = "the seeds are given to the test, not to the core")]
fn number_from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seeds() -> u64 {
    number_from_environment("BULSA_SIM_SEEDS").unwrap_or(SEEDS)
}

fn run_part(part: u64) {
    if number_from_environment("BULSA_SIM_SEED").is_some() {
        return; // `replay` runs it
    }
    let mut tally = Tally::default();
    for seed in (0..seeds()).filter(|seed| seed % PARTS == part) {
        let mut world = World::new(seed);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
            let text = panic.downcast_ref::<String>().map_or("a panic", String::as_str);
            panic!("seed {seed}: {text}\nreplay it with BULSA_SIM_SEED={seed} cargo nextest run replay");
        }
        tally.add(&world.tally);
    }
    println!("{tally}");
    tally.check();
}

#[test]
fn part_0() {
    run_part(0);
}

#[test]
fn part_1() {
    run_part(1);
}

#[test]
fn part_2() {
    run_part(2);
}

#[test]
fn part_3() {
    run_part(3);
}

#[test]
fn part_4() {
    run_part(4);
}

#[test]
fn part_5() {
    run_part(5);
}

/// The same seed gives the same run, or a failure could not be replayed.
#[test]
fn a_run_depends_on_its_seed_alone() {
    for seed in [1, 2, 3] {
        assert_eq!(World::new(seed).run(), World::new(seed).run(), "seed {seed}");
    }
}

/// The simulation can fail: a world whose agent stops replicas without waiting for the proxies is found out.
#[test]
fn a_broken_agent_is_found_out() {
    let found = (0..40).any(|seed| {
        let mut world = World::new(seed);
        world.sabotage = true;
        catch_unwind(AssertUnwindSafe(|| world.run())).is_err()
    });
    assert!(found, "no seed noticed an agent that stops before it un-routes");
}

#[test]
fn replay() {
    let Some(seed) = number_from_environment("BULSA_SIM_SEED") else { return };
    let mut world = World::new(seed);
    world.verbose = true;
    world.run();
}

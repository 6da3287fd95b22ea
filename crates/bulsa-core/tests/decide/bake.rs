//! The watch after a switch: what undoes a release, and what doesn't.

use std::sync::Arc;

use bulsa_core::{
    decide::{Event, Load, Outcome, ReleaseState},
    spec::Spec,
};

use crate::{
    build::{BAKE, app, secs, v, worker},
    world::{EXIT_1, KILLED, World, id},
};

fn web(version: u32, replicas: u32) -> Arc<Spec> {
    v(version, [app("web").replicas(replicas)])
}

/// Release 2 is in its bake, release 1 is warm.
fn baking(replicas: u32) -> World {
    World::baking(&[web(1, replicas), web(2, replicas)])
}

const fn answers(requests: u64, errors: u64) -> Load {
    Load { in_flight: 0, tunnels: 0, requests, errors, refused: 0, stalled: false }
}

#[test]
fn a_quiet_bake_ends_as_deployed() {
    let mut w = baking(2);
    w.pass(BAKE - secs(3));
    assert!(w.is_baking());
    w.pass(secs(3));
    assert_eq!(w.log(), ["finish Deployed"]);
}

#[test]
fn a_replica_that_ends_by_itself_flips_back_to_the_warm_release() {
    let mut w = baking(2);
    w.dies("web-r2-1.1", EXIT_1);
    let log = w.log();
    assert_eq!(log[0], "undo: 1 replica of `web` died after the switch");
    assert_eq!(log[1], "table: web-r1-1.1 web-r1-2.1");
    assert_eq!(w.outcome(), Some(Outcome::RolledBack));
    assert_eq!((w.state(1), w.state(2)), (ReleaseState::Live, ReleaseState::Failed));
    assert!(
        log.iter().all(|line| !line.starts_with("start web-r1")),
        "the warm one serves as it is: {log:?}"
    );
}

#[test]
fn deaths_before_the_switch_do_not_count() {
    let mut w = World::up(&web(1, 2));
    w.slow = vec!["web-r2-1.1"];
    w.deploy(&web(2, 2));
    w.dies("web-r2-1.1", EXIT_1);
    assert!(w.is_baking());
    w.dies("web-r2-2.1", EXIT_1);
    assert_eq!(w.outcome(), Some(Outcome::RolledBack), "the switch was between the two");
}

#[test]
fn kills_by_a_human_are_not_held_against_a_release() {
    let mut w = baking(2);
    for name in ["web-r2-1.1", "web-r2-2.1", "web-r2-1.2"] {
        w.dies(name, KILLED);
        w.pass(secs(1));
    }
    assert!(w.is_baking(), "{}", w.reason());
}

#[test]
fn four_deaths_are_too_many_whoever_did_it() {
    let mut w = baking(2);
    for name in ["web-r2-1.1", "web-r2-2.1", "web-r2-1.2", "web-r2-2.2"] {
        w.dies(name, KILLED);
    }
    assert_eq!(w.outcome(), Some(Outcome::RolledBack));
}

#[test]
fn a_kill_of_the_only_replica_is_not_held_against_a_release_either() {
    let mut w = baking(1);
    w.slow = vec!["web-r2"];
    w.dies("web-r2-1.1", KILLED);
    assert!(w.is_baking(), "{}", w.reason());
    assert_eq!(w.log(), ["table:", "start web-r2-1.2 (Died)"]);
}

#[test]
fn a_release_whose_only_replica_ends_by_itself_is_undone_at_once() {
    let mut w = baking(1);
    w.dies("web-r2-1.1", EXIT_1);
    assert_eq!(w.log()[..2], ["undo: 1 replica of `web` died after the switch", "table: web-r1-1.1"]);
}

#[test]
fn a_release_whose_only_replica_hangs_or_sickens_is_undone_at_once() {
    for end in [|w: &mut World| w.hangs("web-r2-1.1"), |w: &mut World| w.sickens("web-r2-1.1")] {
        let mut w = baking(1);
        end(&mut w);
        assert_eq!(w.outcome(), Some(Outcome::RolledBack));
        assert_eq!(w.routed(), "web-r1-1.1");
    }
}

#[test]
fn errors_above_the_share_undo_a_release() {
    let mut w = baking(1);
    w.load("web-r2-1.1", answers(19, 1));
    assert!(w.is_baking(), "too few to judge");
    w.load("web-r2-1.1", answers(100, 5));
    assert!(w.is_baking(), "5 % are allowed");
    w.load("web-r2-1.1", answers(100, 6));
    assert_eq!(w.reason(), "6 of 100 requests to `web` failed after the switch (6 %, allowed are 5 %)");
    assert_eq!(w.outcome(), Some(Outcome::RolledBack));
}

#[test]
fn a_release_may_be_as_bad_as_the_one_before_it() {
    let mut w = World::up(&web(1, 1));
    w.load("web-r1-1.1", answers(100, 10));
    w.deploy(&web(2, 1));
    w.load("web-r2-1.1", answers(100, 10));
    assert!(w.is_baking());
    w.load("web-r2-1.1", answers(100, 11));
    assert_eq!(w.outcome(), Some(Outcome::RolledBack));
}

#[test]
fn what_was_counted_before_the_switch_does_not_count() {
    let mut w = baking(1);
    w.load("web-r1-1.1", answers(1000, 900));
    w.pass(BAKE);
    w.rollback(None);
    assert!(w.is_baking());
    w.load("web-r1-1.1", answers(1100, 902));
    assert!(w.is_baking(), "{}", w.reason());
}

#[test]
fn a_proxy_that_had_forgotten_a_replica_counts_it_anew() {
    let mut w = baking(1);
    w.load("web-r1-1.1", answers(1000, 10));
    w.pass(BAKE);
    w.forgets("web-r1-1.1");
    w.rollback(None);
    assert!(w.is_baking());
    w.load("web-r1-1.1", answers(100, 60));
    assert_eq!(w.reason(), "60 of 100 requests to `web` failed after the switch (60 %, allowed are 5 %)");
}

#[test]
fn what_a_proxy_has_counted_outlives_it() {
    let mut w = baking(1);
    w.load("web-r2-1.1", answers(15, 15));
    w.proxy_down(1);
    w.proxy_up(2);
    assert!(w.is_baking(), "too few to judge");
    w.load("web-r2-1.1", answers(5, 5));
    assert_eq!(w.reason(), "20 of 20 requests to `web` failed after the switch (100 %, allowed are 5 %)");
}

#[test]
fn a_worker_that_ends_by_itself_undoes_its_release_too() {
    let spec = |version| v(version, [app("web"), worker("queue")]);
    let mut w = World::baking(&[spec(1), spec(2)]);
    w.dies("queue-r2-1.1", EXIT_1);
    assert_eq!(w.outcome(), Some(Outcome::RolledBack));
    w.pass(secs(1));
    assert_eq!(w.running(), "queue-r1-1.2 web-r1-1.1", "the old worker is back");
}

#[test]
fn a_bad_release_is_drained_like_any_other() {
    let mut w = baking(2);
    w.load("web-r2-2.1", Load { in_flight: 1, ..answers(1, 0) });
    w.dies("web-r2-1.1", EXIT_1);
    assert_eq!(w.routed(), "web-r1-1.1 web-r1-2.1");
    assert!(w.runs("web-r2-2.1"), "it has a request under way");
    w.load("web-r2-2.1", answers(1, 0));
    assert_eq!(w.running(), "web-r1-1.1 web-r1-2.1");
}

#[test]
fn replicas_of_the_warm_release_are_kept_alive() {
    let mut w = baking(1);
    w.dies("web-r1-1.1", EXIT_1);
    assert!(w.runs("web-r1-1.2"));
    assert!(w.is_baking(), "and say nothing about the new one");
}

#[test]
fn a_release_found_bad_at_the_very_end_of_its_bake_still_has_one_to_go_back_to() {
    let mut impatient = (*web(2, 2)).clone();
    impatient.keep.warm = secs(0);
    let mut w = World::baking(&[web(1, 2), Arc::new(impatient)]);
    // The agent is late: the bake, the warm time and two deaths are all over when it looks again.
    for name in ["web-r2-1.1", "web-r2-2.1"] {
        w.dies_unheard(name);
        w.observed.apply(Event::Exited { id: id(name), status: EXIT_1 }, w.now);
    }
    w.now = w.now + BAKE;
    w.step();
    assert_eq!(w.outcome(), Some(Outcome::RolledBack));
    assert_eq!((w.state(1), w.routed()), (ReleaseState::Live, "web-r1-1.1 web-r1-2.1".to_owned()));
}

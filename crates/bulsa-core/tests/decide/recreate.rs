//! A `shared` service that is deployed by name: its container makes room for a new one, and comes back if that fails.

use bulsa_core::{
    decide::{Admission, Outcome, Phase, Request},
    ids::ReleaseId,
    spec::{Condition::Healthy, Spec},
};

use crate::{
    build::{AGES, Svc, app, secs, shared, v},
    world::{EXIT_1, World, id},
};

fn cache() -> Svc {
    shared("cache").docker()
}

fn spec(version: u32) -> std::sync::Arc<Spec> {
    v(version, [app("web").docker().needs("cache", Healthy), cache()])
}

fn shop() -> World {
    let mut w = World::up(&spec(1));
    w.pass(secs(1));
    w.log();
    w
}

fn is_reverting(w: &World) -> bool {
    w.desired.running().is_some_and(|running| matches!(running.phase, Phase::Revert { .. }))
}

#[test]
fn the_old_one_stops_before_the_new_one_starts_and_the_apps_stay() {
    let mut w = shop();
    w.recreate("cache", &spec(2));
    let log = w.log_of(&["start", "stop", "exchange", "switch"]);
    let expected =
        ["exchange", "stop cache-r0-1.1", "start cache-r2-1.1 (New)", "start web-r2-1.1 (New)", "switch"];
    assert_eq!(log, expected);
    assert_eq!(w.running(), "web-r1-1.1 cache-r2-1.1 web-r2-1.1");
    w.pass(AGES);
    assert_eq!((w.outcome(), w.running()), (Some(Outcome::Deployed), "cache-r2-1.1 web-r2-1.1".to_owned()));
}

#[test]
fn the_new_one_waits_for_the_end_of_the_old_one() {
    let mut w = shop();
    w.stubborn = vec!["cache-r0"];
    w.recreate("cache", &spec(2));
    assert!(!w.runs("cache-r2-1.1") && w.routed() == "web-r1-1.1");
    w.pass(secs(11));
    assert!(w.runs("cache-r2-1.1"), "its grace is over");
    assert!(w.is_baking());
}

#[test]
fn nothing_is_recreated_that_was_not_asked_for_or_was_stopped() {
    let mut w = shop();
    w.deploy(&spec(2));
    w.pass(AGES);
    assert!(w.runs("cache-r0-1.1"));
    w.ask(Request::Stop { service: "cache".to_owned() }).unwrap();
    w.recreate("cache", &spec(3));
    assert!(w.desired.deployment.as_ref().unwrap().recreates.is_empty());
    w.ask(Request::Stop { service: "web".to_owned() }).unwrap();
}

#[test]
fn the_same_spec_is_deployed_again_only_for_what_is_recreated() {
    let mut w = shop();
    w.recreate("cache", &spec(2));
    w.pass(AGES);
    let (spec, hash) = (spec(2), "the same".to_owned());
    let again = Request::Deploy { spec, hash, recreate: std::collections::BTreeSet::new() };
    assert!(matches!(w.ask(again), Ok(Admission::AlreadySo(_))));
}

#[test]
fn an_app_that_fails_its_gate_leaves_it_untouched() {
    let mut w = shop();
    w.slow = vec!["web-r2"];
    w.recreate("cache", &spec(2));
    // It waits for the cache, so its gate comes after the exchange; one that doesn't comes before.
    let mut other = World::up(&v(1, [app("web").docker(), cache()]));
    other.slow = vec!["web-r2"];
    other.recreate("cache", &v(2, [app("web").docker(), cache()]));
    other.start_fails("web-r2-1.1", true);
    assert_eq!(
        (other.outcome(), other.running().as_str()),
        (Some(Outcome::Failed), "cache-r0-1.1 web-r1-1.1")
    );
    w.start_fails("web-r2-1.1", true);
    assert_eq!((w.outcome(), w.running().as_str()), (Some(Outcome::Failed), "cache-r0-1.2 web-r1-1.1"));
}

#[test]
fn a_new_one_that_fails_gives_way_to_the_old_one_before_the_deploy_ends() {
    let mut w = shop();
    w.slow = vec!["cache-r2", "cache-r0"];
    w.recreate("cache", &spec(2));
    w.log();
    w.start_fails("cache-r2-1.1", true);
    assert!(is_reverting(&w), "it waits for the old one");
    assert_eq!(w.log_of(&["revert", "start"]).last().unwrap(), "start cache-r0-1.2 (New)");
    assert_eq!(w.routed(), "web-r1-1.1");
    w.starts("cache-r0-1.2");
    w.gets_ready("cache-r0-1.2");
    assert_eq!(w.outcome(), Some(Outcome::Failed));
    assert!(w.reason().contains("`cache` replica 1 could not be started"), "{}", w.reason());
    w.pass(AGES);
    assert_eq!(w.running(), "cache-r0-1.2 web-r1-1.1");
}

#[test]
fn one_that_dies_again_and_again_is_given_up() {
    let mut w = shop();
    w.slow = vec!["cache-r2"];
    w.recreate("cache", &spec(2));
    for attempt in 1..=3 {
        w.starts(&format!("cache-r2-1.{attempt}"));
        w.dies(&format!("cache-r2-1.{attempt}"), EXIT_1);
        w.pass(secs(5));
    }
    assert_eq!((w.outcome(), w.running().as_str()), (Some(Outcome::Failed), "cache-r0-1.2 web-r1-1.1"));
}

#[test]
fn an_old_one_that_does_not_come_back_is_told() {
    let mut w = shop();
    w.slow = vec!["cache"];
    w.recreate("cache", &spec(2));
    w.start_fails("cache-r2-1.1", true);
    w.start_fails("cache-r0-1.2", true);
    assert_eq!(w.outcome(), Some(Outcome::Failed));
    assert!(w.reason().contains("`cache` did not come back: no such program"), "{}", w.reason());
    let mut w = shop();
    w.slow = vec!["cache"];
    w.recreate("cache", &spec(2));
    w.start_fails("cache-r2-1.1", true);
    w.pass(AGES);
    assert!(w.reason().ends_with("`cache` did not come back"), "{}", w.reason());
}

#[test]
fn another_agent_goes_on_wherever_the_one_before_it_was_killed() {
    // While the old one stops; while none runs; while the new one is gated; while the old one comes back.
    let mut w = shop();
    w.stubborn = vec!["cache-r0"];
    w.recreate("cache", &spec(2));
    w.another_agent();
    w.stubborn.clear();
    w.pass(secs(30));
    assert!(w.is_baking(), "{}", w.running());
    assert_eq!(w.running(), "web-r1-1.1 cache-r2-1.2 web-r2-1.2");

    let mut w = shop();
    w.slow = vec!["cache-r2"];
    w.recreate("cache", &spec(2));
    w.dies_unheard("cache-r2-1.1");
    w.slow.clear();
    w.another_agent();
    assert!(w.is_baking(), "{}", w.running());

    let mut w = shop();
    w.slow = vec!["cache-r2"];
    w.recreate("cache", &spec(2));
    w.another_agent();
    assert!(!w.runs("cache-r0-1.1") && w.runs("cache-r2-1.1"));
    w.gets_ready("cache-r2-1.1");
    w.pass(secs(5));
    assert!(w.is_baking());

    let mut w = shop();
    w.slow = vec!["cache"];
    w.recreate("cache", &spec(2));
    w.start_fails("cache-r2-1.1", true);
    w.slow.clear();
    w.dies_unheard("cache-r0-1.2");
    w.another_agent();
    w.pass(secs(5));
    assert_eq!((w.outcome(), w.runs("cache-r2-1.1")), (Some(Outcome::Failed), false));
    assert!(w.running().starts_with("cache-r0-1."), "{}", w.running());
}

#[test]
fn an_end_that_was_taken_for_a_humans_doing_is_no_reason_to_stay_away() {
    let mut w = shop();
    w.stubborn = vec!["cache-r0"];
    w.slow = vec!["cache-r2"];
    w.recreate("cache", &spec(2));
    w.taken_away("cache-r0-1.1");
    w.start_fails("cache-r2-1.1", true);
    assert_eq!((w.outcome(), w.running().as_str()), (Some(Outcome::Failed), "cache-r0-1.2 web-r1-1.1"));
}

#[test]
fn it_outlives_later_deploys_rollbacks_and_the_release_that_made_it() {
    let mut w = shop();
    w.recreate("cache", &spec(2));
    w.pass(secs(60));
    w.deploy(&spec(3));
    w.pass(secs(60));
    w.rollback(Some(1));
    w.pass(secs(60));
    assert!(w.runs("cache-r2-1.1"), "a rollback doesn't touch it");
    for version in 4..30 {
        w.deploy(&spec(version));
        w.pass(AGES);
    }
    assert!(w.desired.releases.contains_key(&ReleaseId(2)), "its container is made for it");
    assert!(w.runs("cache-r2-1.1"));
    w.recreate("cache", &spec(40));
    let newest = w.desired.shared_release("cache");
    assert!(newest > ReleaseId(2) && w.runs(&format!("cache-{newest}-1.1")));
    w.ask(Request::Down).unwrap();
    assert_eq!(w.running(), "");
}

#[test]
fn what_is_bad_after_the_switch_takes_the_apps_back_and_leaves_it() {
    let mut w = shop();
    w.recreate("cache", &spec(2));
    w.dies("web-r2-1.1", EXIT_1);
    assert_eq!(w.outcome(), Some(Outcome::RolledBack));
    w.pass(AGES);
    assert_eq!(w.running(), "web-r1-1.1 cache-r2-1.1");
    w.dies("cache-r2-1.1", EXIT_1);
    assert!(w.runs("cache-r2-1.2"), "it is started again as it is");
    assert!(w.observed.replica(&id("cache-r2-1.2")).is_some());
}

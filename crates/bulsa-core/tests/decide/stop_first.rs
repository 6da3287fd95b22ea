//! `stop_first`: what can't run twice is exchanged after everything else has passed.

use std::sync::Arc;

use bulsa_core::{
    decide::{Load, Outcome, Route},
    spec::{Condition, Spec},
};

use crate::{
    build::{AGES, DRAIN, GATE, app, secs, v, worker},
    world::{EXIT_0, EXIT_1, World},
};

/// `web`, and `disk` that can't run twice.
fn spec(version: u32) -> Arc<Spec> {
    v(version, [app("disk").stop_first(), app("web")])
}

#[test]
fn the_others_pass_their_gate_before_anything_is_exchanged() {
    let mut w = World::up(&spec(1));
    w.slow = vec!["web-r2"];
    w.deploy(&spec(2));
    w.starts("web-r2-1.1");
    w.pass(secs(5));
    assert_eq!(w.running(), "disk-r1-1.1 web-r1-1.1 web-r2-1.1");
    w.log();
    w.gets_ready("web-r2-1.1");
    let expected = [
        "exchange",
        "table: web-r1-1.1",
        "stop disk-r1-1.1",
        "start disk-r2-1.1 (New)",
        "switch",
        "table: disk-r2-1.1 web-r2-1.1",
    ];
    assert_eq!(w.log(), expected);
}

#[test]
fn what_waits_for_an_exchanged_service_comes_after_the_exchange() {
    let spec = |version| {
        let near = app("near").needs("disk", Condition::Healthy);
        v(version, [app("disk").stop_first(), app("web"), near, app("far").needs("near", Condition::Started)])
    };
    let mut w = World::up(&spec(1));
    w.deploy(&spec(2));
    let starts = w.log_of(&["start", "exchange"]);
    let of = ["web", "disk", "near", "far"].map(|name| format!("start {name}-r2-1.1 (New)"));
    assert_eq!(starts, [of[0].as_str(), "exchange", &of[1], &of[2], &of[3]]);
    assert!(w.is_baking());
}

#[test]
fn requests_are_held_during_the_exchange() {
    let mut w = World::up(&spec(1));
    w.stubborn = vec!["disk-r1"];
    w.deploy(&spec(2));
    let routes = &w.table.as_ref().unwrap().routes;
    assert_eq!(routes["disk"], Route::default());
    assert_eq!(routes["web"].targets.len(), 1, "the others are served by the old release meanwhile");
    assert!(!w.runs("disk-r2-1.1"), "the old one isn't gone yet");
    w.dies("disk-r1-1.1", EXIT_0);
    assert!(w.is_baking());
}

#[test]
fn a_failed_exchange_is_undone_and_the_old_one_is_back() {
    let mut w = World::up(&spec(1));
    w.slow = vec!["disk-r2"];
    w.deploy(&spec(2));
    assert!(w.runs("disk-r2-1.1") && !w.runs("disk-r1-1.1"));
    w.log();
    w.start_fails("disk-r2-1.1", true);
    let log = w.log();
    assert_eq!(log[0], "undo: `disk` replica 1 could not be started: no such program");
    assert!(log.iter().any(|line| line.starts_with("start disk-r1-1.2")), "{log:?}");
    assert_eq!(w.routed(), "disk-r1-1.2 web-r1-1.1");
    assert_eq!(w.outcome(), Some(Outcome::Failed));
}

#[test]
fn the_old_one_waits_until_the_failed_new_one_is_gone() {
    let mut w = World::up(&spec(1));
    (w.slow, w.stubborn) = (vec!["disk-r2"], vec!["disk-r2"]);
    w.deploy(&spec(2));
    w.starts("disk-r2-1.1");
    w.pass(GATE);
    assert_eq!(w.outcome(), Some(Outcome::Failed));
    assert!(!w.runs("disk-r1-1.2"), "both would hold the volume");
    w.dies("disk-r2-1.1", EXIT_0);
    assert!(w.runs("disk-r1-1.2"));
}

#[test]
fn an_exchanged_service_that_turns_out_bad_in_the_bake_is_exchanged_back() {
    let mut w = World::up(&spec(1));
    w.deploy(&spec(2));
    assert!(w.is_baking());
    w.dies("disk-r2-1.1", EXIT_1);
    assert_eq!(w.outcome(), Some(Outcome::RolledBack));
    assert_eq!(w.routed(), "disk-r1-1.2 web-r1-1.1");
}

#[test]
fn the_exchange_drains_first_and_that_is_not_held_against_the_gate() {
    let quick = |version| v(version, [app("disk").stop_first().with(|s| s.gate_timeout = secs(5))]);
    let mut w = World::up(&quick(1));
    w.load("disk-r1-1.1", Load { in_flight: 1, ..Load::default() });
    w.deploy(&quick(2));
    w.pass(DRAIN.requests - secs(1));
    assert!(w.runs("disk-r1-1.1"));
    w.pass(AGES);
    assert_eq!(w.outcome(), Some(Outcome::Deployed), "{}", w.reason());
}

#[test]
fn a_worker_can_be_handed_over_without_overlap() {
    let spec = |version| v(version, [app("web"), worker("queue").stop_first()]);
    let mut w = World::up(&spec(1));
    w.log();
    w.deploy(&spec(2));
    w.pass(secs(1));
    assert_eq!(w.log_of(&["stop queue", "start queue"]), ["stop queue-r1-1.1", "start queue-r2-1.1 (New)"]);
    assert!(w.is_baking());
}

#[test]
fn a_first_release_is_gated_with_all_that_it_has() {
    let needs_disk = app("web").needs("disk", Condition::Healthy);
    let mut w = World::empty();
    w.slow = vec!["disk-r1"];
    w.deploy(&v(1, [app("disk").stop_first(), needs_disk]));
    w.starts("disk-r1-1.1");
    w.pass(secs(5));
    assert_eq!(w.outcome(), None, "{:?}", w.log());
    w.pass(GATE);
    assert_eq!(w.outcome(), Some(Outcome::Failed));
    assert!(w.reason().contains("`disk` did not become healthy"), "{}", w.reason());
}

#[test]
fn a_new_stop_first_service_needs_no_exchange() {
    let mut w = World::up(&v(1, [app("web")]));
    w.deploy(&spec(2));
    assert_eq!(w.log_of(&["exchange"]), Vec::<String>::new());
    assert!(w.is_baking());
}

#[test]
fn a_restart_stops_first_too() {
    let mut w = World::up(&spec(1));
    w.pass(secs(1));
    w.log();
    w.ask(bulsa_core::decide::Request::Restart { service: "disk".to_owned() }).unwrap();
    let log = w.log();
    let stop = log.iter().position(|line| line == "stop disk-r1-1.1");
    let start = log.iter().position(|line| line.starts_with("start disk-r1-1.2"));
    assert!(stop.is_some() && stop < start, "{log:?}");
}

//! Rolling: a few replicas at a time, and both releases answer meanwhile.

use std::sync::Arc;

use bulsa_core::{
    decide::{Load, Outcome, Request},
    spec::{Rolling, Spec},
};

use crate::{
    build::{AGES, app, ms, secs, v},
    world::{EXIT_0, EXIT_1, World},
};

const NEW_FIRST: Rolling = Rolling { parallelism: 1, stop_first: false, delay: secs(0) };
const OLD_FIRST: Rolling = Rolling { stop_first: true, ..NEW_FIRST };

fn spec(version: u32, replicas: u32, rolling: Rolling) -> Arc<Spec> {
    v(version, [app("web").replicas(replicas).rolling(rolling)])
}

#[test]
fn new_ones_start_first_one_after_the_other() {
    let mut w = World::up(&spec(1, 3, NEW_FIRST));
    w.deploy(&spec(2, 3, NEW_FIRST));
    w.pass(secs(1));
    let expected = [
        "exchange",
        "start web-r2-1.1 (New)",
        "move web 1",
        "table: web-r1-2.1 web-r1-3.1 web-r2-1.1",
        "start web-r2-2.1 (New)",
        "stop web-r1-1.1",
        "move web 2",
        "table: web-r1-3.1 web-r2-1.1 web-r2-2.1",
        "start web-r2-3.1 (New)",
        "stop web-r1-2.1",
        "switch",
        "table: web-r2-1.1 web-r2-2.1 web-r2-3.1",
        "stop web-r1-3.1",
    ];
    let log = w.log();
    assert_eq!(log.iter().filter(|line| !line.starts_with("begin")).collect::<Vec<_>>(), expected);
    assert!(w.is_baking());
}

#[test]
fn old_ones_stop_first_where_there_is_no_room() {
    let mut w = World::up(&spec(1, 3, OLD_FIRST));
    w.stubborn = vec!["web-r1-1"];
    w.deploy(&spec(2, 3, OLD_FIRST));
    assert_eq!(w.routed(), "web-r1-2.1 web-r1-3.1");
    assert!(!w.runs("web-r2-1.1"), "the old one of this number isn't gone yet");
    w.dies("web-r1-1.1", EXIT_0);
    w.pass(secs(1));
    assert!(w.is_baking(), "{:?}", w.log());
    let log = w.log_of(&["start", "stop"]);
    let of = |number: u32| [format!("stop web-r1-{number}.1"), format!("start web-r2-{number}.1 (New)")];
    assert_eq!(log, [of(1), of(2), of(3)].concat());
}

#[test]
fn several_at_a_time_and_a_last_step_that_is_smaller() {
    let two = Rolling { parallelism: 2, ..NEW_FIRST };
    let mut w = World::up(&spec(1, 3, two));
    w.deploy(&spec(2, 3, two));
    w.pass(secs(1));
    assert_eq!(w.log_of(&["move", "switch"]), ["move web 2", "switch"]);
}

#[test]
fn a_step_serves_for_its_delay_before_the_next() {
    let slow = Rolling { delay: secs(10), ..NEW_FIRST };
    let mut w = World::up(&spec(1, 2, slow));
    w.deploy(&spec(2, 2, slow));
    w.pass(secs(9));
    assert_eq!(w.log_of(&["move", "switch"]), Vec::<String>::new());
    w.pass(secs(2));
    assert_eq!(w.log_of(&["move", "switch"]), ["move web 1", "switch"]);
}

#[test]
fn a_step_that_never_gets_ready_is_undone_and_the_old_ones_are_all_back() {
    for rolling in [NEW_FIRST, OLD_FIRST] {
        let mut w = World::up(&spec(1, 3, rolling));
        w.slow = vec!["web-r2-2"];
        w.deploy(&spec(2, 3, rolling));
        w.pass(secs(30));
        assert!(w.routed().contains("web-r2-1.1"), "users meet the first one: {}", w.routed());
        w.pass(secs(90));
        assert_eq!(w.outcome(), Some(Outcome::RolledBack), "users had met it");
        assert!(w.reason().contains("did not become healthy"), "{}", w.reason());
        let routed = w.routed();
        assert_eq!(routed.matches("web-r1-").count(), 3, "{routed}");
        assert!(!w.running().contains("r2"), "{}", w.running());
    }
}

#[test]
fn a_new_one_that_dies_among_users_undoes_it() {
    let slow = Rolling { delay: secs(30), ..NEW_FIRST };
    let mut w = World::up(&spec(1, 3, slow));
    w.deploy(&spec(2, 3, slow));
    w.pass(secs(40));
    w.dies("web-r2-1.1", EXIT_1);
    assert_eq!(w.reason(), "1 replica of `web` died while it was rolled out");
    assert_eq!(w.outcome(), Some(Outcome::RolledBack));
}

#[test]
fn errors_of_the_first_ones_undo_it() {
    let slow = Rolling { delay: secs(30), ..NEW_FIRST };
    let mut w = World::up(&spec(1, 3, slow));
    w.deploy(&spec(2, 3, slow));
    w.pass(secs(40));
    w.load("web-r2-1.1", Load { requests: 100, errors: 50, ..Load::default() });
    assert!(
        w.reason().contains("50 of 100 requests to `web` failed while it was rolled out"),
        "{}",
        w.reason()
    );
}

#[test]
fn another_agent_goes_on_where_it_was() {
    let slow = Rolling { delay: secs(5), ..OLD_FIRST };
    let mut w = World::up(&spec(1, 3, slow));
    w.deploy(&spec(2, 3, slow));
    w.pass(secs(7));
    assert_eq!(w.log_of(&["move"]), ["move web 1"]);
    w.another_agent();
    w.pass(AGES);
    assert_eq!(w.outcome(), Some(Outcome::Deployed), "{}", w.reason());
    assert_eq!(w.routed().matches("web-r2-").count(), 3, "{}", w.routed());
    assert!(!w.running().contains("r1"), "{}", w.running());
}

#[test]
fn nothing_is_kept_warm_and_a_rollback_rolls_too() {
    let mut w = World::up(&spec(1, 2, NEW_FIRST));
    w.deploy(&spec(2, 2, NEW_FIRST));
    w.pass(AGES);
    assert_eq!(w.running(), "web-r2-1.1 web-r2-2.1");
    w.log();
    w.rollback(None);
    w.pass(secs(1));
    assert_eq!(w.log_of(&["move", "switch"]), ["move web 1", "switch"]);
}

#[test]
fn more_and_fewer_replicas_are_reached() {
    for (old, new) in [(1, 3), (3, 1), (2, 5), (5, 2)] {
        let mut w = World::up(&spec(1, old, NEW_FIRST));
        w.deploy(&spec(2, new, NEW_FIRST));
        w.pass(secs(2));
        assert!(w.is_baking(), "{old} to {new}: {:?}", w.log());
        assert_eq!(w.running().matches("web-r2").count(), new as usize);
        assert_eq!(w.running().matches("web-r1").count(), 0, "{}", w.running());
    }
}

#[test]
fn what_rolls_comes_after_what_overlaps() {
    let spec = |version| v(version, [app("api"), app("web").replicas(2).rolling(NEW_FIRST)]);
    let mut w = World::up(&spec(1));
    w.slow = vec!["api-r2"];
    w.deploy(&spec(2));
    w.starts("api-r2-1.1");
    assert!(!w.running().contains("web-r2"), "{}", w.running());
    w.gets_ready("api-r2-1.1");
    w.pass(secs(1));
    assert!(w.is_baking(), "{:?}", w.log());
    assert!(w.runs("api-r1-1.1"), "it is kept warm");
}

#[test]
fn a_scale_in_the_middle_is_followed() {
    let slow = Rolling { delay: secs(5), ..NEW_FIRST };
    let mut w = World::up(&spec(1, 3, slow));
    w.deploy(&spec(2, 3, slow));
    w.pass(secs(7));
    w.ask(Request::Scale { service: "web".to_owned(), replicas: 5 }).unwrap();
    w.pass(secs(60) + ms(1));
    assert_eq!(w.running().matches("web-r2").count(), 5, "{}", w.running());
}

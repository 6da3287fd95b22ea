//! What is done for replicas before anything is wrong with them, and for a release that can't be healed.

use bulsa_core::decide::{Event, FALL_BACK_DEATHS, Load, Outcome, RECYCLE_AFTER};

use crate::{
    build::{AGES, app, secs, shared, v},
    world::{EXIT_1, KILLED, World, id},
};

#[test]
fn a_spare_replica_takes_over_by_a_route_change_and_steps_back() {
    let mut w = World::up(&v(1, [app("web").replicas(2).spare(1)]));
    assert_eq!(w.running(), "web-r1-1.1 web-r1-2.1 web-r1-3.1");
    assert_eq!(w.routed(), "web-r1-1.1 web-r1-2.1", "the spare one is ready and gets nothing");
    w.slow = vec!["web"];
    w.dies("web-r1-1.1", KILLED);
    assert_eq!(w.routed(), "web-r1-2.1 web-r1-3.1");
    w.starts("web-r1-1.2");
    w.gets_ready("web-r1-1.2");
    assert_eq!(w.routed(), "web-r1-1.2 web-r1-2.1");
    w.pass(AGES);
    assert_eq!(w.running(), "web-r1-1.2 web-r1-2.1 web-r1-3.1", "it is no scale-down");
}

#[test]
fn a_stopped_service_has_no_spare_replicas() {
    let mut w = World::up(&v(1, [app("web").spare(2)]));
    assert_eq!(w.running().split(' ').count(), 3);
    w.ask(bulsa_core::decide::Request::Stop { service: "web".to_owned() }).unwrap();
    w.pass(AGES);
    assert_eq!(w.running(), "");
}

#[test]
fn what_comes_to_its_age_is_replaced_one_at_a_time_and_drained() {
    let mut w = World::up(&v(1, [app("web").replicas(2).recycled_after(secs(3600))]));
    w.slow = vec!["web"];
    w.pass(secs(3000));
    assert_eq!(w.log_of(&["start"]), Vec::<String>::new());
    let next_start = |w: &mut World| {
        let mut each = (0..700).map(|_| {
            w.pass(secs(1));
            w.log_of(&["start", "stop"])
        });
        each.find(|lines| !lines.is_empty()).unwrap()
    };
    let first = next_start(&mut w);
    assert!(first.len() == 1 && first[0].contains("Recycle(Age("), "{first:?}");
    let next = w.running().split(' ').find(|name| name.ends_with(".2")).map(str::to_owned).unwrap();
    w.starts(&next);
    assert_eq!(w.routed(), "web-r1-1.1 web-r1-2.1");
    w.gets_ready(&next);
    let old = next.replace(".2", ".1");
    assert_eq!(w.log_of(&["start", "stop"]), [format!("stop {old}")]);
    let second = next_start(&mut w);
    assert!(
        second.len() == 1 && !second[0].contains(&next.replace(".2", ".")),
        "the other one's turn: {second:?}"
    );
}

#[test]
fn a_replica_that_takes_much_memory_is_replaced_but_not_at_once_after_its_start() {
    let mut w = World::up(&v(1, [app("web").recycled_at(1000)]));
    let measured = |memory| Event::Measured { id: id("web-r1-1.1"), memory };
    w.event(measured(2000));
    w.pass(RECYCLE_AFTER - secs(10));
    assert!(!w.runs("web-r1-1.2"));
    w.event(measured(900));
    w.pass(secs(60));
    assert!(!w.runs("web-r1-1.2"));
    w.event(measured(1000));
    assert_eq!(w.running(), "web-r1-1.2");
}

#[test]
fn a_replica_is_replaced_after_its_requests() {
    let mut w = World::up(&v(1, [app("web").recycled_with(100_000)]));
    w.pass(RECYCLE_AFTER);
    w.load("web-r1-1.1", Load { requests: 80_000, ..Load::default() });
    assert_eq!(w.running(), "web-r1-1.1");
    w.load("web-r1-1.1", Load { requests: 100_000, ..Load::default() });
    assert_eq!(w.running(), "web-r1-1.2");
}

#[test]
fn nothing_is_recycled_while_a_deploy_runs() {
    let spec = |version| v(version, [app("web").recycled_at(1000)]);
    let mut w = World::up(&spec(1));
    w.pass(RECYCLE_AFTER);
    w.slow = vec!["web-r2"];
    w.deploy(&spec(2));
    w.event(Event::Measured { id: id("web-r1-1.1"), memory: 2000 });
    assert!(!w.runs("web-r1-1.2"));
}

/// A second release, whose bake is over, dies at each start from now on.
fn beyond_help(second: std::sync::Arc<bulsa_core::spec::Spec>) -> World {
    let mut w = World::baking(&[v(1, [app("web")]), second]);
    w.pass(secs(600));
    assert_eq!(w.outcome(), Some(Outcome::Deployed), "{}", w.reason());
    w.slow = vec!["web-r2"];
    let mut attempt = 1;
    w.dies("web-r2-1.1", EXIT_1);
    for _ in 0..120 {
        let next = format!("web-r2-1.{}", attempt + 1);
        if w.runs(&next) && attempt <= FALL_BACK_DEATHS {
            attempt += 1;
            w.starts(&next);
            w.dies(&next, EXIT_1);
        }
        w.pass(secs(1));
    }
    w
}

#[test]
fn a_release_that_dies_and_dies_is_left_for_the_one_before() {
    let w = beyond_help(v(2, [app("web")]));
    let fall_back = w.fall_back.clone().unwrap();
    assert_eq!(
        (fall_back.to.0, fall_back.reason.starts_with("`web` of r2 died ")),
        (1, true),
        "{fall_back:?}"
    );
}

#[test]
fn going_back_is_no_use_where_the_service_is_the_same() {
    let w = beyond_help(v(1, [app("api"), app("web")]));
    assert_eq!(w.fall_back, None);
}

#[test]
fn going_back_is_tried_once() {
    let mut w = beyond_help(v(2, [app("web")]));
    w.slow = vec!["web"];
    w.rollback(None);
    w.pass(AGES);
    assert_eq!(w.outcome(), Some(Outcome::Failed), "{}", w.reason());
    assert_eq!(w.fall_back, None);
}

#[test]
fn nobody_goes_back_for_want_of_a_dependency() {
    let spec = |version| {
        let web = app("web").needs("cache", bulsa_core::spec::Condition::Started);
        v(version, [shared("cache").docker(), web])
    };
    let mut w = World::baking(&[spec(1), spec(2)]);
    w.pass(secs(600));
    w.slow = vec!["web-r2", "cache"];
    w.dies("cache-r0-1.1", EXIT_1);
    let mut attempt = 1;
    w.dies("web-r2-1.1", EXIT_1);
    for _ in 0..3600 {
        let next = format!("web-r2-1.{}", attempt + 1);
        if w.runs(&next) {
            attempt += 1;
            w.starts(&next);
            w.dies(&next, EXIT_1);
        }
        w.pass(secs(1));
    }
    assert!(attempt > FALL_BACK_DEATHS, "{attempt}");
    assert_eq!(w.fall_back, None);
}

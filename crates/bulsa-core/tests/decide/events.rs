//! Events that are lost, late or doubled.

use std::collections::BTreeSet;

use bulsa_core::{
    decide::{Event, Origin, ReplicaPhase},
    ids::ReleaseId,
    spec::MIN_UP,
};

use crate::{
    build::{AGES, app, ms, secs, v, worker},
    world::{EXIT_1, World, id},
};

#[test]
fn a_lost_exit_is_repaired_by_the_list() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.pass(secs(1));
    w.dies_unheard("web-r1-1.1");
    w.log();
    w.lists();
    assert_eq!(w.log()[..2], ["table: web-r1-2.1", "start web-r1-1.2 (Died)"]);
}

#[test]
fn a_lost_start_is_repaired_by_the_list() {
    let mut w = World::empty();
    w.slow = vec!["web"];
    w.deploy(&v(1, [app("web")]));
    w.lists();
    assert_eq!(w.observed.replica(&id("web-r1-1.1")).unwrap().phase, ReplicaPhase::Running);
    w.gets_ready("web-r1-1.1");
    assert_eq!(w.routed(), "web-r1-1.1");
}

#[test]
fn a_start_that_the_engine_never_heard_of_is_repaired_by_the_list() {
    let mut w = World::empty();
    w.slow = vec!["web"];
    w.deploy(&v(1, [app("web")]));
    w.dies_unheard("web-r1-1.1");
    w.pass(secs(9));
    w.lists();
    assert!(!w.runs("web-r1-1.2"), "it may still be on its way");
    w.pass(secs(1));
    w.lists();
    assert!(w.runs("web-r1-1.2"));
}

#[test]
fn a_replica_that_was_taken_for_lost_and_lives_is_not_leaked() {
    let mut w = World::empty();
    w.slow = vec!["web-r1-1.1"];
    w.deploy(&v(1, [app("web")]));
    w.pass(secs(10));
    // The engine is slow: its list doesn't have it yet.
    let as_of = w.now;
    w.event(Event::Listed { replicas: std::collections::BTreeMap::new(), creating: BTreeSet::new(), as_of });
    assert_eq!(w.running(), "web-r1-1.1 web-r1-1.2");
    w.pass(secs(1));
    w.lists();
    w.pass(secs(1));
    assert_eq!(w.running(), "web-r1-1.2", "the list shows it, so it is stopped");
}

#[test]
fn a_list_from_before_a_death_brings_nobody_back() {
    let mut w = World::up(&v(1, [app("web")]));
    w.pass(secs(1));
    let replicas = [(id("web-r1-1.1"), w.now)].into();
    let as_of = w.now;
    w.pass(secs(1));
    w.dies("web-r1-1.1", EXIT_1);
    w.log();
    w.event(Event::Listed { replicas, creating: BTreeSet::new(), as_of });
    assert!(w.observed.replica(&id("web-r1-1.1")).is_none());
    assert_eq!(w.log().len(), 0);
}

#[test]
fn a_list_from_before_a_start_takes_nobody_away() {
    let mut w = World::up(&v(1, [app("web")]));
    let as_of = w.now;
    w.pass(secs(1));
    w.dies("web-r1-1.1", EXIT_1);
    w.event(Event::Listed { replicas: std::collections::BTreeMap::new(), creating: BTreeSet::new(), as_of });
    assert!(w.observed.replica(&id("web-r1-1.2")).is_some());
}

#[test]
fn a_doubled_exit_is_counted_once() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.dies("web-r1-1.1", EXIT_1);
    let slot = id("web-r1-1.1").slot();
    let before = w.observed.slot(&slot).cloned();
    w.event(Event::Exited { id: id("web-r1-1.1"), status: EXIT_1 });
    assert_eq!(w.observed.slot(&slot).cloned(), before);
    assert_eq!(before.unwrap().deaths, 1);
}

#[test]
fn a_death_seen_by_the_list_and_then_by_its_event_is_counted_once() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.pass(secs(1));
    w.dies_unheard("web-r1-1.1");
    w.lists();
    w.event(Event::Exited { id: id("web-r1-1.1"), status: EXIT_1 });
    assert_eq!(w.observed.slot(&id("web-r1-1.1").slot()).unwrap().deaths, 1);
}

#[test]
fn late_news_of_a_start_brings_nobody_back() {
    let mut w = World::up(&v(1, [app("web")]));
    w.dies("web-r1-1.1", EXIT_1);
    w.log();
    w.event(Event::Started { id: id("web-r1-1.1"), at: w.now, origin: Origin::Ours });
    w.pass(ms(1));
    assert_eq!(w.log().len(), 0);
    assert!(w.observed.replica(&id("web-r1-1.1")).is_none());
}

#[test]
fn late_news_of_a_start_does_not_take_a_stop_back() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.stubborn = vec!["web-r1-2"];
    w.scale("web", 1);
    w.event(Event::Started { id: id("web-r1-2.1"), at: w.now, origin: Origin::Ours });
    w.log();
    w.pass(AGES);
    assert_eq!(w.log(), ["kill web-r1-2.1 (Grace)"]);
}

#[test]
fn a_lost_exit_after_a_stop_is_no_death() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.stubborn = vec!["web-r1-2"];
    w.scale("web", 1);
    w.pass(secs(1));
    w.dies_unheard("web-r1-2.1");
    w.lists();
    assert_eq!(w.observed.slot(&id("web-r1-2.1").slot()).unwrap().deaths, 0);
}

#[test]
fn a_report_that_was_overtaken_takes_nothing_back() {
    let mut w = World::up(&v(1, [app("web")]));
    let (generation, before) = (w.first_proxy(), w.observed.clone());
    let load = std::collections::BTreeMap::new();
    w.event(Event::ProxyReport { generation, table: 0, load });
    assert_eq!(w.observed, before);
}

#[test]
fn one_taken_for_lost_that_a_proxy_may_still_choose_is_drained_when_it_turns_up_again() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.pass(secs(1));
    let (replicas, as_of) = ([(id("web-r1-2.1"), w.now)].into(), w.now);
    w.deaf = [w.first_proxy()].into();
    w.event(Event::Listed { replicas, creating: BTreeSet::new(), as_of }); // it forgot the first
    assert_eq!(w.routed(), "web-r1-1.2 web-r1-2.1");
    w.pass(secs(1));
    w.lists();
    w.pass(secs(1));
    assert!(w.runs("web-r1-1.1"), "a proxy still has it in its table");
    w.acknowledges(1);
    assert_eq!(w.running(), "web-r1-1.2 web-r1-2.1");
}

#[test]
fn one_whose_end_was_seen_is_never_ready_however_late_it_is_told() {
    let mut w = World::up(&v(1, [app("web"), worker("queue")]));
    w.deploy(&v(2, [app("web"), worker("queue")]));
    w.event(Event::EndSeen(id("queue-r2-1.1")));
    w.pass(secs(5));
    assert!(!w.is_baking(), "it was up for a second, and is dead: {:?}", w.log());
    w.dies("queue-r2-1.1", EXIT_1);
    let history = w.observed.histories(ReleaseId(2), "queue").next().unwrap().1;
    assert_eq!((history.early_deaths, history.own_deaths), (1, 1), "it died before it was ever ready");
}

#[test]
fn one_that_its_engine_starts_again_is_proven_from_then_on() {
    let mut w = World::up(&v(1, [app("web"), worker("queue")]));
    w.deploy(&v(2, [app("web"), worker("queue")]));
    // Its engine waits before it starts it again.
    w.event(Event::EndSeen(id("queue-r2-1.1")));
    w.pass(secs(3));
    let at = w.now;
    w.event(Event::StartedAgain { id: id("queue-r2-1.1"), at });
    w.pass(MIN_UP - ms(1));
    assert!(!w.is_baking(), "what it was up for before doesn't count: {:?}", w.log());
    w.pass(ms(1));
    assert!(w.is_baking(), "{:?}", w.log());
}

#[test]
fn one_that_runs_is_not_started_again_by_news_of_it() {
    let mut w = World::up(&v(1, [app("web")]));
    let before = w.observed.clone();
    w.event(Event::StartedAgain { id: id("web-r1-1.1"), at: w.now });
    assert_eq!(w.observed, before);
}

#[test]
fn one_that_served_is_unrouted_as_soon_as_its_end_is_seen() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.event(Event::EndSeen(id("web-r1-1.1")));
    assert_eq!(w.routed(), "web-r1-2.1");
}

//! Back to an earlier release.

use std::sync::Arc;

use bulsa_core::{
    decide::{Outcome, ReleaseState},
    spec::Spec,
};

use crate::{
    build::{AGES, BAKE, app, keeping, v, worker},
    world::World,
};

fn web(version: u32) -> Arc<Spec> {
    v(version, [app("web")])
}

#[test]
fn back_to_the_warm_release_is_a_switch_without_any_start() {
    let mut w = World::baking(&[web(1), web(2)]);
    w.pass(BAKE);
    w.log();
    w.rollback(None);
    assert_eq!(w.log(), ["begin 3 Rollback r1", "switch", "table: web-r1-1.1"]);
    w.pass(BAKE);
    assert_eq!(w.outcome(), Some(Outcome::Deployed));
}

#[test]
fn back_to_a_retired_release_starts_it() {
    let mut w = World::baking(&[web(1), web(2)]);
    w.pass(AGES);
    assert_eq!(w.state(1), ReleaseState::Retired);
    w.log();
    w.rollback(Some(1));
    assert_eq!(w.log(), ["begin 3 Rollback r1", "start web-r1-1.2 (New)", "switch", "table: web-r1-1.2"]);
}

#[test]
fn a_rollback_ends_a_bake_as_rolled_back() {
    let mut w = World::baking(&[web(1), web(2)]);
    w.rollback(None);
    assert_eq!(w.log(), ["finish RolledBack", "begin 3 Rollback r1", "switch", "table: web-r1-1.1"]);
}

#[test]
fn a_deploy_ends_a_bake_as_deployed() {
    let mut w = World::baking(&[web(1), web(2)]);
    w.deploy(&web(3));
    assert_eq!(w.log()[..2], ["finish Deployed", "begin 3 Deploy r3"]);
}

#[test]
fn a_rollback_that_fails_its_gate_leaves_the_live_release_alone() {
    let mut w = World::baking(&[web(1), web(2)]);
    w.pass(AGES);
    w.slow = vec!["web-r1"];
    w.rollback(Some(1));
    w.pass(AGES);
    assert_eq!(w.outcome(), Some(Outcome::Failed));
    assert_eq!((w.routed(), w.running()), ("web-r2-1.1".to_owned(), "web-r2-1.1".to_owned()));
}

#[test]
fn a_second_rollback_goes_further_back_and_not_forth_again() {
    let mut w = World::baking(&[web(1), web(2), web(3)]);
    w.rollback(None);
    assert_eq!(w.routed(), "web-r2-1.1");
    w.pass(BAKE);
    w.rollback(None);
    w.pass(BAKE);
    assert_eq!(w.routed(), "web-r1-1.2");
}

#[test]
fn a_release_that_failed_before_may_be_tried_again_by_its_number() {
    let mut w = World::up(&web(1));
    w.slow = vec!["web-r2"];
    w.deploy(&web(2));
    w.start_fails("web-r2-1.1", true);
    assert_eq!(w.state(2), ReleaseState::Failed);
    w.slow.clear();
    w.rollback(Some(2));
    assert_eq!(w.routed(), "web-r2-1.2");
}

#[test]
fn a_warm_release_that_keeps_fewer_than_the_live_one_is_not_stopped_by_going_back_to_it() {
    let spec = |keep, version| keeping(keep, version, [app("web")]);
    let mut w = World::baking(&[spec(3, 1), spec(2, 2)]);
    w.deploy(&spec(3, 3));
    w.pass(BAKE);
    w.log();
    w.rollback(Some(2));
    w.pass(BAKE);
    assert_eq!(w.outcome(), Some(Outcome::Deployed), "{}", w.reason());
    assert!(w.runs("web-r2-1.1"), "{:#?}", w.log());
}

#[test]
fn a_warm_release_has_no_workers_until_it_is_gone_back_to() {
    let spec = |version| v(version, [app("web"), worker("queue")]);
    let mut w = World::baking(&[spec(1), spec(2)]);
    assert_eq!(w.running(), "web-r1-1.1 queue-r2-1.1 web-r2-1.1");
    w.rollback(None);
    w.pass(BAKE * 2);
    assert_eq!(w.outcome(), Some(Outcome::Deployed));
    assert_eq!(w.running(), "queue-r1-1.2 web-r1-1.1 web-r2-1.1");
}

#[test]
fn an_undone_rollback_returns_to_the_release_that_was_live() {
    let mut w = World::baking(&[web(1), web(2)]);
    w.pass(BAKE);
    w.rollback(None);
    w.sickens("web-r1-1.1");
    assert_eq!(w.outcome(), Some(Outcome::RolledBack));
    assert_eq!(w.routed(), "web-r2-1.1");
}

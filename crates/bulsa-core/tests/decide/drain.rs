//! Un-route, drain, stop: in this order, and each with its limit.

use std::time::Duration;

use bulsa_core::{
    decide::{CloseTunnels, LastCall, Load},
    ids::Generation,
};

use crate::{
    build::{AGES, BAKE, DRAIN, GRACE, WARM, app, secs, v},
    world::{World, id},
};

const REQUEST: Load = Load { in_flight: 1, tunnels: 0, requests: 1, errors: 0, refused: 0, stalled: false };
const TUNNEL: Load = Load { in_flight: 0, tunnels: 1, requests: 1, errors: 0, refused: 0, stalled: false };
const MS: Duration = Duration::from_millis(1);
const NOTHING: Load = Load { in_flight: 0, tunnels: 0, requests: 1, errors: 0, refused: 0, stalled: false };

/// `web` twice, of which the second is to go.
fn leaving_with(load: Load, prepare: impl FnOnce(&mut World)) -> World {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    prepare(&mut w);
    w.load("web-r1-2.1", load);
    w.scale("web", 1);
    w
}

#[test]
fn one_that_leaves_is_unrouted_and_then_stopped() {
    let mut w = leaving_with(NOTHING, |_| {});
    assert_eq!(w.log(), ["wish web", "table: web-r1-1.1", "stop web-r1-2.1"]);
}

#[test]
fn nothing_is_stopped_before_every_proxy_has_acknowledged() {
    let mut w = leaving_with(NOTHING, |w| {
        w.proxy_up(2);
        w.deaf = [Generation(1), Generation(2)].into();
    });
    assert_eq!(w.log(), ["wish web", "table: web-r1-1.1"]);
    w.acknowledges(2);
    assert_eq!(w.log().len(), 0, "one proxy may still choose it");
    w.acknowledges(1);
    assert_eq!(w.log(), ["stop web-r1-2.1"]);
}

#[test]
fn nothing_is_stopped_before_the_keeper_has_the_table() {
    let mut w = leaving_with(NOTHING, |w| w.keeper_lags = true);
    assert_eq!(w.log(), ["wish web", "table: web-r1-1.1"], "a new proxy would start with the old table");
    w.keeper_has_it();
    assert_eq!(w.log(), ["stop web-r1-2.1"]);
}

#[test]
fn a_proxy_that_has_said_nothing_yet_counts_as_one_that_may_choose_it() {
    let mut w = leaving_with(NOTHING, |w| {
        w.deaf = [Generation(2)].into();
        w.proxy_up(2);
    });
    assert_eq!(w.log(), ["wish web", "table: web-r1-1.1"]);
    w.acknowledges(2);
    assert_eq!(w.log(), ["stop web-r1-2.1"]);
}

#[test]
fn a_drain_waits_for_requests_in_flight() {
    let mut w = leaving_with(REQUEST, |_| {});
    w.pass(DRAIN.requests - secs(1));
    assert!(w.runs("web-r1-2.1"));
    w.load("web-r1-2.1", NOTHING);
    assert!(!w.runs("web-r1-2.1"));
}

#[test]
fn a_drain_has_an_end() {
    let mut w = leaving_with(REQUEST, |_| {});
    w.pass(DRAIN.requests);
    assert!(!w.runs("web-r1-2.1"));
}

#[test]
fn tunnels_of_one_that_leaves_are_asked_to_close() {
    let mut w = leaving_with(TUNNEL, |_| {});
    let close = CloseTunnels { replica: id("web-r1-2.1"), within: DRAIN.stagger };
    assert_eq!(w.table.as_ref().unwrap().close_tunnels, [close]);
    assert_eq!(w.log(), ["wish web", "table: web-r1-1.1 closing web-r1-2.1"]);
    w.load("web-r1-2.1", NOTHING);
    assert_eq!(w.log(), ["table: web-r1-1.1", "stop web-r1-2.1"]);
}

#[test]
fn a_tunnel_that_never_closes_is_cut_after_its_stagger_and_a_margin() {
    let mut w = leaving_with(TUNNEL, |_| {});
    w.pass(DRAIN.stagger + secs(7));
    assert!(w.runs("web-r1-2.1"));
    w.pass(secs(1));
    assert!(!w.runs("web-r1-2.1"));
}

#[test]
fn a_warm_release_is_kept_for_its_tunnels_and_no_longer() {
    let mut w = World::baking(&[v(1, [app("web")]), v(2, [app("web")])]);
    w.load("web-r1-1.1", TUNNEL);
    w.pass(WARM * 2);
    assert_eq!(w.log(), ["finish Deployed"], "no tunnel is asked to close yet");
    w.load("web-r1-1.1", NOTHING);
    assert_eq!(w.log(), ["retire r1", "stop web-r1-1.1"]);
}

#[test]
fn tunnels_of_a_warm_release_close_one_after_another_at_the_cap() {
    let mut w = World::baking(&[v(1, [app("web")]), v(2, [app("web")])]);
    w.load("web-r1-1.1", TUNNEL);
    w.pass(DRAIN.websockets - secs(2));
    assert_eq!(w.log(), ["finish Deployed", "retire r1", "table: web-r2-1.1 closing web-r1-1.1"]);
    w.pass(DRAIN.stagger);
    assert!(w.runs("web-r1-1.1"), "they are given their stagger from when they were asked");
    w.pass(secs(8));
    assert!(!w.runs("web-r1-1.1"));
}

#[test]
fn a_further_deploy_closes_the_tunnels_of_the_oldest() {
    let mut w = World::baking(&[v(1, [app("web")]), v(2, [app("web")])]);
    w.load("web-r1-1.1", TUNNEL);
    w.pass(BAKE);
    w.log();
    w.deploy(&v(3, [app("web")]));
    assert_eq!(w.log(), ["begin 3 Deploy r3", "retire r1", "table: web-r2-1.1 closing web-r1-1.1"]);
    w.load("web-r1-1.1", NOTHING);
    assert_eq!(w.log_of(&["stop", "start"]), ["stop web-r1-1.1", "start web-r3-1.1 (New)"]);
}

#[test]
fn one_that_outlives_its_grace_is_killed() {
    let mut w = leaving_with(NOTHING, |w| w.stubborn = vec!["web-r1-2"]);
    w.log();
    w.pass(GRACE - secs(1));
    assert_eq!(w.log().len(), 0);
    w.pass(secs(1));
    assert_eq!(w.log(), ["kill web-r1-2.1 (Grace)"]);
    w.pass(AGES);
    assert_eq!(w.log().len(), 0);
}

/// The daemon is told to end within a time, with this under way.
fn last_call(limit: Duration, load: Load) -> World {
    let mut w = World::up(&v(1, [app("web")]));
    w.stubborn = vec!["web"];
    w.load("web-r1-1.1", load);
    w.desired.down = true;
    w.desired.last_call = Some(LastCall::new(w.now, limit));
    w.pass(Duration::ZERO);
    let log = w.log();
    assert!(matches!(log.as_slice(), [one] if one.starts_with("table:")), "it is un-routed first: {log:?}");
    w
}

#[test]
fn a_daemon_that_must_end_soon_waits_less_for_requests_and_for_replicas() {
    for load in [REQUEST, TUNNEL] {
        let mut w = last_call(secs(8), load);
        w.pass(secs(2) - MS);
        assert_eq!(w.log().len(), 0, "{load:?}");
        w.pass(MS);
        assert_eq!(w.log_of(&["stop", "kill"]), ["stop web-r1-1.1"]);
        w.pass(secs(5) - MS);
        assert_eq!(w.log_of(&["stop", "kill"]).len(), 0);
        w.pass(MS);
        assert_eq!(w.log_of(&["stop", "kill"]), ["kill web-r1-1.1 (Grace)"], "a second before the end");
    }
}

#[test]
fn a_daemon_that_has_the_time_waits_as_always() {
    let mut w = last_call(secs(75), REQUEST);
    w.pass(DRAIN.requests - MS);
    assert_eq!(w.log_of(&["stop", "kill"]).len(), 0);
    w.pass(MS);
    assert_eq!(w.log_of(&["stop", "kill"]), ["stop web-r1-1.1"]);
    w.pass(GRACE);
    assert_eq!(w.log_of(&["stop", "kill"]), ["kill web-r1-1.1 (Grace)"]);
}

#[test]
fn one_that_is_wanted_again_while_it_drains_is_routed_again() {
    let mut w = leaving_with(REQUEST, |_| {});
    w.pass(secs(1));
    w.log();
    w.scale("web", 2);
    assert_eq!(w.log(), ["wish web", "table: web-r1-1.1 web-r1-2.1"]);
    w.pass(AGES);
    assert_eq!(w.log().len(), 0, "it is not stopped later");
}

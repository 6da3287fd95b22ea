//! Proxies that fall silent, die and come.

use bulsa_core::ids::Generation;

use crate::{
    build::{AGES, app, secs, v},
    world::World,
};

/// `web` twice; the proxy is deaf when the second is to go.
fn deaf_at_a_stop() -> World {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.deaf = [Generation(1)].into();
    w.scale("web", 1);
    w.log();
    w
}

#[test]
fn a_silent_proxy_is_killed_after_5_s_and_its_death_is_its_acknowledgement() {
    let mut w = deaf_at_a_stop();
    w.pass(secs(4));
    assert_eq!(w.log().len(), 0);
    w.pass(secs(1));
    assert_eq!(w.log(), ["kill g1", "stop web-r1-2.1"]);
}

#[test]
fn a_proxy_that_owes_nothing_may_be_silent_for_ever() {
    let mut w = World::up(&v(1, [app("web")]));
    w.deaf = [Generation(1)].into();
    w.pass(AGES);
    assert_eq!(w.log().len(), 0);
}

#[test]
fn every_further_table_does_not_give_it_more_time() {
    let mut w = deaf_at_a_stop();
    w.pass(secs(3));
    w.scale("web", 2);
    w.pass(secs(2));
    assert_eq!(w.log_of(&["kill"]), ["kill g1"]);
}

#[test]
fn one_that_moves_on_but_not_far_enough_has_5_s_more() {
    let mut w = deaf_at_a_stop();
    w.pass(secs(3));
    w.scale("web", 3); // a second table that it doesn't take
    let table = w.observed.published() - 1;
    let load = std::collections::BTreeMap::new();
    let generation = Generation(1);
    w.event(bulsa_core::decide::Event::ProxyReport { generation, table, load });
    w.pass(secs(4));
    assert_eq!(w.log_of(&["kill"]).len(), 0);
    w.pass(secs(1));
    assert_eq!(w.log_of(&["kill"]), ["kill g1"]);
}

#[test]
fn only_the_silent_one_is_killed() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.proxy_up(7);
    w.deaf = [Generation(1)].into();
    w.scale("web", 1);
    w.pass(secs(5));
    assert_eq!(w.log_of(&["kill"]), ["kill g1"]);
}

#[test]
fn a_new_one_that_never_says_anything_is_killed_too() {
    let mut w = World::up(&v(1, [app("web")]));
    w.deaf = [Generation(9)].into();
    w.proxy_up(9);
    w.step();
    w.pass(secs(5));
    assert_eq!(w.log(), ["kill g9"]);
}

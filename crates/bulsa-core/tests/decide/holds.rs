//! Requests that wait because a human wants it.

use std::collections::BTreeSet;

use bulsa_core::decide::{Denied, Outcome, Request, Route, admit::Admission};

use crate::{
    build::{AGES, app, secs, shared, v, worker},
    world::{EXIT_1, World, id},
};

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn hold(w: &mut World, services: &[&str], on: bool) -> Result<Admission, Denied> {
    w.ask(Request::Hold { services: names(services), on })
}

/// Shown if it is so already.
fn already(answer: Result<Admission, Denied>) -> String {
    match answer {
        Ok(Admission::AlreadySo(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn route<'w>(w: &'w World, service: &str) -> &'w Route {
    &w.table.as_ref().unwrap().routes[service]
}

fn held(w: &World) -> Vec<&str> {
    let routes = w.table.as_ref().unwrap().routes.iter();
    routes.filter(|(_, route)| route.held).map(|(name, _)| name.as_str()).collect()
}

#[test]
fn a_hold_keeps_the_targets_and_nothing_is_started_or_stopped() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.log();
    hold(&mut w, &["web"], true).unwrap();
    assert_eq!(w.log(), ["hold web", "table: web-r1-1.1 web-r1-2.1"]);
    assert!(route(&w, "web").held);
    hold(&mut w, &["web"], false).unwrap();
    assert_eq!(w.log(), ["let out web", "table: web-r1-1.1 web-r1-2.1"]);
    assert!(!route(&w, "web").held);
}

#[test]
fn without_a_name_it_is_every_service_that_the_proxy_serves() {
    let mut w = World::up(&v(1, [app("web"), app("api"), worker("queue"), shared("cache")]));
    hold(&mut w, &[], true).unwrap();
    assert_eq!(held(&w), ["api", "web"]);
    assert_eq!(w.desired.wishes.len(), 2, "{:?}", w.desired.wishes);
    hold(&mut w, &["api"], false).unwrap();
    assert_eq!(held(&w), ["web"]);
    hold(&mut w, &[], false).unwrap();
    assert_eq!(held(&w), [""; 0]);
}

#[test]
fn what_is_so_already_changes_nothing_and_since_when_stays() {
    let mut w = World::up(&v(1, [app("web"), app("api")]));
    assert_eq!(already(hold(&mut w, &[], false)), "no service's requests are held");
    assert_eq!(already(hold(&mut w, &["web"], false)), "the requests for `web` aren't held");
    hold(&mut w, &["web"], true).unwrap();
    let since = w.desired.wish("web").held;
    assert_eq!(since, Some(w.now));
    w.pass(secs(60));
    assert_eq!(already(hold(&mut w, &["web"], true)), "the requests for `web` are held already");
    hold(&mut w, &[], true).unwrap();
    assert_eq!(w.desired.wish("web").held, since);
    assert_eq!(w.desired.wish("api").held, Some(w.now));
    assert_eq!(already(hold(&mut w, &[], true)), "the requests for `api`, `web` are held already");
}

#[test]
fn what_cannot_be_held_is_denied_and_says_why() {
    let mut w = World::empty();
    assert_eq!(hold(&mut w, &[], true), Err(Denied::NoLiveRelease));
    assert_eq!(hold(&mut w, &[], false), Err(Denied::NoLiveRelease));
    let mut w = World::up(&v(1, [app("web"), worker("queue"), shared("cache")]));
    for on in [true, false] {
        let denied = hold(&mut w, &["web", "wbe"], on).unwrap_err();
        assert_eq!(denied.to_string(), "there is no service `wbe`; did you mean `web`?");
    }
    assert_eq!(held(&w), [""; 0], "all or nothing");
    for name in ["queue", "cache"] {
        assert_eq!(hold(&mut w, &[name], true), Err(Denied::NotRouted(name.to_owned())));
    }
    let mut w = World::up(&v(1, [worker("queue")]));
    assert_eq!(hold(&mut w, &[], true), Err(Denied::NothingRouted));
    w.ask(Request::Down).unwrap();
    assert_eq!(hold(&mut w, &[], true), Err(Denied::GoingDown));
}

#[test]
fn a_stopped_service_that_is_held_answers_at_once_and_goes_on_being_held() {
    let mut w = World::up(&v(1, [app("web")]));
    hold(&mut w, &["web"], true).unwrap();
    w.ask(Request::Stop { service: "web".to_owned() }).unwrap();
    assert_eq!(*route(&w, "web"), Route { targets: vec![], stopped: true, held: true });
    w.ask(Request::Start { service: "web".to_owned() }).unwrap();
    assert_eq!((route(&w, "web").stopped, route(&w, "web").held), (false, true));
    for request in [
        Request::Restart { service: "web".to_owned() },
        Request::Scale { service: "web".to_owned(), replicas: 2 },
    ] {
        w.ask(request).unwrap();
        assert_eq!(held(&w), ["web"]);
    }
}

#[test]
fn a_held_service_passes_its_gate_and_its_bake_and_stays_held() {
    let mut w = World::up(&v(1, [app("web")]));
    hold(&mut w, &["web"], true).unwrap();
    w.deploy(&v(2, [app("web")]));
    assert!(w.is_baking());
    assert_eq!((w.routed().as_str(), held(&w)), ("web-r2-1.1", vec!["web"]));
    w.pass(AGES);
    assert_eq!((w.outcome(), held(&w)), (Some(Outcome::Deployed), vec!["web"]));
    w.rollback(None);
    w.pass(AGES);
    assert_eq!((w.routed().as_str(), held(&w)), ("web-r1-1.2", vec!["web"]));
}

#[test]
fn what_a_later_release_no_longer_has_can_be_let_out_all_the_same() {
    let mut w = World::up(&v(1, [app("web"), app("api")]));
    hold(&mut w, &["api"], true).unwrap();
    w.deploy(&v(2, [app("web")]));
    w.pass(AGES);
    assert_eq!(held(&w), [""; 0]);
    let denied = hold(&mut w, &["api"], true).unwrap_err();
    assert!(matches!(denied, Denied::NoService { .. }), "{denied:?}");
    hold(&mut w, &["api"], false).unwrap();
    assert_eq!(w.desired.wish("api").held, None);
}

#[test]
fn a_hold_is_no_new_chance_for_what_dies() {
    let mut w = World::up(&v(1, [app("web")]));
    w.slow = vec!["web"];
    for _ in 0..8 {
        let last = w.running();
        w.dies(&last, EXIT_1);
        w.pass(secs(120));
        w.starts(&w.running());
    }
    let slot = id("web-r1-1.1").slot();
    let before = w.observed.slot(&slot).unwrap().clone();
    assert!(before.score.is_crash_looping(), "{before:?}");
    hold(&mut w, &["web"], true).unwrap();
    assert_eq!(w.observed.slot(&slot).unwrap().score, before.score);
}

//! What humans ask for: scale, stop, start, restart, down.

use bulsa_core::decide::{Request, Route};

use crate::{
    build::{AGES, app, secs, shared, v},
    world::{EXIT_0, EXIT_1, World},
};

fn up(replicas: u32) -> World {
    let mut w = World::up(&v(1, [app("web").replicas(replicas)]));
    w.pass(secs(1));
    w.log();
    w
}

fn stop(w: &mut World) {
    w.ask(Request::Stop { service: "web".to_owned() }).unwrap();
}

fn restart(w: &mut World) {
    w.ask(Request::Restart { service: "web".to_owned() }).unwrap();
}

#[test]
fn scaling_up_starts_what_is_missing() {
    let mut w = up(1);
    w.scale("web", 3);
    let expected = [
        "wish web",
        "start web-r1-2.1 (New)",
        "start web-r1-3.1 (New)",
        "table: web-r1-1.1 web-r1-2.1 web-r1-3.1",
    ];
    assert_eq!(w.log(), expected);
}

#[test]
fn scaling_down_takes_the_last_ones() {
    let mut w = up(3);
    w.scale("web", 1);
    let expected = ["wish web", "table: web-r1-1.1", "stop web-r1-2.1", "stop web-r1-3.1"];
    assert_eq!(w.log(), expected);
}

#[test]
fn scaling_down_does_not_take_the_only_one_that_serves() {
    let mut w = up(2);
    w.slow = vec!["web-r1-1.2"];
    w.dies("web-r1-1.1", EXIT_1);
    w.scale("web", 1);
    assert_eq!(w.routed(), "web-r1-2.1", "the one that should stay isn't ready");
    w.starts("web-r1-1.2");
    w.gets_ready("web-r1-1.2");
    assert_eq!((w.routed(), w.running()), ("web-r1-1.2".to_owned(), "web-r1-1.2".to_owned()));
}

#[test]
fn a_scale_outlives_a_deploy() {
    let mut w = up(1);
    w.scale("web", 3);
    w.deploy(&v(2, [app("web")]));
    assert_eq!(w.routed(), "web-r2-1.1 web-r2-2.1 web-r2-3.1");
}

#[test]
fn a_stopped_service_answers_at_once_and_stays_stopped() {
    let mut w = up(2);
    stop(&mut w);
    assert_eq!(w.log(), ["wish web", "table:", "stop web-r1-1.1", "stop web-r1-2.1"]);
    let route = &w.table.as_ref().unwrap().routes["web"];
    assert_eq!(*route, Route { stopped: true, ..Route::default() });
    w.pass(AGES);
    assert_eq!(w.log().len(), 0);
    w.ask(Request::Start { service: "web".to_owned() }).unwrap();
    assert_eq!(w.routed(), "web-r1-1.2 web-r1-2.2");
}

#[test]
fn a_deploy_leaves_a_stopped_service_stopped() {
    let mut w = up(1);
    stop(&mut w);
    w.deploy(&v(2, [app("web")]));
    assert!(w.is_baking());
    assert_eq!(w.running(), "");
}

#[test]
fn a_restart_rolls_slot_by_slot_and_each_waits_for_its_replacement() {
    let mut w = up(2);
    w.slow = vec!["web"];
    restart(&mut w);
    assert_eq!(w.log(), ["wish web", "start web-r1-1.2 (Wish)"]);
    w.pass(secs(2));
    w.starts("web-r1-1.2");
    w.gets_ready("web-r1-1.2");
    assert_eq!(w.log(), ["table: web-r1-1.2 web-r1-2.1", "start web-r1-2.2 (Wish)", "stop web-r1-1.1"]);
    w.starts("web-r1-2.2");
    w.gets_ready("web-r1-2.2");
    assert_eq!(w.log(), ["table: web-r1-1.2 web-r1-2.2", "stop web-r1-2.1"]);
    w.pass(secs(30));
    assert_eq!(w.log().len(), 0, "and then it is done");
}

#[test]
fn a_restart_never_takes_the_last_one() {
    let mut w = up(1);
    w.slow = vec!["web"];
    restart(&mut w);
    w.pass(secs(20));
    assert_eq!(w.routed(), "web-r1-1.1", "its replacement isn't ready");
}

#[test]
fn a_restart_waits_while_another_slot_is_in_trouble() {
    let mut w = up(2);
    w.slow = vec!["web"];
    w.dies("web-r1-2.1", EXIT_1);
    w.log();
    restart(&mut w);
    assert_eq!(w.log(), ["wish web"]);
    w.pass(secs(1));
    w.starts("web-r1-2.2");
    w.gets_ready("web-r1-2.2");
    assert_eq!(w.log_of(&["start"]), ["start web-r1-1.2 (Wish)"]);
}

#[test]
fn a_shared_service_is_restarted_without_overlap() {
    let mut w = World::up(&v(1, [shared("cache"), app("web")]));
    w.pass(secs(1));
    w.stubborn = vec!["cache"];
    w.log();
    w.ask(Request::Restart { service: "cache".to_owned() }).unwrap();
    assert_eq!(w.log(), ["wish cache", "stop cache-r0-1.1"]);
    w.dies("cache-r0-1.1", EXIT_0);
    assert_eq!(w.log_of(&["start"]).len(), 1);
}

#[test]
fn a_wish_gives_a_crash_loop_another_chance_at_once() {
    let mut w = up(2);
    w.slow = vec!["web-r1-1"];
    let mut attempt = 1;
    while w.runs(&format!("web-r1-1.{attempt}")) {
        w.dies(&format!("web-r1-1.{attempt}"), EXIT_1);
        attempt += 1;
    }
    let next = format!("web-r1-1.{attempt}");
    assert!(attempt > 3 && !w.runs(&next), "it is being put off");
    restart(&mut w);
    assert!(w.runs(&next));
}

#[test]
fn down_unroutes_drains_and_stops_everything() {
    let mut w = World::up(&v(1, [app("web").replicas(2), shared("cache")]));
    w.ask(Request::Down).unwrap();
    let log = w.log();
    assert_eq!(log[..2], ["down", "table:"]);
    assert_eq!(w.running(), "");
    let table = w.table.as_ref().unwrap();
    assert!(table.release.is_none() && table.routes.is_empty());
    w.pass(AGES);
    assert_eq!(w.log().len(), 0);
}

#[test]
fn down_in_the_middle_of_a_deploy_takes_both_releases() {
    let mut w = up(1);
    w.slow = vec!["web-r2"];
    w.deploy(&v(2, [app("web")]));
    w.ask(Request::Down).unwrap();
    assert_eq!(w.running(), "");
    w.pass(AGES);
    assert_eq!(w.running(), "");
}

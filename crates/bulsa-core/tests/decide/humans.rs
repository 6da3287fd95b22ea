//! What humans do through the Engine: what they took away stays away, what they froze is left alone.

use bulsa_core::{
    decide::{Event, Outcome, Request, Route},
    health::{ProbeResult, Verdict},
    spec::Restart,
};

use crate::{
    build::{AGES, BAKE, GATE, app, job, secs, shared, v, worker},
    world::{EXIT_0, EXIT_1, KILLED, World, id},
};

fn up(replicas: u32) -> World {
    let mut w = World::up(&v(1, [app("web").docker().replicas(replicas)]));
    w.pass(secs(1));
    w.log();
    w
}

fn ask(w: &mut World, request: fn(String) -> Request) {
    w.ask(request("web".to_owned())).unwrap();
}

#[test]
fn a_replica_that_a_human_stopped_is_not_started_again() {
    let mut w = up(2);
    w.taken_away("web-r1-1.1");
    assert_eq!(w.log(), ["withhold web-r1-1", "table: web-r1-2.1"]);
    w.pass(AGES);
    assert_eq!((w.log().len(), w.running()), (0, "web-r1-2.1".to_owned()));
    let history = w.observed.slot(&id("web-r1-1.1").slot()).unwrap();
    assert_eq!((history.deaths, history.early_deaths), (0, 0));
    assert!(history.score.at(w.now) < f64::EPSILON);
}

#[test]
fn nothing_is_started_before_that_is_committed() {
    let mut w = up(1);
    let taken = Event::TakenAway { id: id("web-r1-1.1"), status: KILLED };
    w.observed.apply(taken, w.now);
    let decision = bulsa_core::decide::decide(&w.desired, &w.observed, w.now);
    assert_eq!((decision.commits.len(), decision.actions), (1, vec![]));
}

#[test]
fn it_outlives_the_agent() {
    let mut w = up(1);
    w.taken_away("web-r1-1.1");
    w.another_agent();
    w.pass(AGES);
    assert_eq!(w.running(), "");
}

#[test]
fn without_any_replica_left_requests_are_answered_at_once() {
    let mut w = up(2);
    w.taken_away("web-r1-1.1");
    assert!(!w.table.as_ref().unwrap().routes["web"].stopped);
    w.taken_away("web-r1-2.1");
    assert_eq!(w.table.as_ref().unwrap().routes["web"], Route { stopped: true, ..Route::default() });
}

#[test]
fn start_restart_and_scale_fill_it_again() {
    let requests: [fn(String) -> Request; 3] = [
        |service| Request::Start { service },
        |service| Request::Restart { service },
        |service| Request::Scale { service, replicas: 1 },
    ];
    for request in requests {
        let mut w = up(1);
        w.taken_away("web-r1-1.1");
        ask(&mut w, request);
        assert_eq!((w.running(), w.desired.withheld.len()), ("web-r1-1.2".to_owned(), 0));
    }
}

#[test]
fn a_human_may_start_it_again_under_every_policy() {
    for restart in [Restart::No, Restart::OnFailure(Some(0)), Restart::Always] {
        let mut w = World::up(&v(1, [app("web").docker().restart(restart)]));
        w.taken_away("web-r1-1.1");
        ask(&mut w, |service| Request::Start { service });
        assert_eq!(w.running(), "web-r1-1.2", "{restart:?}");
    }
}

#[test]
fn what_its_human_starts_again_is_taken_on_again() {
    let mut w = up(1);
    w.taken_away("web-r1-1.1");
    w.log();
    w.docker_start("web-r1-1.1");
    assert_eq!(w.log(), ["reinstate web-r1-1", "table:"], "it has to be proven first");
    w.gets_ready("web-r1-1.1");
    assert_eq!(w.routed(), "web-r1-1.1");
    w.dies("web-r1-1.1", EXIT_1);
    assert_eq!(w.running(), "web-r1-1.2", "and its next death is a death");
}

#[test]
fn what_its_human_starts_again_before_the_commit_is_not_withheld() {
    let mut w = up(1);
    let taken = Event::TakenAway { id: id("web-r1-1.1"), status: EXIT_0 };
    w.observed.apply(taken, w.now);
    w.docker_start("web-r1-1.1");
    assert_eq!(w.log_of(&["withhold", "start", "stop"]), Vec::<String>::new());
}

#[test]
fn a_deploy_fills_all_slots_of_its_own() {
    let mut w = up(2);
    w.taken_away("web-r1-1.1");
    w.taken_away("web-r1-2.1");
    w.deploy(&v(2, [app("web").docker().replicas(2)]));
    assert_eq!(w.routed(), "web-r2-1.1 web-r2-2.1");
    w.pass(AGES);
    assert_eq!(w.outcome(), Some(Outcome::Deployed));
    assert!(w.desired.withheld.is_empty(), "{:?}", w.desired.withheld);
}

#[test]
fn a_deploy_wants_the_shared_ones_back() {
    let spec = |version| v(version, [app("web").docker(), shared("cache").docker()]);
    let mut w = World::up(&spec(1));
    w.taken_away("cache-r0-1.1");
    w.pass(AGES);
    assert!(!w.runs("cache-r0-1.2"));
    w.deploy(&spec(2));
    assert!(w.runs("cache-r0-1.2") && w.is_baking());
}

#[test]
fn a_candidate_that_a_human_takes_away_fails_its_gate_and_says_so() {
    let mut w = up(1);
    w.slow = vec!["web-r2"];
    w.deploy(&v(2, [app("web").docker()]));
    w.starts("web-r2-1.1");
    w.taken_away("web-r2-1.1");
    assert_eq!(w.outcome(), Some(Outcome::Failed));
    assert_eq!(w.reason(), "`web` replica 1 was stopped by a person before it had passed its gate");
    assert_eq!((w.running(), w.desired.withheld.len()), ("web-r1-1.1".to_owned(), 0));
}

#[test]
fn a_job_that_a_human_takes_away_fails_the_gate() {
    let mut w = World::empty();
    w.slow = vec!["migrate"];
    w.deploy(&v(1, [job("migrate").docker(), worker("queue")]));
    w.starts("migrate-r1-1.1");
    w.taken_away("migrate-r1-1.1");
    assert!(w.reason().starts_with("`migrate` replica 1 was stopped by a person"), "{}", w.reason());
}

#[test]
fn a_bake_is_not_failed_by_it() {
    let spec = |version| v(version, [app("web").docker().replicas(5)]);
    let mut w = World::baking(&[spec(1), spec(2)]);
    for ordinal in 1..=5 {
        w.taken_away(&format!("web-r2-{ordinal}.1"));
    }
    w.pass(BAKE);
    assert_eq!(w.outcome(), Some(Outcome::Deployed));
}

#[test]
fn one_that_we_stop_anyway_has_just_ended() {
    let mut w = up(2);
    w.stubborn = vec!["web-r1-2"];
    w.scale("web", 1);
    w.taken_away("web-r1-2.1");
    w.scale("web", 2);
    assert!(w.runs("web-r1-2.2") && w.desired.withheld.is_empty());
}

#[test]
fn old_news_takes_nobody_away() {
    let mut w = up(1);
    w.dies("web-r1-1.1", EXIT_1);
    w.event(Event::TakenAway { id: id("web-r1-1.1"), status: EXIT_1 });
    assert_eq!((w.routed(), w.desired.withheld.len()), ("web-r1-1.2".to_owned(), 0));
}

#[test]
fn a_paused_replica_keeps_its_place_and_gets_no_request() {
    let mut w = up(2);
    w.paused("web-r1-1.1", true);
    assert_eq!(w.log(), ["table: web-r1-2.1"]);
    assert!(!w.probes.contains_key(&id("web-r1-1.1")));
    w.pass(AGES);
    assert_eq!(w.log(), Vec::<String>::new(), "neither replaced nor killed");
    w.paused("web-r1-1.1", false);
    assert_eq!(w.routed(), "web-r1-2.1", "it is proven anew");
    assert_eq!(w.probes[&id("web-r1-1.1")], bulsa_core::decide::Eagerness::Gate);
    w.gets_ready("web-r1-1.1");
    assert_eq!(w.routed(), "web-r1-1.1 web-r1-2.1");
}

#[test]
fn one_that_is_not_healthy_after_its_pause_is_replaced_at_its_gates_end() {
    let mut w = up(1);
    w.paused("web-r1-1.1", true);
    w.pass(AGES);
    w.paused("web-r1-1.1", false);
    w.pass(GATE);
    assert_eq!(w.log_of(&["kill", "start"]), Vec::<String>::new());
    w.pass(secs(2));
    assert_eq!(w.log_of(&["kill", "start"]), ["start web-r1-1.2 (Died)", "kill web-r1-1.1 (NotReady)"]);
}

#[test]
fn one_that_was_paused_after_it_failed_its_probes_is_left_alone() {
    let mut w = up(1);
    w.stubborn = vec!["web"];
    let probe = w.probe(&id("web-r1-1.1"));
    for _ in 0..3 {
        let event =
            Event::Probed { id: id("web-r1-1.1"), result: ProbeResult::NoAnswer, probe: probe.clone() };
        w.observed.apply(event, w.now);
    }
    w.paused("web-r1-1.1", true);
    w.pass(AGES);
    assert_eq!(w.log_of(&["kill", "start"]), Vec::<String>::new());
}

#[test]
fn a_paused_replica_leaves_with_its_release_and_with_the_project() {
    let mut w = up(1);
    w.paused("web-r1-1.1", true);
    w.deploy(&v(2, [app("web").docker()]));
    w.pass(AGES);
    assert_eq!(w.running(), "web-r2-1.1");
    w.paused("web-r2-1.1", true);
    w.ask(Request::Down).unwrap();
    assert_eq!(w.running(), "");
}

#[test]
fn a_restart_replaces_a_paused_replica_and_does_not_wait_for_one() {
    let mut w = up(2);
    w.paused("web-r1-1.1", true);
    ask(&mut w, |service| Request::Restart { service });
    w.pass(secs(5));
    assert_eq!(w.running(), "web-r1-1.2 web-r1-2.2");
}

#[test]
fn one_that_is_adopted_as_paused_is_not_served() {
    let mut w = up(1);
    w.paused("web-r1-1.1", true);
    w.observed = bulsa_core::decide::Observed::new(w.observed.published(), 1);
    let origin = bulsa_core::decide::Origin::Adopted { routed: true };
    w.observed.apply(Event::Started { id: id("web-r1-1.1"), at: w.now, origin }, w.now);
    w.paused("web-r1-1.1", true);
    assert_eq!(w.routed(), "");
    w.pass(AGES);
    assert!(w.runs("web-r1-1.1"));
    w.paused("web-r1-1.1", false);
    assert_eq!(w.observed.replica(&id("web-r1-1.1")).unwrap().health.verdict(), Verdict::Unknown);
}

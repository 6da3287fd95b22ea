//! Another agent takes over: it goes on serving, verifies, and stops nothing that a proxy may still choose.

use bulsa_core::{
    decide::{Event, ExitStatus, Load, Origin, Outcome, Request},
    health::{ProbeResult, Verdict},
    ids::Generation,
    spec::{Condition::Completed, Restart},
};

use crate::{
    build::{AGES, GATE, app, job, secs, shared, v, worker},
    world::{EXIT_0, EXIT_1, World, id},
};

fn verdict(w: &World, name: &str) -> Verdict {
    w.observed.replica(&id(name)).unwrap().health.verdict()
}

#[test]
fn adopted_replicas_go_on_being_routed_until_a_probe_fails() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.pass(AGES);
    w.another_agent();
    assert_eq!(w.log(), ["table: web-r1-1.1 web-r1-2.1"]);
    assert_eq!(verdict(&w, "web-r1-1.1"), Verdict::Assumed);
    w.probed("web-r1-1.1", ProbeResult::BadAnswer, 1);
    assert_eq!(w.routed(), "web-r1-2.1");
    w.probed("web-r1-2.1", ProbeResult::Pass, 1);
    assert_eq!(verdict(&w, "web-r1-2.1"), Verdict::Ready);
}

#[test]
fn nothing_adopted_is_stopped_before_the_first_table_of_the_new_agent_is_acknowledged() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    // The agent dies with the wish committed and before it could act on it.
    let wish = bulsa_core::decide::Wish { replicas: Some(1), ..Default::default() };
    w.desired.apply(&bulsa_core::decide::Change::Wish { service: "web".to_owned(), wish });
    w.deaf = [Generation(1)].into();
    w.another_agent();
    assert_eq!(w.log(), ["table: web-r1-1.1"], "a proxy may still choose the second");
    w.acknowledges(1);
    assert_eq!(w.log(), ["stop web-r1-2.1"]);
}

#[test]
fn an_adopted_replica_that_was_not_routed_may_still_be_chosen_by_a_proxy_that_is_behind() {
    let mut w = World::baking(&[v(1, [app("web")]), v(2, [app("web")])]);
    let release = bulsa_core::ids::ReleaseId(1);
    w.desired.apply(&bulsa_core::decide::Change::Retire { release });
    w.deaf = [Generation(1)].into();
    w.another_agent();
    assert_eq!(w.log(), ["table: web-r2-1.1"]);
    w.acknowledges(1);
    assert_eq!(w.log(), ["stop web-r1-1.1"]);
}

#[test]
fn what_was_not_routed_is_given_time_to_prove_itself_however_old_it_is() {
    let spec = |version| v(version, [app("web"), shared("cache"), worker("queue")]);
    let mut w = World::up(&spec(1));
    w.pass(AGES);
    w.deploy(&spec(2));
    w.pass(secs(2));
    let before = w.running();
    assert_eq!(before, "cache-r0-1.1 web-r1-1.1 queue-r2-1.1 web-r2-1.1");
    w.pass(GATE * 2);
    w.log();
    w.another_agent();
    w.pass(GATE - secs(1));
    assert_eq!(w.log_of(&["kill", "stop", "start"]), Vec::<String>::new());
    assert_eq!(w.running(), before);
}

#[test]
fn a_deploy_in_its_gate_goes_on() {
    let mut w = World::up(&v(1, [app("web")]));
    w.slow = vec!["web-r2"];
    w.deploy(&v(2, [app("web")]));
    w.starts("web-r2-1.1");
    w.pass(GATE - secs(1));
    w.another_agent();
    w.pass(secs(2));
    assert_eq!(w.outcome(), None, "the new agent gives it time: {}", w.reason());
    w.gets_ready("web-r2-1.1");
    assert!(w.is_baking());
    assert_eq!(w.routed(), "web-r2-1.1");
}

#[test]
fn a_deploy_in_its_bake_goes_on() {
    let mut w = World::baking(&[v(1, [app("web")]), v(2, [app("web")])]);
    w.another_agent();
    assert_eq!(w.routed(), "web-r2-1.1");
    w.pass(AGES);
    assert_eq!(w.outcome(), Some(Outcome::Deployed));
    assert_eq!(w.running(), "web-r2-1.1");
}

#[test]
fn an_adopted_replica_drains_what_it_has_in_flight() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.load("web-r1-2.1", Load { in_flight: 1, ..Load::default() });
    w.another_agent();
    w.scale("web", 1);
    w.pass(secs(5));
    assert!(w.runs("web-r1-2.1"));
    w.load("web-r1-2.1", Load::default());
    assert!(!w.runs("web-r1-2.1"));
}

#[test]
fn attempts_are_never_used_twice() {
    let mut w = World::up(&v(1, [app("web")]));
    w.dies("web-r1-1.1", EXIT_0);
    w.another_agent();
    w.log();
    w.dies("web-r1-1.2", EXIT_0);
    assert_eq!(w.log_of(&["start"]), ["start web-r1-1.3 (Died)"]);
}

#[test]
fn a_job_that_ended_while_no_agent_lived_is_not_run_again() {
    let mut w = World::empty();
    w.slow = vec!["migrate"];
    w.deploy(&v(1, [job("migrate"), app("web").needs("migrate", Completed)]));
    w.starts("migrate-r1-1.1");
    w.dies_unheard("migrate-r1-1.1");
    // The keeper's exit record is there before the new agent decides anything.
    w.observed = bulsa_core::decide::Observed::new(w.observed.published(), 1);
    w.observed.apply(Event::ProxyUp(Generation(1)), w.now);
    w.report(Generation(1));
    w.log();
    w.event(Event::Exited { id: id("migrate-r1-1.1"), status: EXIT_0 });
    assert_eq!(w.log_of(&["start", "job"])[..2], ["job migrate true", "start web-r1-1.2 (New)"]);
}

#[test]
fn one_that_may_not_restart_and_ended_while_no_agent_lived_stays_ended() {
    let mut w = World::up(&v(1, [app("web").restart(Restart::No)]));
    w.dies_unheard("web-r1-1.1");
    w.observed = bulsa_core::decide::Observed::new(w.observed.published(), 1);
    w.event(Event::Exited { id: id("web-r1-1.1"), status: EXIT_0 });
    w.pass(AGES);
    assert_eq!(w.running(), "");
}

#[test]
fn a_living_replica_is_adopted_although_a_later_one_of_its_slot_is_known_to_have_died() {
    let mut w = World::up(&v(1, [app("web")]));
    let mut fresh = bulsa_core::decide::Observed::new(w.observed.published(), 5);
    fresh.recall_death(&w.desired, &id("web-r1-1.2"), EXIT_1, None, w.now);
    let origin = Origin::Adopted { routed: true };
    fresh.apply(Event::Started { id: id("web-r1-1.1"), at: w.now, origin }, w.now);
    assert!(fresh.replica(&id("web-r1-1.1")).is_some());
    w.observed = fresh;
}

#[test]
fn recorded_deaths_keep_a_crash_loop_slow_after_a_crash_of_the_agent() {
    let mut w = World::up(&v(1, [app("web")]));
    w.dies_unheard("web-r1-1.1");
    w.observed = bulsa_core::decide::Observed::new(w.observed.published(), 8);
    for attempt in 1..=8 {
        let id = id(&format!("web-r1-1.{attempt}"));
        w.observed.recall_death(&w.desired, &id, EXIT_1, None, w.now);
    }
    w.step();
    assert_eq!(w.running(), "", "it waits as long as it would have with the agent before");
    w.pass(secs(61));
    assert_eq!(w.running(), "web-r1-1.9");
}

#[test]
fn a_human_kill_of_the_agent_changes_no_wish() {
    let mut w = World::up(&v(1, [app("web")]));
    w.ask(Request::Stop { service: "web".to_owned() }).unwrap();
    w.another_agent();
    w.pass(AGES);
    assert_eq!(w.running(), "");
    let status = ExitStatus::Unknown;
    w.event(Event::Exited { id: id("web-r1-1.1"), status });
    assert_eq!(w.running(), "");
}

/// The agent dies, then this; a new agent has the ledger's line of it.
fn died_before(w: &mut World, name: &str, status: ExitStatus) {
    w.dies_unheard(name);
    let at = w.now;
    w.pass(secs(1));
    w.observed = bulsa_core::decide::Observed::new(w.observed.published(), 1);
    w.observed.recall_death(&w.desired, &id(name), status, Some(secs(5)), at);
    w.log();
    w.step();
}

#[test]
fn one_that_may_not_restart_and_died_before_the_agent_did_stays_ended() {
    for (restart, status, stays) in [
        (Restart::No, EXIT_1, true),
        (Restart::OnFailure(None), EXIT_0, true),
        (Restart::OnFailure(None), EXIT_1, false),
        (Restart::Always, EXIT_0, false),
    ] {
        let mut w = World::up(&v(1, [app("web").restart(restart)]));
        died_before(&mut w, "web-r1-1.1", status);
        w.pass(AGES);
        assert_eq!(w.running().is_empty(), stays, "{restart:?} {status:?}");
    }
}

#[test]
fn a_recalled_death_that_a_human_has_forgiven_since_keeps_nobody_down() {
    let mut w = World::up(&v(1, [app("web").restart(Restart::No)]));
    let at = w.now;
    w.pass(secs(1));
    let wish = bulsa_core::decide::Wish { restart: Some(w.now), ..Default::default() };
    w.desired.apply(&bulsa_core::decide::Change::Wish { service: "web".to_owned(), wish });
    w.dies_unheard("web-r1-1.1");
    w.observed = bulsa_core::decide::Observed::new(w.observed.published(), 1);
    w.observed.recall_death(&w.desired, &id("web-r1-1.1"), EXIT_1, None, at);
    w.step();
    assert_eq!(w.running(), "web-r1-1.2");
}

//! A deploy from its gate to its end.

use bulsa_core::decide::{Outcome, ReleaseState, Route};

use crate::{
    build::{AGES, GATE, Svc, WARM, app, job, keeping, ms, secs, shared, v, worker},
    world::{EXIT_1, World},
};

fn web(version: u32, replicas: u32) -> std::sync::Arc<bulsa_core::spec::Spec> {
    v(version, [app("web").replicas(replicas)])
}

#[test]
fn a_first_release_is_live_from_the_start_and_deployed_when_all_is_ready() {
    let mut w = World::empty();
    w.deploy(&web(1, 2));
    let expected = [
        "begin 1 First r1",
        "table:",
        "start web-r1-1.1 (New)",
        "start web-r1-2.1 (New)",
        "finish Deployed",
        "table: web-r1-1.1 web-r1-2.1",
    ];
    assert_eq!(w.log(), expected);
}

#[test]
fn requests_are_held_while_no_replica_is_ready_yet() {
    let mut w = World::empty();
    w.slow = vec!["web"];
    w.deploy(&web(1, 1));
    let table = w.table.as_ref().unwrap();
    assert_eq!(table.routes["web"], Route::default());
}

#[test]
fn the_gate_passes_only_when_every_replica_is_ready() {
    let mut w = World::up(&web(1, 1));
    w.slow = vec!["web-r2"];
    w.deploy(&web(2, 2));
    assert_eq!(w.running(), "web-r1-1.1 web-r2-1.1 web-r2-2.1");
    w.starts("web-r2-1.1");
    w.starts("web-r2-2.1");
    w.gets_ready("web-r2-1.1");
    w.pass(secs(5));
    assert_eq!(w.routed(), "web-r1-1.1");
    w.log();
    w.gets_ready("web-r2-2.1");
    assert_eq!(w.log(), ["switch", "table: web-r2-1.1 web-r2-2.1"]);
}

#[test]
fn every_app_switches_in_one_table() {
    let both = |version| v(version, [app("api"), app("web")]);
    let mut w = World::up(&both(1));
    w.slow = vec!["web-r2"];
    w.deploy(&both(2));
    w.starts("web-r2-1.1");
    assert_eq!(w.routed(), "api-r1-1.1 web-r1-1.1", "a ready `api` waits for `web`");
    w.gets_ready("web-r2-1.1");
    assert_eq!(w.log_of(&["table"]), ["table: api-r2-1.1 web-r2-1.1"]);
}

#[test]
fn the_previous_release_runs_on_until_its_warm_time_is_over() {
    let mut w = World::baking(&[web(1, 1), web(2, 1)]);
    assert!(matches!(w.state(1), ReleaseState::Warm { .. }));
    w.pass(WARM - secs(3));
    assert_eq!(w.log(), ["finish Deployed"]);
    assert_eq!(w.running(), "web-r1-1.1 web-r2-1.1");
    w.pass(secs(3));
    assert_eq!(w.log(), ["retire r1", "stop web-r1-1.1"]);
    assert_eq!(w.state(1), ReleaseState::Retired);
}

#[test]
fn a_candidate_that_is_never_ready_is_undone_at_its_gate_and_users_see_nothing() {
    let mut w = World::up(&web(1, 1));
    w.slow = vec!["web-r2"];
    w.deploy(&web(2, 1));
    w.starts("web-r2-1.1");
    w.pass(GATE - secs(1));
    assert!(w.outcome().is_none());
    w.pass(secs(2));
    assert_eq!(w.outcome(), Some(Outcome::Failed));
    assert_eq!(w.reason(), "`web` did not become healthy within 60s: 0 of 1 replicas are ready");
    assert_eq!(w.log_of(&["table", "stop"]), ["stop web-r2-1.1"], "no table was needed");
    assert_eq!((w.running(), w.routed()), ("web-r1-1.1".to_owned(), "web-r1-1.1".to_owned()));
    assert_eq!((w.state(1), w.state(2)), (ReleaseState::Live, ReleaseState::Failed));
}

#[test]
fn three_early_deaths_fail_the_gate_before_its_time() {
    let mut w = World::up(&web(1, 1));
    w.slow = vec!["web-r2"];
    w.deploy(&web(2, 1));
    for attempt in 1..=3 {
        assert_eq!(w.outcome(), None);
        let name = format!("web-r2-1.{attempt}");
        w.starts(&name);
        w.dies(&name, EXIT_1);
        w.pass(secs(2));
    }
    assert_eq!(w.outcome(), Some(Outcome::Failed));
    assert_eq!(
        w.reason(),
        "`web` replica 1 died 3 times before it was ready; the last time it exited with code 1"
    );
}

#[test]
fn two_early_deaths_fail_nothing() {
    let mut w = World::up(&web(1, 1));
    w.slow = vec!["web-r2-1.1", "web-r2-1.2"];
    w.deploy(&web(2, 1));
    w.dies("web-r2-1.1", EXIT_1);
    w.dies("web-r2-1.2", EXIT_1);
    assert!(w.is_baking(), "the third was ready");
}

#[test]
fn a_program_that_is_not_there_fails_the_gate_at_once() {
    let mut w = World::up(&web(1, 1));
    w.slow = vec!["web-r2"];
    w.deploy(&web(2, 1));
    w.log();
    w.start_fails("web-r2-1.1", true);
    assert_eq!(w.log(), ["undo: `web` replica 1 could not be started: no such program"]);
}

#[test]
fn a_failing_job_fails_the_deploy() {
    let spec = |version| v(version, [app("web"), job("migrate")]);
    let mut w = World::up(&spec(1));
    w.slow = vec!["migrate-r2"];
    w.deploy(&spec(2));
    w.starts("migrate-r2-1.1");
    w.log();
    w.dies("migrate-r2-1.1", EXIT_1);
    w.pass(ms(1));
    assert_eq!(
        w.log(),
        ["job migrate false", "undo: the job `migrate` failed: it exited with code 1", "stop web-r2-1.1"]
    );
}

#[test]
fn a_first_release_that_fails_stays_and_heals_on() {
    let mut w = World::empty();
    w.slow = vec!["web"];
    w.deploy(&web(1, 1));
    w.starts("web-r1-1.1");
    w.pass(GATE + secs(1));
    assert_eq!(w.outcome(), Some(Outcome::Failed));
    assert_eq!(w.state(1), ReleaseState::Live);
    w.slow.clear();
    w.pass(AGES);
    assert_eq!(w.routed(), "web-r1-1.3", "a later try was good: {:#?}", w.log());
}

#[test]
fn a_third_release_starts_only_when_the_oldest_is_gone() {
    let mut w = World::baking(&[web(1, 1), web(2, 1)]);
    w.stubborn = vec!["web-r1"];
    w.deploy(&web(3, 1));
    assert_eq!(w.log(), ["finish Deployed", "begin 3 Deploy r3", "retire r1", "stop web-r1-1.1"]);
    w.dies("web-r1-1.1", EXIT_1);
    assert_eq!(w.log(), ["start web-r3-1.1 (New)", "switch", "table: web-r3-1.1"]);
}

#[test]
fn more_releases_are_kept_where_the_file_says_so() {
    let spec = |version| keeping(3, version, [app("web")]);
    let w = World::baking(&[spec(1), spec(2), spec(3)]);
    assert_eq!(w.running(), "web-r1-1.1 web-r2-1.1 web-r3-1.1");
    let w = World::baking(&[spec(1), spec(2), spec(3), spec(4)]);
    assert_eq!(w.running(), "web-r2-1.1 web-r3-1.1 web-r4-1.1");
}

#[test]
fn a_release_that_keeps_fewer_makes_its_own_room() {
    let spec = |keep, version| keeping(keep, version, [app("web")]);
    let mut w = World::baking(&[spec(3, 1), spec(3, 2), spec(3, 3)]);
    w.deploy(&spec(2, 4));
    w.pass(secs(2));
    assert!(w.is_baking(), "{:#?}", w.log());
    assert_eq!(w.running(), "web-r3-1.1 web-r4-1.1");
}

#[test]
fn waiting_for_the_oldest_to_leave_is_not_held_against_the_candidate() {
    // The gate is shorter than the time over which the oldest's tunnels are closed.
    let quick = |version| v(version, [app("web").with(|s| s.gate_timeout = secs(5))]);
    let mut w = World::baking(&[quick(1), quick(2)]);
    w.load("web-r1-1.1", bulsa_core::decide::Load { tunnels: 1, ..Default::default() });
    w.deploy(&quick(3));
    w.pass(AGES);
    assert_eq!(w.outcome(), Some(Outcome::Deployed), "{}", w.reason());
}

#[test]
fn a_replica_that_blinks_after_it_was_ready_does_not_miss_its_gate() {
    let slow_search =
        |version| v(version, [app("web"), app("search").with(|service| service.gate_timeout = GATE * 3)]);
    let mut w = World::up(&slow_search(1));
    w.slow = vec!["search-r2"];
    w.deploy(&slow_search(2));
    w.starts("search-r2-1.1");
    w.pass(GATE * 2);
    w.probed("web-r2-1.1", bulsa_core::health::ProbeResult::BadAnswer, 1);
    assert_eq!(w.outcome(), None, "{}", w.reason());
    w.gets_ready("web-r2-1.1");
    w.gets_ready("search-r2-1.1");
    assert!(w.is_baking());
}

#[test]
fn old_workers_leave_at_the_switch_and_not_before() {
    let spec = |version| v(version, [app("web"), worker("queue")]);
    let mut w = World::up(&spec(1));
    w.deploy(&spec(2));
    assert!(w.runs("queue-r1-1.1"), "the new worker isn't proven yet");
    w.log();
    w.pass(secs(1));
    assert_eq!(w.log(), ["switch", "table: web-r2-1.1", "stop queue-r1-1.1"]);
    assert_eq!(w.running(), "web-r1-1.1 queue-r2-1.1 web-r2-1.1");
}

#[test]
fn a_deploy_leaves_shared_services_alone() {
    let spec = |version| v(version, [app("web"), shared("cache")]);
    let mut w = World::up(&spec(1));
    w.deploy(&spec(2));
    w.pass(AGES);
    assert_eq!(w.log_of(&["start cache", "stop cache", "kill"]), Vec::<String>::new());
    assert_eq!(w.running(), "cache-r0-1.1 web-r2-1.1");
}

#[test]
fn a_shared_service_that_the_new_release_lacks_runs_while_the_old_one_is_warm() {
    let mut w = World::up(&v(1, [app("web"), shared("cache")]));
    w.deploy(&v(2, [app("web")]));
    assert!(w.is_baking());
    assert!(w.runs("cache-r0-1.1"), "the warm release needs it");
    w.pass(AGES);
    assert_eq!(w.running(), "web-r2-1.1");
}

#[test]
fn a_job_runs_once_per_release() {
    let spec = |version| v(version, [app("web"), job("migrate")]);
    let mut w = World::empty();
    w.deploy(&spec(1));
    w.pass(AGES);
    assert_eq!(w.log_of(&["start migrate"]), ["start migrate-r1-1.1 (New)"]);
    w.deploy(&spec(2));
    w.pass(AGES);
    assert_eq!(w.log_of(&["start migrate"]), ["start migrate-r2-1.1 (New)"]);
    w.rollback(Some(1));
    w.pass(AGES);
    assert_eq!(w.log_of(&["start"]), ["start web-r1-1.2 (New)"]);
}

#[test]
fn a_service_that_a_release_drops_or_brings_goes_and_comes_with_it() {
    let services = |name: &str| -> [Svc; 2] { [app("web"), app(name)] };
    let mut w = World::up(&v(1, services("old")));
    w.deploy(&v(2, services("new")));
    assert_eq!(w.routed(), "new-r2-1.1 web-r2-1.1");
    w.pass(AGES);
    assert_eq!(w.running(), "new-r2-1.1 web-r2-1.1");
}

#[test]
fn a_first_release_whose_program_is_missing_is_tried_again_slowly_until_it_is_there() {
    let mut w = World::empty();
    w.slow = vec!["web"];
    w.deploy(&web(1, 1));
    w.start_fails("web-r1-1.1", true);
    assert_eq!(w.outcome(), Some(Outcome::Failed));
    let mut attempts = 1;
    for _ in 0..3600 {
        let next = format!("web-r1-1.{}", attempts + 1);
        if w.runs(&next) {
            attempts += 1;
            w.start_fails(&next, true);
        }
        w.pass(secs(1));
    }
    assert!((60..180).contains(&attempts), "{attempts} attempts in an hour");
    w.slow.clear();
    w.pass(secs(60));
    assert_eq!(w.routed(), format!("web-r1-1.{}", attempts + 1));
}

#[test]
fn of_many_releases_the_oldest_are_forgotten_and_the_newest_stay() {
    let mut w = World::up(&web(1, 1));
    for version in 2..=24 {
        w.deploy(&web(version, 1));
        w.pass(AGES);
    }
    let known: Vec<u32> = w.desired.releases.keys().map(|id| id.0).collect();
    assert_eq!(known, (5..=24).collect::<Vec<_>>());
    assert_eq!(w.running(), "web-r24-1.1");
}

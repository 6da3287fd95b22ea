//! `depends_on`, in its three conditions, required and not.

use bulsa_core::{
    decide::Outcome,
    spec::Condition::{Completed, Healthy, Started},
};

use crate::{
    build::{AGES, GATE, app, job, secs, shared, v, worker},
    world::{EXIT_0, EXIT_1, KILLED, World},
};

#[test]
fn started_waits_for_a_start() {
    let mut w = World::empty();
    w.slow = vec!["api"];
    w.deploy(&v(1, [app("api"), app("web").needs("api", Started)]));
    assert_eq!(w.running(), "api-r1-1.1");
    w.starts("api-r1-1.1");
    assert_eq!(w.running(), "api-r1-1.1 web-r1-1.1");
}

#[test]
fn healthy_waits_for_health() {
    let mut w = World::empty();
    w.slow = vec!["cache"];
    w.deploy(&v(1, [shared("cache"), app("web").needs("cache", Healthy)]));
    w.starts("cache-r0-1.1");
    w.pass(secs(3));
    assert_eq!(w.running(), "cache-r0-1.1");
    w.gets_ready("cache-r0-1.1");
    assert_eq!(w.running(), "cache-r0-1.1 web-r1-1.1");
}

#[test]
fn completed_waits_for_the_end_of_a_job_and_its_success() {
    let spec = v(1, [job("migrate"), app("web").needs("migrate", Completed)]);
    for (status, expected) in [(EXIT_0, "web-r1-1.1"), (EXIT_1, "")] {
        let mut w = World::empty();
        w.slow = vec!["migrate"];
        w.deploy(&spec);
        w.starts("migrate-r1-1.1");
        w.pass(secs(3));
        assert_eq!(w.running(), "migrate-r1-1.1");
        w.dies("migrate-r1-1.1", status);
        assert_eq!(w.running(), expected);
    }
}

#[test]
fn each_release_waits_for_its_own_job() {
    let spec = |version| v(version, [job("migrate"), app("web").needs("migrate", Completed)]);
    let mut w = World::up(&spec(1));
    w.slow = vec!["migrate-r2"];
    w.deploy(&spec(2));
    w.starts("migrate-r2-1.1");
    assert_eq!(w.running(), "web-r1-1.1 migrate-r2-1.1");
    w.dies("migrate-r2-1.1", EXIT_0);
    assert!(w.is_baking());
}

#[test]
fn a_shared_service_may_wait_for_a_job() {
    let mut w = World::empty();
    w.deploy(&v(1, [job("prepare"), shared("cache").needs("prepare", Completed), app("web")]));
    w.pass(secs(2));
    assert_eq!(w.running(), "cache-r0-1.1 web-r1-1.1");
}

#[test]
fn a_chain_of_dependencies_is_started_link_by_link() {
    let mut w = World::empty();
    w.deploy(&v(1, [app("web").needs("api", Healthy), app("api").needs("cache", Healthy), shared("cache")]));
    let starts = ["start cache-r0-1.1 (New)", "start api-r1-1.1 (New)", "start web-r1-1.1 (New)"];
    assert_eq!(w.log_of(&["start"]), starts);
}

#[test]
fn what_died_waits_a_moment_for_what_it_depends_on_and_then_tries_without() {
    let mut w = World::up(&v(1, [shared("cache").docker(), app("web").needs("cache", Healthy)]));
    w.slow = vec!["cache"];
    w.dies("cache-r0-1.1", EXIT_1);
    w.dies("web-r1-1.1", EXIT_1);
    w.pass(secs(9));
    assert_eq!(w.running(), "cache-r0-1.2");
    w.pass(secs(1));
    assert_eq!(w.running(), "cache-r0-1.2 web-r1-1.2");
}

#[test]
fn what_dies_for_want_of_a_dependency_is_tried_seldom_and_at_once_when_that_is_back() {
    let mut w = World::up(&v(1, [shared("cache").docker(), app("web").needs("cache", Healthy)]));
    w.slow = vec!["cache", "web"];
    w.dies("cache-r0-1.1", EXIT_1);
    w.dies("web-r1-1.1", EXIT_1);
    let mut attempt = 1;
    for _ in 0..600 {
        w.pass(secs(1));
        let next = format!("web-r1-1.{}", attempt + 1);
        if w.runs(&next) {
            attempt += 1;
            w.starts(&next);
            w.dies(&next, EXIT_1);
        }
    }
    assert!((4..=7).contains(&attempt), "{attempt} starts in ten minutes");
    let next = format!("web-r1-1.{}", attempt + 1);
    assert!(!w.runs(&next));
    w.starts("cache-r0-1.2");
    w.gets_ready("cache-r0-1.2");
    assert!(w.runs(&next), "{}", w.running());
}

#[test]
fn what_has_run_once_and_is_over_keeps_nobody_waiting_and_is_not_to_blame() {
    let once = worker("prepare").restart(bulsa_core::spec::Restart::No);
    let mut w = World::up(&v(1, [once, app("web").needs("prepare", Started)]));
    w.slow = vec!["web"];
    w.dies("prepare-r1-1.1", EXIT_0);
    w.dies("web-r1-1.1", KILLED);
    assert!(w.runs("web-r1-1.2"), "{}", w.running());
    w.starts("web-r1-1.2");
    w.gets_ready("web-r1-1.2");
    w.hangs("web-r1-1.2");
    assert!(w.excused.is_empty());
}

#[test]
fn what_served_for_long_without_a_dependency_waits_for_nothing() {
    let mut w = World::up(&v(1, [shared("cache").docker(), app("web").needs("cache", Healthy)]));
    w.slow = vec!["cache", "web"];
    w.dies("cache-r0-1.1", EXIT_1);
    w.pass(secs(90));
    w.dies("web-r1-1.1", KILLED);
    assert!(w.runs("web-r1-1.2"));
}

#[test]
fn who_asked_to_be_restarted_with_a_dependency_is_one_after_the_other_once_it_is_back() {
    let spec = v(1, [shared("cache").docker(), app("web").replicas(2).follows("cache", Healthy)]);
    let mut w = World::up(&spec);
    w.slow = vec!["web", "cache-r0-1.2"];
    w.pass(secs(10));
    w.dies("cache-r0-1.1", EXIT_1);
    w.starts("cache-r0-1.2");
    w.pass(secs(1));
    assert_eq!(w.running(), "cache-r0-1.2 web-r1-1.1 web-r1-2.1", "it doesn't serve yet");
    w.log();
    w.gets_ready("cache-r0-1.2");
    assert_eq!(w.log_of(&["start"]), ["start web-r1-1.2 (Follow)"]);
    w.starts("web-r1-1.2");
    w.gets_ready("web-r1-1.2");
    assert_eq!(w.log_of(&["start", "stop"]), ["start web-r1-2.2 (Follow)", "stop web-r1-1.1"]);
    w.starts("web-r1-2.2");
    w.gets_ready("web-r1-2.2");
    w.pass(AGES);
    assert_eq!(w.running(), "cache-r0-1.2 web-r1-1.2 web-r1-2.2");
}

#[test]
fn who_lives_in_a_namespace_that_is_gone_goes_at_once() {
    let spec = v(1, [worker("vpn"), worker("torrent").inside("vpn")]);
    let mut w = World::up(&spec);
    w.slow = vec!["vpn"];
    w.pass(secs(10));
    w.dies("vpn-r1-1.1", KILLED);
    assert_eq!(w.log_of(&["start", "stop"]), ["start vpn-r1-1.2 (Died)"], "nothing to follow yet");
    w.pass(secs(1));
    w.starts("vpn-r1-1.2");
    let followed = ["stop torrent-r1-1.1", "start torrent-r1-1.2 (New)"];
    assert_eq!(w.log_of(&["start", "stop"]), followed);
}

#[test]
fn an_optional_dependency_that_fails_keeps_nothing_waiting() {
    for condition in [Started, Healthy] {
        let mut w = World::empty();
        w.slow = vec!["extra"];
        w.deploy(&v(1, [app("extra"), app("web").likes("extra", condition)]));
        w.start_fails("extra-r1-1.1", true);
        assert!(w.runs("web-r1-1.1"), "{condition:?}");
    }
}

#[test]
fn a_dependency_that_never_gets_healthy_fails_the_deploy_and_not_the_service() {
    let spec = |version| v(version, [app("api"), app("web").needs("api", Healthy)]);
    let mut w = World::up(&spec(1));
    w.slow = vec!["api-r2"];
    w.deploy(&spec(2));
    w.starts("api-r2-1.1");
    w.pass(GATE);
    assert_eq!(w.outcome(), Some(Outcome::Failed));
    assert!(w.reason().starts_with("`api` did not become healthy"), "{}", w.reason());
    w.pass(AGES);
    assert_eq!(w.running(), "api-r1-1.1 web-r1-1.1");
}

#[test]
fn an_optional_dependency_is_waited_for_while_nothing_is_wrong_with_it() {
    let mut w = World::empty();
    w.slow = vec!["extra"];
    w.deploy(&v(1, [app("extra"), app("web").likes("extra", Healthy)]));
    w.starts("extra-r1-1.1");
    w.pass(secs(5));
    assert!(!w.runs("web-r1-1.1"));
    w.gets_ready("extra-r1-1.1");
    assert!(w.runs("web-r1-1.1"));
}

#[test]
fn an_optional_dependency_that_is_not_there_or_stopped_is_not_waited_for() {
    let mut w = World::empty();
    w.deploy(&v(1, [app("web").likes("nothing", Started)]));
    assert!(w.runs("web-r1-1.1"));

    let spec = |version| v(version, [app("extra"), app("web").likes("extra", Healthy)]);
    let mut w = World::up(&spec(1));
    w.ask(bulsa_core::decide::Request::Stop { service: "extra".to_owned() }).unwrap();
    w.deploy(&spec(2));
    assert!(w.is_baking());
}

#[test]
fn a_job_may_take_longer_than_all_gates_and_what_waits_for_it_has_its_own() {
    let spec = |version| v(version, [job("migrate"), app("web").needs("migrate", Completed)]);
    let mut w = World::up(&spec(1));
    w.slow = vec!["migrate-r2", "web-r2"];
    w.deploy(&spec(2));
    w.pass(AGES);
    assert_eq!(w.outcome(), None, "{}", w.reason());
    w.dies("migrate-r2-1.1", EXIT_0);
    w.starts("web-r2-1.1");
    w.pass(GATE - secs(1));
    assert_eq!(w.outcome(), None, "{}", w.reason());
    w.gets_ready("web-r2-1.1");
    assert!(w.is_baking(), "{}", w.reason());
}

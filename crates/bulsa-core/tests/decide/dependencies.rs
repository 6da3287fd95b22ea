//! `depends_on`, in its three conditions, required and not.

use bulsa_core::{
    decide::Outcome,
    spec::Condition::{Completed, Healthy, Started},
};

use crate::{
    build::{AGES, GATE, app, job, secs, shared, v},
    world::{EXIT_0, EXIT_1, World},
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
fn what_died_is_started_again_without_waiting_for_anything() {
    let mut w = World::up(&v(1, [shared("cache"), app("web").needs("cache", Healthy)]));
    w.slow = vec!["cache"];
    w.dies("cache-r0-1.1", EXIT_1);
    w.dies("web-r1-1.1", EXIT_1);
    assert_eq!(w.running(), "cache-r0-1.2 web-r1-1.2");
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

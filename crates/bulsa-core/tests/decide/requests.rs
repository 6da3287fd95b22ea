//! Who is let in, who isn't, and what they are told.

use bulsa_core::{
    decide::{
        Denied, Outcome, Request,
        admit::{Admission, REPLICAS_MAX},
    },
    ids::ReleaseId,
    spec::{AppPort, Condition, Restart},
};

use crate::{
    build::{AGES, app, job, secs, shared, v},
    world::{BEGINNING, EXIT_0, EXIT_1, World},
};

fn is_already_so(answer: Result<Admission, Denied>) -> bool {
    matches!(answer, Ok(Admission::AlreadySo(_)))
}

fn service(name: &str) -> String {
    name.to_owned()
}

#[test]
fn a_second_deploy_in_a_gate_is_denied_and_says_which_one_runs() {
    let mut w = World::up(&v(1, [app("web")]));
    w.slow = vec!["web-r2"];
    w.deploy(&v(2, [app("web")]));
    let since = w.now;
    w.pass(secs(7));
    let denied = w.try_deploy(&v(3, [app("web")])).unwrap_err();
    assert_eq!(denied, Denied::DeploymentRuns { id: 2, kind: "deploy", since });
    assert_eq!(denied.to_string(), "deployment 2 (deploy) is running");
    assert_eq!(w.ask(Request::Rollback { to: None }).unwrap_err(), denied);
}

#[test]
fn the_first_release_and_a_rollback_are_named_as_such() {
    let mut w = World::empty();
    w.slow = vec!["web"];
    w.deploy(&v(1, [app("web")]));
    let denied = w.try_deploy(&v(2, [app("web")])).unwrap_err();
    assert_eq!(denied, Denied::DeploymentRuns { id: 1, kind: "first release", since: BEGINNING });

    let mut w = World::baking(&[v(1, [app("web")]), v(2, [app("web")])]);
    w.pass(AGES);
    w.slow = vec!["web"];
    w.rollback(None);
    let denied = w.try_deploy(&v(3, [app("web")])).unwrap_err();
    assert_eq!(denied, Denied::DeploymentRuns { id: 3, kind: "rollback", since: w.now });
}

#[test]
fn the_same_spec_is_live_already() {
    let mut w = World::up(&v(1, [app("web")]));
    assert!(is_already_so(w.try_deploy(&v(1, [app("web")]))));
    assert_eq!(w.log().len(), 0);
}

#[test]
fn an_earlier_spec_deployed_again_is_a_new_release() {
    let mut w = World::baking(&[v(1, [app("web")]), v(2, [app("web")])]);
    w.deploy(&v(1, [app("web")]));
    w.pass(secs(2));
    assert_eq!(w.routed(), "web-r3-1.1");
}

#[test]
fn there_must_be_something_to_go_back_to() {
    let mut w = World::empty();
    assert_eq!(w.ask(Request::Rollback { to: None }), Err(Denied::NoLiveRelease));
    let mut w = World::up(&v(1, [app("web")]));
    assert!(matches!(w.ask(Request::Rollback { to: None }), Err(Denied::NoRollbackTarget(_))));
    let denied = w.ask(Request::Rollback { to: Some(ReleaseId(9)) }).unwrap_err();
    assert_eq!(denied.to_string(), "there is no release r9; known are r1");
    assert!(is_already_so(w.ask(Request::Rollback { to: Some(ReleaseId(1)) })));
}

#[test]
fn an_unknown_service_is_denied_with_the_nearest_name() {
    let mut w = World::up(&v(1, [app("web"), app("api")]));
    let denied = w.ask(Request::Stop { service: service("wbe") }).unwrap_err();
    assert_eq!(denied.to_string(), "there is no service `wbe`; did you mean `web`?");
    let denied = w.ask(Request::Restart { service: service("database") }).unwrap_err();
    assert_eq!(denied.to_string(), "there is no service `database`");
}

#[test]
fn numbers_that_cannot_be_are_denied() {
    let fixed = app("fixed").with(|service| service.app_port = AppPort::Fixed(3000));
    let mut w = World::up(&v(1, [app("web"), fixed, shared("cache"), job("migrate")]));
    for (name, replicas) in
        [("web", 0), ("web", REPLICAS_MAX + 1), ("fixed", 2), ("cache", 2), ("migrate", 2)]
    {
        let answer = w.ask(Request::Scale { service: service(name), replicas });
        assert!(matches!(answer, Err(Denied::Replicas { .. })), "{name} {replicas}: {answer:?}");
    }
    assert!(w.ask(Request::Scale { service: service("web"), replicas: REPLICAS_MAX }).is_ok());
}

#[test]
fn wishes_that_hold_already_change_nothing() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    assert!(is_already_so(w.ask(Request::Scale { service: service("web"), replicas: 2 })));
    assert!(is_already_so(w.ask(Request::Start { service: service("web") })));
    w.ask(Request::Stop { service: service("web") }).unwrap();
    assert!(is_already_so(w.ask(Request::Stop { service: service("web") })));
}

#[test]
fn scaling_or_restarting_a_stopped_service_starts_it() {
    for request in [
        Request::Scale { service: service("web"), replicas: 2 },
        Request::Restart { service: service("web") },
    ] {
        let mut w = World::up(&v(1, [app("web").replicas(2)]));
        w.ask(Request::Stop { service: service("web") }).unwrap();
        w.ask(request).unwrap();
        assert_eq!(w.routed().split(' ').count(), 2);
    }
}

#[test]
fn a_project_that_goes_down_takes_no_more_requests() {
    let mut w = World::up(&v(1, [app("web")]));
    w.ask(Request::Down).unwrap();
    assert!(is_already_so(w.ask(Request::Down)));
    assert_eq!(w.try_deploy(&v(2, [app("web")])), Err(Denied::GoingDown));
    assert_eq!(w.ask(Request::Start { service: service("web") }), Err(Denied::GoingDown));
}

#[test]
fn humans_may_act_during_a_gate() {
    let mut w = World::up(&v(1, [app("web")]));
    w.slow = vec!["web-r2"];
    w.deploy(&v(2, [app("web")]));
    w.scale("web", 2);
    assert_eq!(w.running(), "web-r1-1.1 web-r1-2.1 web-r2-1.1 web-r2-2.1");
}

#[test]
fn a_first_release_that_failed_is_tried_again_with_its_job() {
    let spec = v(1, [job("migrate").restart(Restart::No), app("web").needs("migrate", Condition::Completed)]);
    let mut w = World::empty();
    w.slow = vec!["migrate"];
    w.deploy(&spec);
    w.dies("migrate-r1-1.1", EXIT_1);
    assert_eq!(w.outcome(), Some(Outcome::Failed));
    w.deploy(&spec);
    assert!(w.runs("migrate-r1-1.2"), "{:?}", w.log());
    w.dies("migrate-r1-1.2", EXIT_0);
    w.pass(secs(2));
    assert_eq!(w.outcome(), Some(Outcome::Deployed), "{}", w.reason());
    assert_eq!(w.routed(), "web-r1-1.1");
    assert!(is_already_so(w.try_deploy(&spec)), "what has passed is live already");
}

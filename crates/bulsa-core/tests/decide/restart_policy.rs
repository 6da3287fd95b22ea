//! `restart`: who is started again after which end.

use bulsa_core::{
    decide::{ExitStatus, Outcome, Request},
    spec::Restart::{self, Always, No, OnFailure},
};

use crate::{
    build::{AGES, app, job, secs, v},
    world::{EXIT_0, EXIT_1, KILLED, World},
};

/// `web` under this policy, twice, so that one is always left.
fn up(restart: Restart) -> World {
    World::up(&v(1, [app("web").replicas(2).restart(restart)]))
}

/// Whether the first is started again after each of these ends.
fn comes_back_after(restart: Restart, ends: &[ExitStatus]) -> Vec<bool> {
    let mut w = up(restart);
    let mut attempt = 1;
    let mut back = Vec::new();
    for status in ends {
        w.dies(&format!("web-r1-1.{attempt}"), *status);
        attempt += 1;
        w.pass(secs(120));
        back.push(w.runs(&format!("web-r1-1.{attempt}")));
        if back.last() == Some(&false) {
            break;
        }
    }
    back
}

#[test]
fn always_starts_again_after_exit_0_too() {
    assert_eq!(comes_back_after(Always, &[EXIT_0, EXIT_1, KILLED]), [true, true, true]);
}

#[test]
fn no_is_only_reported() {
    for status in [EXIT_0, EXIT_1, KILLED] {
        assert_eq!(comes_back_after(No, &[status]), [false]);
    }
}

#[test]
fn on_failure_is_for_failures() {
    assert_eq!(comes_back_after(OnFailure(None), &[EXIT_1, KILLED, EXIT_0]), [true, true, false]);
}

#[test]
fn on_failure_may_have_a_number() {
    let mut w = up(OnFailure(Some(2)));
    for attempt in 1..=2 {
        w.dies(&format!("web-r1-1.{attempt}"), EXIT_1);
        assert!(w.runs(&format!("web-r1-1.{}", attempt + 1)));
    }
    w.dies("web-r1-1.3", EXIT_1);
    w.pass(AGES);
    assert_eq!(w.running(), "web-r1-2.1");
}

#[test]
fn the_number_is_of_failures_in_a_row() {
    assert_eq!(comes_back_after(OnFailure(Some(2)), &[EXIT_1; 6]), [true; 6], "each ran for two minutes");
}

#[test]
fn no_holds_for_a_hung_replica_too() {
    let mut w = up(No);
    w.hangs("web-r1-1.1");
    w.pass(AGES);
    assert_eq!(w.log_of(&["start", "kill"]), ["kill web-r1-1.1 (Hung)"]);
}

#[test]
fn a_service_that_we_stopped_may_be_started_again_under_every_policy() {
    for restart in [No, OnFailure(None), OnFailure(Some(1)), Always] {
        let mut w = up(restart);
        for _ in 0..3 {
            w.ask(Request::Stop { service: "web".to_owned() }).unwrap();
            assert_eq!(w.running(), "");
            w.ask(Request::Start { service: "web".to_owned() }).unwrap();
            assert_eq!(w.routed().split(' ').count(), 2, "{restart:?}: {:?}", w.routed());
        }
    }
}

#[test]
fn scaling_down_and_up_is_not_a_restart() {
    for restart in [No, OnFailure(Some(1))] {
        let mut w = up(restart);
        w.scale("web", 1);
        w.scale("web", 2);
        assert_eq!(w.routed().split(' ').count(), 2, "{restart:?}");
    }
}

#[test]
fn a_service_that_may_not_restart_fails_its_gate_with_its_first_death() {
    let mut w = World::empty();
    w.slow = vec!["web"];
    w.deploy(&v(1, [app("web").restart(No)]));
    w.starts("web-r1-1.1");
    w.dies("web-r1-1.1", ExitStatus::Signal(11));
    assert_eq!(w.outcome(), Some(Outcome::Failed));
    assert_eq!(
        w.reason(),
        "`web` replica 1 died before it was ready and `restart` is `no`: it was ended by signal 11"
    );
}

#[test]
fn a_job_is_tried_again_as_its_policy_says() {
    let mut w = World::empty();
    w.slow = vec!["migrate"];
    w.deploy(&v(1, [job("migrate").restart(OnFailure(Some(2)))]));
    for attempt in 1..=3 {
        let name = format!("migrate-r1-1.{attempt}");
        assert!(w.runs(&name), "{name}");
        w.starts(&name);
        w.dies(&name, EXIT_1);
        w.pass(secs(3));
    }
    assert_eq!(w.outcome(), Some(Outcome::Failed));
    assert_eq!(w.reason(), "the job `migrate` failed: it exited with code 1");
}

#[test]
fn a_job_that_succeeded_is_never_started_again() {
    // While its success is on its way to the disk, nothing else may come of its exit.
    let mut w = World::empty();
    w.slow = vec!["migrate"];
    w.deploy(&v(1, [job("migrate").restart(Always)]));
    w.starts("migrate-r1-1.1");
    let exited = bulsa_core::decide::Event::Exited { id: crate::world::id("migrate-r1-1.1"), status: EXIT_0 };
    w.observed.apply(exited, w.now);
    let decision = bulsa_core::decide::decide(&w.desired, &w.observed, w.now);
    assert_eq!(decision.commits.len(), 1);
    assert_eq!(decision.actions, []);
}

#[test]
fn a_human_may_restart_what_the_policy_leaves_dead() {
    for restart in [No, OnFailure(Some(0))] {
        let mut w = up(restart);
        w.dies("web-r1-1.1", EXIT_1);
        w.pass(AGES);
        assert_eq!(w.running(), "web-r1-2.1");
        w.ask(Request::Restart { service: "web".to_owned() }).unwrap();
        assert!(w.runs("web-r1-1.2"), "{restart:?}");
    }
}

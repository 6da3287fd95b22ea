//! What dies, hangs or sickens, and what takes its place.

use bulsa_core::{
    decide::{EXCUSE_MAX, Event, Excuse, Load, Route},
    health::ProbeResult,
    spec::Condition::Healthy,
};

use crate::{
    build::{AGES, GATE, app, secs, shared, v, worker},
    world::{EXIT_0, EXIT_1, KILLED, World, id},
};

#[test]
fn a_dead_replica_is_unrouted_and_replaced_at_once() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.slow = vec!["web"];
    w.dies("web-r1-1.1", KILLED);
    assert_eq!(w.log(), ["table: web-r1-2.1", "start web-r1-1.2 (Died)"]);
}

#[test]
fn a_hung_replica_is_killed_and_replaced_at_once() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.slow = vec!["web"];
    w.stubborn = vec!["web"];
    w.hangs("web-r1-1.1");
    let expected = ["table: web-r1-2.1", "start web-r1-1.2 (Died)", "kill web-r1-1.1 (Hung)"];
    assert_eq!(w.log(), expected, "the replacement waits for no kill, the kill for no grace");
}

#[test]
fn one_that_misses_its_heartbeat_hangs_whatever_its_probes_say() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.slow = vec!["web"];
    w.stubborn = vec!["web"];
    w.event(Event::HeartbeatMissed { id: id("web-r1-1.1") });
    let expected = ["table: web-r1-2.1", "start web-r1-1.2 (Died)", "kill web-r1-1.1 (Hung)"];
    assert_eq!(w.log(), expected);
    w.probed("web-r1-1.1", ProbeResult::Pass, 9);
    assert_eq!(w.routed(), "web-r1-2.1", "an answer from another thread doesn't bring it back");
}

#[test]
fn one_that_is_not_proven_yet_has_its_gate_and_no_heartbeat() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.slow = vec!["web-r1-1.2"];
    w.dies("web-r1-1.1", KILLED);
    w.starts("web-r1-1.2");
    w.log();
    w.event(Event::HeartbeatMissed { id: id("web-r1-1.2") });
    assert_eq!(w.log_of(&["start", "stop", "kill"]), Vec::<String>::new());
}

#[test]
fn a_kill_without_effect_is_sent_again() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.stubborn = vec!["web-r1-1.1"];
    w.hangs("web-r1-1.1");
    w.log();
    w.pass(secs(5));
    assert_eq!(w.log(), ["kill web-r1-1.1 (Grace)"]);
}

#[test]
fn a_sick_replica_that_answers_is_replaced_first_and_then_stopped() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.slow = vec!["web-r1-1.2"];
    w.sickens("web-r1-1.1");
    assert_eq!(w.log(), ["table: web-r1-2.1", "start web-r1-1.2 (Replace)"]);
    w.starts("web-r1-1.2");
    w.pass(secs(3));
    assert!(w.runs("web-r1-1.1"), "its replacement isn't proven yet");
    w.gets_ready("web-r1-1.2");
    assert_eq!(w.log(), ["table: web-r1-1.2 web-r1-2.1", "stop web-r1-1.1"]);
}

#[test]
fn a_suspect_replica_is_unrouted_while_there_is_another() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.probed("web-r1-1.1", ProbeResult::BadAnswer, 1);
    assert_eq!(w.routed(), "web-r1-2.1");
    w.probed("web-r1-1.1", ProbeResult::Pass, 2);
    assert_eq!(w.routed(), "web-r1-1.1 web-r1-2.1");
    assert_eq!(w.log_of(&["start", "stop", "kill"]), Vec::<String>::new());
}

/// Whom the table gives up.
fn abandoned(w: &World) -> Vec<String> {
    w.table.as_ref().unwrap().abandon.iter().map(ToString::to_string).collect()
}

#[test]
fn what_waits_on_a_replica_that_answers_nobody_may_go_elsewhere() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.load("web-r1-1.1", Load { in_flight: 3, ..Load::default() });
    w.probed("web-r1-1.1", ProbeResult::NoAnswer, 1);
    assert_eq!((w.routed().as_str(), abandoned(&w)), ("web-r1-2.1", vec!["web-r1-1.1".to_owned()]));
    w.probed("web-r1-1.1", ProbeResult::Pass, 2);
    assert_eq!(abandoned(&w), Vec::<String>::new());
}

#[test]
fn nobody_is_sent_from_one_that_answers_nobody_to_another_one_that_does_not_either() {
    let mut w = World::up(&v(1, [app("web").replicas(3)]));
    let stalled = Load { in_flight: 3, stalled: true, ..Load::default() };
    for id in ["web-r1-1.1", "web-r1-2.1", "web-r1-3.1"] {
        w.load(id, stalled);
    }
    w.probed("web-r1-1.1", ProbeResult::NoAnswer, 1);
    assert_eq!((w.routed().as_str(), abandoned(&w)), ("web-r1-2.1 web-r1-3.1", vec![]));
    w.load("web-r1-3.1", Load { in_flight: 3, ..Load::default() });
    assert_eq!(abandoned(&w), ["web-r1-1.1"], "the third one was only slow");
}

#[test]
fn nobody_is_sent_away_from_a_replica_that_answers_badly_or_is_the_last() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.load("web-r1-1.1", Load { in_flight: 3, ..Load::default() });
    w.probed("web-r1-1.1", ProbeResult::BadAnswer, 1);
    assert_eq!((w.routed().as_str(), abandoned(&w)), ("web-r1-2.1", vec![]));
    let mut w = World::up(&v(1, [app("web")]));
    w.load("web-r1-1.1", Load { in_flight: 3, ..Load::default() });
    w.probed("web-r1-1.1", ProbeResult::NoAnswer, 1);
    assert_eq!((w.routed().as_str(), abandoned(&w)), ("web-r1-1.1", vec![]));
}

#[test]
fn the_last_target_stays_routed_while_it_is_only_suspect() {
    let mut w = World::up(&v(1, [app("web")]));
    w.probed("web-r1-1.1", ProbeResult::BadAnswer, 2);
    assert_eq!(w.routed(), "web-r1-1.1");
    let mut w = World::up(&v(1, [app("web")]));
    w.load("web-r1-1.1", Load { in_flight: 3, ..Load::default() });
    w.probed("web-r1-1.1", ProbeResult::NoAnswer, 1);
    assert_eq!(w.routed(), "web-r1-1.1");
    w.probed("web-r1-1.1", ProbeResult::NoAnswer, 1);
    assert_eq!(w.routed(), "", "what is sent to one that answers nobody is lost");
    assert_eq!(abandoned(&w), Vec::<String>::new(), "and what is there has nowhere else to go");
    w.probed("web-r1-1.1", ProbeResult::Pass, 2);
    assert_eq!(w.routed(), "web-r1-1.1");
}

#[test]
fn suspects_are_all_routed_when_there_is_nothing_better() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.probed("web-r1-1.1", ProbeResult::BadAnswer, 2);
    w.probed("web-r1-2.1", ProbeResult::BadAnswer, 2);
    assert_eq!(w.routed(), "web-r1-1.1 web-r1-2.1");
}

#[test]
fn the_last_target_goes_and_requests_are_held_when_it_failed_or_died() {
    for end in [|w: &mut World| w.sickens("web-r1-1.1"), |w: &mut World| w.dies("web-r1-1.1", EXIT_1)] {
        let mut w = World::up(&v(1, [app("web")]));
        w.slow = vec!["web"];
        end(&mut w);
        assert_eq!(w.table.as_ref().unwrap().routes["web"], Route::default());
    }
}

/// Replicas that are left alone, and why.
fn excused(w: &World) -> Vec<String> {
    let excused = w.excused.iter().map(|(id, excuse)| match excuse {
        Excuse::Dependency(name) => format!("{id}: {name}"),
        Excuse::Trial(slot) => format!("{id}: after {}", slot.ordinal),
    });
    excused.collect()
}

#[test]
fn what_fails_while_its_dependency_does_not_serve_is_left_alone_until_that_is_back() {
    let spec = v(
        1,
        [shared("cache").docker(), app("api").needs("cache", Healthy), app("web").needs("api", Healthy)],
    );
    for fail in [ProbeResult::BadAnswer, ProbeResult::NoAnswer] {
        let mut w = World::up(&spec);
        w.slow = vec!["cache"];
        w.dies("cache-r0-1.1", EXIT_1);
        w.probed("api-r1-1.1", fail, 3);
        w.probed("web-r1-1.1", fail, 3);
        assert_eq!(w.routed(), "");
        assert_eq!(excused(&w), ["api-r1-1.1: cache", "web-r1-1.1: cache"], "the farthest is to blame");
        w.pass(secs(60));
        w.starts("cache-r0-1.2");
        w.gets_ready("cache-r0-1.2");
        w.probed("api-r1-1.1", ProbeResult::Pass, 2);
        w.probed("web-r1-1.1", ProbeResult::Pass, 2);
        assert_eq!(w.routed(), "api-r1-1.1 web-r1-1.1");
        assert_eq!(w.log_of(&["stop", "kill"]), Vec::<String>::new());
        assert_eq!(excused(&w), Vec::<String>::new());
        w.pass(secs(20));
        w.probed("web-r1-1.1", fail, 3);
        assert!(w.runs("web-r1-1.2"), "nothing excuses it now");
    }
}

#[test]
fn no_excuse_holds_for_long() {
    let mut w = World::up(&v(1, [shared("cache").docker(), app("web").needs("cache", Healthy)]));
    w.slow = vec!["cache", "web"];
    w.dies("cache-r0-1.1", EXIT_1);
    w.hangs("web-r1-1.1");
    w.log();
    w.pass(EXCUSE_MAX - secs(1));
    assert_eq!(w.log_of(&["kill"]), Vec::<String>::new());
    w.pass(secs(1));
    assert_eq!(w.log_of(&["kill"]), ["kill web-r1-1.1 (Hung)"]);
}

#[test]
fn a_dependency_is_not_to_blame_for_who_does_without_it() {
    let spec = v(1, [shared("cache").docker(), app("web").needs("cache", Healthy)]);
    // It went on for long.
    let mut w = World::up(&spec);
    w.slow = vec!["cache", "web"];
    w.dies("cache-r0-1.1", EXIT_1);
    w.pass(secs(90));
    w.hangs("web-r1-1.1");
    assert_eq!(w.log_of(&["kill"]), ["kill web-r1-1.1 (Hung)"]);
    // It became ready without.
    w.pass(secs(11));
    w.starts("web-r1-1.2");
    w.gets_ready("web-r1-1.2");
    w.hangs("web-r1-1.2");
    assert_eq!(w.log_of(&["kill"]), ["kill web-r1-1.2 (Hung)"]);
}

#[test]
fn when_all_answer_badly_one_is_replaced_first() {
    let mut w = World::up(&v(1, [app("web").replicas(3)]));
    w.slow = vec!["web"];
    for name in ["web-r1-1.1", "web-r1-2.1"] {
        w.sickens(name);
    }
    let both = ["start web-r1-1.2 (Replace)", "start web-r1-2.2 (Replace)"];
    assert_eq!(w.log_of(&["start"]), both, "while one serves, the others are replaced at once");

    let mut w = World::up(&v(1, [app("web").replicas(3)]));
    w.slow = vec!["web"];
    for ordinal in 1..=3 {
        w.probed(&format!("web-r1-{ordinal}.1"), ProbeResult::BadAnswer, 2);
    }
    for ordinal in [2, 1, 3] {
        w.probed(&format!("web-r1-{ordinal}.1"), ProbeResult::BadAnswer, 1);
    }
    assert_eq!(w.log_of(&["start"]), ["start web-r1-2.2 (Replace)"]);
    assert_eq!(excused(&w), ["web-r1-1.1: after 2", "web-r1-3.1: after 2"]);
    w.starts("web-r1-2.2");
    w.gets_ready("web-r1-2.2");
    let others = ["start web-r1-1.2 (Replace)", "start web-r1-3.2 (Replace)"];
    assert_eq!(w.log_of(&["start"]), others, "a new one does better");
}

#[test]
fn those_that_hang_at_once_are_replaced_at_once() {
    let mut w = World::up(&v(1, [app("web").replicas(4)]));
    w.slow = vec!["web"];
    (1..=4).for_each(|ordinal| w.hangs(&format!("web-r1-{ordinal}.1")));
    assert_eq!(w.log_of(&["kill"]).len(), 4);
    assert_eq!(w.log_of(&["start"]).len(), 0, "told before");
    assert_eq!(w.running().matches(".2").count(), 4, "{}", w.running());
}

#[test]
fn one_that_answers_again_is_routed_again_until_its_replacement_is_ready() {
    let mut w = World::up(&v(1, [app("web")]));
    w.slow = vec!["web-r1-1.2"];
    w.sickens("web-r1-1.1");
    w.starts("web-r1-1.2");
    assert_eq!(w.routed(), "");
    w.probed("web-r1-1.1", ProbeResult::Pass, 2);
    assert_eq!(w.routed(), "web-r1-1.1");
    w.gets_ready("web-r1-1.2");
    w.pass(AGES);
    assert_eq!((w.routed().as_str(), w.running().as_str()), ("web-r1-1.2", "web-r1-1.2"));
}

#[test]
fn a_parked_slot_is_tried_at_once_when_something_changed() {
    let mut w = World::up(&v(1, [app("web")]));
    w.slow = vec!["web"];
    let mut attempt = 1;
    w.dies("web-r1-1.1", EXIT_1);
    for _ in 0..300 {
        let next = format!("web-r1-1.{}", attempt + 1);
        if w.runs(&next) {
            attempt += 1;
            w.starts(&next);
            w.dies(&next, EXIT_1);
        }
        w.pass(secs(1));
    }
    let next = format!("web-r1-1.{}", attempt + 1);
    assert!(!w.runs(&next), "parked");
    w.event(Event::Changed(crate::world::id(&next).slot()));
    assert!(w.runs(&next));
    w.starts(&next);
    w.dies(&next, EXIT_1);
    w.pass(secs(1));
    assert!(!w.runs(&format!("web-r1-1.{}", attempt + 2)), "once");
}

#[test]
fn a_probe_that_cannot_run_restarts_nothing() {
    let mut w = World::up(&v(1, [app("web")]));
    w.probed("web-r1-1.1", ProbeResult::CouldNotRun, 100);
    assert_eq!(w.log().len(), 0);
}

#[test]
fn one_whose_check_cannot_be_run_is_never_restarted_for_it_and_serves_where_its_release_did() {
    let mut w = World::up(&v(1, [app("web")]));
    w.slow = vec!["web"];
    w.dies("web-r1-1.1", KILLED);
    w.starts("web-r1-1.2");
    w.listens("web-r1-1.2");
    w.probed("web-r1-1.2", ProbeResult::CouldNotRun, 3);
    assert_eq!(w.routed(), "");
    w.pass(secs(10));
    assert_eq!(w.routed(), "web-r1-1.2");

    // Nobody knows whether this one ever worked.
    let mut w = World::empty();
    w.slow = vec!["web"];
    w.deploy(&v(1, [app("web")]));
    w.starts("web-r1-1.1");
    w.listens("web-r1-1.1");
    w.probed("web-r1-1.1", ProbeResult::CouldNotRun, 3);
    w.pass(AGES);
    assert_eq!((w.routed().as_str(), w.running().as_str()), ("", "web-r1-1.1"), "no restart, no requests");
}

#[test]
fn a_replacement_that_is_not_ready_in_time_is_killed_and_tried_again() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    w.slow = vec!["web-r1-1.2"];
    w.dies("web-r1-1.1", EXIT_1);
    w.starts("web-r1-1.2");
    w.log();
    // A second longer than its gate: a deployment would show it first.
    w.pass(GATE + secs(1));
    assert_eq!(w.log()[..2], ["start web-r1-1.3 (Died)", "kill web-r1-1.2 (NotReady)"]);
}

#[test]
fn twenty_kills_of_a_good_replica_delay_nothing() {
    let mut w = World::up(&v(1, [app("web").replicas(2)]));
    for attempt in 1..=20 {
        w.pass(secs(3));
        w.dies(&format!("web-r1-1.{attempt}"), KILLED);
        assert!(w.runs(&format!("web-r1-1.{}", attempt + 1)), "at once");
    }
}

#[test]
fn a_crash_loop_is_slowed_down_and_never_given_up() {
    let mut w = World::up(&v(1, [app("web")]));
    w.slow = vec!["web"];
    let mut attempt = 1;
    w.dies("web-r1-1.1", EXIT_1);
    for _ in 0..3600 {
        let next = format!("web-r1-1.{}", attempt + 1);
        if w.runs(&next) {
            attempt += 1;
            w.dies(&next, EXIT_1);
        }
        w.pass(secs(1));
    }
    assert!((60..180).contains(&attempt), "{attempt} starts in an hour");
}

#[test]
fn one_that_sickens_again_and_again_is_slowed_down_like_one_that_dies() {
    let mut w = World::up(&v(1, [app("web")]));
    let mut attempt = 1;
    for _ in 0..3600 {
        let name = format!("web-r1-1.{attempt}");
        if w.runs(&name) && w.observed.replica(&crate::world::id(&name)).unwrap().health.is_ready() {
            w.sickens(&name);
            attempt += 1;
        }
        w.pass(secs(1));
    }
    assert!(attempt < 1200, "{attempt} replacements in an hour; unslowed it would be 3,600");
}

#[test]
fn a_shared_service_makes_room_before_its_replacement() {
    let mut w = World::up(&v(1, [app("web"), shared("cache")]));
    w.stubborn = vec!["cache"];
    w.sickens("cache-r0-1.1");
    assert_eq!(w.log(), ["stop cache-r0-1.1"], "two must never share its volume");
    w.dies("cache-r0-1.1", EXIT_0);
    assert_eq!(w.log(), ["start cache-r0-1.2 (Died)"]);
}

#[test]
fn a_worker_is_ready_when_it_stays_up() {
    let mut w = World::empty();
    w.deploy(&v(1, [worker("queue")]));
    assert_eq!(w.outcome(), None);
    w.pass(secs(1));
    assert!(w.outcome().is_some());
    w.pass(AGES);
    assert_eq!(w.running(), "queue-r1-1.1");
}

#[test]
fn replicas_without_a_verdict_are_probed_eagerly_and_the_others_at_leisure() {
    use bulsa_core::decide::Eagerness::{Gate, Watch};
    let mut w = World::up(&v(1, [app("web").replicas(2), worker("queue")]));
    w.slow = vec!["web"];
    w.dies("web-r1-1.1", EXIT_1);
    w.starts("web-r1-1.2");
    let probes: Vec<_> = w.probes.iter().map(|(id, eager)| (id.to_string(), *eager)).collect();
    assert_eq!(probes, [("web-r1-1.2".to_owned(), Gate), ("web-r1-2.1".to_owned(), Watch)]);
}

use proptest::{collection, prelude::*};

use super::*;
use crate::{
    notify::limit::{BURST, REFILL},
    wire::api::Detail,
};

fn event(id: u64, at_ms: u64) -> Event {
    Event {
        id,
        at_ms,
        project: "shop".to_owned(),
        kind: "incident.opened".to_owned(),
        service: Some("web".to_owned()),
        replica: None,
        text: format!("death {id}"),
        detail: Some(Detail::Incident { incident: Some(id), cause: "killed".to_owned() }),
    }
}

fn plain(id: u64) -> Event {
    Event { detail: None, ..event(id, 0) }
}

fn outbox() -> Outbox {
    Outbox::new(Topic::all(), 0, Timestamp(0))
}

const GROUP_MS: u64 = GROUP_WITHIN.as_millis() as u64;

#[test]
fn twenty_deaths_are_one_message_that_counts_them_and_names_the_first() {
    let mut outbox = outbox();
    assert_eq!(outbox.next(Timestamp(0)), Next::Idle);
    for id in 1..=20 {
        assert!(outbox.see(&event(id, id * 100), Timestamp(id * 100)));
    }
    assert!(!outbox.see(&event(20, 0), Timestamp(0)), "seen already");
    assert!(!outbox.see(&plain(21), Timestamp(2100)), "worth no message");
    assert_eq!(outbox.next(Timestamp(2200)), Next::Wait(Timestamp(100 + GROUP_MS)));
    let Next::Send(batch) = outbox.next(Timestamp(100 + GROUP_MS)) else { panic!("it is time") };
    assert_eq!((batch.first_id, batch.last_id, batch.total(), batch.unnamed()), (1, 20, 20, 15));
    let deaths = &batch.topics[&Topic::Incident];
    assert_eq!(deaths.counts[&("web".to_owned(), "killed".to_owned())], 20);
    assert_eq!((outbox.cursor(), outbox.waiting()), (0, 20), "not told yet");
    assert_eq!(outbox.next(Timestamp(9_000)), Next::Idle, "it is on its way");
    outbox.delivered();
    assert_eq!((outbox.cursor(), outbox.seen(), outbox.waiting()), (21, 21, 0));
}

#[test]
fn what_nobody_wants_to_hear_of_is_passed_over() {
    let mut outbox = Outbox::new([Topic::Park].into(), 0, Timestamp(0));
    assert!(!outbox.see(&event(1, 0), Timestamp(0)));
    assert_eq!((outbox.next(Timestamp(99_000)), outbox.cursor()), (Next::Idle, 1));
    outbox.set_topics(Topic::all());
    assert!(outbox.see(&event(2, 0), Timestamp(0)));
}

#[test]
fn a_message_that_was_tried_stays_as_it_is_and_the_next_one_gathers() {
    let mut outbox = outbox();
    outbox.see(&event(1, 0), Timestamp(0));
    let Next::Send(first) = outbox.next(Timestamp(GROUP_MS)) else { panic!("it is time") };
    outbox.see(&event(2, 6_000), Timestamp(6_000));
    assert_eq!(outbox.failed(Failure::Passing, Timestamp(7_000), u32::MAX), None);
    assert_eq!(outbox.next(Timestamp(7_000)), Next::Wait(Timestamp(9_000)));
    assert_eq!(outbox.next(Timestamp(9_000)), Next::Send(first));
    outbox.delivered();
    assert_eq!(outbox.cursor(), 1);
    let Next::Send(second) = outbox.next(Timestamp(11_000)) else { panic!("it is time") };
    assert_eq!((second.first_id, second.total()), (2, 1));
}

#[test]
fn what_is_over_the_limit_is_summed_up_in_the_next_message() {
    let mut outbox = outbox();
    let (mut now, mut told, mut messages) = (Timestamp(0), 0, 0);
    for id in 1..=600 {
        outbox.see(&event(id, now.0), now);
        if let Next::Send(batch) = outbox.next(now) {
            told += batch.total();
            messages += 1;
            outbox.delivered();
        }
        now = now + Duration::from_secs(1);
    }
    now = now + REFILL + GROUP_WITHIN;
    if let Next::Send(batch) = outbox.next(now) {
        told += batch.total();
        messages += 1;
        outbox.delivered();
    }
    assert_eq!(told, 600, "nothing is dropped");
    assert!(messages <= u64::from(BURST) + 625 / REFILL.as_secs() + 1, "{messages}");
}

#[test]
fn a_receiver_that_asks_for_patience_gets_it() {
    let mut outbox = outbox();
    outbox.see(&event(1, 0), Timestamp(0));
    assert!(matches!(outbox.next(Timestamp(GROUP_MS)), Next::Send(_)));
    outbox.failed(Failure::Busy(Some(Duration::from_secs(90))), Timestamp(10_000), 0);
    assert_eq!(outbox.next(Timestamp(10_000)), Next::Wait(Timestamp(100_000)));
    assert!(matches!(outbox.next(Timestamp(100_000)), Next::Send(_)));
    outbox.failed(Failure::Busy(Some(Duration::from_secs(1 << 40))), Timestamp(100_000), 0);
    let longest = Timestamp(100_000) + RETRY_AFTER_MAX;
    assert_eq!(outbox.next(Timestamp(100_000)), Next::Wait(longest), "but not for ever");
}

#[test]
fn it_is_given_up_after_so_many_tries_or_when_it_is_old() {
    let mut outbox = outbox();
    outbox.see(&event(1, 0), Timestamp(0));
    let (mut now, mut tries) = (Timestamp(GROUP_MS), 0);
    let given_up = loop {
        match outbox.next(now) {
            Next::Send(_) => {
                tries += 1;
                if let Some(given_up) = outbox.failed(Failure::Passing, now, u32::MAX / 2) {
                    break given_up;
                }
            }
            Next::Wait(at) => now = at,
            Next::Idle => panic!("it forgot"),
        }
    };
    assert_eq!((given_up, tries), (GivenUp { events: 1, tries: TRIES_MAX }, TRIES_MAX));
    assert!(now.since(Timestamp(0)) < AGE_MAX, "{now}");
    assert_eq!((outbox.next(now), outbox.cursor()), (Next::Idle, 1));

    // What a machine was switched off with is tried once when it is back.
    outbox.see(&event(2, 1_000), now);
    let later = now + AGE_MAX;
    assert!(matches!(outbox.next(later), Next::Send(_)));
    assert_eq!(outbox.failed(Failure::Passing, later, 0), Some(GivenUp { events: 1, tries: 1 }));
}

#[test]
fn what_is_refused_is_soon_given_up() {
    let mut outbox = outbox();
    outbox.see(&event(1, 0), Timestamp(0));
    let mut now = Timestamp(GROUP_MS);
    for last in [false, false, true] {
        assert!(matches!(outbox.next(now), Next::Send(_)));
        assert_eq!(outbox.failed(Failure::Refused, now, 0).is_some(), last);
        now = now + RETRY_CAP;
    }
}

#[test]
fn waits_double_up_to_the_cap_and_are_jittered_down_to_nothing() {
    assert_eq!(backoff(1, u32::MAX), RETRY_BASE);
    assert_eq!(backoff(3, u32::MAX), RETRY_BASE * 4);
    assert_eq!((backoff(60, u32::MAX), backoff(60, 0)), (RETRY_CAP, Duration::ZERO));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Event,
    Noise,
    Pass(u64),
    Deliver,
    Fail(Failure, u32),
    /// The agent is killed; its successor reads the store again behind the cursor.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let failure = prop_oneof![
        Just(Failure::Passing),
        Just(Failure::Refused),
        (0_u64..5_000).prop_map(|s| Failure::Busy(Some(Duration::from_secs(s)))),
    ];
    prop_oneof![
        4 => Just(Step::Event),
        1 => Just(Step::Noise),
        4 => (0_u64..30_000).prop_map(Step::Pass),
        3 => Just(Step::Deliver),
        2 => (failure, any::<u32>()).prop_map(|(failure, random)| Step::Fail(failure, random)),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens: each event is told at least once or counted as given up, none before its time, and messages
    /// come in order.
    #[test]
    fn nothing_is_ever_lost(steps in collection::vec(step(), 1..300)) {
        let (mut outbox, mut now) = (outbox(), Timestamp(0));
        let (mut log, mut settled, mut out): (Vec<Event>, u64, Option<Batch>) = (Vec::new(), 0, None);
        for step in steps {
            match step {
                Step::Event | Step::Noise => {
                    let id = log.len() as u64 + 1;
                    let event = if matches!(step, Step::Noise) { plain(id) } else { event(id, now.0) };
                    outbox.see(&event, now);
                    log.push(event);
                }
                Step::Pass(ms) => now = now + Duration::from_millis(ms),
                Step::Deliver if out.is_some() => {
                    outbox.delivered();
                    settled = out.take().unwrap().last_id;
                }
                Step::Fail(failure, random) if out.is_some() => {
                    let batch = out.take().unwrap();
                    if let Some(given_up) = outbox.failed(failure, now, random) {
                        prop_assert_eq!(given_up.events, batch.total());
                        settled = batch.last_id;
                    }
                }
                Step::Deliver | Step::Fail(..) => {}
                Step::Restart => {
                    out = None;
                    outbox = Outbox::new(Topic::all(), outbox.cursor(), now);
                    for event in &log {
                        outbox.see(event, now);
                    }
                }
            }
            if let Next::Send(batch) = outbox.next(now) {
                prop_assert!(out.is_none(), "one at a time");
                let due = log.iter().filter(|e| e.detail.is_some() && e.id > settled).map(|e| e.id);
                prop_assert_eq!(Some(batch.first_id), due.min(), "nothing is left out");
                out = Some(batch);
            }
            let unsettled = log.iter().filter(|e| e.detail.is_some() && e.id > settled).count() as u64;
            prop_assert_eq!(outbox.waiting(), unsettled);
            prop_assert!(outbox.cursor() >= settled);
        }
    }
}

//! Who may get a request, and who gets it.

use std::cell::Cell;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn fine(key: u64) -> Candidate {
    Candidate { key, since: 1, standing: Standing::Fine, is_full: false, is_silent: false, is_backup: false }
}

fn ask(now: Instant) -> Ask {
    Ask { now, lost: None, may_fail: true }
}

fn out(key: u64, until: Instant, dead: bool) -> Candidate {
    Candidate { standing: Standing::Out { until, dead }, ..fine(key) }
}

fn survey(all: &[Candidate], ask: Ask) -> Survey {
    Survey::new(all.len(), ask, |index| all[index])
}

/// The keys of those that may get the request.
fn open(all: &[Candidate], ask: Ask) -> Vec<u64> {
    let survey = survey(all, ask);
    all.iter().filter(|one| survey.admits(one)).map(|one| one.key).collect()
}

#[test]
fn one_suspect_of_two_is_left_out_and_both_are_not() {
    let now = Instant::now();
    let suspect = |key| out(key, now + SECOND, false);
    assert_eq!(open(&[fine(1), suspect(2)], ask(now)), [1]);
    assert_eq!(open(&[suspect(1), suspect(2)], ask(now)), [1, 2]);
    assert_eq!(open(&[suspect(1)], ask(now)), [1], "the last one stays");
    assert_eq!(open(&[fine(1), suspect(2), suspect(3)], ask(now)), [1, 2, 3]);
}

#[test]
fn those_that_refuse_connections_are_out_even_if_all_do() {
    let now = Instant::now();
    let all = [out(1, now + SECOND * 2, true), out(2, now + SECOND, true)];
    assert_eq!(open(&all, ask(now)), [0; 0]);
    assert_eq!(survey(&all, ask(now)).verdict(), Some(Choice::Wait(Some(now + SECOND))));
    let one_suspect = [all[0], out(3, now + SECOND, false)];
    assert_eq!(open(&one_suspect, ask(now)), [3], "of those that may be alive it is the last");
}

#[test]
fn a_target_whose_time_is_up_is_tried_by_a_request_that_may_fail() {
    let now = Instant::now();
    let all = [fine(1), Candidate { standing: Standing::Trial { dead: true }, ..fine(2) }];
    assert_eq!(survey(&all, ask(now)).verdict(), Some(Choice::Try(1)));
    assert_eq!(survey(&all, Ask { may_fail: false, ..ask(now) }).verdict(), None);
    let alone = &all[1..];
    assert_eq!(survey(alone, Ask { may_fail: false, ..ask(now) }).verdict(), Some(Choice::Try(0)));
}

#[test]
fn a_request_does_not_go_back_to_where_it_died_unless_that_was_routed_anew() {
    let now = Instant::now();
    let lost = |until| Ask { lost: Some(Lost { key: 1, since: 1, until }), ..ask(now) };
    assert_eq!(open(&[fine(1), fine(2)], lost(now + SECOND)), [2]);
    assert_eq!(survey(&[fine(1)], lost(now + SECOND)).verdict(), Some(Choice::WaitFor(now + SECOND)));
    assert_eq!(survey(&[fine(1)], lost(now)).verdict(), Some(Choice::Go(0)));
    assert_eq!(open(&[Candidate { since: 2, ..fine(1) }], lost(now + SECOND)), [1]);
}

#[test]
fn full_ones_and_backups_wait_their_turn() {
    let now = Instant::now();
    let full = Candidate { is_full: true, ..fine(1) };
    let backup = Candidate { is_backup: true, ..fine(9) };
    assert_eq!(open(&[full, fine(2), backup], ask(now)), [2]);
    assert_eq!(open(&[full, backup], ask(now)), [9]);
    assert_eq!(survey(&[full], ask(now)).verdict(), Some(Choice::Wait(None)));
    assert_eq!(survey(&[], ask(now)).verdict(), Some(Choice::Wait(None)));
}

#[test]
fn silent_ones_get_a_request_only_if_all_are() {
    let now = Instant::now();
    let silent = |key| Candidate { is_silent: true, ..fine(key) };
    assert_eq!(open(&[fine(1), silent(2), fine(3)], ask(now)), [1, 3]);
    assert_eq!(survey(&[fine(1), silent(2), fine(3)], ask(now)).open(), 2);
    assert_eq!(open(&[silent(1), silent(2)], ask(now)), [1, 2]);
    assert_eq!(survey(&[silent(1), silent(2)], ask(now)).open(), 2);
    let backup = Candidate { is_backup: true, ..fine(9) };
    assert_eq!(open(&[silent(1), backup], ask(now)), [1], "it may be slow, and is better than none");
    let lost = Ask { lost: Some(Lost { key: 1, since: 1, until: now + SECOND }), ..ask(now) };
    assert_eq!(open(&[fine(1), silent(2)], lost), [2]);
}

/// Targets with fixed loads and weights.
struct Fixed {
    all: Vec<Candidate>,
    weights: Vec<u32>,
    loads: Vec<u64>,
    latencies: Vec<f64>,
    smooth: Vec<Smooth>,
}

impl Fixed {
    fn new(weights: &[u32]) -> Self {
        Self {
            all: (0..weights.len() as u64).map(fine).collect(),
            weights: weights.to_vec(),
            loads: vec![0; weights.len()],
            latencies: vec![1.0; weights.len()],
            smooth: weights.iter().map(|_| Smooth::default()).collect(),
        }
    }

    fn survey(&self) -> Survey {
        survey(&self.all, ask(Instant::now()))
    }
}

impl Chooser for Fixed {
    fn count(&self) -> usize {
        self.all.len()
    }
    fn candidate(&self, index: usize) -> Candidate {
        self.all[index]
    }
    fn weight(&self, index: usize) -> u32 {
        self.weights[index]
    }
    fn load(&self, index: usize) -> u64 {
        self.loads[index]
    }
    fn latency(&self, index: usize) -> f64 {
        self.latencies[index]
    }
    fn hash(&self, index: usize) -> u64 {
        mix(index as u64)
    }
    fn smooth(&self, index: usize) -> &Smooth {
        &self.smooth[index]
    }
}

#[test]
fn round_robin_mixes_weights_evenly() {
    let fixed = Fixed::new(&[5, 1, 1]);
    let turns: Vec<_> = (0..7).map(|_| policy::round_robin(&fixed.survey(), &fixed).unwrap()).collect();
    assert_eq!(turns, [0, 0, 1, 0, 2, 0, 0], "as nginx does it");
}

#[test]
fn round_robin_goes_on_without_those_that_are_out() {
    let mut fixed = Fixed::new(&[1, 1, 1]);
    fixed.all[1] = out(1, Instant::now() + SECOND, true);
    let turns: Vec<_> = (0..4).map(|_| policy::round_robin(&fixed.survey(), &fixed).unwrap()).collect();
    assert_eq!(turns, [0, 2, 0, 2]);
}

#[test]
fn least_conn_takes_the_one_with_the_least_for_its_weight() {
    let mut fixed = Fixed::new(&[1, 2, 1]);
    fixed.loads = vec![2, 3, 2];
    assert_eq!(policy::least_conn(&fixed.survey(), &fixed, 0), Some(1));
    fixed.loads = vec![1, 2, 1];
    assert_eq!(policy::least_conn(&fixed.survey(), &fixed, 2), Some(2), "of equals the next in turn");
}

#[test]
fn two_choices_takes_the_better_of_the_two() {
    let mut fixed = Fixed::new(&[1, 1, 1]);
    fixed.loads = vec![0, 5, 5];
    fixed.latencies = vec![1.0, 1.0, 0.1];
    let drawn = |first: f64, second: f64| {
        let draws = std::cell::RefCell::new(vec![second, first]);
        policy::two_choices(&fixed.survey(), &fixed, || draws.borrow_mut().pop().unwrap()).unwrap()
    };
    assert_eq!(drawn(0.0, 0.0), 0, "of 0 and 1");
    assert_eq!(drawn(0.4, 0.0), 2, "of 1 and 2");
    assert_eq!(drawn(0.0, 0.9), 2, "of 0 and 2: five times as busy, ten times as fast");
}

proptest! {
    #[test]
    fn whatever_stands_the_choice_is_one_that_may_be_chosen(
        standings in prop::collection::vec(
            (0..5_u8, any::<bool>(), any::<bool>(), 1..5_u32, any::<bool>()), 0..8,
        ),
        lost in prop::option::of((0..8_u64, any::<bool>())),
        may_fail: bool,
        draws in prop::collection::vec(0.0..1.0_f64, 4),
    ) {
        let now = Instant::now() + SECOND;
        let standing = |kind: u8| match kind {
            0 | 1 => Standing::Fine,
            2 => Standing::Out { until: now + SECOND, dead: true },
            3 => Standing::Out { until: now + SECOND, dead: false },
            _ => Standing::Trial { dead: kind == 4 },
        };
        let mut fixed = Fixed::new(&standings.iter().map(|s| s.3).collect::<Vec<_>>());
        for (candidate, (kind, is_full, is_backup, _, is_silent)) in fixed.all.iter_mut().zip(&standings) {
            *candidate = Candidate {
                standing: standing(*kind),
                is_full: *is_full,
                is_silent: *is_silent,
                is_backup: *is_backup,
                ..*candidate
            };
        }
        let until = |over: bool| if over { now } else { now + SECOND };
        let lost = lost.map(|(key, over)| Lost { key, since: 1, until: until(over) });
        let survey = survey(&fixed.all, Ask { now, lost, may_fail });
        let index = Cell::new(0);
        let draw = || { index.set(index.get() + 1); draws[index.get() % 4] };
        if survey.verdict().is_none() {
            let affinity = Affinity::of("10.0.0.1".parse().unwrap());
            let chosen = [
                policy::round_robin(&survey, &fixed),
                policy::least_conn(&survey, &fixed, 3),
                policy::two_choices(&survey, &fixed, draw),
                policy::ip_hash(&survey, &fixed, affinity),
            ];
            for chosen in chosen {
                let chosen = chosen.expect("somebody may get it");
                prop_assert!(survey.admits(&fixed.all[chosen]));
                let is_dead = matches!(fixed.all[chosen].standing, Standing::Out { dead: true, .. });
                prop_assert!(!is_dead);
            }
        }
        // Nobody waits while there is one that is fine and free, and not the one that the request died on.
        let free = fixed.all.iter().any(|c| {
            c.standing == Standing::Fine && !c.is_full && lost.is_none_or(|lost| lost.key != c.key)
        });
        if free {
            prop_assert!(!matches!(survey.verdict(), Some(Choice::Wait(_) | Choice::WaitFor(_))));
        }
    }
}

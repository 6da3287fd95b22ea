//! Which target gets a request, and what follows when that went wrong: pure decisions.
//!
//! Owns: round robin over ready targets, and the rules for a second attempt.
//! Never: reads a clock, opens a connection, or counts anything.
//!
//! ```text
//! choose ─▶ Go(target) ─▶ refused, or given back unsent ─▶ choose again, whatever the method
//!   │                  ├─▶ sent, not a byte of an answer ─▶ idempotent and without body: once more, elsewhere
//!   │                  │                                  └ otherwise, or the second time: 502
//!   │                  └─▶ part of an answer, or no HTTP ─▶ 502
//!   └─▶ Wait: no target is ready (or only the one that the request died on) ─▶ held
//! ```
//!
//! Other policies than round robin are to take the place of [`choose`]'s scan.

use std::time::Duration;

use tokio::time::Instant;

/// How long a target that refused is left out, unless a newer table comes first.
pub(crate) const LEAVE_OUT: Duration = Duration::from_secs(1);
/// How often a request may be given back unsent by a connection before it is answered 502.
pub(crate) const UNSENT_MAX: u32 = 8;

/// What a worker knows about one target of a service at the moment of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The target's number.
    pub(crate) key: u64,
    /// The number of the table since which it has been routed without a break.
    pub(crate) since: u64,
    /// Left out until then.
    pub(crate) out_until: Option<Instant>,
}

impl Candidate {
    /// Whether requests may go to it.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        self.out_until.is_none_or(|until| until <= now)
    }
}

/// A target on which a request has died. The request goes elsewhere until the target has left the table and come
/// back, or, if there is nowhere else, until it has had [`LEAVE_OUT`] to recover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) key: u64,
    pub(crate) since: u64,
    pub(crate) until: Instant,
}

impl Lost {
    fn bars(&self, candidate: &Candidate, now: Instant) -> bool {
        self.key == candidate.key && self.since == candidate.since && now < self.until
    }
}

/// The result of [`choose`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Send it to the target with this index.
    Go(usize),
    /// None is ready.
    Wait,
    /// Only the target that the request died on is ready, and is barred until then.
    WaitFor(Instant),
}

/// Chooses the first ready target from `start` on, wrapping around.
pub(crate) fn choose(
    count: usize,
    start: usize,
    lost: Option<Lost>,
    now: Instant,
    candidate: impl Fn(usize) -> Candidate,
) -> Choice {
    let mut barred = None;
    for step in 0..count {
        let index = (start + step) % count;
        let candidate = candidate(index);
        if !candidate.is_ready(now) {
            continue;
        }
        match lost.filter(|lost| lost.bars(&candidate, now)) {
            Some(lost) => barred = Some(lost.until),
            None => return Choice::Go(index),
        }
    }
    barred.map_or(Choice::Wait, Choice::WaitFor)
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The target did not take the connection.
    Refused,
    /// We could not make a connection for reasons of our own.
    Local,
    /// The connection gave the request back: not a byte of it was sent.
    Unsent,
    /// It was sent and the connection died without a byte of an answer.
    Lost(Lost),
    /// Something came back that was no answer, or only part of one.
    Garbled,
    /// The client broke off its own body.
    Client,
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Choose again.
    Again,
    /// Answer 502.
    BadGateway,
    /// Answer 503.
    Unavailable,
    /// Answer 400, should the client still listen.
    BadBody,
}

/// What has been tried for one request.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Attempts {
    lost: Option<Lost>,
    unsent: u32,
}

impl Attempts {
    /// The target that the request died on.
    pub(crate) fn lost(&self) -> Option<Lost> {
        self.lost
    }

    /// Whether pooled connections have to be left alone because one of them has just turned out to be dead.
    pub(crate) fn wants_fresh_connection(&self) -> bool {
        0 < self.unsent
    }

    /// Decides what follows. `replayable`: the request is idempotent and has no body.
    pub(crate) fn failed(&mut self, failure: Failure, replayable: bool) -> Next {
        match failure {
            Failure::Refused => Next::Again,
            Failure::Local => Next::Unavailable,
            Failure::Client => Next::BadBody,
            Failure::Unsent => {
                self.unsent += 1;
                if self.unsent <= UNSENT_MAX { Next::Again } else { Next::BadGateway }
            }
            Failure::Lost(lost) if replayable && self.lost.is_none() => {
                self.lost = Some(lost);
                Next::Again
            }
            Failure::Lost(_) | Failure::Garbled => Next::BadGateway,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pick(candidates: &[Candidate], start: usize, lost: Option<Lost>, now: Instant) -> Choice {
        choose(candidates.len(), start, lost, now, |i| candidates[i])
    }

    fn ready(key: u64) -> Candidate {
        Candidate { key, since: 1, out_until: None }
    }

    #[test]
    fn it_takes_turns() {
        let now = Instant::now();
        let all = [ready(1), ready(2), ready(3)];
        let turns: Vec<_> = (0..4).map(|start| pick(&all, start, None, now)).collect();
        assert_eq!(turns, [Choice::Go(0), Choice::Go(1), Choice::Go(2), Choice::Go(0)]);
    }

    #[test]
    fn a_target_left_out_is_passed_over_until_its_time_is_up() {
        let now = Instant::now();
        let all = [Candidate { out_until: Some(now + LEAVE_OUT), ..ready(1) }, ready(2)];
        assert_eq!(pick(&all, 0, None, now), Choice::Go(1));
        assert_eq!(pick(&all, 0, None, now + LEAVE_OUT), Choice::Go(0));
        assert_eq!(pick(&all[..1], 0, None, now), Choice::Wait);
        assert_eq!(pick(&[], 0, None, now), Choice::Wait);
    }

    #[test]
    fn a_request_does_not_go_back_to_where_it_died_unless_that_was_routed_anew() {
        let now = Instant::now();
        let lost = Some(Lost { key: 1, since: 1, until: now + LEAVE_OUT });
        assert_eq!(pick(&[ready(1), ready(2)], 0, lost, now), Choice::Go(1));
        assert_eq!(pick(&[ready(1)], 0, lost, now), Choice::WaitFor(now + LEAVE_OUT));
        assert_eq!(pick(&[Candidate { since: 2, ..ready(1) }], 0, lost, now), Choice::Go(0));
        assert_eq!(pick(&[ready(1)], 0, lost, now + LEAVE_OUT), Choice::Go(0));
    }

    #[test]
    fn a_lost_request_is_replayed_once_and_only_if_it_may_be() {
        let lost = Failure::Lost(Lost { key: 1, since: 1, until: Instant::now() });
        assert_eq!(Attempts::default().failed(lost, false), Next::BadGateway);
        let mut attempts = Attempts::default();
        assert_eq!(attempts.failed(lost, true), Next::Again);
        assert_eq!(attempts.failed(lost, true), Next::BadGateway);
    }

    proptest! {
        #[test]
        fn whatever_fails_a_request_is_sent_at_most_twice(
            failures in prop::collection::vec(0..6_u8, 0..64),
            replayable: bool,
        ) {
            let now = Instant::now();
            let mut attempts = Attempts::default();
            let (mut sent, mut unsent) = (0, 0);
            for failure in failures {
                let failure = match failure {
                    0 => Failure::Refused,
                    1 => Failure::Local,
                    2 => Failure::Unsent,
                    3 => Failure::Lost(Lost { key: 1, since: 1, until: now }),
                    4 => Failure::Client,
                    _ => Failure::Garbled,
                };
                sent += u32::from(matches!(failure, Failure::Lost(_) | Failure::Garbled));
                unsent += u32::from(failure == Failure::Unsent);
                let next = attempts.failed(failure, replayable);
                let expected = match failure {
                    Failure::Refused => Next::Again,
                    Failure::Local => Next::Unavailable,
                    Failure::Client => Next::BadBody,
                    Failure::Unsent if unsent <= UNSENT_MAX => Next::Again,
                    Failure::Lost(_) if replayable && sent == 1 => Next::Again,
                    _ => Next::BadGateway,
                };
                prop_assert_eq!(next, expected);
                if next != Next::Again {
                    break;
                }
            }
            let most = if replayable { 2 } else { 1 };
            prop_assert!(sent <= most);
        }

        #[test]
        fn a_choice_is_ready_not_barred_and_the_next_in_turn(
            outs in prop::collection::vec((1..4_u64, 1..3_u64, prop::option::of(0..3_u64)), 0..6),
            start in 0..12_usize,
            lost in prop::option::of((1..4_u64, 1..3_u64, 0..3_u64)),
        ) {
            let now = Instant::now() + Duration::from_secs(1);
            let at = |n: u64| now + Duration::from_secs(n) - Duration::from_secs(1);
            let all: Vec<_> = outs
                .iter()
                .map(|&(key, since, out)| Candidate { key, since, out_until: out.map(at) })
                .collect();
            let lost = lost.map(|(key, since, until)| Lost { key, since, until: at(until) });
            let eligible = |c: &Candidate| {
                c.out_until.is_none_or(|t| t <= now)
                    && !lost.is_some_and(|l| (l.key, l.since) == (c.key, c.since) && now < l.until)
            };
            match pick(&all, start, lost, now) {
                Choice::Go(chosen) => {
                    prop_assert!(eligible(&all[chosen]));
                    let first = (0..all.len()).map(|s| (start + s) % all.len()).find(|&i| eligible(&all[i]));
                    prop_assert_eq!(first, Some(chosen));
                }
                Choice::Wait => prop_assert!(all.iter().all(|c| !c.is_ready(now))),
                Choice::WaitFor(until) => {
                    prop_assert!(!all.iter().any(eligible));
                    prop_assert!(all.iter().any(|c| c.is_ready(now)));
                    prop_assert!(now < until);
                }
            }
        }
    }
}

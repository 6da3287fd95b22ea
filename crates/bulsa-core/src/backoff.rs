//! When a dead replica may be started again.
//!
//! Owns: the failure score of a slot and the delay that follows from it. Never: starts anything, or draws a random
//! number (the jitter is a hash of the slot and the attempt, so that a run can be replayed).
//!
//! Every death adds a weight to the score, and the score halves every [`HALF_LIFE`]; there is no line at which it is
//! reset, which is the hole of Docker's back-off (a container that dies every 11 s is restarted 7,780 times a day).
//! A death before ready weighs 1. A death after service weighs less the longer the service was, so that two dozen
//! kills of good workers within a minute delay nothing, while a program that throws at its start is slowed down from
//! its fourth death on.

use std::time::Duration;

use crate::{ids::Slot, time::Timestamp};

/// After this long without a death the score is half of what it was.
pub const HALF_LIFE: Duration = Duration::from_secs(300);
/// Up to this score a dead replica is started again at once.
pub const FREE_SCORE: f64 = 2.0;
/// The longest delay at a score just above [`FREE_SCORE`]; it doubles with each further point.
pub const BASE: Duration = Duration::from_millis(500);
/// No delay is longer than this: a crash-looping replica is still tried about once a minute.
pub const CAP: Duration = Duration::from_secs(60);
/// The weight of a death right after the replica became ready.
const READY_WEIGHT: f64 = 0.25;
/// From this delay on the slot is called parked: retried slowly, never silently dead.
pub const PARKED: Duration = Duration::from_secs(30);

/// A parked slot rests for so many times as long as its last replica ran before it died: whatever a start takes of a core, all
/// starts together take less than 2 % of it.
const REST_FOR_RUN: u32 = 50;
/// It rests no longer than this for it.
pub const REST_MAX: Duration = Duration::from_secs(300);

/// How long a slot rests that is parked, after a replica that ran for `lived` and was never ready.
#[must_use]
pub fn rest_after(lived: Duration) -> Duration {
    lived.saturating_mul(REST_FOR_RUN).min(REST_MAX)
}

/// The failure score of one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    points: f64,
    at: Timestamp,
}

impl Score {
    /// The score at `now`.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> f64 {
        let halvings = now.since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.points * (-halvings).exp2()
    }

    /// Adds one death at `now`. `ready_for` is how long the replica had been ready; `None` if it never was.
    pub fn add_death(&mut self, ready_for: Option<Duration>, now: Timestamp) {
        let weight = ready_for.map_or(1.0, |served| READY_WEIGHT / (1.0 + served.as_secs_f64()));
        *self = Self { points: self.at(now) + weight, at: now };
    }

    /// The longest that the next start may be put off after the death at which the score was last raised.
    #[must_use]
    pub fn ceiling(&self) -> Duration {
        let over = self.points - FREE_SCORE;
        if over <= 0.0 {
            return Duration::ZERO;
        }
        CAP.min(BASE.mul_f64(over.exp2().min(CAP.as_secs_f64() / BASE.as_secs_f64())))
    }

    /// When the slot may be started again: full jitter, uniform between zero and [`Score::ceiling`], but not below a
    /// quarter of it, for at the cap a lucky draw must not cost a core.
    #[must_use]
    pub fn next_start(&self, slot: &Slot, attempt: u32) -> Timestamp {
        let ceiling = self.ceiling();
        if ceiling.is_zero() {
            return self.at;
        }
        self.at + ceiling.mul_f64(0.25 + 0.75 * jitter(slot, attempt))
    }

    /// Whether the slot is parked.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.ceiling() >= PARKED
    }

    /// Whether the slot is crash-looping: its next start is put off.
    #[must_use]
    pub fn is_crash_looping(&self) -> bool {
        !self.ceiling().is_zero()
    }
}

/// A number in 0..1 that differs between slots and attempts, by FNV-1a over both and a final mix.
pub(crate) fn jitter(slot: &Slot, attempt: u32) -> f64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    slot.service.bytes().for_each(&mut add);
    for number in [slot.release.0, slot.ordinal, attempt] {
        number.to_le_bytes().into_iter().for_each(&mut add);
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    f64::from((hash >> 32) as u32) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ReleaseId;

    fn slot() -> Slot {
        Slot { release: ReleaseId(1), service: "web".to_owned(), ordinal: 1 }
    }

    #[test]
    fn twenty_two_kills_of_a_good_worker_in_a_minute_delay_nothing() {
        let mut score = Score::default();
        for kill in 0..22_u64 {
            let now = Timestamp(kill * 2700);
            score.add_death(Some(Duration::from_millis(2500)), now);
            assert_eq!(score.next_start(&slot(), kill as u32), now, "kill {kill}");
        }
    }

    #[test]
    fn a_program_that_throws_at_its_start_soon_waits_most_of_a_minute() {
        let (mut score, mut now, mut starts) = (Score::default(), Timestamp(0), 0);
        while now.0 < 3_600_000 {
            starts += 1;
            now = now + Duration::from_millis(200);
            score.add_death(None, now);
            now = score.next_start(&slot(), starts);
        }
        assert!((60..160).contains(&starts), "{starts} starts in an hour");
        assert!(score.ceiling() >= PARKED);
    }

    #[test]
    fn a_parked_slot_rests_as_its_starts_are_dear_and_never_for_long() {
        assert_eq!(rest_after(Duration::from_millis(100)), Duration::from_secs(5));
        assert_eq!(rest_after(Duration::from_secs(3)), Duration::from_secs(150));
        assert_eq!(rest_after(Duration::from_secs(3600)), REST_MAX);
    }

    #[test]
    fn dying_just_after_ready_for_ever_is_slowed_down_too() {
        let (mut score, mut now, mut starts) = (Score::default(), Timestamp(0), 0);
        while now.0 < 3_600_000 {
            starts += 1;
            now = now + Duration::from_millis(1200);
            score.add_death(Some(Duration::from_secs(1)), now);
            now = score.next_start(&slot(), starts);
        }
        assert!(starts < 700, "{starts} starts in an hour; unslowed it would be 3,000");
    }

    #[test]
    fn a_quiet_night_forgives() {
        let mut score = Score::default();
        for _ in 0..10 {
            score.add_death(None, Timestamp(0));
        }
        let morning = Timestamp(0) + HALF_LIFE * 8;
        score.add_death(Some(Duration::from_secs(2000)), morning);
        assert_eq!(score.next_start(&slot(), 11), morning);
    }

    #[test]
    fn jitter_spreads_over_the_whole_range() {
        let draws: Vec<f64> = (0..1000).map(|attempt| jitter(&slot(), attempt)).collect();
        let mean = draws.iter().sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
        assert!(draws.iter().all(|d| (0.0..1.0).contains(d)));
        assert!(draws.iter().any(|d| *d < 0.02) && draws.iter().any(|d| *d > 0.98));
    }
}

//! How much of a stretch of time a service was served, from the record of when that changed.
//!
//! Owns: what counts as served, as a gap, and as unknown. Never: counts time as served in which nobody watched; reads a
//! record itself.
//!
//! Two records are kept. One of the daemon's own lives ([`Watch`]): each agent writes when it began, and at most once a
//! minute that it lives. One of changes ([`Change`]): each agent writes the state of a service when it first knows it,
//! and whenever it changes. What lies between the last word of one agent and the first of the next wasn't watched.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// How a service is, for this record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// At least one healthy replica is there, and routed where requests come for it.
    Served,
    /// None is.
    Unserved,
    /// Nobody wants it: a person stopped it, or its project is down.
    Unwanted,
}

impl Service {
    /// The word in the store.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Unserved => "unserved",
            Self::Unwanted => "unwanted",
        }
    }

    /// Reads back [`Service::word`].
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Served, Self::Unserved, Self::Unwanted].into_iter().find(|state| state.word() == word)
    }
}

/// One life of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Its number; rises with time.
    pub id: u64,
    /// When it began.
    pub from: Timestamp,
    /// Its last sign of life.
    pub until: Timestamp,
}

/// A service's state from some time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The agent that saw it.
    pub watch: u64,
    /// Since when.
    pub at: Timestamp,
    /// Which.
    pub state: Service,
}

/// What a stretch of time was like. The four times add up to all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Availability {
    /// How long it was served, in milliseconds.
    pub served_ms: u64,
    /// How long it was not, though wanted.
    pub unserved_ms: u64,
    /// How long nobody wanted it.
    pub unwanted_ms: u64,
    /// How long nobody watched: no agent lived, the machine was off, or it was before the first record.
    pub unwatched_ms: u64,
    /// The longest gap: from a time at which it wasn't served to the next at which it was, or wasn't wanted. Time that
    /// nobody watched in the middle of one belongs to it.
    pub longest_gap_ms: u64,
    /// How many gaps there were.
    pub gaps: u64,
}

impl Availability {
    /// The share of the watched time in which it was wanted that it was served, from 0 to 1; `None` without any.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        let wanted = self.served_ms + self.unserved_ms;
        (wanted > 0).then(|| self.served_ms as f64 / wanted as f64)
    }
}

/// What the time from `from` to `now` was like. Both records are in the order of their numbers; `now` is the living
/// agent's, so that the last watch goes on until then.
#[must_use]
pub fn availability(watches: &[Watch], changes: &[Change], from: Timestamp, now: Timestamp) -> Availability {
    let mut sum = Sum { from, now, all: Availability::default(), gap: None };
    // A clock that was set back makes lives overlap: what was counted isn't counted again.
    let mut counted = Timestamp(0);
    for (index, watch) in watches.iter().enumerate() {
        let is_last = index + 1 == watches.len();
        let end = if is_last { now } else { watch.until };
        let mut state = None;
        let mut since = watch.from.max(counted);
        for change in changes.iter().filter(|change| change.watch == watch.id) {
            let at = change.at.clamp(since, end.max(since));
            sum.add(state, since, at);
            (state, since) = (Some(change.state), at);
        }
        sum.add(state, since, end);
        counted = counted.max(end);
    }
    sum.done()
}

struct Sum {
    from: Timestamp,
    now: Timestamp,
    all: Availability,
    /// The gap that is open: its beginning and its end so far.
    gap: Option<(Timestamp, Timestamp)>,
}

impl Sum {
    /// Adds a stretch, as far as it lies in the time that is asked for.
    fn add(&mut self, state: Option<Service>, from: Timestamp, until: Timestamp) {
        let (from, until) = (from.max(self.from), until.min(self.now));
        let Some(state) = state.filter(|_| from < until) else { return };
        let length = ms(until.since(from));
        match state {
            Service::Served => self.all.served_ms += length,
            Service::Unserved => self.all.unserved_ms += length,
            Service::Unwanted => self.all.unwanted_ms += length,
        }
        match (state, &mut self.gap) {
            (Service::Unserved, Some((_, end))) => *end = until,
            (Service::Unserved, gap @ None) => *gap = Some((from, until)),
            (Service::Served | Service::Unwanted, _) => self.close(),
        }
    }

    fn close(&mut self) {
        if let Some((from, until)) = self.gap.take() {
            self.all.gaps += 1;
            self.all.longest_gap_ms = self.all.longest_gap_ms.max(ms(until.since(from)));
        }
    }

    fn done(mut self) -> Availability {
        self.close();
        let known = self.all.served_ms + self.all.unserved_ms + self.all.unwanted_ms;
        self.all.unwatched_ms = ms(self.now.since(self.from)).saturating_sub(known);
        self.all
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*, sample};

    use super::*;
    use Service::{Served, Unserved, Unwanted};

    fn watch(id: u64, from: u64, until: u64) -> Watch {
        Watch { id, from: Timestamp(from), until: Timestamp(until) }
    }

    fn change(watch: u64, at: u64, state: Service) -> Change {
        Change { watch, at: Timestamp(at), state }
    }

    #[test]
    fn a_death_of_300_ms_costs_300_ms() {
        let changes = [change(1, 10, Served), change(1, 5_000, Unserved), change(1, 5_300, Served)];
        let found = availability(&[watch(1, 0, 60)], &changes, Timestamp(0), Timestamp(10_000));
        let expected = Availability {
            served_ms: 9_690,
            unserved_ms: 300,
            unwatched_ms: 10,
            longest_gap_ms: 300,
            gaps: 1,
            ..Availability::default()
        };
        assert_eq!(found, expected);
        assert!((found.share().unwrap() - 0.969_97).abs() < 1e-4, "{found:?}");
    }

    #[test]
    fn a_night_without_power_is_not_watched_and_never_served() {
        let watches = [watch(1, 0, 1_000), watch(2, 9_000, 9_500)];
        let changes = [change(1, 0, Served), change(2, 9_100, Served)];
        let found = availability(&watches, &changes, Timestamp(0), Timestamp(10_000));
        assert_eq!((found.served_ms, found.unwatched_ms, found.gaps), (1_900, 8_100, 0));
    }

    #[test]
    fn a_gap_goes_on_over_the_death_of_an_agent() {
        let watches = [watch(1, 0, 1_000), watch(2, 2_000, 2_500)];
        let changes = [
            change(1, 0, Served),
            change(1, 800, Unserved),
            change(2, 2_100, Unserved),
            change(2, 2_300, Served),
        ];
        let found = availability(&watches, &changes, Timestamp(0), Timestamp(3_000));
        assert_eq!((found.gaps, found.longest_gap_ms, found.unserved_ms), (1, 1_500, 400));
        assert_eq!(found.unwatched_ms, 1_100);
    }

    #[test]
    fn what_a_person_stopped_is_no_gap() {
        let changes = [change(1, 0, Served), change(1, 100, Unwanted), change(1, 900, Served)];
        let found = availability(&[watch(1, 0, 0)], &changes, Timestamp(0), Timestamp(1_000));
        assert_eq!((found.share(), found.gaps, found.unwanted_ms), (Some(1.0), 0, 800));
        assert_eq!(availability(&[], &[], Timestamp(0), Timestamp(5)).share(), None);
    }

    #[test]
    fn words_survive_the_store() {
        for state in [Served, Unserved, Unwanted] {
            assert_eq!(Service::from_word(state.word()), Some(state));
        }
        assert_eq!(Service::from_word("flying"), None);
    }

    /// Lives with the changes that each saw, by lengths: before it, of it, and where in it changes come.
    fn lives() -> impl Strategy<Value = (Vec<Watch>, Vec<Change>, u64)> {
        let state = sample::select(vec![Served, Unserved, Unwanted]);
        let life = (0_u64..20, 0_u64..60, collection::vec((0_u64..25, state), 0..8));
        (collection::vec(life, 0..6), 0_u64..40).prop_map(|(lives, rest)| {
            let (mut now, mut watches, mut changes) = (0, Vec::new(), Vec::new());
            for (id, (before, length, steps)) in lives.into_iter().enumerate() {
                let (id, from) = (id as u64, now + before);
                let mut at = from;
                for (after, state) in steps {
                    at = (at + after).min(from + length);
                    changes.push(change(id, at, state));
                }
                now = from + length;
                watches.push(watch(id, from, now));
            }
            (watches, changes, now + rest)
        })
    }

    /// What each millisecond was like, looked up one by one.
    fn by_hand(watches: &[Watch], changes: &[Change], from: u64, now: u64) -> Availability {
        let at = |ms: u64| {
            let last = watches.last().map(|watch| watch.id);
            let watch = watches
                .iter()
                .find(|watch| watch.from.0 <= ms && (ms < watch.until.0 || Some(watch.id) == last))?;
            let mut seen =
                changes.iter().rev().filter(|change| change.watch == watch.id && change.at.0 <= ms);
            seen.next().map(|change| change.state)
        };
        let mut all = Availability::default();
        let (mut run, mut gap) = (0, 0);
        for state in (from..now).map(at) {
            match state {
                Some(Served) => all.served_ms += 1,
                Some(Unserved) => all.unserved_ms += 1,
                Some(Unwanted) => all.unwanted_ms += 1,
                None => all.unwatched_ms += 1,
            }
            match state {
                Some(Unserved) => {
                    run += 1;
                    all.gaps += u64::from(gap == 0);
                    gap = run;
                    all.longest_gap_ms = all.longest_gap_ms.max(gap);
                }
                None if run > 0 => run += 1,
                None => {}
                Some(_) => (run, gap) = (0, 0),
            }
        }
        all
    }

    proptest! {
        #[test]
        fn it_is_what_counting_by_hand_finds((watches, changes, now) in lives(), from in 0_u64..400) {
            let from = from.min(now);
            let found = availability(&watches, &changes, Timestamp(from), Timestamp(now));
            prop_assert_eq!(found, by_hand(&watches, &changes, from, now));
        }

        /// Clocks that jump, records that overlap: the times still add up, and nothing is counted twice.
        #[test]
        fn the_times_always_add_up(
            watches in collection::vec((0_u64..500, 0_u64..500), 0..6),
            changes in collection::vec((0_u64..6, 0_u64..500, sample::select(vec![Served, Unserved, Unwanted])), 0..30),
            from in 0_u64..500, length in 0_u64..500,
        ) {
            let watches: Vec<Watch> =
                watches.into_iter().enumerate().map(|(id, (from, until))| watch(id as u64, from, until)).collect();
            let changes: Vec<Change> = changes.into_iter().map(|(of, at, state)| change(of, at, state)).collect();
            let found = availability(&watches, &changes, Timestamp(from), Timestamp(from + length));
            let sum = found.served_ms + found.unserved_ms + found.unwanted_ms + found.unwatched_ms;
            prop_assert_eq!(sum, length);
            prop_assert!(found.longest_gap_ms <= length);
        }
    }
}

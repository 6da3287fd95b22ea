//! The policies: which of those that may get a request gets it.
//!
//! Owns: the turn of round robin, and the comparison of the others. Never: decides who may get one.

use std::cell::Cell;

use super::{Affinity, Candidate, Survey};

/// The running total of one target in smooth weighted round robin.
#[derive(Debug, Default)]
pub(crate) struct Smooth(Cell<i64>);

/// What the policies need to know of the candidates.
pub(crate) trait Chooser {
    fn count(&self) -> usize;
    fn candidate(&self, index: usize) -> Candidate;
    /// Its share now: its weight, less while it is fresh. At least 1.
    fn weight(&self, index: usize) -> u32;
    /// Requests and tunnels that it has.
    fn load(&self, index: usize) -> u64;
    /// How long it takes to answer, by its last answers, in seconds.
    fn latency(&self, index: usize) -> f64;
    /// What hashes tell it apart by.
    fn hash(&self, index: usize) -> u64;
    fn smooth(&self, index: usize) -> &Smooth;
}

/// Each in turn by weight, evenly mixed, as nginx does it: everyone's total grows by its weight, the greatest is
/// chosen and pays what all have gained.
pub(crate) fn round_robin(survey: &Survey, of: &impl Chooser) -> Option<usize> {
    let mut all = 0;
    let mut best: Option<(i64, usize)> = None;
    for index in open(survey, of) {
        let weight = i64::from(of.weight(index));
        let total = of.smooth(index).0.get() + weight;
        of.smooth(index).0.set(total);
        all += weight;
        if best.is_none_or(|(most, _)| most < total) {
            best = Some((total, index));
        }
    }
    let (total, index) = best?;
    of.smooth(index).0.set(total - all);
    Some(index)
}

/// The next in turn from `start` on: round robin where all weigh the same.
pub(crate) fn next(survey: &Survey, of: &impl Chooser, start: usize) -> Option<usize> {
    let turns = (0..of.count()).map(|step| (start + step) % of.count());
    turns.into_iter().find(|index| survey.admits(&of.candidate(*index)))
}

/// The one with the least for its weight; of several, the next from `start` on.
pub(crate) fn least_conn(survey: &Survey, of: &impl Chooser, start: usize) -> Option<usize> {
    let share = |index: usize| of.load(index) as f64 / f64::from(of.weight(index));
    let mut best: Option<(f64, usize)> = None;
    for step in 0..of.count() {
        let index = (start + step) % of.count();
        if survey.admits(&of.candidate(index)) {
            let share = share(index);
            if best.is_none_or(|(least, _)| share < least) {
                best = Some((share, index));
            }
        }
    }
    best.map(|(_, index)| index)
}

/// The better of two: by what each has to do and how fast it does it. `random` gives numbers from 0 to 1.
pub(crate) fn two_choices(survey: &Survey, of: &impl Chooser, random: impl Fn() -> f64) -> Option<usize> {
    let count = survey.open();
    let first = below(count, random());
    // Another one, if there is one.
    let second = if count < 2 { first } else { (first + 1 + below(count - 1, random())) % count };
    let mut drawn = open(survey, of).enumerate().filter(|(nth, _)| *nth == first || *nth == second);
    let (_, one) = drawn.next()?;
    let Some((_, other)) = drawn.next() else { return Some(one) };
    let cost = |index: usize| (of.load(index) + 1) as f64 * of.latency(index) / f64::from(of.weight(index));
    Some(if cost(other) < cost(one) { other } else { one })
}

/// The one that suits the client best.
pub(crate) fn ip_hash(survey: &Survey, of: &impl Chooser, client: Affinity) -> Option<usize> {
    let score = |index: usize| client.score(of.hash(index), of.weight(index));
    open(survey, of).max_by(|a, b| score(*a).total_cmp(&score(*b)))
}

fn open<'c>(survey: &'c Survey, of: &'c impl Chooser) -> impl Iterator<Item = usize> + 'c {
    (0..of.count()).filter(|index| survey.admits(&of.candidate(*index)))
}

fn below(count: usize, random: f64) -> usize {
    ((count as f64 * random) as usize).min(count.saturating_sub(1))
}

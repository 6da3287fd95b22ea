//! Which of a service's targets gets a request: pure decisions.
//!
//! Owns: who may get one at all ([`Survey`]), and the policies that choose among those. Never: reads a clock, opens a
//! connection, counts anything, or draws a random number itself.
//!
//! Who may get one:
//! 1. Those that are fine, and have room under their caps.
//! 2. Suspects too, if more than half of those that do not refuse connections are suspect: then it is not the targets
//!    that are bad. (So one of two is left out, and the last one never is.)
//! 3. Backups, by the same rules, only if there is none of the others.
//! 4. Of all these only those that are not silent, if there are such: where requests wait and nobody is answered, a further
//!    one may be one more that is lost with a hang. That is no judgement; a slow target gets its share as soon as it answers.
//!
//! A target whose time out is over gets one request before it is fine again. It is given one that may go elsewhere if
//! that fails, unless there is nowhere else.

mod cookie;
mod hash;
pub(crate) mod policy;

use tokio::time::Instant;

pub(crate) use self::cookie::Cookie;
pub(crate) use self::hash::{Affinity, mix};
pub(crate) use self::policy::{Chooser, Smooth};
use crate::health::Standing;

/// What a worker knows about one target of a service at the moment of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The target's number.
    pub(crate) key: u64,
    /// The number of the table since which it has been routed without a break.
    pub(crate) since: u64,
    pub(crate) standing: Standing,
    /// Whether it has as much as it may have.
    pub(crate) is_full: bool,
    /// Whether requests wait there and it answers nobody.
    pub(crate) is_silent: bool,
    pub(crate) is_backup: bool,
}

/// A target on which a request has died. The request goes elsewhere until the target has left the table and come
/// back, or, if there is nowhere else, until its time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) key: u64,
    pub(crate) since: u64,
    pub(crate) until: Instant,
}

impl Lost {
    fn is(&self, candidate: &Candidate) -> bool {
        self.key == candidate.key && self.since == candidate.since
    }
}

/// What is asked for one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) now: Instant,
    /// The target that the request has died on.
    pub(crate) lost: Option<Lost>,
    /// Whether it may be sent once more if it fails.
    pub(crate) may_fail: bool,
}

/// The result of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Send it to the target with this index.
    Go(usize),
    /// Send it there if nobody else tries it already.
    Try(usize),
    /// None is ready: wait, at most until then if a moment is given.
    Wait(Option<Instant>),
    /// Only the target that the request died on is ready, and is barred until then.
    WaitFor(Instant),
}

/// One tier of candidates, looked through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tier {
    /// Suspects may get requests too.
    panic: bool,
    /// There are some that are not silent.
    avoids_silent: bool,
    /// How many may get this request.
    open: usize,
    trial: Option<usize>,
    /// Fine and full.
    is_full: bool,
    barred: Option<usize>,
    /// The next moment at which one may be tried.
    next: Option<Instant>,
}

/// All candidates of a service, looked through for one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Survey {
    ask: Ask,
    tier: Tier,
    backups: bool,
}

impl Survey {
    /// Looks through `count` candidates.
    pub(crate) fn new(count: usize, ask: Ask, candidate: impl Fn(usize) -> Candidate) -> Self {
        let first = tier(count, &ask, false, &candidate);
        if 0 < first.open || first.trial.is_some() {
            return Self { ask, tier: first, backups: false };
        }
        let second = tier(count, &ask, true, &candidate);
        let next = [first.next, second.next].into_iter().flatten().min();
        let merged = Tier {
            is_full: first.is_full || second.is_full,
            barred: first.barred.or(second.barred),
            next,
            ..second
        };
        Self { ask, tier: merged, backups: true }
    }

    /// How many may get the request.
    pub(crate) fn open(&self) -> usize {
        self.tier.open
    }

    /// Whether a candidate may get the request.
    pub(crate) fn admits(&self, candidate: &Candidate) -> bool {
        candidate.is_backup == self.backups
            && !candidate.is_full
            && is_good(candidate, self.tier.panic)
            && !(self.tier.avoids_silent && candidate.is_silent)
            && !self.ask.lost.is_some_and(|lost| lost.is(candidate))
    }

    /// What follows if no policy needs to choose: a trial, or a wait.
    pub(crate) fn verdict(&self) -> Option<Choice> {
        let Self { ask, tier, .. } = self;
        if let Some(index) = tier.trial.filter(|_| ask.may_fail || tier.open == 0) {
            return Some(Choice::Try(index));
        }
        if 0 < tier.open {
            return None;
        }
        Some(match (tier.barred, ask.lost) {
            (Some(index), Some(lost)) if lost.until <= ask.now => Choice::Go(index),
            (Some(_), Some(lost)) => Choice::WaitFor(lost.until),
            _ => Choice::Wait(tier.next),
        })
    }
}

/// Whether requests may go there as far as its health is concerned.
fn is_good(candidate: &Candidate, panic: bool) -> bool {
    match candidate.standing {
        Standing::Fine => true,
        Standing::Out { dead, .. } | Standing::Trial { dead } => panic && !dead,
    }
}

fn tier(count: usize, ask: &Ask, backups: bool, candidate: &impl Fn(usize) -> Candidate) -> Tier {
    let of_tier =
        || (0..count).map(|index| (index, candidate(index))).filter(|(_, c)| c.is_backup == backups);
    let (mut fine, mut suspects) = (0_usize, 0_usize);
    let mut tier = Tier::default();
    for (index, one) in of_tier() {
        match one.standing {
            Standing::Fine => fine += 1,
            Standing::Out { until, dead } => {
                suspects += usize::from(!dead);
                tier.next = Some(tier.next.map_or(until, |next| next.min(until)));
            }
            Standing::Trial { dead } => {
                suspects += usize::from(!dead);
                let is_lost = ask.lost.is_some_and(|lost| lost.is(&one));
                if tier.trial.is_none() && !one.is_full && !is_lost {
                    tier.trial = Some(index);
                }
            }
        }
    }
    tier.panic = fine < suspects;
    let mut silent = 0;
    for (index, one) in of_tier().filter(|(_, one)| is_good(one, tier.panic)) {
        if one.is_full {
            tier.is_full = true;
        } else if ask.lost.is_some_and(|lost| lost.is(&one)) {
            tier.barred = Some(index);
        } else if one.is_silent {
            silent += 1;
        } else {
            tier.open += 1;
        }
    }
    tier.avoids_silent = 0 < tier.open;
    if !tier.avoids_silent {
        tier.open = silent;
    }
    tier
}

#[cfg(test)]
mod tests;

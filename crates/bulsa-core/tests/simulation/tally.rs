//! How often interesting things happened, and how often they must.

use std::{collections::BTreeMap, fmt};

use bulsa_core::decide::{Change, Deployment, Desired, KillCause, Kind};

/// Something that the simulation is there to exercise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    Deploy,
    Rollback,
    Switch,
    UndoBeforeSwitch,
    UndoAfterSwitch,
    Exchange,
    UndoneExchange,
    RollStep,
    Retire,
    JobDone,
    JobFailed,
    Wish,
    Hold,
    HungKill,
    NotReadyKill,
    GraceKill,
    ProxyKill,
    AgentDeath,
    Withhold,
    Reinstate,
    Pause,
    EngineRestart,
}

/// At least so many of each in a hundred seeds: less than half of what was counted when this was written.
const MINIMUM_OF_100: [(What, u64); 22] = [
    (What::Deploy, 220),
    (What::Rollback, 12),
    (What::Switch, 110),
    (What::UndoBeforeSwitch, 50),
    (What::UndoAfterSwitch, 15),
    (What::Exchange, 40),
    (What::UndoneExchange, 13),
    (What::RollStep, 10),
    (What::Retire, 85),
    (What::JobDone, 50),
    (What::JobFailed, 7),
    (What::Wish, 120),
    (What::Hold, 35),
    (What::HungKill, 85),
    (What::NotReadyKill, 1),
    (What::GraceKill, 90),
    (What::ProxyKill, 85),
    (What::AgentDeath, 340),
    (What::Withhold, 1),
    (What::Reinstate, 1),
    (What::Pause, 1),
    (What::EngineRestart, 1),
];

/// The counts of one seed, or of many.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    seeds: u64,
    counts: BTreeMap<What, u64>,
}

impl Tally {
    pub(crate) fn count(&mut self, what: What) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Counts a change that is about to be committed to `before`.
    pub(crate) fn commit(&mut self, change: &Change, before: &Desired) {
        let running = before.running();
        let what = match change {
            Change::Begin { deployment, .. } if deployment.kind == Kind::Rollback => What::Rollback,
            Change::Begin { .. } => What::Deploy,
            Change::Exchange { .. } => What::Exchange,
            Change::Move { .. } => What::RollStep,
            Change::Switch { .. } => What::Switch,
            Change::Undo { .. } if running.is_some_and(is_exchanging) => What::UndoneExchange,
            Change::Undo { .. } if running.is_some_and(Deployment::is_before_switch) => {
                What::UndoBeforeSwitch
            }
            Change::Undo { .. } => What::UndoAfterSwitch,
            Change::Retire { .. } => What::Retire,
            Change::JobDone { success: true, .. } => What::JobDone,
            Change::JobDone { success: false, .. } => What::JobFailed,
            Change::Wish { .. } => What::Wish,
            Change::Hold { .. } => What::Hold,
            Change::Withhold { .. } => What::Withhold,
            Change::Reinstate { .. } => What::Reinstate,
            Change::Proven { .. }
            | Change::Forget { .. }
            | Change::Finish { .. }
            | Change::Revert { .. }
            | Change::Down => return,
        };
        self.count(what);
    }

    pub(crate) fn kill(&mut self, cause: KillCause) {
        self.count(match cause {
            KillCause::Hung => What::HungKill,
            KillCause::NotReady => What::NotReadyKill,
            KillCause::Grace => What::GraceKill,
        });
    }

    /// Adds what happened in one more seed.
    pub(crate) fn add(&mut self, seed: &Self) {
        self.seeds += 1;
        for (what, count) in &seed.counts {
            *self.counts.entry(*what).or_default() += count;
        }
    }

    /// Fails where something happened too seldom. Fewer than a hundred seeds say nothing.
    pub(crate) fn check(&self) {
        for (what, minimum) in MINIMUM_OF_100 {
            let (count, minimum) =
                (self.counts.get(&what).copied().unwrap_or(0), minimum * (self.seeds / 100));
            assert!(count >= minimum, "{what:?} happened {count} times in {} seeds; {self}", self.seeds);
        }
    }
}

fn is_exchanging(deployment: &Deployment) -> bool {
    matches!(deployment.phase, bulsa_core::decide::Phase::Exchange { .. })
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} seeds: ", self.seeds)?;
        self.counts.iter().try_for_each(|(what, count)| write!(f, "{what:?} {count}, "))
    }
}

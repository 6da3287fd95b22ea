//! What to do next: `decide(desired, observed, now)`.
//!
//! Owns: every decision about replicas, routes and releases of one project. Never: does anything, keeps anything
//! between two calls, or looks at a clock. What it knows is in its arguments; what it wants is in its [`Decision`].
//!
//! It is level-triggered: it looks at what is, not at what happened, and says what is missing. The same arguments
//! give the same answer, so an agent that was killed observes the world again and goes on from there, also in the
//! middle of a deploy. What can't be observed again (which release is live, how far a deploy is, what a human
//! wishes) is a [`Change`]: decide proposes it, the shell commits it to the disk, and only then it is part of
//! [`Desired`].
//!
//! ```text
//! Desired ──┐             ┌─▶ commits   (to the store, synced, then applied to Desired)
//! Observed ─┼─▶ decide ─▶ ├─▶ actions   (to the engine; idempotent)
//! now ──────┘             ├─▶ table     (to the proxies)
//!                         ├─▶ probes    (which replicas to probe, and how eagerly)
//!                         └─▶ wake_at   (when to ask again, if nothing happens before)
//! ```
//!
//! The rooms: [`desired`] (what should be, and the changes to it), [`observed`] (what is), [`admit`] (which requests
//! are let in), `wanted` (which slots should be filled), `humans` (what people did through the Engine), `slots` (replace, stop), `starts`, `excuse` (what
//! fails for somebody else), `renew` (what is replaced without being sick), `table` (routes),
//! `names` (who carries a service's name), `progress` (a deploy's gate, switch, bake, retire).

pub mod admit;
pub mod desired;
mod excuse;
mod humans;
mod last_call;
mod names;
pub mod observed;
mod progress;
mod renew;
mod slots;
mod starts;
mod table;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use self::{
    admit::{Admission, Denied, Request},
    desired::{Change, Deployment, Desired, Kind, Outcome, Phase, Release, ReleaseState, Wish},
    excuse::{EXCUSE_MAX, Excuse},
    last_call::LastCall,
    observed::{Event, ExitStatus, Load, Observed, Origin, Replica, ReplicaPhase, StartError},
    progress::{FALL_BACK_DEATHS, FALL_BACK_WITHIN, FallBack},
    renew::RECYCLE_AFTER,
    table::{CloseTunnels, Route, Table},
};
use crate::{
    ids::{Generation, ReplicaId, Slot},
    time::Timestamp,
};

/// A proxy generation that hasn't acknowledged a table for this long is killed (ARCHITECTURE.md, invariant 2).
pub const PROXY_SILENCE_MAX: Duration = Duration::from_secs(5);
/// A start that the engine hasn't confirmed after this long is taken for lost.
pub const START_CONFIRM_MAX: Duration = Duration::from_secs(10);
/// The same for a container: on a slow disk it takes long to be made.
pub const CONTAINER_CONFIRM_MAX: Duration = Duration::from_secs(60);
/// A stop or kill that had no effect is sent again after this long.
pub const RESEND: Duration = Duration::from_secs(5);

/// What should happen now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Changes to commit before anything else is decided, in this order.
    pub commits: Vec<Change>,
    /// What to ask of the engine and the keeper.
    pub actions: Vec<Action>,
    /// The routes that should be in force.
    pub table: Table,
    /// The replicas that should be probed.
    pub probes: BTreeMap<ReplicaId, Eagerness>,
    /// Replicas that fail, and are left alone for a while.
    pub excused: BTreeMap<ReplicaId, Excuse>,
    /// The release before should be gone back to, as if somebody asked for it.
    pub fall_back: Option<FallBack>,
    /// When to decide again at the latest.
    pub wake_at: Option<Timestamp>,
}

impl Decision {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// How often a replica is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eagerness {
    /// At `start_interval`: there is no verdict yet.
    Gate,
    /// At `interval`.
    Watch,
}

/// Something to do. Doing it twice does no more than doing it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Starts a replica.
    Start {
        /// A name never used before.
        id: ReplicaId,
        /// Why, for the ledger.
        cause: StartCause,
    },
    /// Asks a replica to stop, with its service's signal.
    Stop {
        /// Which.
        id: ReplicaId,
    },
    /// Kills a replica and its whole process group.
    Kill {
        /// Which.
        id: ReplicaId,
        /// Why.
        cause: KillCause,
    },
    /// Kills a proxy generation that has fallen silent.
    KillProxy {
        /// Which.
        generation: Generation,
    },
}

/// Why a replica is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartCause {
    /// Its slot was never filled.
    New,
    /// The one before it died.
    Died,
    /// The one before it still runs and is sick.
    Replace,
    /// A human asked for a restart.
    Wish,
    /// What it is tied to was started anew.
    Follow,
    /// The one before it works, and has come to its age.
    Recycle(Worn),
}

/// By what a replica has come to its age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worn {
    /// It takes so much memory, in bytes.
    Memory(u64),
    /// It has run for so long.
    Age(Duration),
    /// It has had so many requests.
    Requests(u64),
}

/// Why a replica is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillCause {
    /// It was proven hung.
    Hung,
    /// It didn't become ready within its gate.
    NotReady,
    /// It outlived its grace.
    Grace,
}

/// Decides what should happen now. Pure: the same arguments give the same decision.
#[must_use]
pub fn decide(desired: &Desired, observed: &Observed, now: Timestamp) -> Decision {
    let mut decision = Decision::default();
    let wanted = wanted::wanted(desired, observed);
    humans::record(desired, observed, &mut decision);
    let verdicts = slots::classify(desired, &wanted, observed, now, &mut decision);
    starts::start(desired, &wanted, observed, &verdicts, now, &mut decision);
    decision.table = table::table(desired, observed, &verdicts);
    slots::stop(desired, observed, &verdicts, now, &mut decision);
    slots::probes(desired, observed, &mut decision);
    progress::deployment(desired, observed, &wanted, now, &mut decision);
    progress::retire(desired, observed, now, &mut decision);
    progress::fall_back(desired, observed, now, &mut decision);
    progress::jobs(desired, observed, &mut decision);
    progress::prove(desired, observed, &mut decision);
    silent_proxies(observed, now, &mut decision);
    decision
}

/// The slots that should be filled now, as far as releases, wishes and what people did through the Engine say.
#[must_use]
pub fn wanted_slots(desired: &Desired, observed: &Observed) -> BTreeSet<Slot> {
    wanted::wanted(desired, observed).into_keys().collect()
}

fn silent_proxies(observed: &Observed, now: Timestamp, decision: &mut Decision) {
    for (generation, proxy) in observed.proxies() {
        let Some(asked) = proxy.behind_since(observed.published()) else { continue };
        if now.since(asked) >= PROXY_SILENCE_MAX {
            decision.actions.push(Action::KillProxy { generation });
            decision.wake(now + RESEND);
        } else {
            decision.wake(asked + PROXY_SILENCE_MAX);
        }
    }
}

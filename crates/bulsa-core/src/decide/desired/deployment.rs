//! A run of the deploy pipeline: what it is for, how far it is, how it ended.
//!
//! Owns: the types, and what a phase means for users. Never: changes one; that is [`super::Desired::apply`].

use std::collections::{BTreeMap, BTreeSet};

use crate::{ids::ReleaseId, spec::Rolling, time::Timestamp};

/// One run of the deploy pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// Counted from 1 within the project.
    pub id: u32,
    /// What it is for.
    pub kind: Kind,
    /// The release that should become live.
    pub candidate: ReleaseId,
    /// The release that was live when it began.
    pub previous: Option<ReleaseId>,
    /// The `shared` services that it recreates: those that were asked for by name, and differ from what runs.
    pub recreates: BTreeSet<String>,
    /// When it began.
    pub started: Timestamp,
    /// How far it is.
    pub phase: Phase,
}

impl Deployment {
    /// Whether it still runs.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        !matches!(self.phase, Phase::Done { .. })
    }

    /// Whether it runs and users have not been switched to its candidate yet.
    #[must_use]
    pub const fn is_before_switch(&self) -> bool {
        matches!(self.phase, Phase::Gate | Phase::Exchange { .. } | Phase::Revert { .. })
    }

    /// Whether some users have met its candidate already: before the switch only rolling services show it.
    #[must_use]
    pub fn was_seen(&self) -> bool {
        match &self.phase {
            Phase::Gate => false,
            // What was ready in a step that isn't done has had requests, too; nobody can say so after a crash.
            Phase::Exchange { moved, .. } => !moved.is_empty(),
            Phase::Revert { seen, .. } => *seen,
            Phase::Bake { .. } | Phase::Done { .. } => true,
        }
    }
}

/// What a deployment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The project's first release: it is live from the start, for there is nothing to protect.
    First,
    /// A new release replaces the live one.
    Deploy,
    /// An earlier release replaces the live one.
    Rollback,
}

/// How far a deployment is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The candidate is started beside the live release and has to pass its gate.
    Gate,
    /// All that could start beside the live release has passed. What can't is being exchanged: `stop_first` services
    /// at once, with requests held, rolling ones step by step.
    Exchange {
        /// Since when.
        since: Timestamp,
        /// How far the rolling services are: so many of each one's replicas are the candidate's for good, from the
        /// first on.
        moved: BTreeMap<String, u32>,
    },
    /// The candidate is given up, and what it had recreated is being put back.
    Revert {
        /// Since when.
        since: Timestamp,
        /// Why.
        reason: String,
        /// Whether users had met the candidate.
        seen: bool,
    },
    /// The candidate is live and watched.
    Bake {
        /// When users were switched.
        switched: Timestamp,
    },
    /// It is over.
    Done {
        /// How it ended.
        outcome: Outcome,
        /// Why, in a sentence; empty for [`Outcome::Deployed`].
        reason: String,
        /// When.
        at: Timestamp,
    },
}

/// The step of a rolling service that is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decide) struct RollStep {
    /// Replicas up to this number are the candidate's for good.
    pub(in crate::decide) done: u32,
    /// Replicas up to this number are started.
    pub(in crate::decide) until: u32,
    /// How.
    pub(in crate::decide) rolling: Rolling,
}

impl RollStep {
    /// Whether the live release still has its replica of this number.
    pub(in crate::decide) const fn keeps_old(&self, ordinal: u32) -> bool {
        ordinal > if self.rolling.stop_first { self.until } else { self.done }
    }
}

/// How a deployment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The candidate is live.
    Deployed,
    /// The candidate was live for a while; the previous release is live again.
    RolledBack,
    /// The candidate never was live, or (a first release) isn't healthy.
    Failed,
}

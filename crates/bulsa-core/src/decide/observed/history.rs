//! What is remembered of a slot: its failures, and how its last replica ended.
//!
//! Owns: the counts from which a deploy's gate, a bake and a restart policy judge. Never: judges.

use std::time::Duration;

use crate::{
    backoff::{self, Score},
    ids::Slot,
    time::Timestamp,
};

/// A replica that served for so long before it died wasn't part of a row of failures.
pub const STEADY: Duration = Duration::from_secs(10);

/// What is remembered of a slot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SlotHistory {
    /// The failure score.
    pub score: Score,
    /// The highest attempt seen.
    pub attempt: u32,
    /// How often it died before it was ever ready, in a row.
    pub early_deaths: u32,
    /// How often in a row it was started again after a death. A replica that served for [`STEADY`] ends the row.
    pub restarts: u32,
    /// How the last replica ended.
    pub last_exit: Option<ExitStatus>,
    /// Whether that end says nothing about the service: we asked for it, or a human gave the slot another chance.
    pub excused: bool,
    /// The last start that failed, until one succeeds.
    pub start_error: Option<StartError>,
    /// Deaths by the program's own doing, and those of sick replicas that we took away.
    pub own_deaths: u32,
    /// All deaths that weren't ours.
    pub deaths: u32,
    /// Whether a human took its last replica away, and nothing was started in it since.
    pub taken_away: bool,
    /// How long the last one ran, if it was never ready.
    pub lived: Duration,
    /// When the last one that was healthy at its end ended.
    pub served_until: Option<Timestamp>,
    /// Whether something that may be why it failed has changed since: its next start isn't put off.
    pub changed: bool,
    pub(super) highest_dead: u32,
    pub(super) died_at: Timestamp,
}

impl SlotHistory {
    /// When its last replica ended; the beginning of time where none did.
    pub(in crate::decide) const fn died_at(&self) -> Timestamp {
        self.died_at
    }

    /// Whether the last one was healthy when it ended.
    pub(in crate::decide) fn served(&self) -> bool {
        self.served_until == Some(self.died_at)
    }

    /// When the slot may be started again, as far as its failures say.
    #[must_use]
    pub fn next_start(&self, slot: &Slot) -> Timestamp {
        let at = self.score.next_start(slot, self.attempt);
        if self.score.is_parked() { at.max(self.died_at + backoff::rest_after(self.lived)) } else { at }
    }

    pub(super) fn give_another_chance(&mut self) {
        (self.score, self.early_deaths, self.restarts) = (Score::default(), 0, 0);
        (self.start_error, self.excused, self.taken_away) = (None, true, false);
    }

    pub(super) fn bury(&mut self, attempt: u32, now: Timestamp) {
        self.highest_dead = self.highest_dead.max(attempt);
        self.attempt = self.attempt.max(attempt);
        (self.excused, self.taken_away, self.died_at) = (false, false, now);
        self.changed = false;
    }
}

/// Why a replica could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    /// What is wrong, for people.
    pub message: String,
    /// Whether it can't get better by itself: the program isn't there.
    pub permanent: bool,
}

/// How a replica ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// It was ended by this signal.
    Signal(i32),
    /// Nobody saw it: an adopted replica, or a lost event.
    Unknown,
}

impl ExitStatus {
    /// Whether the program itself ended: neither a kill from outside nor an end that nobody saw.
    #[must_use]
    pub const fn is_own_doing(self) -> bool {
        const SIGINT: i32 = 2;
        const SIGKILL: i32 = 9;
        const SIGTERM: i32 = 15;
        match self {
            Self::Code(_) => true,
            Self::Signal(signal) => !matches!(signal, SIGINT | SIGKILL | SIGTERM),
            Self::Unknown => false,
        }
    }
}

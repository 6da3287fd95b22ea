//! What is known of a proxy generation: the table that it runs on, and its load.
//!
//! Owns: the acknowledgements. Never: kills a silent one; that is decided.

use std::collections::BTreeMap;

use crate::{ids::ReplicaId, time::Timestamp};

/// One proxy generation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proxy {
    pub(super) table: u64,
    pub(super) up_since: Timestamp,
    pub(super) asked_since: Option<Timestamp>,
    pub(super) load: BTreeMap<ReplicaId, Load>,
}

impl Proxy {
    /// The number of the table that all of its threads run on.
    #[must_use]
    pub const fn table(&self) -> u64 {
        self.table
    }

    /// Since when it owes an acknowledgement of table `published`; `None` if it owes none.
    #[must_use]
    pub fn behind_since(&self, published: u64) -> Option<Timestamp> {
        if self.table >= published { None } else { Some(self.asked_since.unwrap_or(self.up_since)) }
    }
}

/// What one proxy generation has, and had, to do with a replica. The last three only ever grow while it knows the
/// replica: of one that it does not report any more it forgets them, and counts anew should it come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests under way.
    pub in_flight: u64,
    /// Tunnels open.
    pub tunnels: u64,
    /// Requests ever sent to it.
    pub requests: u64,
    /// 5xx answers, and connections that broke before the answer's end.
    pub errors: u64,
    /// Refused connections.
    pub refused: u64,
    /// Whether requests wait there, and for some time none has been answered.
    pub stalled: bool,
}

impl Load {
    /// What is new of the last three since this was reported by the same generation, if it knew the replica then.
    #[must_use]
    pub fn since(self, before: Option<&Self>) -> Self {
        let is_grown = |before: &Self| {
            before.requests <= self.requests && before.errors <= self.errors && before.refused <= self.refused
        };
        // Where one is less than it was they were forgotten meanwhile.
        let Some(before) = before.filter(|before| is_grown(before)) else { return self };
        Self {
            requests: self.requests - before.requests,
            errors: self.errors - before.errors,
            refused: self.refused - before.refused,
            ..self
        }
    }

    /// Both together: of two proxies, or of two addresses of one replica.
    #[must_use]
    pub const fn plus(self, other: &Self) -> Self {
        Self {
            in_flight: self.in_flight + other.in_flight,
            tunnels: self.tunnels + other.tunnels,
            requests: self.requests + other.requests,
            errors: self.errors + other.errors,
            refused: self.refused + other.refused,
            stalled: self.stalled || other.stalled,
        }
    }
}

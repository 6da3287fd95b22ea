//! What happens, as [`super::Observed`] takes it in.
//!
//! Owns: the closed list of events. Never: changes anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{ExitStatus, Load, StartError};
use crate::{
    health::ProbeResult,
    ids::{Generation, ReplicaId, Slot},
    spec::Probe,
    time::Timestamp,
};

/// Where a replica that runs comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This agent had it started.
    Ours,
    /// It ran when this agent began. A proxy may still choose it, whatever the last table says: some may be behind.
    Adopted {
        /// Whether the last table of the earlier agent routes to it: it goes on serving until a probe says otherwise.
        routed: bool,
    },
}

/// Something that happened. Events may come late, twice, or (except the shell's own) not at all.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The shell asked the engine to start a replica.
    StartSent(ReplicaId),
    /// The shell asked the engine to stop, or kill, a replica.
    StopSent {
        /// Which.
        id: ReplicaId,
        /// Whether it was a kill.
        kill: bool,
    },
    /// A replica runs. One that ended before and that a human started again through the Engine is
    /// [`Origin::Adopted`], not routed.
    Started {
        /// Which.
        id: ReplicaId,
        /// When its process started.
        at: Timestamp,
        /// Where it comes from.
        origin: Origin,
    },
    /// A replica could not be started.
    StartFailed {
        /// Which.
        id: ReplicaId,
        /// Why.
        error: StartError,
    },
    /// Something has changed that may be why the last replica of this slot ended, or could not be started: a file that it
    /// needs, say.
    Changed(Slot),
    /// A replica is gone.
    Exited {
        /// Which.
        id: ReplicaId,
        /// How.
        status: ExitStatus,
    },
    /// A replica has ended. How, and that it is gone, is told by [`Event::Exited`] once its last output is there to be
    /// shown; until then it serves nobody, and proves nothing any more. So does one that doesn't run and that its engine
    /// is about to start again.
    EndSeen(ReplicaId),
    /// One whose [end was seen](Event::EndSeen) was started again by its engine, before anything took its place.
    StartedAgain {
        /// Which.
        id: ReplicaId,
        /// When.
        at: Timestamp,
    },
    /// A replica is gone because a human stopped or killed it through the Engine, and the Engine lives on: no failure.
    /// Its slot stays empty until a human wants it filled. One that we had asked to stop has just ended.
    ///
    /// Told once for each end: after a human's word that the slot is to be filled again, a repetition would take that
    /// word back.
    TakenAway {
        /// Which.
        id: ReplicaId,
        /// How it ended.
        status: ExitStatus,
    },
    /// A human froze a replica, or let it go on. After its adoption, this follows [`Event::Started`] at once.
    Paused {
        /// Which.
        id: ReplicaId,
        /// Whether it is frozen now.
        paused: bool,
    },
    /// How much memory a replica takes.
    Measured {
        /// Which.
        id: ReplicaId,
        /// In bytes.
        memory: u64,
    },
    /// Where a replica listens, or that it doesn't any more.
    Listening {
        /// Which.
        id: ReplicaId,
        /// Its address.
        addr: Option<SocketAddr>,
    },
    /// The services whose name is to be served inside the project's networks and isn't, with the reason where that was
    /// tried in vain. Those that aren't named are served.
    Names {
        /// By service.
        unserved: BTreeMap<String, Option<String>>,
    },
    /// One run of a replica's probe.
    Probed {
        /// Which.
        id: ReplicaId,
        /// What it found.
        result: ProbeResult,
        /// The thresholds of its service.
        probe: Probe,
    },
    /// A replica's heartbeat, of which it had sent one, is overdue.
    HeartbeatMissed {
        /// Which.
        id: ReplicaId,
    },
    /// All replicas that the engine has. What it doesn't have is gone.
    Listed {
        /// Those that run, paused ones too, with the times at which their processes started.
        replicas: BTreeMap<ReplicaId, Timestamp>,
        /// Those that it is still making: they don't run yet, and are not lost.
        creating: BTreeSet<ReplicaId>,
        /// When the engine was asked.
        as_of: Timestamp,
    },
    /// The shell gave this table to the keeper and to every proxy.
    Published {
        /// Its number.
        number: u64,
        /// The replicas that it routes to.
        routed: BTreeSet<ReplicaId>,
        /// The replicas whose tunnels it asks to be closed.
        closing: BTreeSet<ReplicaId>,
    },
    /// The keeper has this table: every proxy generation of which the agent doesn't know yet starts with it.
    Kept {
        /// Its number.
        number: u64,
    },
    /// A proxy generation runs.
    ProxyUp(Generation),
    /// A proxy generation is gone.
    ProxyDown(Generation),
    /// A proxy generation reports.
    ProxyReport {
        /// Which.
        generation: Generation,
        /// The table that all of its threads run on.
        table: u64,
        /// Its load by replica; a replica that isn't named has none.
        load: BTreeMap<ReplicaId, Load>,
    },
}

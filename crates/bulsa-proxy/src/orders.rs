//! What is between the handle and its workers: orders down, counts and names up.
//!
//! Owns: the form of an order, and what all workers share. Never: follows an order; that is [`crate::worker`].

use std::collections::{BTreeMap, VecDeque};
use std::net::TcpListener as StdListener;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::access_log::Queue;
use crate::addresses::Addresses;
use crate::bounds::Bounds;
use crate::plan::Plan;
use crate::report::{SUSPECTS_MAX, Signal, Suspect, WorkerStats};

/// What all workers are to do: the whole of it, not what changed.
#[derive(Debug, Clone)]
pub(crate) struct Orders {
    /// Grows with each change, so that "has taken the newest" can be told.
    pub(crate) number: u64,
    pub(crate) plan: Arc<Plan>,
    pub(crate) listeners: BTreeMap<String, Arc<Vec<StdListener>>>,
    /// The deadline of the drain, once it has begun.
    pub(crate) drain: Option<Instant>,
}

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Serving,
    Draining,
    ClosingIdle,
    Ended,
}

/// What a worker has in common with the others.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) stats: Box<[WorkerStats]>,
    pub(crate) signal: Arc<Signal>,
    /// Requests with which two targets died, and their number so far. Locked by such a request, and by reports.
    suspects: Mutex<(u64, VecDeque<Suspect>)>,
    pub(crate) bounds: Bounds,
    pub(crate) addresses: Arc<Addresses>,
    /// Lines of the access log that are to be written. Locked by a worker that has many of them, and by the writer.
    pub(crate) access_log: Arc<Queue>,
}

impl Shared {
    pub(crate) fn new(workers: usize, signal: Arc<Signal>, bounds: Bounds) -> Self {
        let stats = (0..workers).map(|_| WorkerStats::default()).collect();
        let (addresses, access_log) = (Arc::default(), Arc::default());
        Self { stats, signal, suspects: Mutex::default(), bounds, addresses, access_log }
    }

    /// Notes a request with which two targets died.
    pub(crate) fn suspect(&self, suspect: Suspect) {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, last) = &mut *suspects;
        *number += 1;
        if SUSPECTS_MAX <= last.len() {
            last.pop_front();
        }
        last.push_back(Suspect { number: *number, ..suspect });
        self.signal.raise();
    }

    /// The last of them.
    pub(crate) fn last_suspects(&self) -> Vec<Suspect> {
        let suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        suspects.1.iter().cloned().collect()
    }
}

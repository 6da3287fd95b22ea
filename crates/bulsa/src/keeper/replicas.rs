//! The replicas that run and the exit records that wait: what the keeper must not lose.
//!
//! One id has at most one process, and an id with a waiting exit record gets no new one, so that an agent that
//! asks twice (because it died between asking and hearing) gets the same answer twice.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, pidfd_send_signal};

use super::adopt;
use super::journal::{Entry, Journal};
use super::log::log;
use super::spawn::Started;
use crate::link::messages::{ExitRecord, ExitStatus, ReplicaInfo};

/// The most exit records that wait; then the oldest are dropped and counted.
pub(crate) const MAX_EXITS: usize = 4096;

/// The most replicas at once.
pub(crate) const MAX_REPLICAS: usize = 4096;

/// A running replica.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
    pub(crate) note: String,
    /// Of an adopted one. A child of ours needs none: until we reap it, its pid is its own.
    pub(crate) pidfd: Option<OwnedFd>,
}

/// All replicas and exit records.
#[derive(Debug)]
pub(crate) struct Replicas {
    running: BTreeMap<String, Replica>,
    exits: VecDeque<ExitRecord>,
    dropped: u64,
    journal: Journal,
}

impl Replicas {
    /// What was found at the start of this keeper.
    pub(crate) fn new(running: BTreeMap<String, Replica>, exits: Vec<ExitRecord>, journal: Journal) -> Self {
        let mut this = Self { running, exits: exits.into(), dropped: 0, journal };
        this.rewrite_journal();
        this
    }

    /// The replica of an id.
    pub(crate) fn get(&self, id: &str) -> Option<&Replica> {
        self.running.get(id)
    }

    /// The waiting exit record of an id.
    pub(crate) fn exit_of(&self, id: &str) -> Option<&ExitRecord> {
        self.exits.iter().find(|record| record.id == id)
    }

    /// Whether one more may be started.
    pub(crate) fn has_room(&self) -> bool {
        self.running.len() < MAX_REPLICAS
    }

    /// All that run, for the agent.
    pub(crate) fn infos(&self) -> impl Iterator<Item = ReplicaInfo> {
        self.running.iter().map(|(id, replica)| ReplicaInfo {
            id: id.clone(),
            pid: replica.pid,
            start_time: replica.start_time,
            adopted: replica.pidfd.is_some(),
            note: replica.note.clone(),
        })
    }

    /// The waiting exit records, oldest first.
    pub(crate) fn exits(&self) -> impl Iterator<Item = &ExitRecord> {
        self.exits.iter()
    }

    /// How many exit records were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The adopted ones, whose end only their pidfd tells.
    pub(crate) fn adopted(&self) -> impl Iterator<Item = (&str, &OwnedFd)> {
        self.running.iter().filter_map(|(id, replica)| Some((id.as_str(), replica.pidfd.as_ref()?)))
    }

    /// The ids that run.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.running.keys().map(String::as_str)
    }

    /// Whether none runs.
    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Takes in a started child.
    pub(crate) fn insert(&mut self, id: &str, started: Started, note: String) {
        let Started { pid, start_time } = started;
        self.journal.spawned(Entry { id: id.to_owned(), pid, start_time, note: note.clone() });
        self.running.insert(id.to_owned(), Replica { pid, start_time, note, pidfd: None });
        self.shorten_journal();
    }

    /// The id of a child of ours.
    pub(crate) fn child_id(&self, pid: i32) -> Option<String> {
        let mut found =
            self.running.iter().filter(|(_, replica)| replica.pid == pid && replica.pidfd.is_none());
        found.next().map(|(id, _)| id.clone())
    }

    /// Turns a replica into an exit record. Its group must be dead by now.
    pub(crate) fn ended(&mut self, id: &str, status: ExitStatus) -> Option<ExitRecord> {
        let replica = self.running.remove(id)?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let record = ExitRecord {
            id: id.to_owned(),
            pid: replica.pid,
            start_time: replica.start_time,
            status,
            at_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        };
        self.journal.exited(record.clone());
        self.exits.push_back(record.clone());
        if self.exits.len() > MAX_EXITS
            && let Some(oldest) = self.exits.pop_front()
        {
            self.journal.forgotten(&oldest.id);
            self.dropped += 1;
            log!("{MAX_EXITS} exit records wait for an agent: the one of {} was dropped", oldest.id);
        }
        self.shorten_journal();
        Some(record)
    }

    /// Forgets an exit record.
    pub(crate) fn acknowledge(&mut self, id: &str) {
        let before = self.exits.len();
        self.exits.retain(|record| record.id != id);
        if self.exits.len() < before {
            self.journal.forgotten(id);
            self.shorten_journal();
        }
    }

    /// Sends a signal. One that is dead already needs none: its exit is on its way.
    pub(crate) fn signal(&self, id: &str, signal: Signal, group: bool) {
        let Some(replica) = self.running.get(id) else { return };
        let Some(pid) = Pid::from_raw(replica.pid) else { return };
        let result = match &replica.pidfd {
            // The group's number is its own while its leader lives; a dead one's group is killed anyway.
            Some(_) if group && !adopt::is_alive(replica.pid, replica.start_time) => return,
            Some(_) if group => kill_process_group(pid, signal),
            Some(pidfd) => pidfd_send_signal(pidfd, signal),
            None if group => kill_process_group(pid, signal),
            None => kill_process(pid, signal),
        };
        match result {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => log!("{signal:?} cannot be sent to {id} (pid {pid:?}): {error}"),
        }
    }

    fn shorten_journal(&mut self) {
        if self.journal.is_long(self.running.len() + self.exits.len()) {
            self.rewrite_journal();
        }
    }

    fn rewrite_journal(&mut self) {
        let running = self.running.iter().map(|(id, replica)| Entry {
            id: id.clone(),
            pid: replica.pid,
            start_time: replica.start_time,
            note: replica.note.clone(),
        });
        self.journal.rewrite(running.collect(), self.exits.iter().cloned().collect());
    }
}

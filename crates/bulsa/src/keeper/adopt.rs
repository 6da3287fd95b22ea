//! Finding what a dead keeper left behind, and killing what belongs to nothing any more.
//!
//! A process is known by pid *and* kernel start time. Before anything is done to one that is no child of ours, a
//! pidfd is opened and the start time read again: then the pidfd is certainly that process.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::journal::{Entry, Left};
use super::log::log;
use super::marker::{Marker, Role};
use super::procfs;
use super::replicas::Replica;

/// How often `/proc` is read at most until two readings agree and nobody is inside `execve`.
const MAX_SCANS: usize = 50;
/// Between two readings.
const SCAN_PAUSE: Duration = Duration::from_millis(2);
/// How often what is left of a replica is looked for: each round kills all that it finds.
const MAX_KILL_ROUNDS: usize = 20;

/// A living process of this daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marked {
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
    pub(crate) leads_group: bool,
    pub(crate) role: Role,
}

/// What was found of a dead keeper.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Replicas to go on with.
    pub(crate) replicas: BTreeMap<String, Replica>,
    /// Replicas that ended while there was no keeper.
    pub(crate) gone: Vec<Entry>,
    /// Processes of replicas whose leader is gone.
    pub(crate) strays: Vec<Marked>,
    /// Agents, and their children.
    pub(crate) agents: Vec<Marked>,
    /// Proxies.
    pub(crate) proxies: Vec<(u64, Marked)>,
}

/// Whether this very process lives.
pub(crate) fn is_alive(pid: i32, start_time: u64) -> bool {
    procfs::stat(pid).is_ok_and(|stat| stat.start_time == start_time && !stat.zombie)
}

/// A pidfd of this very process, if it lives.
pub(crate) fn open_verified(pid: i32, start_time: u64) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    is_alive(pid, start_time).then_some(pidfd)
}

/// Sends a signal to this very process, if it lives.
pub(crate) fn signal_verified(pid: i32, start_time: u64, signal: Signal) {
    let Some(pidfd) = open_verified(pid, start_time) else { return };
    match pidfd_send_signal(&pidfd, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => log!("{signal:?} cannot be sent to process {pid}: {error}"),
    }
}

/// All living processes of this daemon but this one and those it descends from.
pub(crate) fn scan(marker: &Marker) -> Vec<Marked> {
    let mut last = scan_once(marker);
    for _ in 1..MAX_SCANS {
        std::thread::sleep(SCAN_PAUSE);
        let next = scan_once(marker);
        if next == last && !next.incomplete {
            break;
        }
        last = next;
    }
    last.marked
}

/// One reading of `/proc`.
#[derive(Debug, PartialEq, Eq)]
struct Scan {
    marked: Vec<Marked>,
    /// Some process is inside `execve`: it has lost one environment and does not show the next yet.
    incomplete: bool,
}

fn scan_once(marker: &Marker) -> Scan {
    let ancestors = ancestors();
    let pids = procfs::pids().unwrap_or_else(|error| {
        log!("/proc cannot be read: {error}; what a dead keeper left is not found");
        Vec::new()
    });
    let mut incomplete = false;
    let marked = |pid: &i32| {
        let before = procfs::stat(*pid).ok().filter(|stat| !stat.zombie)?;
        incomplete |= before.hides_environ && procfs::is_open_to_us(*pid);
        let role = marker.role(*pid)?;
        let stat = procfs::stat(*pid).ok().filter(|stat| stat.start_time == before.start_time)?;
        Some(Marked { pid: *pid, start_time: stat.start_time, leads_group: stat.pgrp == *pid, role })
    };
    let marked = pids.iter().filter(|pid| !ancestors.contains(pid)).filter_map(marked).collect();
    Scan { marked, incomplete }
}

/// This process and those above it.
fn ancestors() -> BTreeSet<i32> {
    let mut pid = rustix::process::getpid().as_raw_pid();
    let mut seen = BTreeSet::new();
    while pid > 0 && seen.insert(pid) {
        pid = procfs::stat(pid).map_or(0, |stat| stat.ppid);
    }
    seen
}

/// Sorts what is alive by what to do with it.
pub(crate) fn sort(marked: Vec<Marked>, left: &Left) -> Found {
    let mut found = Found::default();
    for entry in left.running.values() {
        match open_verified(entry.pid, entry.start_time) {
            Some(pidfd) => {
                found
                    .replicas
                    .insert(entry.id.clone(), adopted(entry.pid, entry.start_time, &entry.note, pidfd));
            }
            None => found.gone.push(entry.clone()),
        }
    }
    let mut unknown = BTreeMap::<String, Vec<Marked>>::new();
    for one in marked {
        match &one.role {
            Role::Task { id, .. } if found.replicas.contains_key(id) => {}
            Role::Task { id, .. } if was_known(left, id) => found.strays.push(one),
            Role::Task { id, .. } => unknown.entry(id.clone()).or_default().push(one),
            Role::Agent { .. } => found.agents.push(one),
            Role::Proxy { generation } => found.proxies.push((*generation, one)),
        }
    }
    for (id, processes) in unknown {
        adopt_oldest(&mut found, &id, processes);
    }
    found
}

fn was_known(left: &Left, id: &str) -> bool {
    left.running.contains_key(id) || left.exits.iter().any(|record| record.id == id)
}

/// The keeper died between a spawn and its line in the journal: then the group leader that started first is it.
fn adopt_oldest(found: &mut Found, id: &str, processes: Vec<Marked>) {
    let leader = processes.iter().filter(|one| one.leads_group).min_by_key(|one| (one.start_time, one.pid));
    let adopted = leader.and_then(|one| {
        let Role::Task { note, .. } = &one.role else { return None };
        Some(adopted(one.pid, one.start_time, note, open_verified(one.pid, one.start_time)?))
    });
    match adopted {
        Some(replica) => {
            found.replicas.insert(id.to_owned(), replica);
        }
        None => found.strays.extend(processes),
    }
}

fn adopted(pid: i32, start_time: u64, note: &str, pidfd: OwnedFd) -> Replica {
    Replica { pid, start_time, note: note.to_owned(), pidfd: Some(pidfd) }
}

/// Kills every process of a replica whose leader is gone, wherever it went.
pub(crate) fn kill_marked(marker: &Marker, id: &str) {
    for _ in 0..MAX_KILL_ROUNDS {
        let ours = |one: &Marked| matches!(&one.role, Role::Task { id: of, .. } if of == id);
        let Scan { marked, incomplete } = scan_once(marker);
        let left: Vec<Marked> = marked.into_iter().filter(ours).collect();
        if left.is_empty() && !incomplete {
            return;
        }
        for one in &left {
            signal_verified(one.pid, one.start_time, Signal::KILL);
        }
        std::thread::sleep(SCAN_PAUSE);
    }
    log!("processes of the dead replica {id} do not die");
}

/// Asks all to end, waits for at most `grace`, kills the rest, and waits for at most `grace` again.
/// Says whether all are gone.
pub(crate) fn end(processes: &[Marked], grace: Duration) -> bool {
    let pidfds: Vec<OwnedFd> =
        processes.iter().filter_map(|one| open_verified(one.pid, one.start_time)).collect();
    for signal in [Signal::TERM, Signal::KILL] {
        for pidfd in &pidfds {
            if let Err(error) = pidfd_send_signal(pidfd, signal)
                && error != rustix::io::Errno::SRCH
            {
                log!("{signal:?} cannot be sent: {error}");
            }
        }
        if wait_for_ends(&pidfds, grace) {
            return true;
        }
    }
    false
}

fn wait_for_ends(pidfds: &[OwnedFd], limit: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let deadline = Instant::now() + limit;
    let mut waiting: Vec<PollFd<'_>> = pidfds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    loop {
        waiting.retain(|fd| fd.revents().is_empty());
        if waiting.is_empty() {
            return true;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(timeout) = left.try_into() else { return false };
        match poll(&mut waiting, Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                log!("waiting for processes failed: {error}");
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    struct Process(Child);

    impl Process {
        fn start() -> Self {
            let mut command = Command::new("sleep");
            command
                .arg("600")
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            Self(command.spawn().unwrap())
        }

        fn pid(&self) -> i32 {
            i32::try_from(self.0.id()).unwrap()
        }

        fn marked(&self, id: &str, leads_group: bool) -> Marked {
            let start_time = procfs::stat(self.pid()).unwrap().start_time;
            let role = Role::Task { id: id.to_owned(), note: "n".to_owned() };
            Marked { pid: self.pid(), start_time, leads_group, role }
        }

        fn entry(&self, id: &str, late: u64) -> Entry {
            let start_time = procfs::stat(self.pid()).unwrap().start_time + late;
            Entry { id: id.to_owned(), pid: self.pid(), start_time, note: "n".to_owned() }
        }
    }

    impl Drop for Process {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    fn left(entries: Vec<Entry>) -> Left {
        Left {
            running: entries.into_iter().map(|entry| (entry.id.clone(), entry)).collect(),
            exits: Vec::new(),
        }
    }

    #[test]
    fn a_replica_of_the_journal_is_adopted_even_without_its_environment() {
        let process = Process::start();
        let found = sort(Vec::new(), &left(vec![process.entry("a", 0)]));
        assert_eq!(found.replicas["a"].pid, process.pid());
        assert!(found.gone.is_empty());
    }

    #[test]
    fn a_pid_that_now_belongs_to_another_process_is_left_alone() {
        let process = Process::start();
        let found = sort(Vec::new(), &left(vec![process.entry("a", 1)]));
        assert!(found.replicas.is_empty());
        assert_eq!(found.gone.len(), 1);
    }

    #[test]
    fn a_replica_that_is_not_in_the_journal_is_its_oldest_group_leader() {
        let (first, second) = (Process::start(), Process::start());
        let mut late = second.marked("a", true);
        late.start_time = first.marked("a", true).start_time + 1;
        let found = sort(vec![late, first.marked("a", true)], &Left::default());
        assert_eq!(found.replicas["a"].pid, first.pid());
        assert!(found.strays.is_empty());
    }

    #[test]
    fn processes_whose_leader_is_gone_are_strays() {
        let (dead, alive) = (Process::start(), Process::start());
        let entry = dead.entry("a", 0);
        drop(dead);
        let found = sort(vec![alive.marked("a", true), alive.marked("b", false)], &left(vec![entry]));
        assert!(found.replicas.is_empty());
        assert_eq!(found.strays.len(), 2);
    }

    #[test]
    fn processes_are_ended() {
        let mut process = Process::start();
        let marked = process.marked("a", true);
        assert!(end(&[marked], Duration::from_secs(5)));
        assert!(!process.0.wait().unwrap().success());
    }
}

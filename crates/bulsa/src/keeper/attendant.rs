//! The command for whose sake a container's first process runs.
//!
//! `bulsa run` that is started as process 1 becomes a keeper, since whoever is process 1 must reap all orphans and must
//! not die, which a keeper is made for; the command itself goes on as its child. It deploys, and shows what workers
//! write. Its end is the container's, unless only its showing failed.
//!
//! Owns: starting the command, what its end means, and what signals to process 1 mean. Never: knows what it asks of
//! the agent.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs::File, io};

use rustix::process::{Pid, Signal, kill_process};

use super::Keeper;
use super::backoff::Backoff;
use super::log::log;
use super::marker::{KEEPER_ENV, NOTE_ENV, ROLE_ENV, TASK_ENV};
use super::unsafe_exec::{ChildSetup, prepare};
use crate::daemon_log;
use crate::link::messages::ExitStatus;

/// The value of `BULSA_ROLE` of such a command.
pub const ATTENDANT_ROLE: &str = "attendant";

/// What a keeper ends with when a worker had to be killed because it outlived its time: as a shell and Docker say of
/// a program that was killed.
pub const KILLED_CODE: u8 = 137;

/// Codes of a command that ended although what it attends to may be well: no daemon answered it, and a bug.
const LOST_CODES: [i32; 2] = [5, 70];

/// What the command gets to show what was written last, once everything else has ended.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(3);
/// Between two tries when it cannot even be started.
const RETRY_START: Duration = Duration::from_millis(500);

/// How a keeper is a container's first process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    /// The arguments of the command, behind the program, which is this one.
    pub command: Vec<OsString>,
    /// How long everything may take to end. Whoever ends a container waits only so long before it kills.
    pub stop_limit: Duration,
}

/// The command, or when it is started again.
#[derive(Debug)]
pub(crate) struct Attendant {
    init: Init,
    pid: Option<i32>,
    since: Instant,
    start_at: Option<Instant>,
    backoff: Backoff,
    /// What the keeper ends with.
    code: u8,
    /// So many replicas were killed after everything was told to end.
    killed: usize,
}

impl Attendant {
    /// Not started yet.
    pub(crate) fn new(init: Init) -> Self {
        let now = Instant::now();
        let backoff = Backoff::new(now);
        Self { init, pid: None, since: now, start_at: None, backoff, code: 0, killed: 0 }
    }

    /// When it is to be started.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.start_at
    }

    /// How long everything may take to end.
    pub(crate) fn stop_limit(&self) -> Duration {
        self.init.stop_limit
    }

    /// Counts a replica's end after everything was told to end.
    pub(crate) fn replica_ended(&mut self, status: ExitStatus) {
        self.killed += usize::from(status == ExitStatus::Signal(Signal::KILL.as_raw()));
    }

    /// The keeper's exit code.
    pub(crate) fn code(&self) -> u8 {
        if self.code == 0 && self.killed > 0 { KILLED_CODE } else { self.code }
    }

    fn signal(&self, signal: Signal) {
        let Some(pid) = self.pid.and_then(Pid::from_raw) else { return };
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => log!("{signal:?} cannot be sent to the command: {error}"),
        }
    }
}

impl Keeper {
    /// Starts the command. Schedules another try when it cannot be started.
    pub(crate) fn start_attendant(&mut self) {
        let Some(attendant) = &mut self.attendant else { return };
        attendant.start_at = None;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("bulsa").args(&attendant.init.command).env_remove(TASK_ENV).env_remove(NOTE_ENV);
        command.env(KEEPER_ENV, self.marker.value()).env(ROLE_ENV, ATTENDANT_ROLE);
        // A group of its own: what a terminal sends to its foreground is sent to this keeper, which knows what to do.
        command.stdin(Stdio::null()).process_group(0);
        prepare(&mut command, ChildSetup::default());
        match command.spawn().and_then(|child| i32::try_from(child.id()).map_err(io::Error::other)) {
            Ok(pid) => (attendant.pid, attendant.since) = (Some(pid), Instant::now()),
            Err(error) => {
                log!("the command cannot be started, next try in {RETRY_START:?}: {error}");
                attendant.start_at = Some(Instant::now() + RETRY_START);
            }
        }
    }

    /// Whether a process is the command.
    pub(crate) fn is_attendant(&self, pid: i32) -> bool {
        self.attendant.as_ref().is_some_and(|attendant| attendant.pid == Some(pid))
    }

    /// The command has ended. So does everything, unless only whoever shows what workers write was lost.
    pub(crate) fn attendant_down(&mut self, status: ExitStatus) {
        let is_ending = self.ending.is_some() || self.stop_by.is_some();
        let has_replicas = !self.replicas.is_empty();
        let Some(attendant) = &mut self.attendant else { return };
        attendant.pid = None;
        if is_ending {
            return;
        }
        match status {
            ExitStatus::Code(code) if !has_replicas || !LOST_CODES.contains(&code) => {
                attendant.code = u8::try_from(code).unwrap_or(1);
                self.asked_to_stop();
            }
            _ => {
                let now = Instant::now();
                let wait = attendant.backoff.died(now - attendant.since, now);
                log!("the command ended ({status:?}); it is started again in {wait:?}");
                attendant.start_at = Some(now + wait);
            }
        }
    }

    /// Everything else has ended: the command says what it has still to say.
    pub(crate) fn end_attendant(&mut self) {
        for signal in [Signal::TERM, Signal::KILL] {
            if let Some(attendant) = &self.attendant {
                attendant.signal(signal);
            }
            self.wait_until(LAST_WORDS_LIMIT, |keeper| {
                keeper.attendant.as_ref().is_none_or(|attendant| attendant.pid.is_none())
            });
        }
    }

    /// SIGHUP: the command decides. Without one it is the end of a terminal, which the daemon outlives.
    pub(crate) fn hung_up(&self) {
        match &self.attendant {
            Some(attendant) => attendant.signal(Signal::HUP),
            None => log!("SIGHUP is ignored: the daemon outlives its terminal"),
        }
    }

    /// SIGUSR1 and SIGUSR2 mean something to the program, of which a container's first process is only the cover.
    pub(crate) fn pass_on(&self, signal: Signal) {
        for id in self.replicas.ids() {
            self.replicas.signal(id, signal, false);
        }
    }

    /// Where agent and proxy write to: not between what workers write, of which the container's output is made.
    pub(crate) fn part_log(&self) -> Option<(File, File)> {
        self.attendant.as_ref()?;
        let opened = daemon_log::open(&self.config.state_dir);
        let both = opened.and_then(|(log, _)| Ok((log.try_clone()?, log)));
        both.inspect_err(|error| log!("{} cannot be written: {error}", daemon_log::NAME)).ok()
    }
}

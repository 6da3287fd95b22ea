//! Programs that are run beside the measurement, and what the kernel says that they have used.
//!
//! Owns: a program in a process group of its own, all of which is ended when it is dropped. Never: signals a process
//! that isn't in such a group.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use super::stop::Stop;
use crate::measure::{
    Error,
    processes::{Memory, all_ticks, memory, run_time, tick},
};

/// How long a program may take to end by itself.
const END_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A running program with all processes that it has started.
#[derive(Debug)]
pub(super) struct Group {
    child: Child,
    /// Whether the child was waited for: its number may be somebody else's then.
    is_gone: bool,
}

impl Group {
    pub(super) fn start(command: &mut Command) -> Result<Self, Error> {
        // A group of its own: Ctrl-C is for this program, which ends the others.
        Self::leader(command.process_group(0))
    }

    /// Starts a program that makes its process the leader of a group itself, and keeps it.
    pub(super) fn leader(command: &mut Command) -> Result<Self, Error> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(|error| format!("can't run {name}: {error}"))?;
        Ok(Self { child, is_gone: false })
    }

    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its processes.
    pub(super) fn pids(&self) -> Result<Vec<u32>, Error> {
        let mut pids = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            // A process that has ended meanwhile has no such file.
            let stat = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
            if stat.as_deref().and_then(group_in) == Some(self.child.id()) {
                pids.extend(pid);
            }
        }
        match pids.is_empty() {
            true => Err("the program has ended".into()),
            false => Ok(pids),
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        if !self.is_gone {
            // That nobody is left is no news.
            kill_process_group(Pid::from_child(&self.child), signal).ok();
        }
    }

    /// Waits until its first process ends, and fails where that takes longer than `limit`.
    pub(super) fn wait(&mut self, limit: Duration, stop: &Stop) -> Result<ExitStatus, Error> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.is_gone = true;
                return Ok(status);
            }
            if Instant::now() > end {
                return Err(format!("a program did not end within {limit:?}").into());
            }
            stop.pause(LOOK_EVERY)?;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.is_gone {
            return;
        }
        self.signal(Signal::TERM);
        let end = Instant::now() + END_MAX;
        // Not waited for before the group has got its last signal: until then the number is its own.
        while Instant::now() < end && !self.has_ended() {
            thread::sleep(LOOK_EVERY);
        }
        self.signal(Signal::KILL);
        self.child.wait().ok();
    }
}

impl Group {
    /// Whether nothing of it runs any more but the first process, which waits to be waited for.
    fn has_ended(&self) -> bool {
        let is_over = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(')')
                .is_none_or(|(_, rest)| matches!(rest.trim_start().chars().next(), Some('Z' | 'X')))
        };
        self.pids().is_ok_and(|pids| pids.iter().all(is_over))
    }
}

/// The process group in a `/proc/PID/stat`.
fn group_in(stat: &str) -> Option<u32> {
    // State, parent, group.
    stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok()
}

/// What processes have used since they began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// The time that their threads ran, by the scheduler.
    pub(super) run: Duration,
    /// Of that in user space and in the kernel, in seconds, as coarse as the clock's ticks.
    pub(super) user: f64,
    pub(super) system: f64,
}

impl Usage {
    pub(super) fn of(pids: &[u32]) -> Result<Self, Error> {
        let mut all = Self::default();
        for pid in pids {
            let [user, system, ..] = all_ticks(*pid)?;
            all.run += run_time(*pid)?;
            all.user += user as f64 * tick();
            all.system += system as f64 * tick();
        }
        Ok(all)
    }

    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            run: self.run.saturating_sub(before.run),
            user: self.user - before.user,
            system: self.system - before.system,
        }
    }

    /// How far the scheduler's clock and the ticks are apart, in seconds.
    pub(super) fn gap(&self) -> f64 {
        (self.run.as_secs_f64() - self.user - self.system).abs()
    }

    /// The share of the time that was spent in user space.
    pub(super) fn user_share(&self) -> f64 {
        let both = self.user + self.system;
        if both > 0.0 { self.user / both } else { f64::NAN }
    }
}

/// The memory of several processes: resident, and with shared pages divided by those who share them.
pub(super) fn memory_of(pids: &[u32]) -> Result<(u64, u64), Error> {
    let all: Vec<Memory> = pids.iter().map(|pid| memory(*pid)).collect::<Result<_, _>>()?;
    Ok((all.iter().map(|memory| memory.rss).sum(), all.iter().map(|memory| memory.pss).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_the_third_after_the_name_whatever_the_name_is() {
        assert_eq!(group_in("812 (a) b) S 1 811 811 0 -1 4194560"), Some(811));
        assert_eq!(group_in("812 (nginx"), None);
    }

    #[test]
    fn usage_is_the_difference_of_two_looks() {
        let at = |run, user, system| Usage { run: Duration::from_millis(run), user, system };
        let used = at(3_000, 2.0, 1.0).since(&at(1_000, 0.5, 0.5));
        assert_eq!(used.run, Duration::from_secs(2));
        assert!((used.user_share() - 0.75).abs() < 1e-9 && used.gap() < 1e-9);
    }

    #[test]
    fn a_group_is_ended_with_what_it_has_started() {
        let mut command = Command::new("sh");
        let group = Group::start(command.args(["-c", "sleep 60 & sleep 60"])).unwrap();
        let begin = Instant::now();
        while group.pids().unwrap().len() < 3 && begin.elapsed() < END_MAX {
            thread::sleep(LOOK_EVERY);
        }
        let pids = group.pids().unwrap();
        drop(group);
        let lives = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
        };
        assert_eq!(pids.iter().filter(|pid| lives(pid)).count(), 0);
    }
}

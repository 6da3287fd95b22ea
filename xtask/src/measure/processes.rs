//! What the kernel knows of a process: memory and CPU.

use std::{fs, time::Duration};

use serde::Serialize;

use super::Error;

/// Memory of one process, in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Memory {
    /// What is mapped and in memory, shared pages counted in full.
    pub(crate) rss: u64,
    /// Shared pages divided by those who share them.
    pub(crate) pss: u64,
    /// What is in nobody's file: heap and stacks.
    pub(crate) anonymous: u64,
}

/// The memory of a process now.
pub(crate) fn memory(pid: u32) -> Result<Memory, Error> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| -> Result<u64, Error> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|rest| rest.split_whitespace().next()).ok_or("smaps_rollup lacks a field")?;
        Ok(kib.parse::<u64>()? * 1024)
    };
    Ok(Memory { rss: field("Rss")?, pss: field("Pss")?, anonymous: field("Anonymous")? })
}

/// The time that all threads of a process have run since they began, in the scheduler's nanoseconds.
pub(crate) fn run_time(pid: u32) -> Result<Duration, Error> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split_whitespace().next().ok_or("schedstat is empty")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total))
}

/// How many times the threads of a process gave up the CPU by themselves: how often they were woken.
pub(crate) fn wakeups(pid: u32) -> Result<u64, Error> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("status"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        total += line.ok_or("status lacks a field")?.trim().parse::<u64>()?;
    }
    Ok(total)
}

/// The ticks of `/proc/PID/stat` that a process has used itself, and those of its children that were waited for.
pub(crate) fn ticks(pid: u32) -> Result<(u64, u64), Error> {
    let [user, system, children_user, children_system] = all_ticks(pid)?;
    Ok((user + system, children_user + children_system))
}

/// The ticks of a process in user space and in the kernel, and the same of its children that were waited for.
pub(crate) fn all_ticks(pid: u32) -> Result<[u64; 4], Error> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(')').ok_or("stat has no name")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Counted from the state, which is the file's third field.
    let field = |n: usize| -> Result<u64, Error> {
        Ok(fields.get(n - 3).ok_or("stat lacks a field")?.parse::<u64>()?)
    };
    Ok([field(14)?, field(15)?, field(16)?, field(17)?])
}

/// Seconds in a tick.
pub(crate) fn tick() -> f64 {
    1.0 / rustix::param::clock_ticks_per_second() as f64
}

/// The machine's load in the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or_default()
}

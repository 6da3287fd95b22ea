//! How much memory a replica takes.
//!
//! Owns: reading it from the kernel: a container's from its cgroup, v1 or v2, without what only caches files; a process's and its
//! children's, which share a session, by their proportional share. Never: decides what is too much.

use std::{fs, path::PathBuf};

/// Whose memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's in the cgroup of this process.
    Cgroup(u32),
    /// Everybody's in the session that this process leads.
    Session(u32),
}

/// How much it is, in bytes. `None` where the kernel doesn't say, or nobody is there any more.
#[must_use]
pub fn of(whose: Whose) -> Option<u64> {
    match whose {
        Whose::Cgroup(pid) => of_cgroup(pid),
        Whose::Session(leader) => of_session(leader),
    }
}

fn of_cgroup(pid: u32) -> Option<u64> {
    let places = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let (directory, used, cached) = place(&places)?;
    let used: u64 = fs::read_to_string(directory.join(used)).ok()?.trim().parse().ok()?;
    let stat = fs::read_to_string(directory.join("memory.stat")).ok()?;
    let cached = stat.lines().find_map(|line| line.strip_prefix(cached)?.trim().parse::<u64>().ok());
    Some(used.saturating_sub(cached.unwrap_or(0)))
}

/// The directory of a process's memory cgroup, its file of use, and the line of its statistics that is only cache.
pub(in crate::agent) fn place(cgroup: &str) -> Option<(PathBuf, &'static str, &'static str)> {
    let mut unified = None;
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let path = path.trim_start_matches('/');
        if controllers.split(',').any(|one| one == "memory") {
            let directory = PathBuf::from("/sys/fs/cgroup/memory").join(path);
            return Some((directory, "memory.usage_in_bytes", "total_inactive_file "));
        }
        if controllers.is_empty() {
            unified = Some(PathBuf::from("/sys/fs/cgroup").join(path));
        }
    }
    Some((unified?, "memory.current", "inactive_file "))
}

/// The most that a process's cgroup ever took, in bytes.
#[must_use]
pub fn peak(pid: u32) -> Option<u64> {
    let places = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    peak_in(&[place(&places)?.0])
}

/// The most that these cgroups ever took, in bytes; `None` where the kernel doesn't say (version 2 before Linux 5.19).
#[must_use]
pub fn peak_in(directories: &[PathBuf]) -> Option<u64> {
    let files = ["memory.peak", "memory.max_usage_in_bytes"];
    let paths = directories.iter().flat_map(|directory| files.map(|file| directory.join(file)));
    paths.filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok()).max()
}

fn of_session(leader: u32) -> Option<u64> {
    let mut sum = None;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        if session(&stat) != Some(leader) {
            continue;
        }
        // One that ends meanwhile takes nothing.
        let Ok(rollup) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
        sum = Some(sum.unwrap_or(0) + proportional(&rollup).unwrap_or(0));
    }
    sum
}

/// The session of a process, by its line in `/proc/PID/stat`: the fourth number behind the name, which may have anything in it.
pub(super) fn session(stat: &str) -> Option<u32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(3)?.parse().ok()
}

fn proportional(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_hierarchies_are_found() {
        let v1 = "12:pids:/docker/ab\n4:memory:/docker/ab\n0::/system.slice\n";
        let (directory, used, _) = place(v1).unwrap();
        assert_eq!(
            (directory.to_str().unwrap(), used),
            ("/sys/fs/cgroup/memory/docker/ab", "memory.usage_in_bytes")
        );
        let (directory, used, _) = place("0::/system.slice/docker-ab.scope\n").unwrap();
        assert_eq!(
            (directory.to_str().unwrap(), used),
            ("/sys/fs/cgroup/system.slice/docker-ab.scope", "memory.current")
        );
        assert_eq!(place("nonsense"), None);
    }

    #[test]
    fn a_name_may_have_anything_in_it() {
        assert_eq!(session("7 (a) b (c) S 1 7 42 0 -1"), Some(42));
        assert_eq!(session("7 (a"), None);
    }

    #[test]
    fn a_process_takes_what_it_has_touched() {
        let mut child = std::process::Command::new("setsid")
            .args(["sh", "-c", "x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo ready; read y"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
            .unwrap();
        let taken = of(Whose::Session(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(taken.is_some_and(|bytes| (20_000_000..200_000_000).contains(&bytes)), "{taken:?}");
    }
}

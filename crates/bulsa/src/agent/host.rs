//! What the host has counted.
//!
//! Owns: reading the kernel's own counters. Never: concludes anything from them.

use std::{fs, io};

/// How many processes the kernel has killed for want of memory since this host runs, within a cgroup or on the whole host.
///
/// # Errors
/// If the kernel does not say.
pub fn oom_kills() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/vmstat")?;
    oom_kills_in(&text)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/vmstat has no `oom_kill`"))
}

fn oom_kills_in(vmstat: &str) -> Option<u64> {
    vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_found_by_its_whole_name() {
        assert_eq!(oom_kills_in("pgmajfault 7\noom_kill 12\nnuma_hit 3\n"), Some(12));
        assert_eq!(oom_kills_in("oom_kill_other 12\n"), None);
    }

    #[test]
    fn this_kernel_says_it() {
        oom_kills().unwrap();
    }
}

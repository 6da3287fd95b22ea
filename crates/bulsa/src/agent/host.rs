//! What the host has counted.
//!
//! Owns: reading the kernel's own counters. Never: concludes anything from them; that is [`bulsa_core::host`].

use std::{fs, io, time::Duration};

/// How many processes the kernel has killed for want of memory since this host runs, within a cgroup or on the whole host.
///
/// # Errors
/// If the kernel does not say.
pub fn oom_kills() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/vmstat")?;
    oom_kills_in(&text).ok_or_else(|| unknown("/proc/vmstat has no `oom_kill`"))
}

fn oom_kills_in(vmstat: &str) -> Option<u64> {
    vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// For how long, since this host runs, something that wanted to run had to wait for a core.
///
/// # Errors
/// If the kernel does not say: one without pressure stall information.
pub fn cpu_stalled() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/pressure/cpu")?;
    cpu_stalled_in(&text).ok_or_else(|| unknown("/proc/pressure/cpu has no total"))
}

fn cpu_stalled_in(pressure: &str) -> Option<Duration> {
    let line = pressure.lines().find_map(|line| line.strip_prefix("some "))?;
    let total = line.split(' ').find_map(|word| word.strip_prefix("total="))?;
    Some(Duration::from_micros(total.parse().ok()?))
}

fn unknown(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
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
    fn the_time_is_that_of_some_and_not_of_all() {
        let text = "some avg10=0.08 avg60=15.65 avg300=32.50 total=1601251025\nfull avg10=0.00 total=7\n";
        assert_eq!(cpu_stalled_in(text), Some(Duration::from_micros(1_601_251_025)));
        assert_eq!(cpu_stalled_in("full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"), None);
    }

    #[test]
    fn this_kernel_says_how_many_it_killed() {
        oom_kills().unwrap();
    }
}

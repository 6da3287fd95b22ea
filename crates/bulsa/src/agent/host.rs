//! What the host has counted.
//!
//! Owns: reading the kernel's own counters, and how they grow. Never: concludes anything of a service from them.

use std::{
    fs, io,
    time::{Duration, Instant},
};

/// A share of the time is taken over at least so long.
const WINDOW_MIN: Duration = Duration::from_secs(1);
/// From this share of the time on in which something that wanted to run had to wait for a core, the host is short of CPU. A
/// host with a core to spare is far below it.
const SHORT_SHARE: f64 = 0.4;

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

/// Two looks at how long the host was short of CPU, and what lies between them.
#[derive(Debug, Default)]
pub struct CpuPressure {
    before: Option<Look>,
    last: Option<Look>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    stalled: Duration,
}

impl CpuPressure {
    /// Looks. `stalled` is [`cpu_stalled`]; where the kernel doesn't say, nobody looks.
    pub fn look(&mut self, at: Instant, stalled: Duration) {
        let is_old = |look: &Look| at.saturating_duration_since(look.at) >= WINDOW_MIN;
        if self.last.is_none_or(|last| is_old(&last)) {
            self.before = self.last;
            self.last = Some(Look { at, stalled });
        }
    }

    /// Whether the host was short of CPU from the look before the last one until now.
    #[must_use]
    pub fn is_short(&self, at: Instant, stalled: Duration) -> bool {
        let is_old = |look: &&Look| at.saturating_duration_since(look.at) >= WINDOW_MIN;
        let from = self.before.as_ref().or(self.last.as_ref()).filter(is_old);
        from.is_some_and(|from| {
            let (waited, passed) =
                (stalled.saturating_sub(from.stalled), at.saturating_duration_since(from.at));
            waited.as_secs_f64() >= passed.as_secs_f64() * SHORT_SHARE
        })
    }
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

    #[test]
    fn what_counts_is_the_share_since_the_look_before_the_last() {
        let begin = Instant::now();
        let at = |millis: u64| begin + Duration::from_millis(millis);
        let stalled = Duration::from_millis;
        let mut pressure = CpuPressure::default();
        assert!(!pressure.is_short(at(0), stalled(9_000)), "nothing is known yet");
        pressure.look(at(0), stalled(9_000));
        assert!(!pressure.is_short(at(500), stalled(9_500)), "too short to tell");
        assert!(pressure.is_short(at(1_000), stalled(9_400)));
        assert!(!pressure.is_short(at(1_000), stalled(9_390)));
        pressure.look(at(5_000), stalled(9_500));
        pressure.look(at(5_100), stalled(9_600));
        assert!(!pressure.is_short(at(6_000), stalled(10_500)), "one bad second of six");
        pressure.look(at(10_000), stalled(14_500));
        assert!(pressure.is_short(at(11_000), stalled(15_500)));
    }
}

//! What the host's counters say of it: whether it is short of CPU, and whether memory ran out a moment ago.
//!
//! Owns: how the counters grow, and the lines from which that means something. Never: reads them, or blames a service.

use std::time::Duration;

use crate::time::Timestamp;

/// A share of the time is taken over at least so long.
const WINDOW_MIN: Duration = Duration::from_secs(1);
/// From this share of the time on in which something that wanted to run had to wait for a core, the host is short of CPU. A
/// host with a core to spare is far below it.
const SHORT_SHARE: f64 = 0.4;
/// So long after the kernel was seen to kill for want of memory a death may be one of those: several may be told one after
/// the other, and it is looked every few seconds.
const KILLS_RECENT: Duration = Duration::from_secs(10);

/// Two looks at how long the host was short of CPU, and what lies between them.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuPressure {
    before: Option<Look>,
    last: Option<Look>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Timestamp,
    stalled: Duration,
}

impl CpuPressure {
    /// Looks, and says whether the host was short of CPU from the look before the last one until now. `stalled`: for how
    /// long something had to wait for a core since the host runs.
    pub fn look(&mut self, now: Timestamp, stalled: Duration) -> bool {
        let is_old = |look: &Look| now.since(look.at) >= WINDOW_MIN;
        let is_short = self.before.or(self.last).filter(is_old).is_some_and(|from| {
            let (waited, passed) = (stalled.saturating_sub(from.stalled), now.since(from.at));
            waited.as_secs_f64() >= passed.as_secs_f64() * SHORT_SHARE
        });
        if self.last.is_none_or(|last| is_old(&last)) {
            self.before = self.last;
            self.last = Some(Look { at: now, stalled });
        }
        is_short
    }
}

/// How often the kernel killed for want of memory, and when that rose.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryKills {
    count: Option<u64>,
    risen: Option<(Timestamp, u64)>,
}

impl MemoryKills {
    /// Looks, and says how many processes were killed a moment ago. `count`: since the host runs.
    pub fn look(&mut self, now: Timestamp, count: u64) -> u64 {
        let recent = self.risen.filter(|(at, _)| now.since(*at) <= KILLS_RECENT);
        let new = self.count.map_or(0, |known| count.saturating_sub(known));
        self.count = Some(count);
        self.risen = match (new, recent) {
            (0, recent) => recent,
            (new, recent) => Some((now, new + recent.map_or(0, |(_, before)| before))),
        };
        self.risen.map_or(0, |(_, kills)| kills)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_the_share_since_the_look_before_the_last() {
        let stalled = Duration::from_millis;
        let mut pressure = CpuPressure::default();
        assert!(!pressure.look(Timestamp(0), stalled(9_000)), "nothing is known yet");
        assert!(!pressure.look(Timestamp(500), stalled(9_500)), "too short to tell");
        let mut calm = pressure;
        assert!(!calm.look(Timestamp(1_000), stalled(9_390)));
        assert!(pressure.look(Timestamp(1_000), stalled(9_400)));
        assert!(!pressure.look(Timestamp(6_000), stalled(10_500)), "one bad second of six");
        assert!(pressure.look(Timestamp(7_000), stalled(12_000)));
    }

    #[test]
    fn kills_are_those_of_the_last_seconds_for_everybody_who_asks() {
        let mut kills = MemoryKills::default();
        assert_eq!(kills.look(Timestamp(0), 7), 0, "those of before are nobody's");
        assert_eq!(kills.look(Timestamp(5_000), 9), 2);
        assert_eq!(kills.look(Timestamp(5_100), 9), 2, "the second of both is told a moment later");
        assert_eq!(kills.look(Timestamp(6_000), 10), 3);
        assert_eq!(kills.look(Timestamp(16_000), 10), 3);
        assert_eq!(kills.look(Timestamp(16_001), 10), 0, "who dies now died of something else");
    }
}

//! The heartbeat of a replica: its own loop says now and then that it goes round.
//!
//! Owns: when a heartbeat is overdue. Never: receives one, or restarts anything (that is [`crate::decide`]).
//!
//! A probe sees what answers it. A program that answers from one thread while the loop that does its work stands still
//! looks well to it, and one without a port can't be asked at all. The protocol is systemd's (sd_notify(3)): the program
//! sends `WATCHDOG=1` to the datagram socket that `NOTIFY_SOCKET` names, more often than every `WATCHDOG_USEC`. One that
//! never sent any isn't held to it: it may not know how.

use std::{ops::RangeInclusive, time::Duration};

use crate::{health::STARVED_FOR_ONE, time::Timestamp};

/// The heartbeats that a file may ask for.
pub const PERIODS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// A replica that knows the protocol sends within this many periods of its start.
const SILENT_PERIODS: u32 = 2;

/// What the last heartbeat means now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// It is not overdue; look again then.
    Due(Timestamp),
    /// The period is over: the replica hangs.
    Missed,
}

/// Judges a replica whose last heartbeat came at `last`. On a host that is short of CPU (`is_starved`) it may be late as
/// a probe's answer may be.
#[must_use]
pub fn judge(last: Timestamp, period: Duration, is_starved: bool, now: Timestamp) -> Beat {
    let end = if is_starved { last + period * STARVED_FOR_ONE } else { last + period };
    if now > end { Beat::Missed } else { Beat::Due(end + Duration::from_millis(1)) }
}

/// Whether a replica that runs since `started` and has sent none will very likely send none.
#[must_use]
pub fn is_silent(started: Timestamp, period: Duration, now: Timestamp) -> bool {
    now > started + period * SILENT_PERIODS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERIOD: Duration = Duration::from_secs(30);

    #[test]
    fn one_is_overdue_after_its_period_and_on_a_starved_host_after_three() {
        let last = Timestamp(1000);
        assert_eq!(judge(last, PERIOD, false, Timestamp(31_000)), Beat::Due(Timestamp(31_001)));
        assert_eq!(judge(last, PERIOD, false, Timestamp(31_001)), Beat::Missed);
        assert_eq!(judge(last, PERIOD, true, Timestamp(31_001)), Beat::Due(Timestamp(91_001)));
        assert_eq!(judge(last, PERIOD, true, Timestamp(91_001)), Beat::Missed);
    }

    #[test]
    fn who_never_sends_is_known_after_two_periods() {
        assert!(!is_silent(Timestamp(0), PERIOD, Timestamp(60_000)));
        assert!(is_silent(Timestamp(0), PERIOD, Timestamp(60_001)));
    }

    proptest! {
        /// Whoever looks when told to finds it missed, unless another one came.
        #[test]
        fn the_next_look_decides(last in 0_u64..1 << 40, period in 1_u64..86_400, after in 0_u64..1 << 40, starved: bool) {
            let (last, period, now) = (Timestamp(last), Duration::from_secs(period), Timestamp(last + after));
            if let Beat::Due(at) = judge(last, period, starved, now) {
                prop_assert!(at > now);
                prop_assert_eq!(judge(last, period, starved, at), Beat::Missed);
            }
        }
    }
}

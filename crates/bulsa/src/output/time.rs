//! Times and durations in text and JSON.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

/// Knows the time, and how people here write it.
#[derive(Clone, Debug)]
pub struct Clock {
    zone: TimeZone,
    /// The time that it always is, in tests.
    fixed_ms: Option<u64>,
}

impl Clock {
    /// The system's time and time zone.
    #[must_use]
    pub fn local() -> Self {
        Self { zone: TimeZone::system(), fixed_ms: None }
    }

    /// Stands still at `now_ms`, in UTC.
    #[must_use]
    pub fn fixed(now_ms: u64) -> Self {
        Self { zone: TimeZone::UTC, fixed_ms: Some(now_ms) }
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.fixed_ms.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }

    /// `2026-11-22 14:03:07+09:00`.
    #[must_use]
    pub fn local_time(&self, at_ms: u64) -> String {
        timestamp(at_ms).to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S%:z").to_string()
    }

    /// How long ago that was: `3 min`.
    #[must_use]
    pub fn ago(&self, at_ms: u64) -> String {
        span(Duration::from_millis(self.now_ms().saturating_sub(at_ms)))
    }

    /// How long until then: `3 min`.
    #[must_use]
    pub fn until(&self, at_ms: u64) -> String {
        span(Duration::from_millis(at_ms.saturating_sub(self.now_ms())))
    }
}

/// A duration in its two largest units at most: `850 ms`, `12 s`, `3 min`, `2 h 5 min`, `4 d`.
#[must_use]
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn timestamp(at_ms: u64) -> Timestamp {
    // A time beyond what a calendar holds is shown as the last that it does.
    i64::try_from(at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}

/// Puts the time in UTC beside every point in time: `at` beside `at_ms`, `created_at` beside `created_at_ms`.
pub(super) fn with_utc(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(with_utc).collect(),
        Value::Object(fields) => {
            let mut out = serde_json::Map::new();
            for (key, value) in fields {
                if let (Some(name), Some(at_ms)) = (point_in_time(&key), value.as_u64()) {
                    out.insert(name.to_owned(), Value::String(timestamp(at_ms).to_string()));
                }
                out.insert(key, with_utc(value));
            }
            Value::Object(out)
        }
        other => other,
    }
}

/// The wire's names for points in time end so; durations don't.
fn point_in_time(key: &str) -> Option<&str> {
    let name = key.strip_suffix("_ms")?;
    (name == "since" || name == "at" || name.ends_with("_at")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_shows_the_local_offset_and_json_utc() {
        let seoul = Clock { zone: TimeZone::fixed(jiff::tz::offset(9)), fixed_ms: None };
        assert_eq!(seoul.local_time(1_767_259_800_000), "2026-01-01 18:30:00+09:00");
        assert_eq!(Clock::fixed(0).local_time(u64::MAX).len(), "2026-01-01 18:30:00+09:00".len());
        let json = with_utc(
            serde_json::json!([{"since_ms": 1_767_259_800_123_u64, "wait_ms": 5, "next_at_ms": null}]),
        );
        assert_eq!(
            json.to_string(),
            r#"[{"next_at_ms":null,"since":"2026-01-01T09:30:00.123Z","since_ms":1767259800123,"wait_ms":5}]"#
        );
    }

    #[test]
    fn spans_are_short() {
        let text = |ms| span(Duration::from_millis(ms));
        let all = [0, 850, 12_000, 200_000, 7_500_000, 400_000_000].map(text);
        assert_eq!(all, ["0 ms", "850 ms", "12 s", "3 min", "2 h 5 min", "4 d"]);
        let clock = Clock::fixed(10_000);
        assert_eq!(
            (clock.ago(4_000), clock.until(4_000), clock.until(12_000)),
            ("6 s".into(), "0 ms".into(), "2 s".into())
        );
    }
}

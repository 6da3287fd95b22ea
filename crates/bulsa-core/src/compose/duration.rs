//! Durations as Compose writes them: `1m30s`, `500ms`, `1.5h`, `1d`.
//!
//! Owns: reading them, printing them as Compose does, and the bounds that keys have.

use std::time::Duration;

/// What a key accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

const HOUR: u64 = 3600;

/// How often a probe runs and how long one run may take: 1 ms to a day.
pub const PROBE: Bounds = Bounds { min: Duration::from_millis(1), max: Duration::from_secs(24 * HOUR) };
/// Anything that somebody waits for: up to a day.
pub const WAIT: Bounds = Bounds { min: Duration::ZERO, max: Duration::from_secs(24 * HOUR) };
/// How often something says that it lives: at most once a second, at least once a day.
pub const BEAT: Bounds = Bounds { min: Duration::from_secs(1), max: Duration::from_secs(24 * HOUR) };
/// How long a request is held: up to an hour, the most that the proxy takes.
pub const HOLD: Bounds = Bounds { min: Duration::ZERO, max: Duration::from_secs(HOUR) };
/// How long a fresh replica's share of requests grows: up to an hour, the most that the proxy takes.
pub const GROW: Bounds = Bounds { min: Duration::ZERO, max: Duration::from_secs(HOUR) };
/// How long something that was replaced lives on: up to thirty days.
pub const KEEP: Bounds = Bounds { min: Duration::ZERO, max: Duration::from_secs(30 * 24 * HOUR) };

/// Why a text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Something else.
    #[error("it is no duration")]
    Malformed,
    /// A number without `s`, `m`, …
    #[error("its unit is missing")]
    NoUnit,
    /// Less than nothing.
    #[error("a duration can't be negative")]
    Negative,
    /// More than can be counted.
    #[error("it is too long")]
    TooLong,
}

/// Reads a duration; `0` needs no unit.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    if text.strip_prefix('-').is_some_and(|rest| parse(rest).is_ok()) {
        return Err(DurationError::Negative);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(DurationError::Malformed);
    }
    let mut nanos = 0_u128;
    while !rest.is_empty() {
        let number = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(rest.len());
        let unit =
            rest[number..].find(|c: char| c == '.' || c.is_ascii_digit()).map_or(rest.len(), |n| number + n);
        let scale = scale(&rest[number..unit]).ok_or(match rest[number..unit].is_empty() {
            true => DurationError::NoUnit,
            false => DurationError::Malformed,
        })?;
        let part = scaled(&rest[..number], scale)?;
        nanos = nanos.checked_add(part).ok_or(DurationError::TooLong)?;
        rest = &rest[unit..];
    }
    let seconds = u64::try_from(nanos / NANOS).map_err(|_| DurationError::TooLong)?;
    let below = u32::try_from(nanos % NANOS).map_err(|_| DurationError::TooLong)?;
    Ok(Duration::new(seconds, below))
}

/// Nanoseconds in a second.
const NANOS: u128 = 1_000_000_000;

/// Nanoseconds in a unit.
fn scale(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => NANOS,
        "m" => 60 * NANOS,
        "h" => 3600 * NANOS,
        "d" => 24 * 3600 * NANOS,
        "w" => 7 * 24 * 3600 * NANOS,
        _ => return None,
    })
}

fn scaled(number: &str, scale: u128) -> Result<u128, DurationError> {
    /// Digits after the point beyond these change nothing that can be measured.
    const FRACTION_DIGITS: usize = 12;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(DurationError::Malformed);
    }
    let digits = |text: &str| if text.is_empty() { Ok(0) } else { text.parse::<u128>() };
    let whole = digits(whole).map_err(|_| DurationError::TooLong)?;
    let whole = whole.checked_mul(scale).ok_or(DurationError::TooLong)?;
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS)];
    let mut divisor = 1_u128;
    for _ in 0..fraction.len() {
        divisor *= 10;
    }
    let part = digits(fraction).map_err(|_| DurationError::TooLong)? * scale / divisor;
    whole.checked_add(part).ok_or(DurationError::TooLong)
}

/// As Compose prints it: `1h0m0s`, `1m30.5s`, `500ms`.
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanos = duration.subsec_nanos();
    if duration.is_zero() {
        return "0s".to_owned();
    }
    if duration.as_secs() == 0 {
        let (unit, scale) = match nanos {
            1_000_000.. => ("ms", 1_000_000),
            1_000.. => ("µs", 1_000),
            _ => ("ns", 1),
        };
        return format!("{}{unit}", decimal(u64::from(nanos / scale), nanos % scale, scale));
    }
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let mut out = String::new();
    if hours > 0 {
        out.push_str(&format!("{hours}h"));
    }
    if hours > 0 || minutes > 0 {
        out.push_str(&format!("{minutes}m"));
    }
    out.push_str(&decimal(seconds % 60, nanos, 1_000_000_000));
    out.push('s');
    out
}

/// `whole` and `part / scale`, without trailing zeros; `scale` is a power of ten.
fn decimal(whole: u64, part: u32, scale: u32) -> String {
    let width = scale.to_string().len() - 1;
    let fraction = format!("{part:0width$}");
    match fraction.trim_end_matches('0') {
        "" => whole.to_string(),
        fraction => format!("{whole}.{fraction}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_read_and_print_as_in_compose() {
        for (text, printed) in [
            ("1m30s", "1m30s"),
            ("500ms", "500ms"),
            ("1h", "1h0m0s"),
            ("90s", "1m30s"),
            ("1d", "24h0m0s"),
            ("1w2d", "216h0m0s"),
            ("1.5h", "1h30m0s"),
            ("1m30s500ms", "1m30.5s"),
            ("0s", "0s"),
            ("0", "0s"),
            ("1us", "1µs"),
            ("1ns", "1ns"),
            ("1.5s", "1.5s"),
            (".5s", "500ms"),
            ("1.25ms", "1.25ms"),
            ("100d", "2400h0m0s"),
        ] {
            assert_eq!(parse(text).map(format).as_deref(), Ok(printed), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_a_reason() {
        for (text, error) in [
            ("10", DurationError::NoUnit),
            ("1m30", DurationError::NoUnit),
            ("", DurationError::Malformed),
            ("1h 2m", DurationError::Malformed),
            ("PT1S", DurationError::Malformed),
            ("s", DurationError::Malformed),
            ("1..2s", DurationError::Malformed),
            ("1x", DurationError::Malformed),
            ("-1s", DurationError::Negative),
            ("99999999999999999999999999999999999999999s", DurationError::TooLong),
            ("999999999999999999999w", DurationError::TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(nanos in any::<u64>()) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "[0-9.a-zµ+-]{0,30}|.*") {
            let _ = parse(&text);
        }
    }
}

//! How many workers: `4`, `cpus`, `cpus-1`, `cpus/2`, `(cpus-1)/2`.

mod cpus;

use std::{fmt, str::FromStr};

/// At most this many workers of one program; the compose loader's own limit is not below it.
const WORKERS_MAX: u32 = 500;

/// `(cpus - minus) / divide`, or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workers {
    Exactly(u32),
    Cpus { minus: u32, divide: u32 },
}

impl Workers {
    /// The number on a machine with `cpus` processors: rounded down, and at least one.
    pub(super) fn on(self, cpus: u32) -> u32 {
        match self {
            Self::Exactly(number) => number,
            Self::Cpus { minus, divide } => (cpus.saturating_sub(minus) / divide).clamp(1, WORKERS_MAX),
        }
    }

    /// The number here. Affinity and the cgroup's quota count: what isn't ours to use is no processor.
    pub(super) fn here(self) -> u32 {
        self.on(cpus::here())
    }
}

impl FromStr for Workers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("expected N, cpus, cpus-K, cpus/M or (cpus-K)/M with N from 1 to {WORKERS_MAX}");
        let squeezed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        if let Some(number) = digits(&squeezed) {
            let allowed = (1..=WORKERS_MAX).contains(&number);
            return if allowed { Ok(Self::Exactly(number)) } else { Err(wrong()) };
        }
        parse(&squeezed).ok_or_else(wrong)
    }
}

/// A number without a sign.
fn digits(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.starts_with(|c: char| c.is_ascii_digit()))
}

fn parse(text: &str) -> Option<Workers> {
    let (cpus, divide) = match text.split_once('/') {
        Some((cpus, divide)) => (cpus, digits(divide).filter(|divide| *divide > 0)?),
        None => (text, 1),
    };
    let inner = cpus.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let rest = inner.unwrap_or(cpus).strip_prefix("cpus")?;
    if rest.is_empty() {
        return Some(Workers::Cpus { minus: 0, divide });
    }
    // Without brackets `cpus-1/2` could mean two things.
    if inner.is_none() && divide != 1 {
        return None;
    }
    Some(Workers::Cpus { minus: digits(rest.strip_prefix('-')?)?, divide })
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(number) => write!(f, "{number}"),
            Self::Cpus { minus: 0, divide: 1 } => f.write_str("cpus"),
            Self::Cpus { minus, divide: 1 } => write!(f, "cpus-{minus}"),
            Self::Cpus { minus, divide } => write!(f, "(cpus-{minus})/{divide}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_give_the_number_of_workers() {
        for (text, on_8, on_1) in [
            ("3", 3, 3),
            ("cpus", 8, 1),
            ("cpus-1", 7, 1),
            ("cpus/2", 4, 1),
            ("(cpus-1)/2", 3, 1),
            ("( cpus - 2 ) / 3", 2, 1),
            ("(cpus)", 8, 1),
            ("cpus-9", 1, 1),
        ] {
            let workers: Workers = text.parse().unwrap();
            assert_eq!((workers.on(8), workers.on(1)), (on_8, on_1), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_forms_that_work() {
        for bad in [
            "", "0", "-1", "+2", "501", "cpu", "cpus-", "cpus+1", "cpus-1/2", "cpus/0", "(cpus-1", "cpus-+1",
            "2*cpus",
        ] {
            let error = bad.parse::<Workers>().unwrap_err();
            assert!(error.contains("(cpus-K)/M"), "{bad}: {error}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for text in ["4", "cpus", "cpus-1", "(cpus-1)/2"] {
            assert_eq!(text.parse::<Workers>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn here_is_at_least_one() {
        assert!(Workers::Cpus { minus: u32::MAX, divide: 1 }.here() == 1);
        assert!("cpus".parse::<Workers>().unwrap().here() >= 1);
    }
}

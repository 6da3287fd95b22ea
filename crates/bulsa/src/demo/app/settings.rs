//! What the app reads from its environment.

use std::time::Duration;

/// How long it takes to listen where `DEMO_START_MS` says nothing.
pub(crate) const START_DEFAULT: Duration = Duration::from_millis(150);
/// How much later each further worker crashes, so that they don't all go in the same instant.
pub(crate) const CRASH_STAGGER: Duration = Duration::from_millis(700);
/// The longest accepted delay, in ms: more is a mistake.
const DELAY_MAX_MS: u64 = 600_000;

/// The environment, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `PORT`: where to listen on loopback.
    pub port: u16,
    /// `DEMO_VERSION`, `v0` where it isn't set.
    pub version: String,
    /// `DEMO_START_MS`: the delay before it listens.
    pub start: Duration,
    /// `DEMO_BROKEN=1`: never healthy.
    pub broken: bool,
    /// `DEMO_CRASH_AFTER_TRAFFIC_MS`: how long after its first request the first worker exits with status 1.
    pub crash_after_traffic: Option<Duration>,
    /// `BULSA_REPLICA`: `web-r3-1`.
    pub worker: String,
    /// `BULSA_INSTANCE`: outlives the workers.
    pub instance: String,
}

/// Why the environment is not what the app needs.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A variable is missing.
    #[error("demo app: {0} is not set: it runs as a replica, which is given one (`bulsa demo` starts it)")]
    Missing(&'static str),
    /// A variable holds no number, or one out of range.
    #[error("demo app: {0}={1} is no whole number from 0 to {2}")]
    Number(&'static str, String, u64),
}

impl Settings {
    /// Reads the environment through `get`.
    ///
    /// # Errors
    /// Where `PORT` is missing or a number is none.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let number = |name: &'static str, max: u64| match get(name) {
            None => Ok(None),
            Some(text) => match text.parse::<u64>() {
                Ok(number) if number <= max => Ok(Some(number)),
                _ => Err(SettingsError::Number(name, text, max)),
            },
        };
        let port = number("PORT", u64::from(u16::MAX))?.ok_or(SettingsError::Missing("PORT"))?;
        let text = |name: &str, default: &str| get(name).unwrap_or_else(|| default.to_owned());
        Ok(Self {
            port: u16::try_from(port)
                .map_err(|_| SettingsError::Number("PORT", port.to_string(), u64::from(u16::MAX)))?,
            version: text("DEMO_VERSION", "v0"),
            start: number("DEMO_START_MS", DELAY_MAX_MS)?.map_or(START_DEFAULT, Duration::from_millis),
            broken: get("DEMO_BROKEN").is_some_and(|value| value == "1"),
            crash_after_traffic: number("DEMO_CRASH_AFTER_TRAFFIC_MS", DELAY_MAX_MS)?
                .map(Duration::from_millis),
            worker: text("BULSA_REPLICA", "web"),
            instance: text("BULSA_INSTANCE", "none"),
        })
    }

    /// Version and worker, as they stand behind an echoed message: `v2 web-r2-1`.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("{} {}", self.version, self.worker)
    }

    /// When this worker crashes, counted from its first request: the second one `CRASH_STAGGER` after the first.
    #[must_use]
    pub fn crash_after(&self) -> Option<Duration> {
        let ordinal = self.worker.rsplit('-').next().and_then(|last| last.parse::<u32>().ok()).unwrap_or(1);
        self.crash_after_traffic.map(|after| after + CRASH_STAGGER * ordinal.saturating_sub(1).min(100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(env: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        Settings::from_env(|name| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_second_worker_crashes_later_than_the_first() {
        let of = |worker| {
            let settings =
                read(&[("PORT", "1"), ("DEMO_CRASH_AFTER_TRAFFIC_MS", "300"), ("BULSA_REPLICA", worker)]);
            settings.unwrap().crash_after().unwrap()
        };
        assert_eq!(of("web-r3-1"), Duration::from_millis(300));
        assert_eq!(of("web-r3-2"), Duration::from_millis(300) + CRASH_STAGGER);
        assert_eq!(of("web"), Duration::from_millis(300), "a name without a number counts as the first");
    }

    #[test]
    fn an_app_that_is_told_nothing_but_its_port_is_healthy_and_stays_up() {
        let settings = read(&[("PORT", "8000")]).unwrap();
        assert_eq!((settings.port, settings.start, settings.broken), (8000, START_DEFAULT, false));
        assert_eq!(settings.crash_after(), None);
    }

    #[test]
    fn a_missing_or_senseless_number_is_named() {
        assert_eq!(read(&[]), Err(SettingsError::Missing("PORT")));
        for bad in ["x", "-1", "70000", ""] {
            assert!(matches!(read(&[("PORT", bad)]), Err(SettingsError::Number("PORT", ..))), "{bad}");
        }
        assert!(read(&[("PORT", "1"), ("DEMO_START_MS", "999999999")]).is_err());
    }
}

//! What the app reads from its environment.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

/// How long it takes to listen where `DEMO_START_MS` says nothing.
pub(crate) const START_DEFAULT: Duration = Duration::from_millis(150);
/// How much later each further worker crashes, so that they don't all go in the same instant.
pub(crate) const CRASH_STAGGER: Duration = Duration::from_millis(700);
/// The longest accepted delay, in ms: more is a mistake.
const DELAY_MAX_MS: u64 = 600_000;
/// Requests per second where `DEMO_LOAD_RATE` says nothing.
const LOAD_RATE_DEFAULT: u32 = 100;
/// The highest accepted rate, in requests/s.
const LOAD_RATE_MAX: u64 = 2_000;

/// The environment, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `PORT`: where to listen.
    pub port: u16,
    /// `DEMO_HOST`: the address to listen on, loopback where it isn't set; `0.0.0.0` in a container.
    pub host: IpAddr,
    /// `DEMO_VERSION`, `v0` where it isn't set.
    pub version: String,
    /// `DEMO_START_MS`: the delay before it listens.
    pub start: Duration,
    /// `DEMO_BROKEN=1`: never healthy.
    pub broken: bool,
    /// `DEMO_BLOCK=1`: `/block?ms=N` blocks all its work for so long, as a wrong loop would.
    pub blocks: bool,
    /// `DEMO_CRASH_AFTER_TRAFFIC_MS`: how long after its first request the first worker exits with status 1.
    pub crash_after_traffic: Option<Duration>,
    /// `DEMO_CRASH_AFTER_MS`: how long after it began to listen it exits with status 1, traffic or not.
    pub crash_after_start: Option<Duration>,
    /// `DEMO_HANG_AFTER_TRAFFIC_MS`: how long after its first request it stops answering anything, with its port open.
    pub hang_after_traffic: Option<Duration>,
    /// `DEMO_ON_TERM`: what SIGTERM does to it.
    pub on_term: OnTerm,
    /// `DEMO_LOAD` and `DEMO_LOAD_RATE`: whom it calls all the time, and how often.
    pub load: Option<LoadOn>,
    /// `BULSA_REPLICA`: `web-r3-1`.
    pub worker: String,
    /// `BULSA_INSTANCE`: outlives the workers.
    pub instance: String,
}

/// What SIGTERM (and SIGINT) does to the app: the three ways of programs in the wild.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnTerm {
    /// `drain`: it closes its port, finishes what it has in flight, and exits with 0.
    #[default]
    Drain,
    /// `exit`: it is gone at once, whatever was in flight.
    Exit,
    /// `ignore`: it goes on as if nothing had happened.
    Ignore,
}

/// The load that the app sends to another service of its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOn {
    /// `api:3000`: the name is looked up for each connection.
    pub target: String,
    /// Requests per second.
    pub rate: u32,
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
    /// A variable holds none of the words that it may hold.
    #[error("demo app: {0}={1} is not {2}")]
    Word(&'static str, String, &'static str),
}

impl Settings {
    /// Reads the environment through `get`.
    ///
    /// # Errors
    /// Where `PORT` is missing, a number is none, or a word is none of those that may stand there.
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
        let delay =
            |name: &'static str| number(name, DELAY_MAX_MS).map(|found| found.map(Duration::from_millis));
        let rate = number("DEMO_LOAD_RATE", LOAD_RATE_MAX)?.and_then(|rate| u32::try_from(rate).ok());
        Ok(Self {
            port: u16::try_from(port)
                .map_err(|_| SettingsError::Number("PORT", port.to_string(), u64::from(u16::MAX)))?,
            host: host(get("DEMO_HOST"))?,
            version: text("DEMO_VERSION", "v0"),
            start: delay("DEMO_START_MS")?.unwrap_or(START_DEFAULT),
            broken: get("DEMO_BROKEN").is_some_and(|value| value == "1"),
            blocks: get("DEMO_BLOCK").is_some_and(|value| value == "1"),
            crash_after_traffic: delay("DEMO_CRASH_AFTER_TRAFFIC_MS")?,
            crash_after_start: delay("DEMO_CRASH_AFTER_MS")?,
            hang_after_traffic: delay("DEMO_HANG_AFTER_TRAFFIC_MS")?,
            on_term: on_term(get("DEMO_ON_TERM"))?,
            load: get("DEMO_LOAD")
                .filter(|target| !target.is_empty())
                .map(|target| LoadOn { target, rate: rate.unwrap_or(LOAD_RATE_DEFAULT) }),
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

fn host(text: Option<String>) -> Result<IpAddr, SettingsError> {
    let Some(text) = text else { return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)) };
    text.parse()
        .map_err(|_| SettingsError::Word("DEMO_HOST", text, "an address, such as 127.0.0.1 or 0.0.0.0"))
}

fn on_term(text: Option<String>) -> Result<OnTerm, SettingsError> {
    match text.as_deref() {
        None | Some("" | "drain") => Ok(OnTerm::Drain),
        Some("exit") => Ok(OnTerm::Exit),
        Some("ignore") => Ok(OnTerm::Ignore),
        Some(other) => {
            Err(SettingsError::Word("DEMO_ON_TERM", other.to_owned(), "one of drain, exit and ignore"))
        }
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

    #[test]
    fn words_that_mean_nothing_are_named_and_those_that_do_are_read() {
        let settings = read(&[
            ("PORT", "1"),
            ("DEMO_HOST", "0.0.0.0"),
            ("DEMO_ON_TERM", "ignore"),
            ("DEMO_LOAD", "api:3000"),
        ]);
        let settings = settings.unwrap();
        assert_eq!((settings.host, settings.on_term), (IpAddr::from([0, 0, 0, 0]), OnTerm::Ignore));
        assert_eq!(settings.load, Some(LoadOn { target: "api:3000".to_owned(), rate: LOAD_RATE_DEFAULT }));
        for bad in [("DEMO_HOST", "everywhere"), ("DEMO_ON_TERM", "panic")] {
            assert!(
                matches!(read(&[("PORT", "1"), bad]), Err(SettingsError::Word(name, ..)) if name == bad.0)
            );
        }
    }
}

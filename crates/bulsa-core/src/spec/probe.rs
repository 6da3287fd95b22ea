//! How a replica in a container is probed: from a HEALTHCHECK, of the file or of the image, to a [`Probe`].
//!
//! Owns: the defaults of such probes. Bulsa runs the check itself, from the start on: a curl or wget of a URL becomes
//! a request from the host to the same port of the container, any other test a program in the container.

use std::time::Duration;

use super::{Accept, Check, Probe, container::Healthcheck};
use crate::compose::http_test;

/// From one run to the next, where nobody says it.
const INTERVAL: Duration = Duration::from_secs(2);
/// Until the first verdict: a request costs little, a program in a container takes tens of milliseconds of the Engine.
const HTTP_START_INTERVAL: Duration = Duration::from_millis(100);
const EXEC_START_INTERVAL: Duration = Duration::from_millis(500);
const HTTP_TIMEOUT: Duration = Duration::from_secs(1);
/// As Docker has it.
const EXEC_TIMEOUT: Duration = Duration::from_secs(30);
const RISE: u32 = 2;
const FALL: u32 = 3;

/// Whether the test asks for a check: it isn't empty, and not `NONE`.
pub(crate) fn asks(test: &[String]) -> bool {
    test.first().is_some_and(|form| form != "NONE")
}

/// A probe that runs the test of a HEALTHCHECK.
pub(crate) fn declared(written: &Healthcheck) -> Probe {
    let (check, own_timeout) = match http_test::recognise(&written.test) {
        Some(http) => {
            let (path, host) = (http.path, Some(http.host));
            (Check::Http { port: Some(http.port), path, host, accept: http.accept }, http.timeout)
        }
        None => (Check::Exec(program(&written.test)), None),
    };
    let timeout = match (given(written.timeout), own_timeout) {
        (Some(written), Some(own)) => Some(written.min(own)),
        (written, own) => written.or(own),
    };
    let probe = Probe { declared: true, ..with(check, written, timeout) };
    match probe.check {
        Check::Http { .. } => Probe { interval: asked_often(probe.interval), ..probe },
        Check::Exec(_) | Check::Up => probe,
    }
}

/// A request from the host costs next to nothing, so a hang needn't wait for the interval that Docker's exec is given.
pub(crate) fn asked_often(written: Duration) -> Duration {
    written.min(INTERVAL)
}

/// A GET on a port of the container, as `x-bulsa.probe` asks for it, or the weak one of a service without a check.
pub(crate) fn http(port: Option<u16>, path: &str, accept: Accept, written: &Healthcheck) -> Probe {
    let check = Check::Http { port, path: path.to_owned(), host: None, accept };
    with(check, &Healthcheck { interval: None, retries: None, ..written.clone() }, None)
}

/// It is up, and stays so.
pub(crate) fn up() -> Probe {
    with(Check::Up, &Healthcheck::default(), None)
}

fn with(check: Check, written: &Healthcheck, timeout: Option<Duration>) -> Probe {
    let (start_interval, default_timeout) = match check {
        Check::Exec(_) => (EXEC_START_INTERVAL, EXEC_TIMEOUT),
        Check::Http { .. } | Check::Up => (HTTP_START_INTERVAL, HTTP_TIMEOUT),
    };
    Probe {
        check,
        interval: given(written.interval).unwrap_or(INTERVAL),
        start_interval: given(written.start_interval).unwrap_or(start_interval),
        timeout: timeout.unwrap_or(default_timeout),
        rise: RISE,
        fall: written.retries.filter(|retries| *retries > 0).unwrap_or(FALL),
        start_period: written.start_period.unwrap_or_default(),
        declared: false,
    }
}

/// As in Docker, zero means the default.
fn given(duration: Option<Duration>) -> Option<Duration> {
    duration.filter(|duration| !duration.is_zero())
}

/// What runs in the container.
fn program(test: &[String]) -> Vec<String> {
    let words = test.iter().skip(1).cloned();
    match test.first().map(String::as_str) {
        Some("CMD-SHELL") => ["/bin/sh", "-c"].map(str::to_owned).into_iter().chain(words).collect(),
        _ => words.collect(),
    }
}

/// The longest that a replica may need to pass such a probe, by the interval that was written: its gate waits at least so long.
pub(crate) fn needed(probe: &Probe, written: Option<Duration>) -> Duration {
    let interval = probe.interval.max(written.unwrap_or_default());
    probe.start_period.saturating_add(interval.saturating_mul(probe.fall))
}

//! What the demo measured, what it had promised, and whether the two agree.
//!
//! Pure: numbers in, verdicts out. A request that failed is either *cut* (it was under way on the very process that was
//! killed, and nobody could have answered it without risking to do it twice) or *failed*, which is never all right.

use std::time::Duration;

use serde::Serialize;

use crate::load::{Failure, Kind, Mark, Report};

/// Everything that the demo measured.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// The version of this program.
    pub version: &'static str,
    /// Cores of this machine.
    pub cores: usize,
    /// The load average over the last minute when the show began, and when it ended.
    pub load_average: [Option<f64>; 2],
    /// Requests per second.
    pub rate: u32,
    /// WebSocket clients.
    pub sockets: u32,
    /// The app's own start, from its process to its first answer, without Bulsa (the middle of five).
    #[serde(rename = "app_start_ms", serialize_with = "crate::load::milliseconds")]
    pub app_start: Duration,
    /// Resident memory of keeper, agent and proxy under this load, in KiB.
    pub daemon_rss_kib: Option<u64>,
    /// The steps in their order.
    pub steps: Vec<Step>,
    /// What holds for the whole show.
    pub promises: Vec<Promise>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl Figures {
    /// The promises that were broken, each with its step.
    pub fn broken(&self) -> impl Iterator<Item = (&str, &Promise)> {
        let of_steps =
            self.steps.iter().flat_map(|step| step.promises.iter().map(|p| (step.title.as_str(), p)));
        let of_all = self.promises.iter().map(|promise| ("the whole show", promise));
        of_steps.chain(of_all).filter(|(_, promise)| !promise.kept)
    }

    /// How many promises were made.
    #[must_use]
    pub fn promised(&self) -> usize {
        self.promises.len() + self.steps.iter().map(|step| step.promises.len()).sum::<usize>()
    }

    /// The command's exit code: 0 where every promise was kept, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        u8::from(self.broken().next().is_some())
    }
}

/// One step of the show.
#[derive(Debug, Serialize)]
pub struct Step {
    /// A short name that scripts can match.
    pub id: &'static str,
    /// What was done.
    pub title: String,
    /// What the load saw meanwhile.
    pub load: Report,
    /// Requests that failed though they had nothing to do with an injury.
    pub failed: u64,
    /// Of these, the ones that could have been tried again without harm.
    pub failed_idempotent: u64,
    /// Requests that were under way on the process that was killed.
    pub cut: u64,
    /// Connections refused: those of the load, and those of a client that did nothing but knock.
    pub refused: u64,
    /// From the injury to the cure.
    pub recovery: Option<Recovery>,
    /// How the deploy command ended, where the step is a deploy.
    pub exit_code: Option<i32>,
    /// What the home-made set-ups did, as it was measured.
    pub by_hand: &'static str,
    /// What was promised.
    pub promises: Vec<Promise>,
}

/// How long an injury lasted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// From the injury to the cure.
    #[serde(rename = "time_ms", serialize_with = "crate::load::milliseconds")]
    pub time: Duration,
    /// What counts as the cure.
    pub cure: &'static str,
}

/// Something that was promised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Promise {
    /// What.
    pub text: String,
    /// Whether it was kept.
    pub kept: bool,
    /// What was found.
    pub found: String,
}

impl Promise {
    pub(crate) fn new(text: impl Into<String>, kept: bool, found: impl Into<String>) -> Self {
        Self { text: text.into(), kept, found: found.into() }
    }
}

/// Which failures an injury excuses.
#[derive(Clone, Debug)]
pub(crate) enum Cut {
    /// None.
    Nothing,
    /// Requests that must not be done twice, under way at a worker's death: from its injury to its end, each.
    Posts(Vec<(Mark, Mark)>),
    /// Requests under way at the proxy's death (from the kill to the end) on a connection that it held.
    Connections(Mark, Mark),
}

impl Cut {
    /// Whether the injury explains this failure.
    fn covers(&self, failure: &Failure) -> bool {
        if failure.kind == Kind::Refused {
            return false;
        }
        match self {
            Self::Nothing => false,
            Self::Posts(deaths) => {
                !failure.idempotent && deaths.iter().any(|(from, to)| failure.under_way(*from, *to))
            }
            // A request that was sent before the successor's first breath may be due a little after the death.
            Self::Connections(from, to) => {
                failure.at >= *from && failure.connection.is_some_and(|connection| connection.opened <= *to)
            }
        }
    }
}

impl Step {
    /// Sorts the window's failures.
    pub(crate) fn new(id: &'static str, title: &str, load: Report, cut: &Cut) -> Self {
        let excused = load.failures.iter().filter(|failure| cut.covers(failure)).count() as u64;
        let idempotent =
            load.failures.iter().filter(|failure| failure.idempotent && !cut.covers(failure)).count() as u64;
        Self {
            id,
            title: title.to_owned(),
            // The list has an end; what is beyond it is not excused.
            failed: load.failed.saturating_sub(excused),
            failed_idempotent: idempotent,
            cut: excused,
            refused: load.failed_by_kind.get(&Kind::Refused.to_string()).copied().unwrap_or(0),
            recovery: None,
            exit_code: None,
            by_hand: super::by_hand::of(id),
            promises: Vec::new(),
            load,
        }
    }

    pub(crate) fn promise(&mut self, text: impl Into<String>, kept: bool, found: impl Into<String>) {
        self.promises.push(Promise::new(text, kept, found));
    }

    /// No request failed, those excepted that were cut.
    pub(crate) fn promise_no_failure(&mut self) {
        let kinds: Vec<_> =
            self.load.failed_by_kind.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let found = match self.load.failed {
            0 => format!("0 of {}", self.load.requests),
            _ => format!(
                "{} of {} failed, {} cut ({})",
                self.failed,
                self.load.requests,
                self.cut,
                kinds.join(", ")
            ),
        };
        self.promise("no request fails", self.failed == 0 && self.load.requests > 0, found);
    }

    /// Every WebSocket that was connected when the step began lives through it.
    pub(crate) fn promise_sockets(&mut self) {
        let sockets = &self.load.sockets;
        let found = format!("{} of {} kept", sockets.kept, sockets.at_start);
        self.promise("every WebSocket is kept", sockets.kept == sockets.at_start && sockets.kept > 0, found);
    }

    /// No connection was refused.
    pub(crate) fn promise_no_refusal(&mut self) {
        self.promise("no connection is refused", self.refused == 0, format!("{} refused", self.refused));
    }

    /// The cure came within `limit`.
    pub(crate) fn promise_recovery(&mut self, text: String, limit: Duration) {
        let (kept, found) = match self.recovery {
            Some(Recovery { time, .. }) => (time < limit, format!("{} ms", time.as_millis())),
            None => (false, "never".to_owned()),
        };
        self.promise(text, kept, found);
    }

    /// The deploy command ended with `expected`.
    pub(crate) fn promise_exit(&mut self, text: &str, expected: i32) {
        let found =
            self.exit_code.map_or("killed by a signal".to_owned(), |code| format!("exit code {code}"));
        self.promise(text, self.exit_code == Some(expected), found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Connection, Method};

    fn at(ms: u64) -> Mark {
        Mark::START.plus(Duration::from_millis(ms))
    }

    fn failure(method: Method, due: u64, end: u64) -> Failure {
        Failure {
            due: at(due),
            at: at(end),
            kind: Kind::Status(502),
            method,
            idempotent: method.is_idempotent(),
            path: "/".to_owned(),
            connection: Some(Connection { opened: at(0), reused: true }),
            release: None,
            detail: String::new(),
        }
    }

    fn report(failures: Vec<Failure>) -> Report {
        let mut report = Report { requests: 100, failed: failures.len() as u64, ..Report::default() };
        for failure in &failures {
            *report.failed_by_kind.entry(failure.kind.to_string()).or_default() += 1;
        }
        report.failures = failures;
        report
    }

    #[test]
    fn a_workers_death_excuses_only_what_must_not_be_done_twice_and_was_under_way() {
        let report = report(vec![
            failure(Method::Post, 900, 1001),
            failure(Method::Get, 900, 1001),
            failure(Method::Post, 1100, 1200),
            failure(Method::Post, 800, 990),
        ]);
        let step = Step::new("x", "x", report, &Cut::Posts(vec![(at(1000), at(1003))]));
        assert_eq!((step.failed, step.cut, step.failed_idempotent), (3, 1, 1));
    }

    #[test]
    fn the_proxys_death_excuses_only_what_came_over_a_connection_that_it_held() {
        let later = Failure {
            connection: Some(Connection { opened: at(1050), reused: false }),
            ..failure(Method::Get, 1050, 1060)
        };
        let without = Failure { connection: None, ..failure(Method::Get, 990, 1060) };
        let refused = Failure { kind: Kind::Refused, ..failure(Method::Get, 990, 1000) };
        let before = failure(Method::Get, 900, 950);
        let report = report(vec![failure(Method::Get, 990, 1001), later, without, refused, before]);
        let step = Step::new("x", "x", report, &Cut::Connections(at(1000), at(1002)));
        assert_eq!((step.failed, step.cut, step.refused), (4, 1, 1));
    }

    #[test]
    fn failures_beyond_the_list_are_not_excused() {
        let mut report = report(vec![failure(Method::Post, 900, 1001)]);
        report.failed = 5;
        let step = Step::new("x", "x", report, &Cut::Posts(vec![(at(1000), at(1003))]));
        assert_eq!((step.failed, step.cut), (4, 1));
    }

    #[test]
    fn a_broken_promise_is_named_with_its_step_and_makes_the_exit_code_1() {
        let mut step = Step::new("x", "kill it", report(vec![failure(Method::Get, 1, 2)]), &Cut::Nothing);
        step.promise_no_failure();
        step.promise_no_refusal();
        let mut figures = Figures {
            version: "0",
            cores: 1,
            load_average: [None, None],
            rate: 1,
            sockets: 0,
            app_start: Duration::ZERO,
            daemon_rss_kib: None,
            steps: vec![step],
            promises: vec![],
            seconds: 1.0,
        };
        let broken: Vec<_> = figures.broken().map(|(step, promise)| (step, promise.found.as_str())).collect();
        assert_eq!(broken, [("kill it", "1 of 100 failed, 0 cut (1 status 502)")]);
        assert_eq!((figures.exit_code(), figures.promised()), (1, 2));
        figures.steps[0].promises.remove(0);
        assert_eq!(figures.exit_code(), 0);
    }

    #[test]
    fn a_window_without_a_single_request_proves_nothing() {
        let mut step = Step::new("x", "x", Report::default(), &Cut::Nothing);
        step.promise_no_failure();
        step.promise_sockets();
        step.promise_recovery("back".to_owned(), Duration::from_secs(1));
        step.promise_exit("exits 3", 3);
        assert!(step.promises.iter().all(|promise| !promise.kept));
    }
}

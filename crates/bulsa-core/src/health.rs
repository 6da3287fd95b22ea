//! The verdict over a replica's probe runs.
//!
//! Owns: the thresholds (`rise`, `fall`) and the states between them. Never: runs a probe, or decides what follows
//! from a verdict (that is [`crate::decide`]).
//!
//! ```text
//! Unknown ── rise passes ──▶ Ready ── 1 failure ──▶ Suspect ── fall failures ──▶ Failed
//!                              ▲                       │                            │
//! Assumed ── as Ready ─────────┴───── rise passes ─────┴──────── rise passes ───────┘
//! ```
//!
//! What follows on `Failed` is a replacement, as a rule. One that isn't replaced (yet) is ready again after `rise` passes: its
//! failing may have been somebody else's.
//!
//! A run that got no answer on a host that is short of CPU is a sign of a hang too, and a weak one: the replica is as suspect
//! as after any other, so that others serve meanwhile, but it takes [`STARVED_FOR_ONE`] of them to weigh as much as one failure.
//!
//! A replica that is `Unknown` can't fail by its probes: its gate has a deadline instead. `Assumed` is a replica that
//! an earlier agent had routed: it goes on serving until a probe says otherwise ("come back serving, then verify").
//! A probe that could not run says nothing about the service and changes nothing (ARCHITECTURE.md, invariant 9).

use crate::{spec::Probe, time::Timestamp};

/// So many runs without an answer on a host that is short of CPU count as one failure.
pub const STARVED_FOR_ONE: u32 = 3;

/// After so many runs in a row that could not be made nothing is expected of the next.
pub const BLIND_AFTER: u32 = 3;

/// After so many runs in a row without an answer it gets no requests, even where there is nobody else.
pub const MUTE_AFTER: u32 = 2;

/// What one run of a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// The service answered as it should.
    Pass,
    /// The service answered, and badly, or refused the connection.
    BadAnswer,
    /// No answer within the time limit: the sign of a hang.
    NoAnswer,
    /// No answer within the time limit, while the host had too little CPU for all that wanted to run: it may be the host.
    Starved,
    /// The probe itself could not run (no file descriptor, no such program).
    CouldNotRun,
}

/// What is known of a replica's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet proven healthy.
    #[default]
    Unknown,
    /// Routed by an earlier agent and not probed by this one yet.
    Assumed,
    /// Proven healthy.
    Ready,
    /// Was ready; its last probe failed.
    Suspect,
    /// Failed `fall` times in a row: the replica is to be replaced. `hung` when not one of these runs got an answer.
    Failed {
        /// Whether it may be killed without grace.
        hung: bool,
    },
}

/// The health of one replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    verdict: Verdict,
    passes: u32,
    /// In a row, in parts: one is [`STARVED_FOR_ONE`].
    failures: u32,
    answered: bool,
    /// In a row.
    not_run: u32,
    ready_since: Option<Timestamp>,
    proven_at: Option<Timestamp>,
    failed_at: Option<Timestamp>,
}

impl Health {
    /// The health of a replica that was already routed when this agent began.
    #[must_use]
    pub const fn assumed(since: Timestamp) -> Self {
        Self {
            verdict: Verdict::Assumed,
            passes: 0,
            failures: 0,
            answered: false,
            not_run: 0,
            ready_since: Some(since),
            proven_at: None,
            failed_at: None,
        }
    }

    /// The same replica, to be proven anew: what its probes said so far doesn't count, how long it served does.
    #[must_use]
    pub fn unproven(self) -> Self {
        Self { ready_since: self.ready_since, ..Self::default() }
    }

    /// What is known now.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// When it first was ready; `None` if it never was.
    #[must_use]
    pub const fn ready_since(&self) -> Option<Timestamp> {
        self.ready_since
    }

    /// When it last turned ready by what it answered, and not from a moment's doubt; `None` if it never did before this
    /// agent's eyes.
    #[must_use]
    pub const fn proven_at(&self) -> Option<Timestamp> {
        self.proven_at
    }

    /// Since when it [has failed](Verdict::Failed).
    #[must_use]
    pub const fn failed_at(&self) -> Option<Timestamp> {
        self.failed_at
    }

    /// Whether it is proven, or assumed, healthy.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self.verdict, Verdict::Ready | Verdict::Assumed)
    }

    /// Whether its probes have begun to fail, and not one of those runs got an answer: the sign of a hang.
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        matches!(self.verdict, Verdict::Suspect | Verdict::Failed { .. }) && !self.answered
    }

    /// Whether its last [`BLIND_AFTER`] runs could not be made, so that nobody can say how it is.
    #[must_use]
    pub const fn is_blind(&self) -> bool {
        self.not_run >= BLIND_AFTER
    }

    /// Whether it has failed to answer so often that a request would only be lost with it.
    #[must_use]
    pub const fn is_mute(&self) -> bool {
        self.is_silent() && self.failures >= MUTE_AFTER * STARVED_FOR_ONE
    }

    /// Declares it ready without a probe: a service whose check is [`crate::spec::Check::Up`].
    pub fn declare_ready(&mut self, now: Timestamp) {
        if matches!(self.verdict, Verdict::Unknown | Verdict::Assumed) {
            self.turn_ready(now);
        }
    }

    fn turn_ready(&mut self, now: Timestamp) {
        if self.verdict != Verdict::Suspect || self.proven_at.is_none() {
            self.proven_at = Some(now);
        }
        (self.verdict, self.failed_at) = (Verdict::Ready, None);
        self.ready_since.get_or_insert(now);
    }

    /// It has missed its heartbeat: its own loop stands still, whatever its probes say. One that isn't proven yet has its
    /// gate's deadline instead.
    pub fn on_missed_heartbeat(&mut self, now: Timestamp) {
        if matches!(self.verdict, Verdict::Assumed | Verdict::Ready | Verdict::Suspect) {
            self.passes = 0;
            (self.verdict, self.failed_at) = (Verdict::Failed { hung: true }, Some(now));
        }
    }

    /// Takes in one run. `started` is when the replica's process started: within `start_period` of it, and before
    /// the first success, failures don't count.
    pub fn on_probe(&mut self, result: ProbeResult, probe: &Probe, started: Timestamp, now: Timestamp) {
        match result {
            ProbeResult::CouldNotRun => self.not_run = self.not_run.saturating_add(1),
            ProbeResult::Pass => self.on_pass(probe, now),
            ProbeResult::BadAnswer | ProbeResult::NoAnswer | ProbeResult::Starved => {
                self.on_failure(result, probe, started, now);
            }
        }
    }

    fn on_pass(&mut self, probe: &Probe, now: Timestamp) {
        self.not_run = 0;
        self.failures = 0;
        self.answered = false;
        self.passes = self.passes.saturating_add(1);
        let enough = self.passes >= probe.rise.max(1);
        match self.verdict {
            Verdict::Unknown | Verdict::Suspect | Verdict::Failed { .. } if enough => self.turn_ready(now),
            Verdict::Assumed => self.verdict = Verdict::Ready,
            Verdict::Unknown | Verdict::Suspect | Verdict::Ready | Verdict::Failed { .. } => {}
        }
    }

    fn on_failure(&mut self, result: ProbeResult, probe: &Probe, started: Timestamp, now: Timestamp) {
        (self.passes, self.not_run) = (0, 0);
        match self.verdict {
            Verdict::Unknown => {}
            // One that answers after all, however badly, doesn't hang.
            Verdict::Failed { .. } if result == ProbeResult::BadAnswer => {
                (self.answered, self.verdict) = (true, Verdict::Failed { hung: false });
            }
            Verdict::Failed { .. } => {}
            Verdict::Assumed if now.since(started) < probe.start_period => {}
            Verdict::Assumed | Verdict::Ready | Verdict::Suspect => {
                let parts = if result == ProbeResult::Starved { 1 } else { STARVED_FOR_ONE };
                self.failures = self.failures.saturating_add(parts);
                self.answered |= result == ProbeResult::BadAnswer;
                let enough = probe.fall.max(1).saturating_mul(STARVED_FOR_ONE);
                if self.failures < enough {
                    self.verdict = Verdict::Suspect;
                } else {
                    self.verdict = Verdict::Failed { hung: !self.answered };
                    self.failed_at = Some(now);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::spec::{Accept, Check};

    fn probe(rise: u32, fall: u32) -> Probe {
        Probe {
            check: Check::Http { port: None, path: "/".to_owned(), host: None, accept: Accept::Success },
            interval: Duration::from_secs(2),
            start_interval: Duration::from_millis(10),
            timeout: Duration::from_secs(1),
            rise,
            fall,
            start_period: Duration::ZERO,
            declared: true,
        }
    }

    fn run(health: &mut Health, probe: &Probe, results: &[ProbeResult]) -> Vec<Verdict> {
        let at = |i: usize| Timestamp(i as u64);
        let step = |(i, r): (usize, &ProbeResult)| {
            health.on_probe(*r, probe, Timestamp(0), at(i));
            health.verdict()
        };
        results.iter().enumerate().map(step).collect()
    }

    #[test]
    fn a_new_replica_is_ready_after_rise_passes_in_a_row() {
        use ProbeResult::{BadAnswer, Pass};
        let verdicts = run(&mut Health::default(), &probe(2, 3), &[BadAnswer, Pass, BadAnswer, Pass, Pass]);
        assert_eq!(verdicts[3], Verdict::Unknown);
        assert_eq!(verdicts[4], Verdict::Ready);
    }

    #[test]
    fn one_failure_makes_suspect_fall_make_failed_and_passes_bring_it_back() {
        use ProbeResult::{BadAnswer, NoAnswer, Pass};
        let mut health = Health::default();
        let verdicts =
            run(&mut health, &probe(1, 3), &[Pass, NoAnswer, Pass, NoAnswer, NoAnswer, NoAnswer, NoAnswer]);
        assert_eq!(verdicts[1], Verdict::Suspect);
        assert_eq!(verdicts[2], Verdict::Ready);
        assert_eq!(verdicts[5..], [Verdict::Failed { hung: true }; 2]);
        assert_eq!((health.failed_at(), health.proven_at()), (Some(Timestamp(5)), Some(Timestamp(0))));
        let mut answers = health;
        let verdicts = run(&mut answers, &probe(2, 3), &[BadAnswer, Pass, NoAnswer, Pass, Pass]);
        assert_eq!(verdicts[..4], [Verdict::Failed { hung: false }; 4], "one that answers doesn't hang");
        assert_eq!((verdicts[4], answers.failed_at()), (Verdict::Ready, None));
        let verdicts = run(&mut Health::default(), &probe(1, 2), &[Pass, NoAnswer, BadAnswer]);
        assert_eq!(verdicts[2], Verdict::Failed { hung: false }, "it answered, so it doesn't hang");
    }

    #[test]
    fn a_probe_that_cannot_run_changes_nothing() {
        let mut health = Health::assumed(Timestamp(0));
        run(&mut health, &probe(1, 1), &[ProbeResult::CouldNotRun; 50]);
        assert_eq!((health.verdict(), health.is_blind()), (Verdict::Assumed, true));
        run(&mut health, &probe(1, 1), &[ProbeResult::Pass]);
        assert_eq!((health.verdict(), health.is_blind()), (Verdict::Ready, false));
    }

    #[test]
    fn on_a_host_that_is_short_of_cpu_it_takes_three_times_as_many_to_fail() {
        use ProbeResult::{NoAnswer, Pass, Starved};
        let mut health = Health::default();
        let starved = [Pass, Starved, Starved, Starved, Starved, Starved];
        let verdicts = run(&mut health, &probe(1, 2), &starved);
        assert!(verdicts[1..].iter().all(|verdict| *verdict == Verdict::Suspect), "{verdicts:?}");
        let mut others = health;
        assert_eq!(run(&mut others, &probe(1, 2), &[Starved]), [Verdict::Failed { hung: true }]);
        let mut others = health;
        assert_eq!(run(&mut others, &probe(1, 2), &[NoAnswer]), [Verdict::Failed { hung: true }]);
        assert_eq!(
            run(&mut health, &probe(1, 2), &[Pass]),
            [Verdict::Ready],
            "one answer, and all is forgotten"
        );
    }

    fn any_result() -> impl Strategy<Value = ProbeResult> {
        prop_oneof![
            Just(ProbeResult::Pass),
            Just(ProbeResult::BadAnswer),
            Just(ProbeResult::NoAnswer),
            Just(ProbeResult::Starved),
            Just(ProbeResult::CouldNotRun)
        ]
    }

    proptest! {
        /// The model: the runs that count, read backwards.
        #[test]
        fn verdicts_agree_with_a_model_that_remembers_every_run(
            results in prop::collection::vec(any_result(), 0..60), rise in 1_u32..4, fall in 1_u32..4,
        ) {
            let mut health = Health::default();
            let (mut seen, mut was_ready, mut failed) = (Vec::new(), false, false);
            for (i, result) in results.iter().enumerate() {
                health.on_probe(*result, &probe(rise, fall), Timestamp(0), Timestamp(i as u64));
                if *result != ProbeResult::CouldNotRun {
                    seen.push(*result);
                }
                let tail = |pass: bool| {
                    seen.iter().rev().take_while(|r| (**r == ProbeResult::Pass) == pass).count() as u32
                };
                was_ready |= tail(true) >= rise;
                let failures = seen.iter().rev().take_while(|r| **r != ProbeResult::Pass);
                let parts = failures.map(|r| if *r == ProbeResult::Starved { 1 } else { STARVED_FOR_ONE });
                failed |= was_ready && parts.sum::<u32>() >= fall * STARVED_FOR_ONE;
                failed &= tail(true) < rise;
                prop_assert_eq!(matches!(health.verdict(), Verdict::Failed { .. }), failed);
                prop_assert_eq!(health.verdict() == Verdict::Unknown, !was_ready);
                prop_assert_eq!(health.ready_since().is_some(), was_ready);
            }
        }
    }
}

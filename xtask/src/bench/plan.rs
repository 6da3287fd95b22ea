//! What is measured, of whom, how often and in which order.
//!
//! Owns: the names of candidates and series, and the times of a run. Never: starts anything.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

/// Whose CPU and memory are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Candidate {
    /// This project's own
    Bulsa,
    /// As it is without a word about its buffers
    Nginx,
    /// With room for an answer of 64 KiB
    #[value(name = "nginx-64k")]
    #[serde(rename = "nginx-64k")]
    Nginx64k,
    Haproxy,
    Caddy,
    Traefik,
    Envoy,
}

impl Candidate {
    /// The name that is shown and given.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bulsa => "bulsa",
            Self::Nginx => "nginx",
            Self::Nginx64k => "nginx-64k",
            Self::Haproxy => "haproxy",
            Self::Caddy => "caddy",
            Self::Traefik => "traefik",
            Self::Envoy => "envoy",
        }
    }
}

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Series {
    /// 1 KiB over 64 keep-alive connections, as fast as it goes
    #[value(name = "keepalive-1k")]
    Keepalive1k,
    /// 64 KiB over 64 keep-alive connections, as fast as it goes
    #[value(name = "keepalive-64k")]
    Keepalive64k,
    /// 1 KiB over a new connection each, 64 at once
    #[value(name = "close-1k")]
    Close1k,
    /// 1 KiB, 3,000 requests a second over 64 keep-alive connections
    #[value(name = "rate-3000")]
    Rate3000,
    /// Memory of keep-alive connections that do nothing
    IdleConnections,
    /// Memory of WebSockets that do nothing
    Websockets,
}

impl Series {
    /// The name that is shown and given.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Keepalive1k => "keepalive-1k",
            Self::Keepalive64k => "keepalive-64k",
            Self::Close1k => "close-1k",
            Self::Rate3000 => "rate-3000",
            Self::IdleConnections => "idle-connections",
            Self::Websockets => "websockets",
        }
    }

    /// Whether it measures memory, and not CPU.
    pub(super) fn is_of_memory(self) -> bool {
        matches!(self, Self::IdleConnections | Self::Websockets)
    }

    /// What is asked for.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Keepalive64k => "/64k",
            _ => "/",
        }
    }
}

/// Everything that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) candidates: Vec<Candidate>,
    pub(super) series: Vec<Series>,
    /// Of load.
    pub(super) rounds: usize,
    /// Of memory: each begins with new processes, and they differ little.
    pub(super) rounds_of_memory: usize,
    /// Measured in each round, of each candidate.
    pub(super) time: Duration,
    /// Before that, and not measured.
    pub(super) warm_up: Duration,
    pub(super) connections: u64,
    pub(super) websockets: u64,
}

impl Plan {
    /// Rounds of load where nothing is said.
    const ROUNDS: usize = 7;
    const ROUNDS_QUICK: usize = 3;
    const ROUNDS_OF_MEMORY_MAX: usize = 3;
    const TIME: Duration = Duration::from_secs(3);
    const TIME_QUICK: Duration = Duration::from_millis(1500);
    const WARM_UP: Duration = Duration::from_millis(500);
    const CONNECTIONS: u64 = 2_000;
    const WEBSOCKETS: u64 = 10_000;
    const WEBSOCKETS_QUICK: u64 = 2_000;

    /// Where `only` or `series` are empty, all are meant.
    pub(super) fn new(quick: bool, rounds: Option<usize>, only: &[Candidate], series: &[Series]) -> Self {
        let rounds = rounds.unwrap_or(if quick { Self::ROUNDS_QUICK } else { Self::ROUNDS });
        Self {
            candidates: named_or_all(only),
            series: named_or_all(series),
            rounds,
            rounds_of_memory: rounds.min(if quick { 1 } else { Self::ROUNDS_OF_MEMORY_MAX }),
            time: if quick { Self::TIME_QUICK } else { Self::TIME },
            warm_up: Self::WARM_UP,
            connections: Self::CONNECTIONS,
            websockets: if quick { Self::WEBSOCKETS_QUICK } else { Self::WEBSOCKETS },
        }
    }

    /// How many rounds a series has.
    pub(super) fn rounds_of(&self, series: Series) -> usize {
        if series.is_of_memory() { self.rounds_of_memory } else { self.rounds }
    }
}

/// Those that were named, each once and in the order of their kind; all where none was.
fn named_or_all<T: ValueEnum + Copy + PartialEq>(named: &[T]) -> Vec<T> {
    let all = T::value_variants().iter().copied();
    all.filter(|one| named.is_empty() || named.contains(one)).collect()
}

/// Who comes when in a round: each round begins with another one, so that nobody always has the same neighbour in time.
pub(super) fn order<T: Copy>(all: &[T], round: usize) -> Vec<T> {
    let mut turn = all.to_vec();
    turn.rotate_left(round % all.len().max(1));
    turn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_begins_with_another() {
        assert_eq!(order(&[1, 2, 3], 0), [1, 2, 3]);
        assert_eq!(order(&[1, 2, 3], 1), [2, 3, 1]);
        assert_eq!(order(&[1, 2, 3], 5), [3, 1, 2]);
        assert_eq!(order::<u8>(&[], 5), Vec::<u8>::new());
    }

    #[test]
    fn names_on_the_command_line_are_those_that_are_shown() {
        for one in Candidate::value_variants() {
            assert_eq!(Candidate::from_str(one.name(), false), Ok(*one));
            assert_eq!(serde_json::to_value(one).unwrap(), one.name());
        }
        for one in Series::value_variants() {
            assert_eq!(Series::from_str(one.name(), false), Ok(*one));
        }
    }

    #[test]
    fn a_plan_has_what_was_asked_for() {
        let plan = Plan::new(true, None, &[Candidate::Haproxy, Candidate::Bulsa, Candidate::Bulsa], &[]);
        assert_eq!(plan.candidates, [Candidate::Bulsa, Candidate::Haproxy]);
        assert_eq!(plan.series.len(), 6);
        assert_eq!((plan.rounds_of(Series::Close1k), plan.rounds_of(Series::Websockets)), (3, 1));
        let plan = Plan::new(false, Some(2), &[], &[Series::Rate3000]);
        assert_eq!((plan.candidates.len(), plan.rounds, plan.rounds_of_memory), (7, 2, 2));
    }
}

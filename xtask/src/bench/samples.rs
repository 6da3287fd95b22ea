//! One candidate, one round: what it has used for the work of a series.
//!
//! Owns: the order of warm-up, look, work and look again. Never: compares candidates.

use std::{fs, net::SocketAddr, time::Duration};

use super::{
    candidates::Running,
    group::{Usage, memory_of},
    http::Wire,
    open_loop::{self, Outcome, percentile},
    plan::{Plan, Series},
    programs::Program,
    stop::Stop,
    wrk::{self, Counted},
};
use crate::{measure::Error, run::say};

/// What the fixed rate is.
const PER_SECOND: u32 = 3_000;
/// The closing of the last load's connections is over after this.
const SETTLE: Duration = Duration::from_millis(50);
/// The memory of connections is looked at this long after the last one was opened.
const SETTLE_MEMORY: Duration = Duration::from_secs(1);
/// The scheduler's clock and the ticks may be apart by this share of the time, and by this time.
const GAP_MAX: (f64, f64) = (0.05, 0.05);
/// Connections and requests of each that come before the memory of connections is measured.
const FIRST_CONNECTIONS: usize = 16;
const FIRST_REQUESTS: usize = 20;

/// What was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    pub(super) requests: u64,
    pub(super) failed: u64,
    /// CPU for a request, in µs, and how much of that in user space.
    pub(super) cpu: Option<f64>,
    pub(super) user: Option<f64>,
    pub(super) per_second: Option<f64>,
    /// Latencies, in µs.
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
    /// How late the client itself was with all but a hundredth of its requests, in µs: it shares the cores.
    pub(super) late: Option<f64>,
    /// Growth of memory for a connection, in bytes.
    pub(super) rss: Option<f64>,
    pub(super) pss: Option<f64>,
    /// Memory before the first connection, in bytes.
    pub(super) at_rest: Option<f64>,
}

/// Runs a series' load once.
pub(super) fn of_load(
    running: &Running,
    series: Series,
    plan: &Plan,
    client: &Program,
    stop: &Stop,
) -> Result<Sample, Error> {
    let work = Work { target: running.doors.web, series, client };
    work.run(plan.warm_up, stop)?;
    stop.pause(SETTLE)?;
    let pids = running.pids()?;
    let opened_before = connections_opened()?;
    let before = Usage::of(&pids)?;
    let mut sample = work.run(plan.time, stop)?;
    stop.pause(SETTLE)?;
    let used = Usage::of(&pids)?.since(&before);
    if sample.requests == 0 {
        return Err(format!("no request was answered, {} failed", sample.failed).into());
    }
    let opened = connections_opened()? - opened_before;
    if series == Series::Close1k && opened < sample.requests {
        return Err(format!("{} requests came over only {opened} connections", sample.requests).into());
    }
    let seconds = used.run.as_secs_f64();
    let (share_max, gap_max) = GAP_MAX;
    if used.gap() > gap_max.max(seconds * share_max) {
        let name = running.candidate.name();
        say(&format!(
            "warning: {name}: {seconds:.2} s by the scheduler, {:.2} s apart from the ticks",
            used.gap()
        ));
    }
    let cpu = seconds * 1e6 / sample.requests as f64;
    sample.cpu = Some(cpu);
    sample.user = Some(cpu * used.user_share()).filter(|user| user.is_finite());
    Ok(sample)
}

/// The work of a series, as a client does it.
#[derive(Clone, Copy)]
struct Work<'a> {
    target: SocketAddr,
    series: Series,
    client: &'a Program,
}

impl Work<'_> {
    fn run(&self, time: Duration, stop: &Stop) -> Result<Sample, Error> {
        let path = self.series.path();
        if self.series == Series::Rate3000 {
            let connections = wrk::CONNECTIONS;
            let plan =
                open_loop::Plan { target: self.target, path, per_second: PER_SECOND, connections, time };
            return Ok(at_a_rate(&open_loop::run(plan, stop)?));
        }
        let close = self.series == Series::Close1k;
        let Counted { requests, failed, per_second } =
            wrk::run(self.client, self.target, path, close, time, stop)?;
        Ok(Sample { requests, failed, per_second: Some(per_second), ..Sample::default() })
    }
}

fn at_a_rate(outcome: &Outcome) -> Sample {
    let at = |sorted: &[f64], share| Some(percentile(sorted, share)).filter(|value| value.is_finite());
    Sample {
        requests: outcome.latencies.len() as u64,
        failed: outcome.failed,
        p50: at(&outcome.latencies, 0.5),
        p99: at(&outcome.latencies, 0.99),
        late: at(&outcome.lateness, 0.99),
        ..Sample::default()
    }
}

/// How many connections this machine has accepted since it runs.
fn connections_opened() -> Result<u64, Error> {
    let text = fs::read_to_string("/proc/net/snmp")?;
    passive_opens(&text).ok_or_else(|| "the kernel counts no connections".into())
}

/// The field `PassiveOpens`: a line has the names, the next one the values.
fn passive_opens(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let index = names.split_whitespace().position(|name| name == "PassiveOpens")?;
    values.split_whitespace().nth(index)?.parse().ok()
}

/// Opens a series' connections, and looks at the memory before and after.
pub(super) fn of_memory(
    running: &Running,
    series: Series,
    plan: &Plan,
    stop: &Stop,
) -> Result<Sample, Error> {
    let is_sockets = series == Series::Websockets;
    let (door, count) = match is_sockets {
        true => (running.doors.sockets, plan.websockets),
        false => (running.doors.web, plan.connections),
    };
    // What is needed once, whoever comes, is no connection's own.
    let first: Vec<Wire> =
        (0..FIRST_CONNECTIONS).map(|_| opened(door, is_sockets, FIRST_REQUESTS)).collect::<Result<_, _>>()?;
    drop(first);
    stop.pause(SETTLE_MEMORY)?;
    let (rss_before, pss_before) = memory_of(&running.pids()?)?;
    let mut wires = Vec::new();
    let mut failed = 0;
    for _ in 0..count {
        stop.check()?;
        match opened(door, is_sockets, 1) {
            Ok(wire) => wires.push(wire),
            Err(error) if failed * 100 > count => return Err(error),
            Err(_) => failed += 1,
        }
    }
    stop.pause(SETTLE_MEMORY)?;
    let (rss, pss) = memory_of(&running.pids()?)?;
    for wire in &mut wires {
        let lives = if is_sockets { wire.echo() } else { wire.ask(series.path()).map(drop) };
        failed += u64::from(lives.is_err());
        stop.check()?;
    }
    let each = |after: u64, before: u64| Some((after as f64 - before as f64) / wires.len().max(1) as f64);
    Ok(Sample {
        requests: wires.len() as u64,
        failed,
        rss: each(rss, rss_before),
        pss: each(pss, pss_before),
        at_rest: Some(pss_before as f64),
        ..Sample::default()
    })
}

/// A connection that has been used so many times.
fn opened(door: SocketAddr, is_socket: bool, times: usize) -> Result<Wire, Error> {
    let mut wire = Wire::open(door)?;
    if is_socket {
        wire.upgrade()?;
    }
    for _ in 0..times {
        match is_socket {
            true => wire.echo()?,
            false => drop(wire.ask("/")?),
        }
    }
    Ok(wire)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_connections_are_read_by_name() {
        let text = "Ip: Forwarding\nIp: 1\nTcp: RtoMin ActiveOpens PassiveOpens\nTcp: 200 -1 42\n";
        assert_eq!(passive_opens(text), Some(42));
        assert_eq!(passive_opens("Tcp: RtoMin\n"), None);
    }

    #[test]
    fn a_rate_has_the_latencies_of_what_was_answered() {
        let outcome =
            Outcome { latencies: (1..=200).map(f64::from).collect(), lateness: vec![10.0], failed: 3 };
        let sample = at_a_rate(&outcome);
        assert_eq!((sample.requests, sample.failed), (200, 3));
        assert_eq!((sample.p50, sample.p99), (Some(100.0), Some(198.0)));
        assert_eq!(sample.late, Some(10.0));
        assert_eq!(at_a_rate(&Outcome::default()).p50, None);
    }
}

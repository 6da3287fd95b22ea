//! What is done to the daemon, what must not come of it, and what is counted.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use bulsa::load::Report;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::daemon::{Daemon, REPLICAS};
use crate::run::Trouble;

/// From one look at the daemon to the next.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Numbers drawn from a seed (splitmix64).
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `sides`, which isn't 0.
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        usize::try_from(z % sides.max(1) as u64).unwrap_or(0)
    }
}

/// What a deployed version does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// It serves.
    Good,
    /// It never gets healthy.
    Broken,
}

impl Version {
    /// The compose file; `number` tells one version from the next.
    pub(super) fn compose(self, exe: &Path, port: u16, number: u32) -> String {
        let exe = serde_json::Value::from(exe.to_string_lossy()).to_string().replace('$', "$$");
        let broken = u8::from(self == Self::Broken);
        format!(
            "services:
  web:
    command: [{exe}, \"__demo-app\"]
    ports: [\"127.0.0.1:{port}:3000\"]
    environment: {{ DEMO_VERSION: \"v{number}\", DEMO_START_MS: \"200\", DEMO_BROKEN: \"{broken}\" }}
    deploy: {{ replicas: {REPLICAS} }}
    x-bulsa:
      probe: {{ path: /health, interval: 1s, timeout: 1s, rise: 2, fall: 2 }}
      gate: {{ timeout: 10s }}
      bake: {{ time: 2s }}
      drain: {{ websockets: 20s, stagger: 2s }}
"
        )
    }

    /// What `bulsa deploy` of it exits with.
    pub(super) const fn exit_code(self) -> i32 {
        match self {
            Self::Good => 0,
            Self::Broken => 3,
        }
    }
}

/// One thing that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Injury {
    KillWorker,
    HangWorker,
    KillAgent,
    KillProxy,
    KillAgentAndProxy,
    Deploy,
    DeployBroken,
    Restart,
}

impl Injury {
    const ALL: [Self; 8] = [
        Self::KillWorker,
        Self::HangWorker,
        Self::KillAgent,
        Self::KillProxy,
        Self::KillAgentAndProxy,
        Self::Deploy,
        Self::DeployBroken,
        Self::Restart,
    ];

    pub(super) fn draw(dice: &mut Dice) -> Self {
        Self::ALL[dice.roll(Self::ALL.len())]
    }

    const fn name(self) -> &'static str {
        match self {
            Self::KillWorker => "kill -9 a worker",
            Self::HangWorker => "hang a worker",
            Self::KillAgent => "kill -9 the agent",
            Self::KillProxy => "kill -9 the proxy",
            Self::KillAgentAndProxy => "kill -9 agent and proxy",
            Self::Deploy => "deploy",
            Self::DeployBroken => "deploy a broken release",
            Self::Restart => "restart",
        }
    }

    /// Whether requests that were under way may be lost.
    const fn may_cut(self) -> bool {
        matches!(self, Self::KillWorker | Self::HangWorker | Self::KillProxy | Self::KillAgentAndProxy)
    }

    /// Does it. A deploy and a restart are over when this returns.
    pub(super) async fn inflict(self, daemon: &mut Daemon, dice: &mut Dice) -> Result<(), Trouble> {
        let seen =
            daemon.look().await.ok_or_else(|| Trouble::Other("the daemon does not answer".to_owned()))?;
        let live = seen.projects.iter().find_map(|project| project.live);
        let replicas = seen.projects.iter().flat_map(|p| &p.services).flat_map(|service| &service.replicas);
        let workers: Vec<u32> =
            replicas.filter(|r| Some(r.release) == live).filter_map(|replica| replica.pid).collect();
        let worker = workers.get(dice.roll(workers.len())).copied();
        let proxy = seen.proxies.last().map(|proxy| proxy.pid);
        let agent = Some(seen.agent.pid);
        let (how, victims) = match self {
            Self::KillWorker => (Signal::KILL, vec![worker]),
            Self::HangWorker => (Signal::STOP, vec![worker]),
            Self::KillAgent => (Signal::KILL, vec![agent]),
            Self::KillProxy => (Signal::KILL, vec![proxy]),
            Self::KillAgentAndProxy => (Signal::KILL, vec![agent, proxy]),
            Self::Deploy => return daemon.deploy(Version::Good).await,
            Self::DeployBroken => return daemon.deploy(Version::Broken).await,
            Self::Restart => return daemon.restart().await,
        };
        for victim in &victims {
            signal(*victim, how)?;
        }
        gone(daemon, &victims).await
    }

    /// What should not have come of it, if it did.
    pub(super) fn broken_promise(self, report: &Report) -> Option<String> {
        let refused = report.failed_by_kind.get("refused").copied().unwrap_or(0);
        if refused > 0 {
            return Some(format!("{}: {refused} connections refused", self.name()));
        }
        (!self.may_cut() && report.failed > 0).then(|| {
            format!("{}: {} requests failed {:?}", self.name(), report.failed, report.failed_by_kind)
        })
    }
}

/// Waits until the daemon shows none of these processes, so that what is well afterwards is well without them.
async fn gone(daemon: &Daemon, victims: &[Option<u32>]) -> Result<(), Trouble> {
    let end = Instant::now() + super::CURE_MAX;
    while Instant::now() < end {
        if let Some(seen) = daemon.look().await {
            let replicas =
                seen.projects.iter().flat_map(|p| &p.services).flat_map(|service| &service.replicas);
            let proxies = seen.proxies.iter().map(|proxy| Some(proxy.pid));
            let mut shown = replicas.map(|replica| replica.pid).chain(proxies).chain([Some(seen.agent.pid)]);
            if !seen.projects.is_empty() && shown.all(|pid| !victims.contains(&pid)) {
                return Ok(());
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(Trouble::Other(format!("processes {victims:?} were not replaced within {:?}", super::CURE_MAX)))
}

/// Sends a signal to a process of the daemon's, held so that no other can take its number meanwhile.
fn signal(pid: Option<u32>, signal: Signal) -> Result<(), Trouble> {
    let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Trouble::Other("nobody is there to be hurt".to_owned()))?;
    match pidfd_open(pid, PidfdFlags::empty()).and_then(|fd| pidfd_send_signal(&fd, signal)) {
        // It died of itself, just now: as good.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(Trouble::Io { what: "can't send a signal".to_owned(), source: error.into() }),
    }
}

/// The sums for each kind of injury.
#[derive(Debug, Default)]
pub(super) struct Tally {
    rows: BTreeMap<Injury, Row>,
}

#[derive(Debug, Default)]
struct Row {
    times: u32,
    requests: u64,
    failed: u64,
    dropped: usize,
    worst_cure: Duration,
    longest_gap: Duration,
}

impl Tally {
    /// Adds one injury and describes it in a line.
    pub(super) fn add(&mut self, injury: Injury, cured_after: Duration, report: &Report) -> String {
        let row = self.rows.entry(injury).or_default();
        row.times += 1;
        row.requests += report.requests;
        row.failed += report.failed;
        row.dropped += report.sockets.drops.len();
        row.worst_cure = row.worst_cure.max(cured_after);
        row.longest_gap = row.longest_gap.max(report.longest_gap);
        let name = injury.name();
        let (requests, failed) = (report.requests, report.failed);
        format!("{name}: well after {} ms, {requests} requests, {failed} failed", cured_after.as_millis())
    }

    /// All of it.
    pub(super) fn table(&self) -> String {
        let mut table = format!(
            "{:<24} {:>5} {:>9} {:>7} {:>11} {:>13} {:>12}\n",
            "injury", "times", "requests", "failed", "WS dropped", "worst cure ms", "worst gap ms"
        );
        for (injury, row) in &self.rows {
            // Writing to a String can't fail.
            writeln!(
                table,
                "{:<24} {:>5} {:>9} {:>7} {:>11} {:>13} {:>12}",
                injury.name(),
                row.times,
                row.requests,
                row.failed,
                row.dropped,
                row.worst_cure.as_millis(),
                row.longest_gap.as_millis()
            )
            .ok();
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(failed_by_kind: &[(&str, u64)]) -> Report {
        let failed_by_kind: BTreeMap<String, u64> =
            failed_by_kind.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
        Report { failed: failed_by_kind.values().sum(), failed_by_kind, ..Report::default() }
    }

    #[test]
    fn only_what_kills_may_cut_and_nothing_may_refuse() {
        assert_eq!(Injury::KillProxy.broken_promise(&report(&[("reset", 3)])), None);
        assert!(Injury::KillProxy.broken_promise(&report(&[("refused", 1)])).is_some());
        assert!(Injury::Deploy.broken_promise(&report(&[("reset", 1)])).is_some());
        assert_eq!(Injury::Deploy.broken_promise(&report(&[])), None);
    }

    #[test]
    fn a_seed_draws_every_injury_and_always_the_same() {
        let draw = || {
            let mut dice = Dice::new(1);
            (0..100).map(|_| Injury::draw(&mut dice)).collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
        assert!(Injury::ALL.iter().all(|injury| draw().contains(injury)));
    }
}

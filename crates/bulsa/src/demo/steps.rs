//! The steps of the show, in their order.
//!
//! Each step is one window of the load: a mark, the injury, the wait for the cure, a pause in which slow answers come
//! in, and the second mark. Injuries hit exactly one process, held by a descriptor.

mod kills;
mod releases;

use std::{fs, time::Duration};

use bulsa_core::wire::api::{ProxyView, ReplicaView, Snapshot};
use tokio::time::{Instant, sleep};

use super::{
    DemoArgs, DemoError, Say, app_start,
    daemon::Daemon,
    figures::{Cut, Figures, Step},
    leftovers::Leftovers,
    project::{self, Character, Version},
    table::milliseconds,
};
use crate::load::{Config, Load, LoadHandle, Mark, Sockets};

/// How long anything may take to get well again.
const CURE_LIMIT: Duration = Duration::from_secs(30);
/// How long the WebSockets may take to be all connected.
const SOCKETS_LIMIT: Duration = Duration::from_secs(15);
/// Beyond the longest answer that is asked for (300 ms): what was under way at the cure has ended by then.
const SETTLE: Duration = Duration::from_millis(1500);
const SETTLE_QUICK: Duration = Duration::from_millis(700);
/// Load before the first injury.
const CALM: Duration = Duration::from_secs(2);
const CALM_QUICK: Duration = Duration::from_millis(500);
/// Time before an injury, so that each window has answers on both sides.
const BEFORE: Duration = Duration::from_millis(300);
/// The promise for a dead worker, beyond the app's own start, and for a dead proxy.
const BACK_WITHIN: Duration = Duration::from_millis(100);
const RATE: u32 = 200;
const RATE_QUICK: u32 = 100;
const SOCKETS: u32 = 20;

const V1: Version = Version { name: "v1", character: Character::Good };
const V2: Version = Version { name: "v2", character: Character::Good };
const V3: Version = Version { name: "v3", character: Character::Broken };
const V4: Version = Version { name: "v4", character: Character::Crashing };

/// The stage.
struct Show<'a> {
    daemon: &'a Daemon,
    leftovers: &'a mut Leftovers,
    say: Say<'a>,
    load: LoadHandle,
    settle: Duration,
    app_start: Duration,
    steps: Vec<Step>,
}

/// Brings version 1 up, starts the load, and plays every step.
pub(crate) async fn show(
    daemon: &mut Daemon,
    leftovers: &mut Leftovers,
    args: DemoArgs,
    say: Say<'_>,
) -> Result<Figures, DemoError> {
    let (settle, calm, rate) =
        if args.quick { (SETTLE_QUICK, CALM_QUICK, RATE_QUICK) } else { (SETTLE, CALM, RATE) };
    say("starting the daemon …");
    daemon.answers().await?;
    let app_start = app_start::measure(daemon.exe()).await?;
    say(&format!("the app alone takes {} to its first answer", milliseconds(app_start)));
    say(&format!("v1 comes up as {} workers on http://{}/", project::WORKERS, daemon.target()));
    up(daemon, say).await?;
    leftovers.see(&daemon.snapshot().await?);
    let config = Config { rate, sockets: Some(Sockets::new(SOCKETS)), ..Config::to(daemon.target()) };
    let load = Load::start(Config { expect: Some("version v".to_owned()), ..config })?;
    let mut show = Show { daemon, leftovers, say, load, settle, app_start, steps: Vec::new() };
    say(&format!("load: {rate} requests/s and {SOCKETS} WebSockets, from here to the end"));
    say(&format!(
        "for a short show, releases are watched for {:?} (usually 60s) and get {:?} to be healthy (usually 2m)",
        project::BAKE,
        project::GATE
    ));
    show.sockets_connected().await;
    sleep(calm).await;
    let rss = memory_kib(&show.look().await?);
    show.deploy_good().await?;
    show.kill_worker().await?;
    show.hang_worker().await?;
    show.deploy_broken().await?;
    show.deploy_crashing().await?;
    show.kill_agent().await?;
    show.kill_proxy().await?;
    show.kill_agent_and_proxy().await?;
    let steps = std::mem::take(&mut show.steps);
    drop(show.load.stop().await);
    Ok(Figures {
        version: env!("CARGO_PKG_VERSION"),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        load_average: [None, None],
        rate,
        sockets: SOCKETS,
        app_start,
        daemon_rss_kib: rss,
        steps,
        promises: Vec::new(),
        seconds: 0.0,
    })
}

async fn up(daemon: &Daemon, say: Say<'_>) -> Result<(), DemoError> {
    let outcome = daemon.deploy(&V1, |line| say(&format!("    {line}"))).await?;
    match outcome.exit_code {
        Some(0) => Ok(()),
        _ => Err(outcome.error("bulsa deploy (v1)")),
    }
}

impl Show<'_> {
    /// Says what comes and waits until everything is well, so that no step pays for the one before it.
    async fn begin(&mut self, what: &str) -> Result<(Mark, Snapshot), DemoError> {
        let before = self.daemon.wait_until("two ready workers and a proxy", CURE_LIMIT, well).await?;
        self.leftovers.see(&before);
        self.sockets_connected().await;
        (self.say)(what);
        let from = self.load.mark();
        sleep(BEFORE).await;
        Ok((from, before))
    }

    /// Waits for the last slow answers and closes the window.
    async fn end(&mut self, id: &'static str, title: &str, from: Mark, cut: Cut) -> Step {
        sleep(self.settle).await;
        Step::new(id, title, self.load.window(from, self.load.mark()), &cut)
    }

    /// Says what came of it and keeps it.
    fn keep(&mut self, step: Step) {
        let broken: Vec<_> = step.promises.iter().filter(|promise| !promise.kept).collect();
        let sockets = &step.load.sockets;
        let recovery = step
            .recovery
            .map(|recovery| format!(", {} after {}", recovery.cure, milliseconds(recovery.time)))
            .unwrap_or_default();
        (self.say)(&format!(
            "    {} requests, {} failed, {} cut, longest gap {}{recovery}, {} of {} WebSockets kept",
            step.load.requests,
            step.failed,
            step.cut,
            milliseconds(step.load.longest_gap),
            sockets.kept,
            sockets.at_start,
        ));
        for promise in broken {
            (self.say)(&format!("    BROKEN: {}: {}", promise.text, promise.found));
        }
        self.steps.push(step);
    }

    async fn look(&mut self) -> Result<Snapshot, DemoError> {
        let snapshot = self.daemon.snapshot().await?;
        self.leftovers.see(&snapshot);
        Ok(snapshot)
    }

    /// The count of those that are connected shows in the step; one that stays away is no error of the show.
    async fn sockets_connected(&mut self) {
        let end = Instant::now() + SOCKETS_LIMIT;
        if !self.load.connected(SOCKETS as usize, SOCKETS_LIMIT).await && Instant::now() >= end {
            (self.say)("    not every WebSocket is back yet");
        }
    }
}

/// Found once every worker is ready and a proxy is there.
fn well(snapshot: &Snapshot) -> Option<Snapshot> {
    let project = snapshot.project(project::NAME)?;
    let service = project.service(project::SERVICE)?;
    let good =
        service.ready >= project::WORKERS && project.deploying().is_none() && !snapshot.proxies.is_empty();
    good.then(|| snapshot.clone())
}

/// The live release's worker number `ordinal`.
fn worker(snapshot: &Snapshot, ordinal: u32) -> Option<&ReplicaView> {
    let project = snapshot.project(project::NAME)?;
    let replicas = &project.service(project::SERVICE)?.replicas;
    replicas.iter().find(|replica| Some(replica.release) == project.live && replica.ordinal == ordinal)
}

/// The newest proxy generation.
fn proxy(snapshot: &Snapshot) -> Option<&ProxyView> {
    snapshot.proxies.iter().max_by_key(|proxy| proxy.generation)
}

/// The resident memory of the daemon's own processes.
fn memory_kib(snapshot: &Snapshot) -> Option<u64> {
    let pids =
        snapshot.proxies.iter().map(|proxy| proxy.pid).chain([snapshot.agent.pid, snapshot.keeper_pid]);
    pids.map(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    })
    .sum()
}

#[cfg(test)]
mod tests;

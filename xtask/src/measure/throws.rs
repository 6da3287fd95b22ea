//! A program that dies at its start: what back-off leaves of its CPU.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;

use super::{
    Error, Figures,
    daemon::{Daemon, free_port, processes},
    processes::{load, run_time, tick, ticks},
};

#[derive(Debug, Args)]
pub(crate) struct ThrowsArgs {
    /// How many workers
    #[arg(long, default_value_t = 2)]
    workers: u32,
    /// Not counted at the beginning, in seconds
    #[arg(long, default_value_t = 30)]
    skip: u64,
    /// Counted then, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The program; it should die at its start
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Throws {
    workers: u32,
    load: f64,
    /// CPU of the programs in the counted time, in percent of a core.
    programs_percent: f64,
    /// CPU of keeper, agent and proxy in the counted time.
    daemon_percent: f64,
    restarts_before: u64,
    restarts: u64,
    state: String,
    reason: String,
}

pub(crate) fn measure(bulsa: &Path, args: &ThrowsArgs) -> Result<Throws, Error> {
    let port = free_port()?.to_string();
    let flags = ["--workers", &args.workers.to_string(), "--port", &port, "--"].map(str::to_owned);
    let words: Vec<String> = flags.into_iter().chain(args.command.iter().cloned()).collect();
    let begin = Instant::now();
    let daemon = Daemon::run(bulsa, &words)?;
    let status = daemon.wait_for("crash_looping")?;
    let three = processes(&status)?;
    let skip = Duration::from_secs(args.skip);
    thread::sleep(skip.saturating_sub(begin.elapsed()));
    let read = || -> Result<(u64, Duration), Error> {
        let own: Result<Duration, Error> = three.iter().map(|(_, pid)| run_time(*pid)).sum();
        Ok((ticks(three[0].1)?.1, own?))
    };
    let restarts = |daemon: &Daemon| {
        let status = daemon.status().unwrap_or_default();
        status["projects"][0]["services"][0].clone()
    };
    let before = restarts(&daemon);
    let (children_before, own_before) = read()?;
    let span = Duration::from_secs(args.seconds);
    thread::sleep(span);
    let (children, own) = read()?;
    let after = restarts(&daemon);
    let percent = |seconds: f64| seconds / span.as_secs_f64() * 100.0;
    let count = |service: &serde_json::Value| service["restarts"].as_u64().unwrap_or_default();
    let text = |name: &str| after[name].as_str().unwrap_or_default().to_owned();
    Ok(Throws {
        workers: args.workers,
        load: load(),
        programs_percent: percent((children - children_before) as f64 * tick()),
        daemon_percent: percent((own - own_before).as_secs_f64()),
        restarts_before: count(&before),
        restarts: count(&after) - count(&before),
        state: text("state"),
        reason: text("reason"),
    })
}

impl Figures for Throws {
    fn table(&self) -> String {
        let Self {
            workers,
            load,
            programs_percent,
            daemon_percent,
            restarts_before,
            restarts,
            state,
            reason,
        } = self;
        format!(
            "{workers} workers that die at their start (machine's load {load:.1})\n\
             deaths before the counted time  {restarts_before}\n\
             deaths in the counted time      {restarts}\n\
             CPU of the programs             {programs_percent:.2} % of a core\n\
             CPU of the daemon               {daemon_percent:.2} % of a core\n\
             status                          {state}: {reason}\n"
        )
    }
}

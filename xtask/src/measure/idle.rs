//! The idle daemon: memory and CPU of keeper, agent and proxy with two replicas under watch.

use std::{fmt::Write as _, path::Path, thread, time::Duration};

use clap::Args;
use serde::Serialize;

use super::{
    Error, Figures,
    daemon::{Daemon, free_port, processes},
    processes::{Memory, load, memory, run_time, tick, ticks, wakeups},
};

/// The start's own work is over after this long.
const SETTLE: Duration = Duration::from_secs(5);
const MIB: f64 = 1024.0 * 1024.0;

#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    /// How long to watch, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many replicas are under watch
    #[arg(long, default_value_t = 2)]
    replicas: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    seconds: f64,
    replicas: u32,
    load: f64,
    binary_bytes: u64,
    processes: Vec<Process>,
    total: Total,
}

#[derive(Debug, Serialize)]
struct Process {
    name: &'static str,
    #[serde(flatten)]
    memory: Memory,
    threads: usize,
    /// Of one core, by the scheduler's clock.
    cpu_percent: f64,
    /// The same from `/proc/PID/stat`, as coarse as its ticks.
    ticks_percent: f64,
    wakeups_per_second: f64,
}

#[derive(Debug, Serialize)]
struct Total {
    rss: u64,
    pss: u64,
    cpu_percent: f64,
}

pub(crate) fn measure(bulsa: &Path, args: &IdleArgs) -> Result<Idle, Error> {
    let port = free_port()?.to_string();
    let words = [
        "--workers",
        &args.replicas.to_string(),
        "--port",
        &port,
        "--",
        &bulsa.to_string_lossy(),
        "__demo-app",
    ]
    .map(str::to_owned);
    let daemon = Daemon::run(bulsa, &words)?;
    let status = daemon.wait_for("healthy")?;
    thread::sleep(SETTLE);
    let three = processes(&status)?;
    let read = |pid| -> Result<_, Error> { Ok((run_time(pid)?, ticks(pid)?.0, wakeups(pid)?)) };
    let before = three.map(|(_, pid)| read(pid));
    let span = Duration::from_secs(args.seconds);
    thread::sleep(span);
    let mut all = Vec::new();
    for ((name, pid), before) in three.into_iter().zip(before) {
        let (run_before, ticks_before, wakeups_before) = before?;
        let (run, ticks, wakeups) = read(pid)?;
        let seconds = span.as_secs_f64();
        all.push(Process {
            name,
            memory: memory(pid)?,
            threads: std::fs::read_dir(format!("/proc/{pid}/task"))?.count(),
            cpu_percent: (run - run_before).as_secs_f64() / seconds * 100.0,
            ticks_percent: (ticks - ticks_before) as f64 * tick() / seconds * 100.0,
            wakeups_per_second: (wakeups - wakeups_before) as f64 / seconds,
        });
    }
    let total = Total {
        rss: all.iter().map(|process| process.memory.rss).sum(),
        pss: all.iter().map(|process| process.memory.pss).sum(),
        cpu_percent: all.iter().map(|process| process.cpu_percent).sum(),
    };
    let binary_bytes = std::fs::metadata(bulsa)?.len();
    Ok(Idle {
        seconds: span.as_secs_f64(),
        replicas: args.replicas,
        load: load(),
        binary_bytes,
        processes: all,
        total,
    })
}

impl Figures for Idle {
    fn table(&self) -> String {
        let mut text = format!(
            "idle for {:.0} s with {} replicas under watch (machine's load {:.1}, binary {:.1} MiB)\n\n{:8} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>10}\n",
            self.seconds,
            self.replicas,
            self.load,
            self.binary_bytes as f64 / MIB,
            "",
            "RSS MiB",
            "PSS MiB",
            "anon MiB",
            "threads",
            "CPU %",
            "ticks %",
            "wakeups/s"
        );
        for process in &self.processes {
            let Process { name, memory, threads, cpu_percent, ticks_percent, wakeups_per_second } = process;
            let [rss, pss, anonymous] =
                [memory.rss, memory.pss, memory.anonymous].map(|bytes| bytes as f64 / MIB);
            // Writing to a String can't fail.
            writeln!(
                text,
                "{name:8} {rss:9.1} {pss:9.1} {anonymous:9.1} {threads:8} {cpu_percent:8.3} {ticks_percent:8.3} {wakeups_per_second:10.1}"
            )
            .ok();
        }
        let Total { rss, pss, cpu_percent } = self.total;
        let (rss, pss) = (rss as f64 / MIB, pss as f64 / MIB);
        writeln!(text, "{:8} {rss:9.1} {pss:9.1} {:9} {:8} {cpu_percent:8.3}", "together", "", "").ok();
        text
    }
}

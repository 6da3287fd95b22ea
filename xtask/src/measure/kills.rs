//! From `kill -9` of a worker to its replacement, beside the program's own start.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde_json::Value;

use super::{
    Error, Figures,
    daemon::{Daemon, free_port},
    processes::load,
};

/// The program alone is asked this often whether it answers.
const ASK_EVERY: Duration = Duration::from_micros(500);
/// The program alone may take this long to answer.
const START_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct KillsArgs {
    /// How many kills
    #[arg(long, default_value_t = 22)]
    kills: u32,
    /// In how many seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// As for `bulsa run`
    #[arg(long, default_value = "2")]
    workers: String,
    /// So many endless loops beside it
    #[arg(long, default_value_t = 0)]
    busy: u32,
    /// The program, which listens on PORT [default: the demo's app]
    #[arg(last = true)]
    command: Vec<String>,
}

/// Milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Kills {
    load: f64,
    kills: u32,
    own_start: Spread,
    /// From the signal to the agent's word that it is dead.
    seen: Spread,
    /// From there to the new process.
    respawned: Spread,
    /// From there to ready.
    ready: Spread,
    /// From the signal to ready.
    recovery: Spread,
    /// The same without the program's own start (its median).
    over_own_start: Spread,
    restarts_shown: u64,
    state: String,
}

#[derive(Clone, Debug, Serialize)]
struct Spread {
    min: f64,
    median: f64,
    p90: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let last = sorted.len().saturating_sub(1);
            sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
        };
        Self { min: at(0.0), median: at(0.5), p90: at(0.9), max: at(1.0) }
    }
}

/// Processes that are killed in the end.
struct Burners(Vec<Child>);

impl Burners {
    fn start(count: u32) -> Result<Self, Error> {
        let start = |_| Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn();
        Ok(Self((0..count).map(start).collect::<Result<_, _>>()?))
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

pub(crate) fn measure(bulsa: &Path, args: &KillsArgs) -> Result<Kills, Error> {
    let _burners = Burners::start(args.busy)?;
    let command = if args.command.is_empty() {
        vec![bulsa.to_string_lossy().into_owned(), "__demo-app".to_owned()]
    } else {
        args.command.clone()
    };
    let port = free_port()?.to_string();
    let flags = ["--workers", &args.workers, "--port", &port, "--"].map(str::to_owned);
    let words: Vec<String> = flags.into_iter().chain(command.iter().cloned()).collect();
    let mut daemon = Daemon::run(bulsa, &words)?;
    daemon.wait_for("healthy")?;
    let mut own = Vec::new();
    let mut events = daemon.events()?;
    let pause = Duration::from_secs(args.seconds) / args.kills.max(1);
    let mut rows = Vec::new();
    for kill in 0..args.kills {
        let next = Instant::now() + pause;
        // Between the kills, so that both are measured under the same load.
        own.push(own_start(&command)?);
        let status = daemon.status().ok_or("the daemon doesn't answer")?;
        let replicas =
            status["projects"][0]["services"][0]["replicas"].as_array().cloned().unwrap_or_default();
        let victim = replicas.get(kill as usize % replicas.len().max(1)).ok_or("there is no worker")?;
        rows.push(one_kill(victim, &mut events)?);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let status = daemon.status().unwrap_or_default();
    let service = &status["projects"][0]["services"][0];
    let own_start = Spread::of(own);
    let column = |index: usize| Spread::of(rows.iter().map(|row: &[f64; 3]| row[index]));
    let total = |row: &[f64; 3]| row.iter().sum::<f64>();
    Ok(Kills {
        load: load(),
        kills: args.kills,
        seen: column(0),
        respawned: column(1),
        ready: column(2),
        recovery: Spread::of(rows.iter().map(total)),
        over_own_start: Spread::of(rows.iter().map(|row| total(row) - own_start.median)),
        own_start,
        restarts_shown: service["restarts"].as_u64().unwrap_or_default(),
        state: service["state"].as_str().unwrap_or_default().to_owned(),
    })
}

/// Kills one worker; the times to seen dead, to started again, to ready, each after the one before, in milliseconds.
fn one_kill(
    victim: &Value,
    events: &mut impl Iterator<Item = std::io::Result<String>>,
) -> Result<[f64; 3], Error> {
    let pid = victim["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let mut last = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1000.0;
    kill_process(pid.ok_or("a worker has no process")?, Signal::KILL)?;
    let mut times = Vec::new();
    for wanted in ["replica.died", "replica.started", "replica.ready"] {
        let at = loop {
            let event: Value = serde_json::from_str(&events.next().ok_or("the events ended")??)?;
            if event["kind"] == wanted {
                break event["at_ms"].as_f64().ok_or("an event has no time")?;
            }
        };
        times.push(at - last);
        last = at;
    }
    Ok([times[0], times[1], times[2]])
}

/// From the start of the program alone to its first answer, in milliseconds.
fn own_start(command: &[String]) -> Result<f64, Error> {
    let port = free_port()?;
    let (program, arguments) = command.split_first().ok_or("there is no program")?;
    let begin = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .env("PORT", port.to_string())
        .env("BULSA_REPLICA", "alone-r0-1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let answered = loop {
        if answers(port) {
            break Ok(begin.elapsed().as_secs_f64() * 1000.0);
        }
        if begin.elapsed() > START_MAX {
            break Err(format!("`{program}` alone did not answer on its PORT").into());
        }
        thread::sleep(ASK_EVERY);
    };
    child.kill()?;
    child.wait()?;
    answered
}

fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut first = [0; 12];
    asked.and_then(|()| stream.read_exact(&mut first)).is_ok() && first.starts_with(b"HTTP/1.1 ")
}

impl Figures for Kills {
    fn table(&self) -> String {
        let mut text = format!(
            "{} kills, {} restarts shown, {} in the end (machine's load {:.1})\n\n{:42} {:>8} {:>8} {:>8} {:>8}\n",
            self.kills,
            self.restarts_shown,
            self.state,
            self.load,
            "milliseconds",
            "min",
            "median",
            "p90",
            "max"
        );
        for (name, spread) in [
            ("the program's own start, alone", &self.own_start),
            ("kill to seen dead", &self.seen),
            ("seen dead to new process", &self.respawned),
            ("new process to ready", &self.ready),
            ("kill to ready", &self.recovery),
            ("kill to ready, without the own start", &self.over_own_start),
        ] {
            let Spread { min, median, p90, max } = spread;
            // Writing to a String can't fail.
            writeln!(text, "{name:42} {min:8.1} {median:8.1} {p90:8.1} {max:8.1}").ok();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_the_sorted_values() {
        let spread = Spread::of((0..=10).rev().map(f64::from));
        assert_eq!([spread.min, spread.median, spread.p90, spread.max], [0.0, 5.0, 9.0, 10.0]);
        assert!(Spread::of([]).median.is_nan());
    }
}

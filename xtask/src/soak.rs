//! `cargo xtask soak`: a real daemon under load, hurt at random for a given time.
//!
//! Owns: the order of injuries (drawn from a seed), what is counted of each, and the verdict. Never: runs longer than
//! asked but for the end of an injury, or leaves a process of its own behind.
//!
//! The verdict is about what holds whatever happens: after every injury all is well again within [`CURE_MAX`]; nobody
//! is ever refused a connection; deploys, good and bad, restarts, and the death of the agent lose no request. What a
//! killed worker or proxy had under way is lost where nobody may try it again; that is counted and shown.
//!
//! `cargo xtask soak proxy` does the same with the data plane alone.

mod daemon;
mod injury;
mod proxy;

use std::time::{Duration, Instant};

use bulsa::load::{Config, Load, LoadHandle, Sockets};

use self::{
    daemon::Daemon,
    injury::{Injury, Tally},
};
use crate::run::{Trouble, built_bulsa, say};

/// How long it runs where nothing is said.
const MINUTES_DEFAULT: u64 = 10;
/// The longest run: beyond it the load generator's account would be too long.
const MINUTES_MAX: u64 = 240;
/// Requests per second.
const RATE: u32 = 100;
/// WebSocket clients.
const SOCKETS: u32 = 20;
/// How long all may take to be well again after an injury.
const CURE_MAX: Duration = Duration::from_secs(30);
/// From the cure to the next injury: slow answers come in meanwhile.
const PAUSE: Duration = Duration::from_secs(1);

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    minutes: u64,
    seed: u64,
}

impl Asked {
    fn read(args: &[&str]) -> Result<Self, Trouble> {
        let mut asked = Self { minutes: MINUTES_DEFAULT, seed: u64::from(std::process::id()) };
        for pair in args.chunks(2) {
            let number = pair.get(1).and_then(|text| text.parse::<u64>().ok());
            match (pair.first().copied(), number) {
                (Some("--minutes"), Some(minutes @ 1..=MINUTES_MAX)) => asked.minutes = minutes,
                (Some("--seed"), Some(seed)) => asked.seed = seed,
                _ => {
                    let usage = format!("cargo xtask soak [proxy] [--minutes 1..{MINUTES_MAX}] [--seed N]");
                    return Err(Trouble::Usage(usage));
                }
            }
        }
        Ok(asked)
    }
}

/// Runs it.
pub(crate) fn run(args: &[&str]) -> Result<(), Trouble> {
    if let ["proxy", rest @ ..] = args {
        return proxy::run(Asked::read(rest)?);
    }
    let asked = Asked::read(args)?;
    let exe = built_bulsa()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Trouble::io("can't start a runtime"))?;
    runtime.block_on(async {
        let directory = tempfile::Builder::new()
            .prefix("bulsa-soak-")
            .tempdir()
            .map_err(Trouble::io("can't make a directory for the daemon"))?;
        let mut daemon = Daemon::start(&exe, directory.path()).await?;
        let result = tokio::select! {
            result = soak(asked, &mut daemon) => result,
            _ = tokio::signal::ctrl_c() => Err(Trouble::Other("interrupted".to_owned())),
        };
        let ended = daemon.end().await;
        if result.is_err() {
            say(&format!("the end of the daemon's log:\n{}", daemon.log_tail()));
        }
        result.and(ended)
    })
}

async fn soak(asked: Asked, daemon: &mut Daemon) -> Result<(), Trouble> {
    let Asked { minutes, seed } = asked;
    say(&format!("soak: {minutes} min, {RATE} requests/s, {SOCKETS} WebSockets, seed {seed}"));
    daemon.deploy(injury::Version::Good).await?;
    daemon.well(CURE_MAX).await?;
    let time = Duration::from_secs(minutes * 60);
    let mut load = start_load(daemon, time)?;
    if !load.connected(SOCKETS as usize, CURE_MAX).await {
        return Err(Trouble::Other("the WebSockets did not connect".to_owned()));
    }
    let end = Instant::now() + time;
    let mut dice = injury::Dice::new(seed);
    let mut tally = Tally::default();
    let mut broken = Vec::new();
    while Instant::now() < end {
        let injury = Injury::draw(&mut dice);
        let from = load.mark();
        let hurt = Instant::now();
        injury.inflict(daemon, &mut dice).await?;
        daemon.well(CURE_MAX).await?;
        let cured_after = hurt.elapsed();
        tokio::time::sleep(PAUSE).await;
        let report = load.window(from, load.mark());
        let line = tally.add(injury, cured_after, &report);
        say(&format!(
            "{:>5} s  {line}",
            (time.saturating_sub(end.saturating_duration_since(Instant::now()))).as_secs()
        ));
        broken.extend(injury.broken_promise(&report));
    }
    let whole = load.stop().await;
    say(&tally.table());
    say(&format!(
        "{} requests, {} failed {:?}, {} WebSockets dropped, p99 {:.0} ms, longest gap {:.0} ms",
        whole.requests,
        whole.failed,
        whole.failed_by_kind,
        whole.sockets.drops.len(),
        whole.p99.as_secs_f64() * 1e3,
        whole.longest_gap.as_secs_f64() * 1e3,
    ));
    if broken.is_empty() {
        say("soak: all promises kept");
        return Ok(());
    }
    Err(Trouble::Other(format!(
        "soak, seed {seed}: {} broken promises:\n{}",
        broken.len(),
        broken.join("\n")
    )))
}

fn start_load(daemon: &Daemon, time: Duration) -> Result<LoadHandle, Trouble> {
    // The last injury's cure comes after the time.
    let time = time + 2 * CURE_MAX;
    let config = Config {
        rate: RATE,
        requests: u64::from(RATE) * time.as_secs(),
        time,
        sockets: Some(Sockets::new(SOCKETS)),
        ..Config::to(daemon.target())
    };
    Load::start(config).map_err(|error| Trouble::Other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_read() {
        assert_eq!(Asked::read(&["--minutes", "3", "--seed", "7"]).unwrap(), Asked { minutes: 3, seed: 7 });
        assert_eq!(Asked::read(&[]).unwrap().minutes, MINUTES_DEFAULT);
        for bad in [&["--minutes", "0"][..], &["--minutes"], &["--minutes", "1000"], &["fast"]] {
            assert!(matches!(Asked::read(bad), Err(Trouble::Usage(_))), "{bad:?}");
        }
    }
}

//! `bulsa demo`: a minute in which a real service survives deploys, kills, a hang and two bad releases under load.
//!
//! Owns: the show's order, its measurements, its promises, and the clearing up behind it.
//! Never: reaches into the daemon. It plays against the real one as a user does, by the command line, and measures
//! from outside, with clients of its own ([`crate::load`]) and by process descriptors. It prints nothing: lines go to
//! a function that is passed in, the figures to the caller.
//!
//! ```text
//!  run ─ start the daemon in a temporary directory ─ the steps ([`steps`]) ─ down, end, look for leftovers
//!            │                                          │
//!            └ app: `bulsa __demo-app`, 2 workers       └ each: mark, injure, wait for the cure, mark ─▶ Step
//! ```
//!
//! Whatever happens (a broken promise, an error, Ctrl-C, SIGTERM), everything that was started is ended; only `--keep`
//! after a whole show leaves it running. A second Ctrl-C skips the orderly end and kills.

pub mod app;
mod app_start;
mod by_hand;
mod daemon;
mod figures;
mod injure;
mod knock;
mod leftovers;
mod project;
mod steps;
mod table;

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use daemon::Daemon;
pub use figures::{Figures, Promise, Recovery, Step};
use leftovers::Leftovers;
use project::{Character, Version};

/// Where the show's live lines go. The command line's output module gives one that prints.
pub type Say<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// The ports that the demo tries first, so that its address is easy to remember.
const PORTS: std::ops::Range<u16> = 18080..18180;

/// What the compose file holds when everything is left running: something that is worth a deploy.
const NEXT: Version = Version { name: "v5", character: Character::Good };

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DemoArgs {
    /// Leave everything running after a whole show.
    pub keep: bool,
    /// Shorter pauses and half the load, for tests.
    pub quick: bool,
}

/// Why there was no whole show. A broken promise is none of these: it is in the [`Figures`].
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The system refused something.
    #[error("demo: cannot {0}: {1}")]
    Io(String, #[source] io::Error),
    /// The daemon didn't come up.
    #[error("demo: the daemon did not start: {why}\nits log ends with:\n{log}")]
    NoDaemon {
        /// What the last look at it said.
        why: String,
        /// The end of its log.
        log: String,
    },
    /// A command failed that must not.
    #[error("`{what}` failed with {}: {said}", exit_text(*exit_code))]
    Command {
        /// The command.
        what: String,
        /// Its exit code; `None` for a signal.
        exit_code: Option<i32>,
        /// What it said.
        said: String,
    },
    /// Something didn't come true in time.
    #[error("demo: waited {limit:?} for {what}; the last look: {last}")]
    Waited {
        /// What.
        what: String,
        /// How long.
        limit: Duration,
        /// What was there instead.
        last: String,
    },
    /// The load generator could not start.
    #[error(transparent)]
    Load(#[from] crate::load::LoadError),
    /// Ctrl-C or SIGTERM.
    #[error("demo: interrupted; everything that it had started is ended")]
    Interrupted,
}

impl DemoError {
    fn io(what: &str, error: io::Error) -> Self {
        Self::Io(what.to_owned(), error)
    }
}

fn exit_text(code: Option<i32>) -> String {
    code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"))
}

/// Runs the whole show, which takes about a minute, and clears up behind it.
///
/// # Errors
/// Where the show could not be played to its end: no daemon, a step that never came true, Ctrl-C.
pub async fn run(args: DemoArgs, say: Say<'_>) -> Result<Figures, DemoError> {
    let begun = Instant::now();
    let mut interrupt = Interrupt::watch()?;
    let directory = tempfile::Builder::new()
        .prefix("bulsa-demo-")
        .tempdir()
        .map_err(|error| DemoError::io("make a temporary directory", error))?;
    let target = free_address()?;
    let load_before = load_average();
    let mut daemon = Daemon::spawn(directory.path(), target.port())?;
    let mut leftovers = Leftovers::default();
    let shown = tokio::select! {
        shown = steps::show(&mut daemon, &mut leftovers, args, say) => shown,
        () = interrupt.came() => Err(DemoError::Interrupted),
    };
    if args.keep && shown.is_ok() {
        let file = daemon.write(&NEXT)?;
        let directory = directory.keep();
        say(&how_to_look_around(&daemon, &directory.to_string_lossy(), &file));
        daemon.leave_running();
    } else {
        say("ending everything …");
        let complaints = leftovers.clear(&mut daemon, &mut interrupt).await;
        if let Ok(mut figures) = shown {
            let found = if complaints.is_empty() { "nothing".to_owned() } else { complaints.join("; ") };
            figures.promises.push(Promise::new("`down` ends all of it", complaints.is_empty(), found));
            return Ok(finish(figures, load_before, begun));
        }
        for complaint in complaints {
            say(&complaint);
        }
    }
    shown.map(|figures| finish(figures, load_before, begun))
}

fn finish(mut figures: Figures, load_before: Option<f64>, begun: Instant) -> Figures {
    figures.load_average = [load_before, load_average()];
    figures.seconds = begun.elapsed().as_secs_f64();
    figures
}

/// Ctrl-C and SIGTERM, taken over so that nothing is left running.
struct Interrupt {
    int: Signal,
    term: Signal,
}

impl Interrupt {
    fn watch() -> Result<Self, DemoError> {
        let watch = |kind| signal(kind).map_err(|error| DemoError::io("watch for Ctrl-C", error));
        Ok(Self { int: watch(SignalKind::interrupt())?, term: watch(SignalKind::terminate())? })
    }

    async fn came(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
        }
    }
}

/// A port on loopback that nobody listens on now.
fn free_address() -> Result<SocketAddr, DemoError> {
    let free =
        |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| listener.local_addr());
    match PORTS.into_iter().find_map(|port| free(port).ok()) {
        Some(address) => Ok(address),
        None => free(0).map_err(|error| DemoError::io("find a free port on 127.0.0.1", error)),
    }
}

/// The load average over the last minute.
fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

fn how_to_look_around(daemon: &Daemon, directory: &str, file: &str) -> String {
    let keeper = daemon.keeper_pid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let with = format!("--state-dir {directory} --socket {directory}/api.sock");
    let (target, next) = (daemon.target(), NEXT.name);
    format!(
        "it goes on running:\n  curl http://{target}/\n  bulsa {with} status\n  bulsa {with} events\n  bulsa {with} \
         deploy -f {file}    # a good {next}\nand ends with:\n  bulsa {with} down -p {} && kill {keeper} && rm -r \
         {directory}",
        project::NAME
    )
}

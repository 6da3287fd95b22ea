//! A host with too little CPU: who answers late is no hang, and a hang is found all the same.

use std::{env, fs, thread, time::Duration};

use rustix::process::Signal;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::{
    watch::{only, pids},
    world::{World, kill, pid},
};

/// So many programs for each core want it all the time.
const BURNERS_PER_CORE: usize = 4;
/// How long a busy host is watched: with `BULSA_LONG=1` for ten minutes.
const WATCHED: Duration = Duration::from_secs(12);
const WATCHED_LONG: Duration = Duration::from_secs(600);

/// Programs that do nothing but compute; ended when dropped.
struct Burners(#[expect(dead_code, reason = "kept until dropped")] Vec<Child>);

impl Burners {
    fn start() -> Self {
        let cores = thread::available_parallelism().unwrap().get();
        let one = || {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]).kill_on_drop(true).spawn().unwrap()
        };
        Self((0..cores * BURNERS_PER_CORE).map(|_| one()).collect())
    }
}

/// For how long something had to wait for a core so far.
fn waited() -> Option<Duration> {
    let text = fs::read_to_string("/proc/pressure/cpu").ok()?;
    let total = text.lines().next()?.rsplit_once("total=")?.1;
    Some(Duration::from_micros(total.parse().ok()?))
}

#[tokio::test]
async fn a_busy_host_restarts_nobody_and_a_hang_is_found_all_the_same() {
    let Some(before_all) = waited() else {
        return eprintln!("skipped: this kernel does not say how long programs wait for a core");
    };
    // Much less than what a busy host may take.
    let world = World::web(&[("PROBE_TIMEOUT", "60ms")]).await;
    let before = world.well("web").await;
    let burners = Burners::start();
    let (begun, watched) =
        (Instant::now(), if env::var_os("BULSA_LONG").is_some() { WATCHED_LONG } else { WATCHED });
    sleep(watched).await;
    let share = (waited().unwrap() - before_all).as_secs_f64() / begun.elapsed().as_secs_f64();
    assert!(share > 0.5, "the host was not busy: {share}");
    let snapshot = world.snapshot().await;
    assert_eq!(pids(only(&snapshot).0), pids(only(&before).0), "nobody was restarted");
    eprintln!("{watched:?} on a busy host ({:.0} % of the time somebody waited): 0 restarts", share * 100.0);

    let start = world.last_event().await;
    let victim = &only(&before).1.replicas[0];
    kill(pid(victim.pid.unwrap()), Signal::STOP);
    let killed = world.event(start, "the hung worker's end", |event| event.kind == "replica.killed").await;
    assert_eq!(killed.replica.as_ref(), Some(&victim.id), "{killed:?}");
    drop(burners);
    world.well("web").await;
}

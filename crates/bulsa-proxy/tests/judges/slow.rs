//! `slowhttptest`: clients that send and read as slowly as they can, while others want to be served.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulsa_proxy::{Bounds, Report};
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

use crate::programs::{self, debian_or_skip, seconds};
use crate::support::*;

/// How long a request may take while the attack goes on.
const LATENCY_MAX: Duration = Duration::from_secs(2);
/// How often somebody asks.
const PAUSE: Duration = Duration::from_millis(20);
/// An answer that fills every buffer on the way, in bytes.
const LARGE: usize = 3 << 20;

/// What is shorter than in real life, so that it happens in the test: how long a head may take, and how long a client
/// may not read.
fn bounds() -> Bounds {
    Bounds { head_time: seconds(5, 30), stall_time: seconds(5, 60), ..Bounds::default() }
}

/// A target with small answers, and a large one.
async fn shop() -> Backend {
    let (small, large): (Arc<str>, Arc<str>) = (ok("fine").into(), ok(&"x".repeat(LARGE)).into());
    Backend::serving(move |mut wire, _| {
        let (small, large) = (Arc::clone(&small), Arc::clone(&large));
        async move {
            while let Some(message) = wire.message().await {
                let answer = if message.line().contains("/large") { &large } else { &small };
                if wire.stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Asks again and again, on a connection each and on one that is kept. Returns how often.
async fn ask_on(rig: &Rig, until: impl Future<Output = ()>) -> usize {
    let mut asked = 0;
    let mut worst = Duration::ZERO;
    let asking = async {
        let mut kept = Wire::connect(rig.addr).await;
        loop {
            for is_kept in [true, false] {
                let began = Instant::now();
                let answer = async {
                    if is_kept { kept.ask(&get("/")).await } else { ask(rig.addr, &get("/")).await }
                };
                let answer = timeout(LATENCY_MAX, answer).await.expect("an answer in time");
                assert_eq!((answer.status(), answer.text().as_str()), (200, "fine"));
                (asked, worst) = (asked + 1, worst.max(began.elapsed()));
            }
            sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = asking => {}
        () = until => {}
    }
    eprintln!("{asked} requests were answered meanwhile, the slowest after {worst:?}");
    asked
}

/// Attacks, and looks whether all others are served, and whether nothing is left afterwards. `seen`: what the report
/// must once have been like, so that it was an attack at all.
async fn withstands(args: &[&str], count: u64, path: &str, seen: impl Fn(&Report) -> bool) {
    let Some(program) = debian_or_skip("usr/bin/slowhttptest") else { return };
    let backend = shop().await;
    let rig = Rig::within(bounds(), 2, &table(1, &[backend.target("a")])).await;
    let before = open_files();
    let mut command = programs::command(program);
    let url = format!("http://{}{path}", rig.addr);
    let length = seconds(12, 120).as_secs().to_string();
    command.args(args).args(["-u", &url, "-l", &length, "-c", &count.to_string(), "-r", "150"]);
    command.args(["-i", "1", "-p", "2", "-v", "0"]);
    let mut attack = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut was_seen = false;
    let attacked = async {
        while attack.try_wait().unwrap().is_none() {
            was_seen |= seen(&rig.proxy.report());
            sleep(PAUSE).await;
        }
    };
    let asked = ask_on(&rig, attacked).await;
    assert!(was_seen, "it never was an attack");
    assert!(100 < asked, "{asked} requests");
    rig.until(|report| report.connections == 0 && report.targets[0].in_flight == 0).await;
    // What is kept towards the target goes with it.
    rig.apply(&table(2, &[])).await;
    let closed = async {
        while before < open_files() {
            sleep(PAUSE).await;
        }
    };
    timeout(PATIENCE, closed).await.unwrap_or_else(|_| panic!("{} files, {before} before", open_files()));
}

#[tokio::test]
async fn clients_that_send_heads_slowly_harm_nobody_else() {
    let overdue = |report: &Report| 250 < report.connections;
    withstands(&["-H", "-x", "24"], 300, "/", overdue).await;
}

#[tokio::test]
async fn clients_that_send_bodies_slowly_harm_nobody_else() {
    let busy = |report: &Report| 250 < report.targets[0].in_flight;
    withstands(&["-B", "-s", "8192", "-x", "10"], 300, "/", busy).await;
}

#[tokio::test]
async fn clients_that_read_slowly_harm_nobody_else() {
    let busy = |report: &Report| 100 < report.targets[0].in_flight;
    withstands(&["-X", "-w", "16", "-y", "64", "-n", "1", "-z", "16"], 150, "/large", busy).await;
}

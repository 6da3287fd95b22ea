//! Good workers that are killed come back at once, however often.

use std::{
    net::TcpStream,
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bulsa_core::wire::api::ServiceState;
use rustix::process::Signal;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    node,
    world::{Run, free_port, get, signal},
};

/// As many as the seed's author killed, in less than the minute that it took there.
const KILLS: u32 = 22;
const KILL_EVERY: Duration = Duration::from_millis(1200);

#[tokio::test]
async fn twenty_two_kills_within_a_minute_are_repaired_without_any_delay() {
    if !node::is_here() {
        return;
    }
    let app = node::fixture("server.js");
    let app = app.to_str().unwrap();
    let mut run = Run::start(&["--workers", "cpus", "--", "node", app], &[]);
    let workers = run.healthy().await.desired;
    let own = own_start(app).await;
    let began = Instant::now();
    let mut pace = interval(KILL_EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut recoveries = Vec::new();
    for kill in 0..KILLS {
        pace.tick().await;
        let ordinal = kill % workers + 1;
        let victim = run.healthy().await.replicas.into_iter().find(|r| r.ordinal == ordinal).unwrap();
        let killed_at = now_ms();
        signal(victim.pid.unwrap(), Signal::KILL);
        let (successor, parked) = run
            .until("a successor is ready", |service| {
                let parked =
                    service.next_retry_at_ms.is_some() || service.state == ServiceState::CrashLooping;
                let successor = service.replicas.iter().find(|r| r.ordinal == ordinal)?;
                let is_new = successor.attempt > victim.attempt && successor.state == "ready";
                (parked || is_new).then(|| (successor.clone(), parked))
            })
            .await;
        assert!(!parked, "after kill {kill}: {}", run.said());
        recoveries.push(successor.since_ms as f64 - killed_at);
        assert!(answers_as(run.port, workers, successor.pid.unwrap()), "worker {ordinal} gets no requests");
    }
    assert!(began.elapsed() < Duration::from_secs(60), "the kills took {:?}", began.elapsed());
    let service = run.healthy().await;
    assert_eq!((service.restarts, service.state), (u64::from(KILLS), ServiceState::Healthy));
    let events = run.events().await;
    let deaths: Vec<_> = events.iter().filter(|event| event.kind == "replica.died").collect();
    assert_eq!(deaths.len(), KILLS as usize);
    assert!(deaths.iter().all(|event| event.text.ends_with("killed by SIGKILL")), "{deaths:#?}");
    recoveries.sort_by(f64::total_cmp);
    let over: Vec<String> = recoveries.iter().map(|ms| format!("{:.0}", ms - own)).collect();
    println!("the app's own start: {own:.0} ms; recoveries beyond it, in ms: {}", over.join(" "));
    run.interrupt();
    assert!(run.ended().await.success());
}

/// Whether a worker is among those who answer; each comes at least once in so many requests.
fn answers_as(port: u16, workers: u32, pid: u32) -> bool {
    let word = format!("worker {pid}\n");
    // Every thread of the proxy takes turns of its own.
    (0..workers * 32).any(|_| get(port, "/").ends_with(&word))
}

/// The median time in ms from the start of the program alone to its first answer.
async fn own_start(app: &str) -> f64 {
    let mut times = Vec::new();
    for _ in 0..5 {
        let port = free_port();
        let begin = Instant::now();
        let mut child = Command::new("node")
            .arg(app)
            .env("PORT", port.to_string())
            .env("NODE_PATH", node::module_path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // There is no event for the start of somebody else's listening.
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(30), "the program alone does not listen");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        get(port, "/");
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1000.0
}

//! Workers that say that their own loop goes round, until it doesn't.

use std::{fs, path::Path, time::Duration};

use rustix::process::Signal;

use crate::world::{Run, signal};

const PYTHON: &str = "/usr/bin/python3";
/// Sends a heartbeat every 0.1 s until a file tells it to hang; what would answer a probe isn't asked.
const PROGRAM: &str = "import os, socket, time
print('every', os.environ['WATCHDOG_USEC'], flush=True)
out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
while not os.path.exists('hang'):
    try:
        out.sendto(b'WATCHDOG=1', os.environ['NOTIFY_SOCKET'])
        with open('beats', 'a') as beats:
            beats.write('.')
    except OSError as error:
        print('not sent:', error, flush=True)
    time.sleep(0.1)
while True:
    time.sleep(1)
";

/// Waits until the agent after this one answers.
async fn next_agent(run: &mut Run, agent: u32) {
    let client = run.client().await;
    while client.snapshot().await.map_or(agent, |snapshot| snapshot.agent.pid) == agent {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_worker_whose_heartbeat_stops_is_replaced_and_one_that_never_sent_any_is_not() {
    if !Path::new(PYTHON).exists() {
        return eprintln!("skipped: {PYTHON} is not installed");
    }
    let words = ["--no-port", "--heartbeat", "2s", "--", PYTHON, "-c", PROGRAM];
    let mut run = Run::start(&words, &[]);
    run.says("every 2000000").await;
    let first = run.healthy().await.replicas.remove(0);

    // Its agent dies: sending fails meanwhile, and nobody is blamed for it.
    let agent = run.client().await.snapshot().await.unwrap().agent.pid;
    signal(agent, Signal::KILL);
    next_agent(&mut run, agent).await;
    let same = run.healthy().await.replicas.remove(0);
    assert_eq!(same.pid, first.pid);
    // The new agent hears it again: only then is it held to it.
    let sent = || fs::metadata(run.dir().join("beats")).unwrap().len();
    let before = sent();
    while sent() < before + 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    fs::write(run.dir().join("hang"), "").unwrap();
    let second = run
        .until("another one runs", |service| {
            service.replicas.iter().find(|r| r.attempt > first.attempt && r.state == "ready").cloned()
        })
        .await;
    let why = run.bulsa(&["why", "python3"]);
    let text = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(text.contains("hung") && text.contains("(no heartbeat for 2s)"), "{text}");

    // The file is still there: this one has sent none, so it isn't held to it, which is told.
    while !run.events().await.iter().any(|event| event.kind == "heartbeat.none") {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let still = run.healthy().await.replicas.remove(0);
    assert_eq!(still.pid, second.pid);
    run.interrupt();
    let ended = run.ended().await;
    assert!(ended.success(), "{ended}:\n{}", run.said());
}

#[tokio::test]
async fn a_worker_that_begins_to_hang_between_two_agents_is_replaced() {
    if !Path::new(PYTHON).exists() {
        return eprintln!("skipped: {PYTHON} is not installed");
    }
    let words = ["--no-port", "--heartbeat", "2s", "--", PYTHON, "-c", PROGRAM];
    let mut run = Run::start(&words, &[]);
    let first = run.healthy().await.replicas.remove(0);
    let path = run.dir().join("beats");
    let sent = || fs::metadata(&path).map_or(0, |meta| meta.len());
    while sent() < 5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let agent = run.client().await.snapshot().await.unwrap().agent.pid;
    // It sends no more, and no agent that has heard it lives long enough to miss it.
    fs::write(run.dir().join("hang"), "").unwrap();
    signal(agent, Signal::KILL);
    next_agent(&mut run, agent).await;
    run.until("another one runs", |service| {
        service.replicas.iter().find(|r| r.attempt > first.attempt && r.state == "ready").cloned()
    })
    .await;
    let why = run.bulsa(&["why", "python3"]);
    let text = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(text.contains("hung") && text.contains("(no heartbeat for 2s)"), "{text}");
    run.interrupt();
    let ended = run.ended().await;
    assert!(ended.success(), "{ended}:\n{}", run.said());
}

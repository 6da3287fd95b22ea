//! Programs that die at once, or by themselves.

use std::{fs, time::Duration};

use bulsa_core::wire::api::ServiceState;
use rustix::process::Signal;

use crate::{
    node,
    world::{Run, get, signal},
};

#[tokio::test]
async fn a_worker_that_throws_is_slowed_down_and_comes_back_by_itself_when_its_file_is_mended() {
    if !node::is_here() {
        return;
    }
    let mut run = Run::start(&["--workers", "2", "--", "node", "app.js"], &[]);
    // It isn't there at first: that is a program that dies at its start, too.
    fs::copy(node::fixture("throws.js"), run.dir().join("app.js")).unwrap();
    run.says("it is crash-looping, the next start is in").await;
    run.says("`node` is crash-looping: it is tried again more and more slowly, until it runs").await;
    run.says("cannot read the configuration (on purpose)").await;
    run.until("a next try is announced", |service| {
        (service.state == ServiceState::CrashLooping).then_some(service.next_retry_at_ms).flatten()
    })
    .await;
    let status = run.bulsa(&["status"]);
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(status.status.code(), Some(6), "{text}");
    assert!(text.contains("crash-looping") && text.contains("exit 1"), "{text}");
    fs::copy(node::fixture("server.js"), run.dir().join("app.js")).unwrap();
    let mended = run.healthy().await;
    assert_eq!(mended.state, ServiceState::Healthy);
    assert!(get(run.port, "/").contains("worker"), "{}", run.said());
    assert_eq!(run.bulsa(&["status"]).status.code(), Some(0));
    run.interrupt();
    assert!(run.ended().await.success());
}

#[tokio::test]
async fn an_end_with_exit_0_is_a_death_too() {
    let app = [env!("CARGO_BIN_EXE_bulsa"), "__demo-app"];
    let mut run = Run::start(&["--workers", "1", "--", app[0], app[1]], &[("DEMO_START_MS", "0")]);
    let first = run.healthy().await.replicas.remove(0);
    // It ends gracefully then, as one that has done its work.
    signal(first.pid.unwrap(), Signal::TERM);
    let second = run
        .until("another one is ready", |service| {
            service.replicas.iter().find(|r| r.attempt > first.attempt && r.state == "ready").cloned()
        })
        .await;
    assert_eq!(second.last_exit.as_deref(), Some("exit 0"));
    assert_eq!(second.restarts, 1);
}

#[tokio::test]
async fn a_program_that_only_ever_exits_0_is_a_crash_loop() {
    let mut run = Run::start(&["--no-port", "--", "sh", "-c", "exit 0"], &[]);
    let reason = run
        .until("it is called a crash loop", |service| {
            (service.state == ServiceState::CrashLooping).then(|| service.reason.clone()).flatten()
        })
        .await;
    assert!(reason.contains("exit 0"), "{reason}");
    run.says("the next start is in").await;
    run.interrupt();
    assert!(run.ended().await.success());
}

#[tokio::test]
async fn a_program_that_is_not_there_is_one_clear_error_and_leaves_no_daemon() {
    let mut run = Run::start(&["--", "no-such-program"], &[]);
    let status = tokio::time::timeout(Duration::from_secs(30), run.ended()).await.unwrap();
    assert_eq!(status.code(), Some(1), "{}", run.said());
    let said = run.said();
    assert!(said.contains("no-such-program") && said.matches("error").count() == 1, "{said}");
    let left = run.leftovers().await;
    assert!(left.is_empty(), "{left:#?}\n{said}");
}

//! The two programs of the tutorial, unchanged: one Express server on a fixed port, and one that is its own cluster.
//! Neither knows PORT.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::Duration,
};

use bulsa::link::lock::FileLock;
use bulsa_core::wire::api::ServiceState;

use crate::{
    node,
    world::{LIMIT, Run, ask, get},
};

/// The port that both insist on.
const THEIRS: u16 = 3000;

/// Nobody else's test has the port meanwhile; nothing where a stranger has it.
fn port_3000() -> Option<FileLock> {
    let path = std::env::temp_dir().join("bulsa-tests-port-3000.lock");
    let lock = FileLock::acquire_within(&path, LIMIT * 2).unwrap();
    let is_free = TcpListener::bind((Ipv4Addr::UNSPECIFIED, THEIRS)).is_ok();
    if !is_free {
        eprintln!("skipped: port {THEIRS} is taken by a stranger");
    }
    is_free.then_some(lock)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn the_tutorials_programs_run_unchanged_behind_another_port() {
    if !node::is_here() {
        return;
    }
    let Some(_lock) = port_3000() else { return };
    for (program, words) in [("seed-single.js", "Hello from process"), ("seed-cluster.js", "worker [")] {
        let path = node::fixture(program);
        let mut run = Run::start(&["--workers", "1", "--", "node", path.to_str().unwrap()], &[]);
        let first = run.healthy().await.replicas.remove(0);
        assert_eq!(first.addr.as_deref(), Some("127.0.0.1:3000"), "{program}");
        assert!(get(run.port, "/").contains(words), "{program}");
        // Its own killer: the lone server is started again by us, the cluster's worker by its master.
        // It may end without having answered, and the cluster's master may give a request to a worker that is dying.
        ask(run.port, "/workerKiller", Duration::from_secs(1));
        if program == "seed-single.js" {
            run.until("it came back", |service| {
                service.replicas.iter().find(|r| r.attempt > first.attempt && r.state == "ready").map(drop)
            })
            .await;
        }
        let serves = (0..60).any(|_| ask(run.port, "/", Duration::from_secs(1)).contains(words));
        assert!(serves, "{program}: {}", run.said());
        run.interrupt();
        assert!(run.ended().await.success(), "{program}");
        let left = run.leftovers().await;
        assert!(left.is_empty(), "{program}: {left:#?}");
    }
}

#[tokio::test]
async fn two_workers_that_want_one_port_are_one_clear_error() {
    if !node::is_here() {
        return;
    }
    let Some(_lock) = port_3000() else { return };
    for program in ["seed-single.js", "seed-cluster.js"] {
        let path = node::fixture(program);
        let mut run = Run::start(&["--workers", "2", "--", "node", path.to_str().unwrap()], &[]);
        let status = run.ended().await;
        let said = run.said();
        assert_eq!(status.code(), Some(7), "{program}: {said}");
        let error = said.lines().find(|line| line.starts_with("failed: ")).unwrap_or_default();
        for part in ["it listens on 3000 and not on its PORT", "--app-port 3000", "as root"] {
            assert!(error.contains(part), "{program}: {part}\n{said}");
        }
        let left = run.leftovers().await;
        assert!(left.is_empty(), "{program}: {left:#?}");
    }
}

#[tokio::test]
async fn as_root_each_worker_with_a_fixed_port_has_a_network_namespace_of_its_own() {
    if !node::is_here() {
        return;
    }
    if !is_root() {
        eprintln!("skipped: it needs root");
        return;
    }
    for program in ["seed-single.js", "seed-cluster.js"] {
        let path = node::fixture(program);
        let words = ["--workers", "2", "--app-port", "3000", "--", "node", path.to_str().unwrap()];
        let mut run = Run::start(&words, &[]);
        let service = run.healthy().await;
        assert_eq!((service.ready, service.state), (2, ServiceState::Healthy), "{program}");
        let namespaces: Vec<PathBuf> = service.replicas.iter().map(|r| namespace(r.pid.unwrap())).collect();
        let mut answers: Vec<String> = (0..64).map(|_| get(run.port, "/")).collect();
        answers.sort_unstable();
        answers.dedup();
        assert!(answers.len() >= 2, "{program}: only one of them answers: {answers:?}");
        run.interrupt();
        assert!(run.ended().await.success(), "{program}");
        let left = run.leftovers().await;
        assert!(left.is_empty(), "{program}: {left:#?}");
        assert!(!namespaces.iter().any(|path| path.exists()), "{program}: {namespaces:?}");
    }
}

/// The file that names a process's network namespace.
fn namespace(pid: u32) -> PathBuf {
    let its = fs::metadata(format!("/proc/{pid}/ns/net")).unwrap().ino();
    let mut all = fs::read_dir("/run/netns").unwrap().map(|entry| entry.unwrap().path());
    all.find(|path| fs::metadata(path).is_ok_and(|file| file.ino() == its)).unwrap()
}

#[tokio::test]
async fn a_program_on_the_port_that_bulsa_has_itself_is_told_of_both_flags() {
    if !node::is_here() {
        return;
    }
    let Some(_lock) = port_3000() else { return };
    let path = node::fixture("seed-single.js");
    let mut run = Run::start(&["--port", "3000", "--", "node", path.to_str().unwrap()], &[]);
    run.says("EADDRINUSE").await;
    let hint = run.says("hint: ").await;
    assert!(hint.contains("--port 8080 --app-port 3000"), "{hint}");
    run.interrupt();
    run.ended().await;
}

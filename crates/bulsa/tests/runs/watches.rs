//! `--watch`: files change, and the workers follow.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bulsa_core::wire::api::ServiceView;

use crate::world::{Run, ask};

/// A program that says which version it is, and then works.
fn version(number: u32) -> String {
    format!("echo version {number}; while :; do sleep 0.1; done\n")
}

fn pids(service: &ServiceView) -> Vec<u32> {
    let mut pids: Vec<_> = service.replicas.iter().filter_map(|replica| replica.pid).collect();
    pids.sort_unstable();
    pids
}

#[tokio::test]
async fn changed_files_replace_the_workers_and_broken_ones_do_not() {
    let first = version(1);
    let files = [("app.sh", first.as_str()), (".gitignore", "*.log\n")];
    let words = ["--workers", "2", "--no-port", "--watch", ".", "--", "sh", "app.sh"];
    let mut run = Run::with_files(&files, &words, &[]);
    run.says("showing logs").await;
    run.healthy().await;
    let write = |run: &Run, name: &str, text: &str| fs::write(run.dir().join(name), text).unwrap();

    write(&run, "noise.log", "git ignores it");
    write(&run, "app.sh", &version(2));
    run.says("| version 2").await;
    run.says("reloaded after app.sh changed, in ").await;
    let good = run.healthy().await;

    write(&run, "app.sh", "echo it is broken; exit 3\n");
    run.says("it is broken").await;
    run.says("not reloaded after app.sh changed: the workers before go on").await;
    let kept = run.healthy().await;
    assert_eq!(pids(&kept), pids(&good), "{}", run.said());

    write(&run, "app.sh", &version(3));
    run.says("| version 3").await;
    let said = run.said();
    assert_eq!(said.matches("changed: reloading").count(), 3, "each burst is one reload:\n{said}");
    assert!(!said.contains("noise.log"), "{said}");
    run.interrupt();
    assert!(run.ended().await.success());
}

#[tokio::test]
async fn users_do_not_notice_a_reload() {
    let app = env!("CARGO_BIN_EXE_bulsa");
    let words = ["--workers", "2", "--watch", "app.txt", "--", app, "__demo-app"];
    let mut run = Run::with_files(&[("app.txt", "1")], &words, &[("DEMO_START_MS", "0")]);
    run.says("showing logs").await;
    let before = run.healthy().await;
    let (port, is_over) = (run.port, Arc::new(AtomicBool::new(false)));
    let ended = Arc::clone(&is_over);
    let users = tokio::task::spawn_blocking(move || {
        let (mut asked, mut failed) = (0_u32, Vec::new());
        while !ended.load(Ordering::Relaxed) {
            let answer = ask(port, "/", Duration::from_secs(30));
            asked += 1;
            failed.extend(Some(answer).filter(|answer| !answer.starts_with("HTTP/1.1 200")));
        }
        (asked, failed)
    });
    fs::write(run.dir().join("app.txt"), "22").unwrap();
    run.says("reloaded after app.txt changed").await;
    is_over.store(true, Ordering::Relaxed);
    let (asked, failed) = users.await.unwrap();
    assert!(asked > 0 && failed.is_empty(), "of {asked}: {failed:?}\n{}", run.said());
    let after = run.healthy().await;
    assert!(!pids(&after).iter().any(|pid| pids(&before).contains(pid)), "{after:#?}");
    run.interrupt();
    assert!(run.ended().await.success());
}

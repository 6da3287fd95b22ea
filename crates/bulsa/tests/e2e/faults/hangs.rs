//! One of two replicas hangs. (nginx in front of it: half of all requests fail for as long as it does.)

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep_until};

use super::{app::App, clients::Clients, ledger::Ledger, long_or, seconds, slow};
use crate::world::{ended, kill};

/// How long it is watched.
pub(super) fn watched() -> Duration {
    Duration::from_secs(long_or(10, 70))
}

/// A replica is stopped, as by a debugger, and nothing is done about it but by Bulsa.
async fn hangs(patience: Duration) {
    let Some(app) = App::up(&[]).await else { return };
    let clients = Clients::start(app.world.target(), 20, patience).await;
    let (victim, process) = app.replicas(&app.world.snapshot().await).into_iter().next().unwrap();
    let before = app.world.last_event().await;
    kill(process, Signal::STOP);
    let (stopped, stopped_ms) = (Instant::now(), now_ms());
    let suspect = app.event(before, "replica.suspect").await;
    let killed = app.event(before, "replica.killed").await;
    assert_eq!(suspect.replica.as_deref(), killed.replica.as_deref());
    assert!(killed.replica.is_some_and(|replica| replica.contains(&victim)), "{victim}: {}", killed.text);
    ended(process).await;
    let (dead, ready) = (Instant::now(), app.event(before, "replica.ready").await);
    sleep_until(stopped + watched()).await;
    clients.answered(20).await;
    let now = app.replicas(&app.world.well("faults").await);
    assert!(now.len() == 2 && !now.values().any(|one| *one == process), "{now:?}");
    let span = clients.span(stopped, dead);
    let account = clients.stop().await;
    account.only_posts_failed(&[span]);
    let after = |at_ms: u64| seconds(Duration::from_millis(at_ms.saturating_sub(stopped_ms)));
    eprintln!(
        "hang, {} s watched, patience {} s: {}, GETs begun there and answered by the other {}, out of the table after {}, its place serves \
         again after {}, quick ones at most {}, slow ones at most {}, longest gap {}",
        watched().as_secs(),
        patience.as_secs(),
        account.figures(),
        app.ledger.moved(),
        after(suspect.at_ms),
        after(ready.at_ms),
        seconds(account.fast.max),
        seconds(account.slow.max),
        seconds(account.longest_gap),
    );
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

#[tokio::test]
async fn a_hung_replica_costs_patient_clients_only_posts_that_it_had() {
    hangs(Duration::from_secs(70)).await;
}

#[tokio::test]
async fn a_hung_replica_costs_clients_that_wait_ten_seconds_only_posts_that_it_had() {
    hangs(Duration::from_secs(10)).await;
}

/// It is left out while it hangs, and may come back where its verdict is far off.
#[tokio::test]
async fn a_replica_that_hangs_for_a_moment_costs_nothing_and_keeps_its_place() {
    let Some(app) = App::up(&[("FALL", "20")]).await else { return };
    let clients = Clients::start(app.world.target(), 20, Duration::from_secs(70)).await;
    let first = app.replicas(&app.world.snapshot().await);
    let (victim, process) = first.iter().next().unwrap();
    let before = app.world.last_event().await;
    kill(*process, Signal::STOP);
    let stopped = Instant::now();
    app.event(before, "replica.suspect").await;
    // All that was on its way there twice is answered by the other one.
    clients.answered(20).await;
    kill(*process, Signal::CONT);
    let resumed = stopped.elapsed();
    let back =
        |replica: &&bulsa_core::wire::api::ReplicaView| replica.id == *victim && replica.state == "ready";
    app.world
        .until("the replica to be back", |snapshot| {
            snapshot.projects[0].services[0].replicas.iter().find(back).map(drop)
        })
        .await;
    let (asked, task) = (app.ledger.asked().len(), format!("faults/{victim}"));
    let is_asked = |ledger: &Ledger| ledger.asked()[asked..].iter().any(|asked| asked.task == task);
    app.ledger.until("requests come to it again", is_asked).await;
    assert_eq!(app.replicas(&app.world.well("faults").await), first);
    let account = clients.stop().await;
    account.is_perfect();
    assert!(account.slow.max >= slow());
    eprintln!(
        "hang of {}: {}, quick ones at most {}, slow ones at most {}",
        seconds(resumed),
        account.figures(),
        seconds(account.fast.max),
        seconds(account.slow.max),
    );
}

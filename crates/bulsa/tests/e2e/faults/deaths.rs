//! Workers die within the replicas: two masters, two workers each, one killed here and then one there. (nginx in front
//! of them: each death marks a whole server as down for ten seconds, and with both marked everybody gets 502.)

use std::time::Duration;

use bulsa::load::Mark;
use rustix::process::Signal;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::{
    app::{App, children},
    clients::Clients,
    ledger::{Asked, Ledger},
    long_or, seconds,
};
use crate::world::{ended, kill};

/// A Node master that has handed a connection to a worker that dies before it takes it forgets it: it stays open, and
/// nobody ever answers there. A limit is what helps; the GET then goes to the other replica.
fn first_byte() -> Duration {
    Duration::from_secs(long_or(3, 4))
}

/// How long a worker that has begun a slow GET is waited for.
const BUSY_WAIT: Duration = Duration::from_secs(2);

/// From one kill to the next; longer than that limit and a slow request together: what was lost in one death and is lost
/// in the next is sent to no third.
pub(super) fn gap() -> Duration {
    Duration::from_millis(long_or(4500, 8000))
}

/// Kills a worker of the one master and then of the other, again and again: when, and the longest time until a new one
/// has answered.
pub(super) async fn kill_in_turn(
    masters: &[i32],
    ledger: &Ledger,
    clients: &Clients,
) -> (Vec<(Mark, Mark)>, Duration) {
    let workers: Vec<i32> = masters.iter().flat_map(|master| children(*master)).collect();
    assert_eq!(workers.len(), 4, "{workers:?}");
    let all_answer = |ledger: &Ledger, workers: &[i32]| workers.iter().all(|worker| ledger.knows(*worker));
    ledger.until("each worker has answered", |ledger| all_answer(ledger, &workers)).await;
    let (mut kills, mut replaced) = (Vec::new(), Duration::ZERO);
    for number in 0..long_or(3, 6) {
        let master = masters[number % 2];
        let worker = busy_worker(master, ledger).await;
        let begun = Instant::now();
        kill(worker, Signal::KILL);
        ended(worker).await;
        kills.push(clients.span(begun, Instant::now()));
        let two_answer = |ledger: &Ledger| {
            let now = children(master);
            now.len() == 2 && !now.contains(&worker) && all_answer(ledger, &now)
        };
        // Whoever sends requests may leave it out for longer than the next kill is away.
        let next = begun + gap();
        drop(timeout_at(next, ledger.until("a new worker has answered", two_answer)).await);
        replaced = replaced.max(begun.elapsed());
        sleep_until(next).await;
    }
    (kills, replaced)
}

/// A worker of this master that has just begun a slow GET; any of them where none comes.
async fn busy_worker(master: i32, ledger: &Ledger) -> i32 {
    let (before, workers) = (ledger.asked().len(), children(master));
    let begun = |ledger: &Ledger| {
        let asked = ledger.asked();
        let is_it = |one: &&Asked| one.is_slow && one.method == "GET" && workers.contains(&one.process);
        asked[before..].iter().find(is_it).map(|one| one.process)
    };
    drop(timeout(BUSY_WAIT, ledger.until("a slow GET", |ledger| begun(ledger).is_some())).await);
    begun(ledger).unwrap_or(workers[0])
}

#[tokio::test]
async fn workers_that_die_on_both_replicas_in_turn_cost_only_posts_that_they_had() {
    let first_byte = format!("{}s", first_byte().as_secs());
    let Some(app) = App::up(&[("WORKERS", "2"), ("FIRST_BYTE", &first_byte)]).await else { return };
    let masters: Vec<i32> = app.replicas(&app.world.snapshot().await).into_values().collect();
    let clients = Clients::start(app.world.target(), 50, Duration::from_secs(10)).await;
    let (kills, replaced) = kill_in_turn(&masters, &app.ledger, &clients).await;
    clients.answered(50).await;
    let same: Vec<i32> = app.replicas(&app.world.well("faults").await).into_values().collect();
    assert_eq!(same, masters, "no replica was replaced for a worker's death");
    let account = clients.stop().await;
    account.only_posts_failed(&kills);
    let moved = app.ledger.moved();
    assert!(
        moved >= kills.len() / 2,
        "{moved} GETs were caught in {} deaths: nothing is proven",
        kills.len()
    );
    eprintln!(
        "deaths of {} workers, {} apart: {}, GETs answered by the other replica {moved}, a new worker answers after \
         at most {}, quick ones at most {}, slow ones at most {}, longest gap {}",
        kills.len(),
        seconds(gap()),
        account.figures(),
        seconds(replaced),
        seconds(account.fast.max),
        seconds(account.slow.max),
        seconds(account.longest_gap),
    );
}

//! Deploys while slow requests are under way, whatever the app does at SIGTERM. (The home-made scripts: 12 to 256 failed
//! requests a deploy with an app that exits at once, 0 to 12 with one that doesn't.)

use std::time::Duration;

use tokio::time::Instant;

use super::{app::App, clients::Clients, long_or, seconds};
use crate::traffic::answers_of;

/// Deploys again and again, with an app that does this at SIGTERM.
async fn deploys_with(on_term: &'static str) {
    let start_ms = long_or("300", "2000");
    let Some(mut app) = App::up(&[("ON_TERM", on_term), ("START_MS", start_ms)]).await else { return };
    let clients = Clients::start(app.world.target(), 50, Duration::from_secs(10)).await;
    let (mut took, mut switched, mut waited) = (Vec::new(), Vec::new(), Vec::new());
    let count = long_or(1, 5);
    for number in 0..count {
        let version = format!("v{}", number + 2);
        app.world.set("VERSION", &*version);
        let (before, begun) = (app.world.last_event().await, Instant::now());
        let deploy = app.world.start(&["deploy"]);
        app.event(before, "deploy.switched").await;
        switched.push(begun.elapsed());
        deploy.end().await.exits(0);
        took.push(begun.elapsed());
        answers_of(&clients.load, clients.load.mark(), &version).await;
        // The others have been told to end, and have, while the load goes on.
        app.world.alone("faults").await;
        let retired = app.event(before, "release.retired").await;
        let told = app.world.events_after(Some(retired.id)).await;
        let stopping = told.iter().filter(|event| event.kind == "replica.stopping").map(|event| event.at_ms);
        waited.push(Duration::from_millis(stopping.max().unwrap_or_default().saturating_sub(retired.at_ms)));
        clients.answered(20).await;
    }
    let account = clients.stop().await;
    account.is_perfect();
    assert_eq!(account.fast.releases.len(), count + 1, "{:?}", account.fast.releases);
    assert_eq!(app.ledger.moved(), 0, "what was under way was finished where it was");
    let waited = waited.into_iter().max().unwrap_or_default();
    assert!(waited >= Duration::from_millis(10), "nothing was under way when an old release was to end");
    let longest = |times: Vec<Duration>| seconds(times.into_iter().max().unwrap_or_default());
    eprintln!(
        "{count} deploys, SIGTERM {on_term}, ready after {start_ms} ms: {}, a deploy at most {}, up to the switch at \
         most {}, the old one finished its requests for at most {}, longest gap {}, quick ones at most {}",
        account.figures(),
        longest(took),
        longest(switched),
        seconds(waited),
        seconds(account.longest_gap),
        seconds(account.fast.max),
    );
}

#[tokio::test]
async fn an_app_that_exits_at_sigterm_is_deployed_without_a_failed_request() {
    deploys_with("exit").await;
}

#[tokio::test]
async fn an_app_that_ignores_sigterm_is_deployed_without_a_failed_request() {
    deploys_with("ignore").await;
}

#[tokio::test]
async fn an_app_that_finishes_at_sigterm_is_deployed_without_a_failed_request() {
    deploys_with("graceful").await;
}

//! Load on a published port, and what must be true of it.

use std::{net::SocketAddr, time::Duration};

use bulsa::load::{Config, Failure, Kind, Load, LoadHandle, Mark, Report, Shot, Sockets};
use tokio::time::{Instant, sleep};

use crate::world::{LIMIT, LOOK_EVERY};

/// How long before its death is known a killed process has closed its connections, and how long after it failures that
/// come from it may still come in.
const DEATH_SLACK: Duration = Duration::from_millis(300);

/// The demo app's usual mix, 120 requests/s, and so many WebSockets, which are connected when this returns.
pub(crate) async fn on_demo(target: SocketAddr, sockets: u32) -> LoadHandle {
    let config = Config { sockets: (sockets > 0).then(|| Sockets::new(sockets)), ..demo(target) };
    let mut load = Load::start(config).unwrap();
    assert!(load.connected(sockets as usize, LIMIT).await, "the WebSockets are not connected");
    answers(&load, 20).await;
    load
}

fn demo(target: SocketAddr) -> Config {
    let mut mix = Shot::usual_mix();
    for shot in &mut mix {
        shot.path = shot.path.replace("300", "100");
    }
    Config { rate: 120, mix, expect: Some("version v".to_owned()), ..Config::to(target) }
}

/// Quick GETs, 100 a second.
pub(crate) fn gets(target: SocketAddr) -> LoadHandle {
    Load::start(Config { rate: 100, mix: Shot::only_get("/"), ..Config::to(target) }).unwrap()
}

/// Waits until so many more requests have ended, well or not.
pub(crate) async fn answers(load: &LoadHandle, count: u64) {
    let (from, end) = (load.mark(), Instant::now() + LIMIT);
    while load.window(from, load.mark()).requests < count {
        assert!(Instant::now() < end, "the load stands still");
        sleep(LOOK_EVERY).await;
    }
}

/// Waits until a good answer of this release came after `from`.
pub(crate) async fn answers_of(load: &LoadHandle, from: Mark, release: &str) {
    let end = Instant::now() + LIMIT;
    while !load.window(from, load.mark()).releases.contains_key(release) {
        assert!(Instant::now() < end, "nothing is answered by {release}");
        sleep(LOOK_EVERY).await;
    }
}

/// Ends the load; not a single request may have failed, and no WebSocket been dropped.
#[track_caller]
pub(crate) fn perfect(report: &Report) {
    assert!(report.requests > 50, "a load of {} requests proves nothing", report.requests);
    assert_eq!(report.failed, 0, "of {}: {:#?}", report.requests, report.failures);
    assert!(report.sockets.drops.is_empty(), "{:#?}", report.sockets.drops);
}

/// Of a kill between the two moments it may cost only what it had under way and could not be tried again.
#[track_caller]
pub(crate) fn only_posts_failed(report: &Report, kills: &[(Mark, Mark)]) {
    excused(report, kills, |failure| !failure.idempotent);
}

/// A proxy that is killed costs the connections that it held, and refuses none.
#[track_caller]
pub(crate) fn only_cut_connections(report: &Report, kills: &[(Mark, Mark)]) {
    excused(report, kills, |failure| failure.kind == Kind::Reset);
}

fn excused(report: &Report, kills: &[(Mark, Mark)], may: impl Fn(&Failure) -> bool) {
    assert!(report.requests > 50, "a load of {} requests proves nothing", report.requests);
    let at_a_kill = |failure: &Failure| {
        kills.iter().any(|(from, to)| {
            let before = Mark::START.plus(from.since(Mark::START.plus(DEATH_SLACK)));
            failure.under_way(before, to.plus(DEATH_SLACK))
        })
    };
    let guilty: Vec<_> =
        report.failures.iter().filter(|failure| !may(failure) || !at_a_kill(failure)).collect();
    assert!(guilty.is_empty(), "of {}: {guilty:#?}; kills: {kills:?}", report.requests);
}

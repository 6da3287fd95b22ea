//! The daemon's own end and its next start.

use bulsa_core::wire::api::ReleaseState;
use rustix::process::Signal;

use crate::{
    traffic::{answers, on_demo, perfect},
    watch::{of_live, only},
    world::{World, ended, is_closed, kill, pid},
};

#[tokio::test]
async fn a_daemon_told_to_end_stops_everything_and_brings_it_back_when_it_starts_again() {
    let mut world = World::new("web.yaml");
    world.serve().await;
    world.up().await;
    world.set("VERSION", "v2");
    world.run(&["deploy"]).await.exits(0);
    let before = world.well("web").await;
    let load = on_demo(world.target(), 0).await;
    answers(&load, 50).await;
    perfect(&load.stop().await);
    let proxy = pid(before.proxies[0].pid);

    kill(pid(before.keeper_pid), Signal::TERM);
    assert_eq!(world.served().await, Some(0), "{}", world.daemon_log());
    ended(proxy).await;
    assert_eq!(world.processes(), [0; 0], "processes outlived the daemon");
    assert!(is_closed(world.target()));

    // Nobody gives it the compose file again.
    world.serve().await;
    let after = world.well("web").await;
    let (project, service) = only(&after);
    assert_eq!((project.live, of_live(project, service).count()), (Some(2), 2));
    assert_eq!(only(&before).0.releases.last().unwrap().hash, project.releases.last().unwrap().hash);
    let load = on_demo(world.target(), 0).await;
    answers(&load, 50).await;
    let report = load.stop().await;
    perfect(&report);
    assert_eq!(report.releases.keys().collect::<Vec<_>>(), ["v2"]);
    // What was before it can still be gone back to.
    assert!(matches!(project.releases[0].state, ReleaseState::Warm | ReleaseState::Retired));
    world.run(&["rollback"]).await.exits(0);
    assert_eq!(only(&world.well("web").await).0.live, Some(1));
}

#[tokio::test]
async fn a_daemon_told_to_end_finishes_what_is_in_flight() {
    let mut world = World::new("web.yaml");
    world.serve().await;
    world.up().await;
    let before = world.well("web").await;
    let slow = tokio::task::spawn_blocking({
        let target = world.target();
        move || slow_request(target)
    });
    world.until("the slow request", |snapshot| (snapshot.proxies.first()?.in_flight > 0).then_some(())).await;
    kill(pid(before.keeper_pid), Signal::TERM);
    assert_eq!(world.served().await, Some(0), "{}", world.daemon_log());
    let answer = slow.await.unwrap();
    assert!(answer.contains("version v1"), "{answer}");
}

fn slow_request(target: std::net::SocketAddr) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(target).unwrap();
    stream.write_all(b"GET /slow?ms=3000 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

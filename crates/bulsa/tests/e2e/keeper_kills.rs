//! kill -9 of the keeper: what it started goes on, and its successor takes it over.

use std::time::Instant;

use rustix::process::Signal;

use crate::{
    traffic::{answers, on_demo, only_cut_connections, perfect},
    watch::{only, pids},
    world::{World, ended, is_closed, kill, pid},
};

#[tokio::test]
async fn traffic_flows_without_a_keeper_and_its_successor_adopts_sockets_and_replicas() {
    let mut world = World::web(&[]).await;
    let before = world.well("web").await;
    let load = on_demo(world.target(), 4).await;

    let keeper = pid(before.keeper_pid);
    kill(keeper, Signal::KILL);
    ended(keeper).await;
    answers(&load, 150).await;
    let orphaned =
        world.until("the agent sees it", |s| (!s.agent.warnings.is_empty()).then(|| s.clone())).await;
    assert!(orphaned.agent.warnings[0].contains("the keeper is gone"), "{:?}", orphaned.agent.warnings);
    assert!(orphaned.agent.warnings[0].contains("bulsa serve"), "{:?}", orphaned.agent.warnings);
    for command in [&["deploy"][..], &["scale", "web=3"], &["down"]] {
        world.set("VERSION", "v2");
        world.run(command).await.exits(1).complains(&["the keeper is gone", "bulsa serve"]);
    }
    world.run(&["deploy", "--plan"]).await.exits(0);
    world.set("VERSION", "v1");

    world.serve().await;
    let old = before.keeper_pid;
    world.until("the successor", |s| (s.keeper_pid != old && !s.projects.is_empty()).then_some(())).await;
    let after = world.well("web").await;
    assert_eq!(pids(only(&after).0), pids(only(&before).0), "the replicas go on");
    assert_eq!(after.proxies[0].pid, before.proxies[0].pid, "the proxy goes on");
    assert_ne!(after.agent.pid, before.agent.pid);
    answers(&load, 50).await;
    perfect(&load.stop().await);

    heals_a_replica(&world).await;
    replaces_the_proxy(&world).await;

    world.run(&["down"]).await.exits(0);
    assert!(is_closed(world.target()));
    assert_eq!(world.replica_processes(), [0; 0]);
}

#[tokio::test]
async fn a_daemon_killed_as_a_whole_is_back_on_its_replicas_when_it_starts_again() {
    let mut world = World::web(&[]).await;
    let before = world.well("web").await;
    let daemon = [pid(before.keeper_pid), pid(before.agent.pid), pid(before.proxies[0].pid)];
    for process in daemon {
        kill(process, Signal::KILL);
        ended(process).await;
    }
    assert!(is_closed(world.target()), "nobody has the sockets any more");
    world.serve().await;
    let after = world.well("web").await;
    assert_eq!(pids(only(&after).0), pids(only(&before).0), "the replicas go on");
    let load = on_demo(world.target(), 0).await;
    answers(&load, 50).await;
    perfect(&load.stop().await);
}

async fn heals_a_replica(world: &World) {
    let before = world.well("web").await;
    let victim = only(&before).1.replicas[0].clone();
    kill(pid(victim.pid.unwrap()), Signal::KILL);
    world
        .until("the dead replica's successor", |snapshot| {
            let replicas = &only(snapshot).1.replicas;
            replicas.iter().any(|r| r.ordinal == victim.ordinal && r.attempt > victim.attempt).then_some(())
        })
        .await;
    world.well("web").await;
}

async fn replaces_the_proxy(world: &World) {
    let load = on_demo(world.target(), 0).await;
    let proxy = pid(world.snapshot().await.proxies[0].pid);
    let from = load.at(Instant::now());
    kill(proxy, Signal::KILL);
    ended(proxy).await;
    let to = load.mark();
    answers(&load, 100).await;
    let after = world.well("web").await;
    assert_ne!(pid(after.proxies[0].pid), proxy);
    only_cut_connections(&load.stop().await, &[(from, to)]);
}

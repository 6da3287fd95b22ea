//! kill -9 of the proxy, with the agent alive and with the agent dead.

use std::time::Instant;

use rustix::process::Signal;

use crate::{
    traffic::{answers, on_demo, only_cut_connections},
    world::{World, ended, kill, pid},
};

#[tokio::test]
async fn a_killed_proxy_refuses_nobody_and_costs_only_what_it_held() {
    let world = World::web(&[]).await;
    let mut old = world.well("web").await.proxies[0].clone();
    let load = on_demo(world.target(), 4).await;
    let mut kills = Vec::new();
    for _ in 0..3 {
        let from = load.at(Instant::now());
        kill(pid(old.pid), Signal::KILL);
        ended(pid(old.pid)).await;
        kills.push((from, load.mark()));
        answers(&load, 60).await;
        let new = world.well("web").await.proxies[0].clone();
        assert!(new.pid != old.pid && new.generation > old.generation, "{new:?}");
        old = new;
    }
    only_cut_connections(&load.stop().await, &kills);
}

#[tokio::test]
async fn a_proxy_killed_while_no_agent_lives_is_back_on_the_same_sockets() {
    let world = World::web(&[]).await;
    let before = world.well("web").await;
    let load = on_demo(world.target(), 4).await;
    let (agent, proxy) = (pid(before.agent.pid), pid(before.proxies[0].pid));
    let from = load.at(Instant::now());
    kill(agent, Signal::KILL);
    kill(proxy, Signal::KILL);
    ended(agent).await;
    ended(proxy).await;
    let to = load.mark();
    answers(&load, 100).await;
    let after = world.well("web").await;
    assert!(pid(after.agent.pid) != agent && pid(after.proxies[0].pid) != proxy);
    only_cut_connections(&load.stop().await, &[(from, to)]);
}

#[tokio::test]
async fn a_hung_proxy_is_found_out_and_replaced() {
    let world = World::web(&[]).await;
    let before = world.well("web").await;
    let load = on_demo(world.target(), 0).await;
    let hung = pid(before.proxies[0].pid);
    let from = load.at(Instant::now());
    kill(hung, Signal::STOP);
    ended(hung).await;
    let to = load.mark();
    let after = world.well("web").await;
    assert_ne!(pid(after.proxies[0].pid), hung);
    answers(&load, 50).await;
    only_cut_connections(&load.stop().await, &[(from, to)]);
}

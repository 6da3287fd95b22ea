//! kill -9 of the agent, at every step boundary of a deploy and at random moments of it.
//!
//! The service holds no request (`hold: {requests: 0}`): one moment without a route would be a failed request.

use std::time::Duration;

use bulsa::load::LoadHandle;
use bulsa_core::wire::api::{Event, Outcome, Snapshot};
use rustix::process::Signal;
use tokio::time::sleep;

use crate::{
    traffic::{answers_of, on_demo, perfect},
    watch::only,
    world::{World, ended, kill, pid},
};

const STEPS_BEFORE_THE_SWITCH: [&str; 3] = ["deploy.started", "replica.started", "replica.ready"];
const STEPS_AFTER_IT: [&str; 4] =
    ["deploy.switched", "deploy.finished", "release.retired", "replica.stopping"];

async fn world() -> (World, LoadHandle) {
    // The old release is stopped right after the bake, so that this belongs to the deploy too.
    let world = World::web(&[("HOLD", "0"), ("WARM", "0s"), ("BAKE", "300ms")]).await;
    world.well("web").await;
    let load = on_demo(world.target(), 0).await;
    (world, load)
}

#[tokio::test]
async fn an_agent_killed_before_the_switch_leaves_a_deploy_that_its_successor_ends() {
    let (mut world, load) = world().await;
    kill_at_each(&mut world, &load, &STEPS_BEFORE_THE_SWITCH).await;
    perfect(&load.stop().await);
}

#[tokio::test]
async fn an_agent_killed_after_the_switch_leaves_a_deploy_that_its_successor_ends() {
    let (mut world, load) = world().await;
    kill_at_each(&mut world, &load, &STEPS_AFTER_IT).await;
    perfect(&load.stop().await);
}

async fn kill_at_each(world: &mut World, load: &LoadHandle, steps: &[&str]) {
    for (step, version) in steps.iter().zip(["v2", "v3", "v4", "v5"]) {
        let before = world.last_event().await;
        world.set("VERSION", version);
        let deploy = world.start(&["deploy"]);
        let is_due = |event: &Event| event.kind == *step;
        let agent = kill_agent_when(world, before, step, is_due).await;
        // Its command is told of the end by the agent's successor, unless the agent had not even answered it.
        let ran = deploy.end().await;
        if *step == "deploy.started" && ran.code == Some(5) {
            ran.complains(&["what was begun goes on without this command"]);
            converged(world, agent).await;
            world.run(&["wait"]).await.exits(0);
        } else {
            ran.exits(0);
        }
        let after = converged(world, agent).await;
        let (project, _) = only(&after);
        assert_eq!(project.deployments.last().unwrap().finished.as_ref().unwrap().outcome, Outcome::Deployed);
        answers_of(load, load.mark(), version).await;
    }
}

/// Kills the agent as soon as the event comes; its process.
async fn kill_agent_when(world: &World, after: u64, step: &str, is: impl Fn(&Event) -> bool) -> i32 {
    let agent = pid(world.snapshot().await.agent.pid);
    world.event(after, step, is).await;
    kill(agent, Signal::KILL);
    ended(agent).await;
    agent
}

/// Everything is as it should be again, under another agent: exactly the wanted replicas, and no process more.
async fn converged(world: &World, killed: i32) -> Snapshot {
    world.until("another agent", |snapshot| (pid(snapshot.agent.pid) != killed).then_some(())).await;
    let snapshot = world.alone("web").await;
    let (_, service) = only(&snapshot);
    assert_eq!(service.replicas.len(), 2, "{:#?}", service.replicas);
    let mut named: Vec<i32> = service.replicas.iter().filter_map(|replica| replica.pid).map(pid).collect();
    let mut running = world.replica_processes();
    named.sort_unstable();
    running.sort_unstable();
    assert_eq!(running, named, "replicas that the daemon doesn't know of");
    snapshot
}

#[tokio::test]
async fn an_agent_killed_at_random_moments_of_deploys_loses_no_request_and_doubles_no_replica() {
    let (mut world, load) = world().await;
    let seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    for (round, version) in (0..).zip(["v2", "v3", "v4", "v5", "v6"]) {
        let agent = pid(world.snapshot().await.agent.pid);
        world.set("VERSION", version);
        let deploy = world.start(&["deploy"]);
        // The moment itself is what is tested: anywhere in a deploy of about half a second.
        sleep(Duration::from_millis(scatter(seed + round) % 700)).await;
        kill(agent, Signal::KILL);
        ended(agent).await;
        let ran = deploy.end().await;
        converged(&world, agent).await;
        match ran.code {
            Some(0) => {}
            // The agent died before it had taken the request in, or before it could say so.
            Some(5) => {
                world.run(&["deploy"]).await.exits(0);
                world.well("web").await;
            }
            _ => panic!("round {round}: {ran:?}"),
        }
        answers_of(&load, load.mark(), version).await;
    }
    perfect(&load.stop().await);
}

/// Spreads `seed` over 64 bits (splitmix64).
fn scatter(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

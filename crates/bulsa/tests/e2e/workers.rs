//! Replicas that are killed and replicas that hang, under load.

use std::time::Instant;

use rustix::process::Signal;

use crate::{
    traffic::{answers, on_demo, only_posts_failed},
    watch::only,
    world::{World, ended, kill, pid},
};

#[tokio::test]
async fn killed_workers_cost_no_request_that_can_be_tried_again_and_are_replaced() {
    let world = World::web(&[]).await;
    world.well("web").await;
    let load = on_demo(world.target(), 4).await;
    let mut kills = Vec::new();
    for round in 0..6 {
        let before = world.well("web").await;
        let victim = &only(&before).1.replicas[round % 2];
        let from = load.at(Instant::now());
        kill(pid(victim.pid.unwrap()), Signal::KILL);
        ended(pid(victim.pid.unwrap())).await;
        kills.push((from, load.mark()));
        // What was under way ends first: a request whose second worker dies too is answered with an error, by design.
        answers(&load, 30).await;
        world
            .until("the dead worker's successor", |snapshot| {
                let replicas = &only(snapshot).1.replicas;
                let is_new = |attempt| attempt > victim.attempt;
                replicas.iter().any(|r| r.ordinal == victim.ordinal && is_new(r.attempt)).then_some(())
            })
            .await;
    }
    let after = world.well("web").await;
    assert_eq!(only(&after).1.restarts, 6);
    assert!(only(&after).1.replicas.iter().all(|r| r.last_exit.as_deref() == Some("killed by SIGKILL")));
    answers(&load, 30).await;
    only_posts_failed(&load.stop().await, &kills);
    assert_eq!(world.replica_processes().len(), 2);
}

#[tokio::test]
async fn a_hung_worker_is_left_out_replaced_and_killed() {
    let world = World::web(&[("PROBE_TIMEOUT", "800ms")]).await;
    let before = world.well("web").await;
    let load = on_demo(world.target(), 0).await;
    let victim = &only(&before).1.replicas[1];
    let start = world.last_event().await;
    let from = load.at(Instant::now());
    kill(pid(victim.pid.unwrap()), Signal::STOP);
    let killed = world.event(start, "the hung worker's end", |event| event.kind == "replica.killed").await;
    assert_eq!(killed.replica.as_ref(), Some(&victim.id), "{killed:?}");
    assert!(killed.text.contains("hangs and is killed"), "{killed:?}");
    ended(pid(victim.pid.unwrap())).await;
    let to = load.mark();
    let after = world.well("web").await;
    let (_, service) = only(&after);
    assert!(service.replicas.iter().any(|r| r.ordinal == victim.ordinal && r.attempt > victim.attempt));
    assert!(
        service.replicas.iter().any(|r| r.pid == only(&before).1.replicas[0].pid),
        "the other one went on"
    );
    answers(&load, 50).await;
    only_posts_failed(&load.stop().await, &[(from, to)]);
    assert_eq!(world.replica_processes().len(), 2);
}

//! The agent is killed while containers run and while they are deployed: nothing is started twice, nobody notices.

use bulsa_core::wire::api::Snapshot;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    shop::{Shop, on_both_engines},
    support::{
        engine::Engine,
        load::{answers, answers_of, on_app, perfect},
    },
};

async fn snapshot(shop: &Shop<'_>) -> Snapshot {
    shop.project.client().await.snapshot().await.unwrap()
}

/// Kills the agent and waits for its successor to publish; the successor's pid.
async fn kill_agent(shop: &Shop<'_>) -> u32 {
    let before = snapshot(shop).await.agent.pid;
    let pid = i32::try_from(before).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    shop.project
        .until("another agent", |_, snapshot| (snapshot.agent.pid != before).then_some(snapshot.agent.pid))
        .await
}

async fn an_agent_that_is_killed_leaves_containers_as_they_are(engine: &Engine) {
    let Some(mut shop) = Shop::up(engine, &[]).await else { return };
    let (apps, live) = (shop.apps(), shop.project.well().await.live);
    let load = on_app(engine, shop.project.port(), 0).await;
    for _ in 0..3 {
        kill_agent(&shop).await;
        assert_eq!(shop.project.well().await.live, live);
        answers(&load, 20);
    }
    assert_eq!(shop.apps(), apps, "they are adopted, and nothing was started beside them");

    // In the middle of a deploy: the successor ends it.
    shop.build("v2");
    let deploy = shop.project.start(&["deploy"]);
    shop.project
        .until("a deployment", |project, _| {
            project.deployments.iter().any(|one| one.finished.is_none()).then_some(())
        })
        .await;
    kill_agent(&shop).await;
    deploy.end().exits(0);
    answers_of(&load, "v2");
    shop.project.well().await;
    perfect(&load.stop().await);
    shop.redis_is_untouched();
}
on_both_engines!(an_agent_that_is_killed_leaves_containers_as_they_are);

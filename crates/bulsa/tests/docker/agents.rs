//! The agent is killed while containers run and while they are deployed: nothing is started twice, nobody notices.

use std::time::Duration;

use bulsa_core::wire::api::Snapshot;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    shop::{Shop, on_both_engines},
    support::{
        engine::{Engine, Generation},
        load::{Caller, answers, answers_of, good_for, on_app, perfect},
        until,
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
    let inside = Caller::start(engine, &shop.app, &shop.project.object("default"), "api:3000");
    inside.answers(20);
    for _ in 0..3 {
        kill_agent(&shop).await;
        assert_eq!(shop.project.well().await.live, live);
        answers(&load, 20);
    }
    assert_eq!(shop.apps(), apps, "they are adopted, and nothing was started beside them");

    // Made and never started, as an agent leaves it that is killed in between: nobody else would ever remove it.
    let owner = engine.inspect(&apps[0], r#"{{index .Config.Labels "bulsa.owner"}}"#);
    let labels = [
        format!("bulsa.owner={owner}"),
        format!("bulsa.project={}", shop.project.name()),
        "bulsa.replica=web-r1-2.77".to_owned(),
        "bulsa.role=app".to_owned(),
    ];
    let words = labels.iter().flat_map(|label| ["--label", label.as_str()]);
    let words: Vec<&str> = ["create"].into_iter().chain(words).chain([shop.app.as_str()]).collect();
    let half_made = engine.docker(&words);
    until("it is removed", || engine.try_docker(&["inspect", half_made.trim()]).is_err().then_some(()));

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
    inside.perfect();
    shop.redis_is_untouched();
}
on_both_engines!(an_agent_that_is_killed_leaves_containers_as_they_are);

/// Containers live on without their Engine; an agent that starts meanwhile can't see them, and serves them all the same.
#[tokio::test]
async fn an_agent_that_finds_no_engine_keeps_the_routes() {
    let Some(engine) = Engine::own(Generation::Installed, true) else { return };
    let Some(shop) = Shop::up(&engine, &[]).await else { return };
    let apps = shop.apps();
    let load = on_app(&engine, shop.project.port(), 0).await;
    engine.daemon().kill();
    kill_agent(&shop).await;
    answers(&load, 100);
    // A proxy of its own time begins with what this agent gave out.
    let proxy = snapshot(&shop).await.proxies[0].pid;
    kill_process(Pid::from_raw(i32::try_from(proxy).unwrap()).unwrap(), Signal::KILL).unwrap();
    good_for(&load, Duration::from_secs(1));
    let mark = load.mark();
    engine.daemon().begin();
    shop.project.well().await;
    assert_eq!(shop.apps(), apps, "they are adopted, and nothing was started beside them");
    answers(&load, 100);
    perfect(&load.window(mark, load.mark()));
}

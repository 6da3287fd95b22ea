//! Releases that are not fit to serve.

use std::time::Instant;

use bulsa_core::wire::api::{Outcome, ReleaseState, ServiceState};

use crate::{
    traffic::{answers, gets, on_demo, only_posts_failed, perfect},
    watch::{only, pids},
    world::{World, has},
};

#[tokio::test]
async fn a_release_that_never_gets_healthy_reaches_no_user_and_exits_3() {
    let mut world = World::web(&[]).await;
    let before = world.well("web").await;
    let load = on_demo(world.target(), 4).await;
    for (name, value) in [("VERSION", "v2"), ("BROKEN", "1"), ("GATE", "1500ms")] {
        world.set(name, value);
    }
    let ran = world.run(&["deploy"]).await.exits(3);
    let said = format!("{}{}", ran.out, ran.err);
    for text in ["did not become healthy", "500", "release r1 serves all traffic"] {
        assert!(said.contains(text), "it does not say `{text}`:\n{said}");
    }
    let after = world.alone("web").await;
    let (project, _) = only(&after);
    assert_eq!(pids(project), pids(only(&before).0), "the old replicas went on, and the new ones are gone");
    assert_eq!(project.releases[1].state, ReleaseState::Failed);
    assert_eq!(project.deployments.last().unwrap().finished.as_ref().unwrap().outcome, Outcome::Failed);
    let report = load.stop().await;
    perfect(&report);
    assert_eq!(report.releases.keys().collect::<Vec<_>>(), ["v1"]);
    world.run(&["wait"]).await.exits(3);
}

#[tokio::test]
async fn a_release_that_crashes_under_its_users_is_undone_and_exits_3() {
    let mut world = World::web(&[]).await;
    let before = world.well("web").await;
    let load = on_demo(world.target(), 0).await;
    for (name, value) in [("VERSION", "v2"), ("CRASH_MS", "300"), ("BAKE", "8s")] {
        world.set(name, value);
    }
    let from = load.at(Instant::now());
    let ran = world.run(&["deploy"]).await.exits(3);
    let to = load.mark();
    let said = format!("{}{}", ran.out, ran.err);
    assert!(said.contains("rolled back") && said.contains("after the switch"), "{said}");
    let after = world.alone("web").await;
    let (project, _) = only(&after);
    assert_eq!((project.live, pids(project)), (Some(1), pids(only(&before).0)));
    assert_eq!(project.deployments.last().unwrap().finished.as_ref().unwrap().outcome, Outcome::RolledBack);
    answers(&load, 30).await;
    let report = load.stop().await;
    assert!(report.releases.contains_key("v2"), "it had users: {:?}", report.releases);
    only_posts_failed(&report, &[(from, to)]);
}

#[tokio::test]
async fn a_first_release_that_never_gets_healthy_exits_7_and_a_fixed_one_heals_the_service() {
    let mut world = World::new("web.yaml");
    for (name, value) in [("BROKEN", "1"), ("GATE", "1500ms")] {
        world.set(name, value);
    }
    let ran = world.run(&["up", "-d"]).await.exits(7);
    let said = format!("{}{}", ran.out, ran.err);
    for text in ["did not become healthy", "500"] {
        assert!(said.contains(text), "it does not say `{text}`:\n{said}");
    }
    assert!(said.contains("bulsa "), "it does not say what to do:\n{said}");
    let down = world.snapshot().await;
    assert_ne!(only(&down).1.state, ServiceState::Healthy);
    world.set("BROKEN", "0");
    world.set("GATE", "20s");
    world.set("VERSION", "v2");
    world.run(&["deploy"]).await.exits(0);
    world.well("web").await;
    world.run(&["status"]).await.exits(0);
    let load = on_demo(world.target(), 0).await;
    answers(&load, 50).await;
    perfect(&load.stop().await);
}

#[tokio::test]
async fn a_release_that_answers_its_users_with_errors_is_undone_and_exits_3() {
    if !has("python3") {
        return;
    }
    let mut world = World::new("errors.yaml");
    world.up().await;
    world.well("errors").await;
    let load = gets(world.target());
    answers(&load, 50).await;
    for (name, value) in [("VERSION", "v2"), ("FAILING", "1"), ("BAKE", "20s")] {
        world.set(name, value);
    }
    let ran = world.run(&["deploy"]).await.exits(3);
    let said = format!("{}{}", ran.out, ran.err);
    assert!(said.contains("requests to `app` failed after the switch"), "{said}");
    assert_eq!(only(&world.well("errors").await).0.live, Some(1));
    let back = load.mark();
    answers(&load, 50).await;
    let after = load.window(back, load.mark());
    let failed: Vec<_> = after.failures.iter().filter(|failure| failure.due > back).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

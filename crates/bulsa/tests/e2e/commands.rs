//! The commands that look and the commands that act.

use bulsa_core::wire::api::{ServiceState, Snapshot};
use rustix::process::Signal;

use crate::{
    traffic::{answers, on_demo, perfect},
    watch::{only, pids},
    world::{World, kill, pid},
};

#[tokio::test]
async fn services_are_restarted_and_scaled_without_a_failed_request() {
    let world = World::web(&[("HOLD", "0")]).await;
    let before = world.well("web").await;
    let load = on_demo(world.target(), 0).await;

    world.run(&["restart", "web"]).await.exits(0);
    let restarted = world.well("web").await;
    let (old, new) = (pids(only(&before).0), pids(only(&restarted).0));
    assert!(new.keys().all(|id| !old.contains_key(id)), "{old:?} {new:?}");
    for number in ["4", "1", "2"] {
        let ran = world.run(&["scale", &format!("web={number}"), "--json"]).await.exits(0);
        assert_eq!(ran.json()["ready"].to_string(), number);
        let scaled = world.well("web").await;
        assert_eq!(only(&scaled).1.replicas.len().to_string(), number);
    }
    answers(&load, 20).await;
    perfect(&load.stop().await);
    assert_eq!(world.replica_processes().len(), 2);
}

#[tokio::test]
async fn a_stopped_service_stays_stopped_until_it_is_started() {
    let world = World::web(&[]).await;
    world.run(&["stop", "web"]).await.exits(0);
    let stopped = world.snapshot().await;
    assert_eq!((only(&stopped).1.state, only(&stopped).1.replicas.len()), (ServiceState::Stopped, 0));
    assert_eq!(world.replica_processes(), [0; 0]);
    world.run(&["status"]).await.exits(0);
    world.run(&["stop", "web"]).await.exits(0);
    // Nor does the agent's death bring it back.
    let agent = stopped.agent.pid;
    kill(pid(agent), Signal::KILL);
    let other = |s: &Snapshot| (s.agent.pid != agent && !s.projects.is_empty()).then(|| s.clone());
    let after = world.until("another agent", other).await;
    assert_eq!((only(&after).1.state, only(&after).1.replicas.len()), (ServiceState::Stopped, 0));
    world.run(&["start", "web"]).await.exits(0);
    world.well("web").await;
    world.run(&["stop", "web"]).await.exits(0);
    world.run(&["up", "-d"]).await.exits(0);
    world.well("web").await;
}

#[tokio::test]
async fn status_exits_6_while_a_service_is_not_as_it_should_be() {
    let world = World::web(&[("START_MS", "2000"), ("PROBE_TIMEOUT", "800ms")]).await;
    world.run(&["status"]).await.exits(0);
    let states = [(1, ServiceState::Degraded), (2, ServiceState::Down)];
    for (killed, state) in states {
        let before = world.well("web").await;
        for replica in &only(&before).1.replicas[..killed] {
            kill(pid(replica.pid.unwrap()), Signal::KILL);
        }
        world.until("the death to be seen", |s| (only(s).1.state == state).then_some(())).await;
        let ran = world.run(&["status"]).await.exits(6);
        assert!(ran.out.contains(&state.to_string()), "{}", ran.out);
    }
    let before = world.well("web").await;
    for replica in &only(&before).1.replicas {
        kill(pid(replica.pid.unwrap()), Signal::STOP);
    }
    let begun = world.until("the hang to be seen", |s| (only(s).1.ready == 0).then(|| only(s).1.state)).await;
    assert_eq!(begun, ServiceState::Down, "what hangs is not starting");
    world.run(&["status"]).await.exits(6);
    world.well("web").await;
    world.run(&["status"]).await.exits(0);
}

#[tokio::test]
async fn the_same_file_again_changes_nothing_and_a_plan_touches_nothing() {
    let mut world = World::web(&[]).await;
    let before = world.well("web").await;
    for command in [&["deploy"][..], &["up", "-d"]] {
        let ran = world.run(command).await.exits(0);
        let said = format!("{}{}", ran.out, ran.err);
        assert!(said.contains("nothing has changed"), "{said}");
    }
    world.set("VERSION", "v2");
    let plan = world.run(&["deploy", "--plan"]).await.exits(0);
    for text in ["r1 is live", "r2 would be made", "start", "switch", "2 replicas"] {
        assert!(plan.out.contains(text), "the plan does not say `{text}`:\n{}", plan.out);
    }
    let plan = world.run(&["deploy", "--plan", "--json"]).await.exits(0).json();
    assert_eq!((&plan["release"], &plan["live"]), (&2.into(), &1.into()));
    let after = world.well("web").await;
    assert_eq!(after.projects, before.projects, "a plan touches nothing");
}

#[tokio::test]
async fn every_command_that_looks_speaks_json_and_text() {
    let mut world = World::web(&[]).await;
    world.set("VERSION", "v2");
    let deploy = world.run(&["deploy", "--json"]).await.exits(0);
    assert_eq!(deploy.json_lines().last().unwrap()["outcome"], "deployed");
    world.well("web").await;

    assert_eq!(world.run(&["status", "--json"]).await.exits(0).json()["projects"][0]["live"], 2);
    assert_eq!(world.run(&["ps", "--json"]).await.exits(0).json().as_array().unwrap().len(), 4);
    let releases = world.run(&["releases", "--json"]).await.exits(0).json();
    assert_eq!(releases.as_array().unwrap().len(), 2, "{releases}");
    let events = world.run(&["events", "--json", "--last", "1000"]).await.exits(0).json_lines();
    assert!(events.iter().any(|event| event["kind"] == "deploy.switched"), "{events:?}");
    assert_eq!(world.run(&["config", "--json"]).await.exits(0).json()["name"], "web");
    assert_eq!(world.run(&["wait", "--json"]).await.exits(0).json_lines().last().unwrap()["exit_code"], 0);
    let rollback = world.run(&["rollback", "--json"]).await.exits(0);
    assert_eq!(rollback.json_lines().last().unwrap()["outcome"], "deployed");

    for (command, text) in [
        ("status", "healthy"),
        ("ps", "web-r1-1"),
        ("releases", "r2"),
        ("events", "replica.ready"),
        ("config", "__demo-app"),
    ] {
        let ran = world.run(&[command]).await.exits(0);
        assert!(ran.out.contains(text), "`{command}` does not say `{text}`:\n{}", ran.out);
    }
    assert!(world.run(&["down", "--json"]).await.exits(0).json()["text"].is_string());
}

#[tokio::test]
async fn logs_show_what_replicas_write_as_they_write_it() {
    let world = World::web(&[]).await;
    let before = world.well("web").await;
    let ran = world.run(&["logs", "web"]).await.exits(0);
    let lines = ran.out.lines().filter(|line| line.contains("web-r1-")).count();
    assert!(lines >= 2, "both replicas have a line: {}", ran.out);
    let lines = world.run(&["logs", "--json"]).await.exits(0).json_lines();
    assert!(lines.iter().all(|line| line["service"] == "web"), "{lines:?}");
    assert_eq!(only(&before).1.replicas.iter().filter(|r| r.log.is_some()).count(), 2);
    world.run(&["logs", "wbe"]).await.exits(1).complains(&["wbe"]);
}

#[tokio::test]
async fn names_that_do_not_exist_are_answered_with_the_nearest_ones() {
    let world = World::web(&[]).await;
    world.run(&["stop", "wep"]).await.exits(1).complains(&["has no service `wep`", "did you mean `web`?"]);
    world.run(&["-p", "wen", "ps"]).await.exits(1).complains(&["no project `wen`", "did you mean `web`?"]);
    world.run(&["rollback", "9"]).await.exits(1).complains(&["there is no release r9"]);
    world.run(&["rollback"]).await.exits(1).complains(&["no earlier release"]);
    world.run(&["scale", "web=1000"]).await.exits(1).complains(&["1000"]);
    world.run(&["scale", "web"]).await.exits(2);
}

//! Two deploys at once.

use crate::world::World;

#[tokio::test]
async fn the_second_of_two_deploys_is_denied_and_told_which_one_runs_and_since_when() {
    let mut world = World::web(&[]).await;
    world.set("VERSION", "v2");
    world.set("START_MS", "2000");
    let first = world.start(&["deploy"]);
    let running = world
        .until("the first deploy", |snapshot| snapshot.projects[0].deploying().map(|deploying| deploying.id))
        .await;
    world.set("VERSION", "v3");
    let second = world.run(&["deploy"]).await.exits(4);
    second.complains(&[&format!("deployment {running}"), "is running", "since 20", "bulsa wait"]);
    let json = world.run(&["deploy", "--json"]).await.exits(4);
    assert_eq!(error_of(&json.err)["kind"], "denied");
    let wait = world.start(&["wait"]);
    first.end().await.exits(0);
    wait.end().await.exits(0);
    let live = world.well("web").await;
    assert_eq!(
        (live.projects[0].live, live.projects[0].releases.len()),
        (Some(2), 2),
        "there is no third release"
    );
    world.run(&["deploy"]).await.exits(0);
}

/// The error that a command with `--json` wrote to standard error.
fn error_of(err: &str) -> serde_json::Value {
    let line = err.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no error: {err}"));
    serde_json::from_str::<serde_json::Value>(line).unwrap()["error"].take()
}

//! What holds users' data outlives everything that Bulsa does.

use bulsa_core::wire::api::ProjectView;

use crate::{
    shop::on_both_engines,
    support::{engine::Engine, images, project::Project},
};

const COMPOSE: &str = "services:\n  redis:\n    image: ${REDIS}\n    volumes: [/data]\n  web:\n    image: ${APP}\n    ports: [\"127.0.0.1:${PORT}:3000\"]\n    volumes: [/scratch]\n    x-bulsa: {bake: {time: 1s}}\n";

/// It is stopped by a human, started and restarted by Bulsa, and keeps its container and so its data.
async fn a_database_keeps_its_container_over_stops_and_restarts(engine: &Engine) {
    let Some(redis) = images::redis() else { return };
    let mut project = Project::new(engine, COMPOSE);
    project.set("REDIS", redis.load(engine));
    project.set("APP", images::app().load(engine));
    project.up().await;
    let before = project.containers("redis");
    let volumes = volumes_of(engine, &before[0]);
    engine.docker(&["stop", &before[0]]);
    let emptied = |view: &ProjectView| view.service("redis").is_some_and(|redis| redis.ready == 0);
    project.until("a stopped redis", |view, _| emptied(view).then_some(())).await;
    project.run(&["start", "redis"]).exits(0);
    project.well().await;
    project.run(&["restart", "redis"]).exits(0);
    project.well().await;
    assert_eq!(project.containers("redis"), before, "another container was made");
    assert_eq!(volumes_of(engine, &before[0]), volumes);
    project.run(&["down"]).exits(0);
    for volume in volumes {
        engine.docker(&["volume", "rm", &volume]);
    }
}
on_both_engines!(a_database_keeps_its_container_over_stops_and_restarts);

/// The anonymous volumes of a service's container.
fn volumes_of(engine: &Engine, container: &str) -> Vec<String> {
    let all =
        engine.inspect(container, "{{range .Mounts}}{{if eq .Type \"volume\"}}{{.Name}} {{end}}{{end}}");
    all.split_whitespace().map(str::to_owned).collect()
}

async fn an_anonymous_volume_of_a_database_survives_down(engine: &Engine) {
    let Some(redis) = images::redis() else { return };
    let mut project = Project::new(engine, COMPOSE);
    project.set("REDIS", redis.load(engine));
    project.set("APP", images::app().load(engine));
    project.up().await;
    let data = volumes_of(engine, &project.containers("redis")[0]);
    let scratch = volumes_of(engine, &project.containers("web")[0]);
    assert!(!data.is_empty() && !scratch.is_empty(), "{data:?} {scratch:?}");
    project.run(&["down"]).exits(0);
    let left = engine.list(&["volume", "ls", "--quiet"]);
    assert!(data.iter().all(|volume| left.contains(volume)), "the data is gone: {data:?}");
    assert!(!scratch.iter().any(|volume| left.contains(volume)), "an app's scratch is left: {scratch:?}");
    for volume in data {
        engine.docker(&["volume", "rm", &volume]);
    }
}
on_both_engines!(an_anonymous_volume_of_a_database_survives_down);

//! What holds users' data outlives everything that Bulsa does.

use crate::{
    shop::on_both_engines,
    support::{engine::Engine, images, project::Project},
};

const COMPOSE: &str = "services:\n  redis:\n    image: ${REDIS}\n    volumes: [/data]\n  web:\n    image: ${APP}\n    ports: [\"127.0.0.1:${PORT}:3000\"]\n    volumes: [/scratch]\n    x-bulsa: {bake: {time: 1s}}\n";

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

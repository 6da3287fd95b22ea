//! The projects of `examples/`, as users get them, but for where their images come from.

use std::path::Path;

use crate::{
    shop::on_one_engine,
    support::{
        compose::Compose,
        engine::{Engine, Generation},
        images, is_long,
        load::{answers, answers_of, at, gets, perfect},
        network::get,
        project::Project,
        until,
    },
};

/// Requests per second: some of the examples open a connection to their database for each.
const RATE: u32 = 10;

/// One of them.
struct Example {
    folder: &'static str,
    /// The service with the published port.
    service: &'static str,
    /// What is asked for under load: it answers 200 as long as all that it needs is there.
    path: &'static str,
    /// A service that no deploy may touch.
    shared: Option<&'static str>,
}

const EXAMPLES: [Example; 5] = [
    Example { folder: "node-redis", service: "web", path: "/", shared: Some("redis") },
    Example { folder: "python-postgres", service: "web", path: "/", shared: Some("db") },
    Example { folder: "jvm-slow-start", service: "web", path: "/", shared: None },
    Example { folder: "websocket-chat", service: "chat", path: "/health", shared: Some("redis") },
    Example { folder: "worker-queue", service: "web", path: "/", shared: Some("redis") },
];

/// A copy of the example, with images of ours. `None` where the machine doesn't have the programs, which is said.
fn copied<'a>(engine: &'a Engine, example: &Example) -> Option<Project<'a>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(example.folder);
    let mut project = Project::copy_of(engine, &folder);
    let names = match example.folder {
        "python-postgres" => {
            vec![("PYTHON_IMAGE", images::python()?), ("POSTGRES_IMAGE", images::postgres()?)]
        }
        "jvm-slow-start" => vec![("JDK_IMAGE", images::java()?), ("JRE_IMAGE", images::java()?)],
        _ => vec![("NODE_IMAGE", images::node()?), ("REDIS_IMAGE", images::redis()?)],
    };
    for (name, image) in names {
        project.set(name, image.load(engine));
    }
    // The time is not what is to be shown.
    let workers =
        if example.folder == "worker-queue" { "\n  worker: {x-bulsa: {bake: {time: 2s}}}" } else { "" };
    let bake = format!("services:\n  {}: {{x-bulsa: {{bake: {{time: 2s}}}}}}{workers}\n", example.service);
    project.write("compose.override.yaml", &bake);
    project.set("WARM_UP_SECONDS", "3");
    Some(project)
}

#[test]
fn each_example_runs_with_plain_docker_compose() {
    let Some(engine) = Engine::of(Generation::Installed) else { return };
    let Some(compose) = Compose::second() else { return };
    // Half a minute each; that they run at all is seen by the test below, too.
    let count = if is_long() { EXAMPLES.len() } else { 2 };
    for example in &EXAMPLES[..count] {
        let Some(project) = copied(&engine, example) else { continue };
        let one = format!("{}=1", example.service);
        compose.run(&project, &["up", "--detach", "--build", "--quiet-pull", "--scale", &one]).exits(0);
        until(example.folder, || {
            let answer = get(engine.namespace(), at(project.port()), example.path).ok()?;
            answer
                .starts_with("HTTP/1.1 200")
                .then_some(())
                .or_else(|| answer.starts_with("HTTP/1.0 200").then_some(()))
        });
        until("its health check passes", || {
            let id = project.containers(example.service).pop()?;
            (engine.inspect(&id, "{{.State.Health.Status}}") == "healthy").then_some(())
        });
        compose.run(&project, &["down", "--volumes", "--timeout", "15"]).exits(0);
    }
}

/// Up, a new version under load, and back.
async fn each_example_is_deployed_without_a_lost_request(engine: &Engine) {
    let count = if is_long() { EXAMPLES.len() } else { 2 };
    for example in &EXAMPLES[..count] {
        let Some(mut project) = copied(engine, example) else { continue };
        eprintln!("{}", example.folder);
        project.up().await;
        let untouched = example.shared.map(|service| project.untouched(service));
        let load = gets(engine, project.port(), example.path, RATE);
        answers(&load, 50);
        project.set("APP_VERSION", "2");
        project.run(&["deploy"]).exits(0);
        answers_of(&load, "2");
        project.run(&["rollback"]).exits(0);
        answers_of(&load, "1");
        perfect(&load.stop().await);
        assert_eq!(example.shared.map(|service| project.untouched(service)), untouched, "{}", example.folder);
    }
}
on_one_engine!(Installed, each_example_is_deployed_without_a_lost_request);

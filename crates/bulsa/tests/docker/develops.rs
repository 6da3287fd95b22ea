//! `bulsa up --watch`: what `develop.watch` says follows when files change.

use std::fs;

use crate::{
    shop::on_both_engines,
    support::{
        engine::Engine,
        images,
        load::{answers, answers_of, on_app, perfect},
        project::Project,
    },
};

const COMPOSE: &str = r#"
services:
  web:
    build: .
    ports: ["127.0.0.1:${PORT}:3000"]
    healthcheck:
      test: ["CMD", "curl", "-f", "http://localhost:3000/health"]
      interval: 1s
    stop_grace_period: 3s
    develop:
      watch: [{ action: rebuild, path: ., ignore: [side/, "*.md"] }]
    x-bulsa:
      bake: { time: 1s }
      drain: { requests: 5s, stagger: 1s }
  side:
    command: [sh, -c, "while :; do sleep 0.1; done"]
    develop:
      watch: [{ action: restart, path: ./side }]
"#;

/// Changes the source.
fn source(project: &Project<'_>, app: &str, version: &str) {
    project.write("source.txt", &format!("{version} of {}", project.name()));
    let label = format!("LABEL bulsa-test={}", project.name());
    let text = format!("FROM {app}\n{label}\nCOPY source.txt /source.txt\nENV DEMO_VERSION={version}\n");
    project.write("Dockerfile", &text);
}

async fn changed_files_rebuild_one_service_and_restart_another(engine: &Engine) {
    let app = images::app().load(engine);
    let mut project = Project::new(engine, COMPOSE);
    fs::create_dir(project.directory().join("side")).unwrap();
    source(&project, &app, "v1");
    project.serve().await;
    let watching = project.start(&["up", "--watch"]);
    let before = project.well().await;
    let load = on_app(engine, project.port(), 0).await;
    answers_of(&load, "v1");
    let mark = load.mark();
    project.write("notes.md", "it is ignored");
    source(&project, &app, "v2");
    answers_of(&load, "v2");

    let side = |project: &bulsa_core::wire::api::ProjectView| {
        let side = project.service("side")?;
        let pid = side.replicas.iter().find(|replica| replica.state == "ready")?.pid?;
        (side.ready == side.desired).then_some(pid)
    };
    let deployed = project.well().await;
    let first = side(&deployed).or(side(&before)).unwrap();
    project.write("side/settings", "new");
    project.until("another side", |view, _| side(view).filter(|pid| *pid != first)).await;
    answers(&load, 50);
    perfect(&load.window(mark, load.mark()));
    let ran = watching.interrupt();
    ran.exits(0).says(&["built and deployed `web` after", "replaced `side` after side/settings changed"]);
}
on_both_engines!(changed_files_rebuild_one_service_and_restart_another);

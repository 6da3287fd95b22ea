//! `bulsa drill` on containers: what only they have, and what is done to them otherwise than to processes.

use bulsa_core::wire::api::{DrillKind, DrillReport, Why};
use serde_json::Value;

use crate::{
    shop::{on_both_engines, on_one_engine},
    support::{engine::Engine, images, network::free_port, project::Project},
};

/// Two services of the demo's app: one is asked over HTTP, one by a program in its container.
const COMPOSE: &str = r#"services:
  web:
    image: ${APP}
    ports: ["127.0.0.1:${PORT}:3000"]
    deploy: { replicas: 2 }
    stop_grace_period: 2s
    x-bulsa:
      probe: { path: /health, interval: 500ms, timeout: 1s, fall: 2 }
      bake: { time: 0s }
  inside:
    image: ${APP}
    ports: ["127.0.0.1:${INSIDE_PORT}:3000"]
    deploy: { replicas: 2 }
    stop_grace_period: 2s
    healthcheck: { test: ["CMD", "bulsa", "--version"], interval: 1s, timeout: 5s }
    x-bulsa: { bake: { time: 0s } }
"#;

async fn up(engine: &Engine) -> Project<'_> {
    let mut project = Project::new(engine, COMPOSE);
    project.set("APP", images::app().load(engine));
    project.set("INSIDE_PORT", free_port().to_string());
    project.up().await;
    project
}

fn drills(project: &Project<'_>, words: &[&str]) -> (Value, Vec<DrillReport>) {
    let line = [&["drill", "--yes", "--json"], words].concat();
    let all: Value = serde_json::from_str(&project.run(&line).exits(0).out).unwrap();
    let done = all["drills"].as_array().unwrap().iter();
    let reports = done.map(|one| serde_json::from_value(one.clone()).unwrap()).collect();
    (all, reports)
}

async fn containers_are_killed_stopped_cut_off_and_starved_and_come_back(engine: &Engine) {
    let project = up(engine).await;
    let before = project.containers("web");
    let (all, done) = drills(&project, &["web", "--only", "kill,hang,cut,crash-loop,memory"]);
    let kinds: Vec<DrillKind> = done.iter().map(|one| one.kind).collect();
    assert_eq!(
        kinds,
        [DrillKind::Kill, DrillKind::Hang, DrillKind::Cut, DrillKind::CrashLoop, DrillKind::Memory],
        "{all:#}"
    );
    for (one, json) in done.iter().zip(all["drills"].as_array().unwrap()) {
        assert!(one.passed && one.recovered_ms.is_some() && one.unrouted_ms.is_some(), "{one:?}");
        assert_eq!(json["requests"]["failed"], 0, "{}: {json:#}", one.kind);
        eprintln!("{}: {}", one.kind, one.text);
    }
    project.well().await;
    let after = project.containers("web");
    assert_eq!(after.len(), 2, "{after:?}");
    assert!(after.iter().any(|id| before.contains(id)), "the other one went on");
    for id in &after {
        assert_eq!(engine.inspect(id, "{{.HostConfig.Memory}}"), "0", "nobody is left with a lower limit");
        assert_ne!(engine.inspect(id, "{{len .NetworkSettings.Networks}}"), "0", "or without a network");
    }
    let why: Why =
        serde_json::from_str(&project.run(&["why", "web", "--json", "-n", "10"]).exits(0).out).unwrap();
    assert!(why.incidents.iter().all(|incident| incident.evidence.asked_by.is_some()), "{why:#?}");
    assert!(why.incidents.iter().any(|incident| incident.cause == "out of memory"), "{why:#?}");
    project.run(&["down"]).exits(0);
}
on_one_engine!(Next, containers_are_killed_stopped_cut_off_and_starved_and_come_back);

async fn a_broken_probe_in_a_container_restarts_nobody(engine: &Engine) {
    let project = up(engine).await;
    let before = project.containers("inside");
    let (all, done) = drills(&project, &["inside", "--only", "probe,cut"]);
    assert!(done.len() == 1 && done[0].kind == DrillKind::Probe && done[0].passed, "{all:#}");
    assert!(all["not"][0]["not"].as_str().unwrap().contains("runs inside it"), "{all:#}");
    assert_eq!(project.containers("inside"), before);
    project.run(&["down"]).exits(0);
}
on_both_engines!(a_broken_probe_in_a_container_restarts_nobody);

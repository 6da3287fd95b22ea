//! What the command line brings along: images that it builds, images that it names, credentials; and what it says of
//! files that changed since.

use std::fs;

use crate::{
    registry::Registry,
    support::{
        engine::{Engine, Generation},
        images,
        load::{answers, answers_of, on_app, perfect},
        parts,
        project::Project,
        ran::Ran,
        until,
    },
};

const COMPOSE: &str = r#"
x-bulsa: { keep: { releases: 2, warm: 1s } }
services:
  web:
    build: .
    deploy: { replicas: 2 }
    ports: ["127.0.0.1:${PORT}:3000"]
    env_file: [web.env]
    secrets: [key]
    healthcheck:
      test: ["CMD", "curl", "-f", "http://localhost:3000/health"]
      interval: 1s
    stop_grace_period: 3s
    x-bulsa:
      bake: { time: 1s }
      drain: { requests: 5s, stagger: 1s }
secrets:
  key: { file: ./key.txt }
"#;

/// A project whose image is built from its own directory, at version `v1`.
async fn built(engine: &Engine) -> (Project<'_>, String) {
    let app = images::app().load(engine);
    let mut project = Project::new(engine, COMPOSE);
    project.write("web.env", "GREETING=hello\n");
    project.write("key.txt", "hush");
    source(&project, &app, "v1");
    project.up().await;
    (project, app)
}

/// Changes the source.
fn source(project: &Project<'_>, app: &str, version: &str) {
    // Two tests with the same images would remove each other's, and BuildKit makes a step of two builds at a time once
    // and tells it to one of them.
    project.write("source.txt", &format!("{version} of {}", project.name()));
    let label = format!("LABEL bulsa-test={}", project.name());
    let text = format!("FROM {app}\n{label}\nCOPY source.txt /source.txt\nENV DEMO_VERSION={version}\n");
    project.write("Dockerfile", &text);
}

#[tokio::test]
async fn a_changed_source_is_built_and_switched_to_without_a_lost_request() {
    let Some(engine) = Engine::of(Generation::Installed) else { return };
    let (project, app) = built(&engine).await;
    let load = on_app(&engine, project.port(), 0).await;
    answers_of(&load, "v1");
    for version in ["v2", "v3"] {
        source(&project, &app, version);
        project.run(&["deploy"]).exits(0).says(&["building", "COPY source.txt"]);
        answers_of(&load, version);
    }

    // What can't be built isn't begun.
    let live = project.well().await.live;
    project.write("Dockerfile", &format!("FROM {app}\nRUN [\"/nothing/there\"]\n"));
    project.run(&["deploy"]).exits(3).says(&["`web` can't be built", "/nothing/there", "nothing was begun"]);
    let quiet = project.run(&["--json", "deploy"]).exits(3);
    assert!(quiet.out.is_empty() && quiet.err.contains("/nothing/there"), "{quiet:?}");

    // What was built before is no release.
    source(&project, &app, "v3");
    project.run(&["deploy"]).exits(0);
    assert_eq!(project.well().await.live, live);

    // An image from elsewhere, built by nobody here.
    let direct = project.image("direct", &app, &["ENV DEMO_VERSION=direct"]);
    project.run(&["deploy", &format!("web={direct}")]).exits(0);
    answers_of(&load, "direct");
    answers(&load, 50);
    perfect(&load.stop().await);

    project.run(&["deploy", "--plan"]).exits(0).says(&["built here"]);
    project.write("compose.override.yaml", "services: { more: { build: ., command: [x] } }\n");
    project.run(&["deploy", "--plan"]).exits(0).says(&["`more`: its image", "a deploy builds it first"]);
    project.run(&["deploy", "--no-build"]).exits(3).says(&["`more`"]);
}

#[tokio::test]
async fn a_built_image_goes_once_with_its_release_and_down_removes_none() {
    let Some(engine) = Engine::of(Generation::Installed) else { return };
    let (project, app) = built(&engine).await;
    let name = format!("{}-web", project.name());
    let mut ids = vec![engine.inspect(&name, "{{.Id}}")];
    let deploy = |version: &str| {
        source(&project, &app, version);
        project.run(&["deploy"]).exits(0);
        engine.inspect(&name, "{{.Id}}")
    };
    let is_there = |id: &String| engine.try_docker(&["image", "inspect", id]).is_ok();
    ids.push(deploy("v2"));
    let saved = project.directory().join("first.tar");
    let saved = saved.to_string_lossy();
    engine.docker(&["save", "--output", &saved, &ids[0]]);
    ids.push(deploy("v3"));
    until("the first image is gone", || (!is_there(&ids[0])).then_some(()));
    assert!(is_there(&ids[1]), "a rollback needs it");

    // What a person brings back is theirs.
    engine.docker(&["load", "--input", &saved]);
    ids.push(deploy("v4"));
    until("the second image is gone", || (!is_there(&ids[1])).then_some(()));
    assert!(is_there(&ids[0]) && is_there(&ids[2]));
    project.run(&["down"]).exits(0);
    assert!(is_there(&ids[2]) && is_there(&ids[3]));
    for id in [&ids[0], &ids[2]] {
        engine.docker(&["rmi", id]);
    }
}

/// Removes an image when the project that ran it is gone.
struct Pulled<'a>(&'a Engine, String);

impl Drop for Pulled<'_> {
    fn drop(&mut self) {
        self.0.try_docker(&["rmi", "--force", &self.1]).ok();
    }
}

#[tokio::test]
async fn a_private_registry_gets_the_login_of_whoever_deploys() {
    let Some(engine) = Engine::of(Generation::Installed) else { return };
    if !parts::have(&["usr/bin/docker-registry", "usr/bin/htpasswd"]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let registry = Registry::start(home.path(), Some(("ann", "secret")));
    let host = format!("127.0.0.1:{}", registry.port);
    let pulled = Pulled(&engine, format!("{host}/bulsa-test-private:1"));
    let (mut project, app) = built(&engine).await;
    engine.tag(&pulled.1, &app, &["ENV DEMO_VERSION=private"]);
    // The base64 of `ann:secret`.
    let config = format!(r#"{{"auths":{{"{host}":{{"auth":"YW5uOnNlY3JldA=="}}}}}}"#);
    fs::write(home.path().join("config.json"), config).unwrap();
    let mut push = engine.command("docker");
    Ran::of(push.args(["push", &pulled.1]).env("DOCKER_CONFIG", home.path())).exits(0);
    engine.docker(&["rmi", &pulled.1]);

    let word = format!("web={}", pulled.1);
    let nowhere = tempfile::tempdir().unwrap();
    project.set("DOCKER_CONFIG", nowhere.path().display().to_string());
    project.run(&["deploy", &word]).exits(3).says(&["docker login", &host]);
    project.set("DOCKER_CONFIG", home.path().display().to_string());
    let ran = project.run(&["deploy", &word]).exits(0);
    assert!(!ran.said().contains("secret"), "{ran:?}");
    let load = on_app(&engine, project.port(), 0).await;
    answers_of(&load, "private");
    perfect(&load.stop().await);
}

#[tokio::test]
async fn status_shows_which_files_changed_since_the_release() {
    let Some(engine) = Engine::of(Generation::Installed) else { return };
    let (project, _) = built(&engine).await;
    let status = || project.run(&["status"]).exits(0).out;
    assert!(!status().contains("note:"), "{}", status());
    project.write("web.env", "GREETING=bye\n");
    project.write(".env", "MORE=1\n");
    project.write("key.txt", "hush hush");
    let said = status();
    for note in ["`web.env` changed since release 1", "`.env` is new since release 1", "`key.txt` changed"] {
        assert!(said.contains(note), "{note}: {said}");
    }
    project.run(&["deploy"]).exits(0);
    assert_eq!(project.well().await.live, Some(2));
    assert!(!status().contains("note:"), "{}", status());

    // A comment is a change of the file and no release; once that is said, it is no drift any more.
    project.write("compose.yaml", &format!("# the same\n{COMPOSE}"));
    assert!(status().contains("`compose.yaml` changed since release 2"), "{}", status());
    project.run(&["deploy"]).exits(0);
    assert_eq!(project.well().await.live, Some(2));
    assert!(!status().contains("note:"), "{}", status());
    let json: serde_json::Value = serde_json::from_str(&project.run(&["--json", "status"]).out).unwrap();
    assert_eq!(json["projects"][0]["drift"], serde_json::json!([]));
}

//! What is done for containers before anything is wrong with them, beside others who do the same, and after Docker itself
//! has given up.

use std::time::Duration;

use bulsa_core::wire::api::Event;
use tokio::time::{Instant, sleep};

use crate::{
    shop::{on_both_engines, on_one_engine},
    support::{
        engine::Engine,
        images, is_long,
        load::{good_for, on_app},
        network::free_port,
        project::Project,
        unique, until,
    },
};

/// How long it may take until somebody is old: five minutes, where it isn't by age.
const LIMIT: Duration = Duration::from_secs(400);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Waits until a place was filled anew for this reason.
async fn renewed(project: &Project<'_>, place: &str, why: &str) {
    let end = Instant::now() + LIMIT;
    let is_it = |event: &Event| {
        event.kind == "replica.renewed"
            && event.replica.as_deref().is_some_and(|id| id.starts_with(place))
            && event.text.contains(why)
    };
    while !project.events().await.iter().any(is_it) {
        assert!(Instant::now() < end, "{place} {why}: never\n{:#?}", project.events().await);
        sleep(LOOK_EVERY).await;
    }
}

const WORN: &str = r#"
services:
  web:
    image: ${APP}
    ports: ["127.0.0.1:${PORT}:3000"]
    deploy: { replicas: 2 }
    stop_grace_period: 3s
    healthcheck:
      test: ["CMD", "curl", "-f", "http://localhost:3000/health"]
      interval: 1s
    x-bulsa:
      bake: { time: 0s }
      drain: { requests: 5s, stagger: 1s }
      recycle: { age: "${AGE}", requests: 150 }
  greedy:
    image: ${BUSYBOX}
    command: [sh, -c, "x=$$(head -c 30000000 /dev/zero | tr '\\0' x); while :; do sleep 0.2; done"]
    mem_limit: 128m
    stop_grace_period: 1s
    x-bulsa: { role: worker, bake: { time: 0s }, recycle: { memory: 20%, age: "${AGE}" } }
"#;

/// By age, which may be a minute at least; the long form waits the five minutes before which no number of requests and no
/// memory makes anybody old.
async fn what_is_worn_is_replaced_before_it_breaks_and_no_request_is_lost(engine: &Engine) {
    let mut project = Project::new(engine, WORN);
    project.set("APP", images::app().load(engine));
    project.set("BUSYBOX", images::busybox().load(engine));
    let (age, web, greedy) = if is_long() {
        ("24h", "requests", "MiB of memory")
    } else {
        ("60s", "it has run for", "it has run for")
    };
    project.set("AGE", age);
    project.up().await;
    let load = on_app(engine, project.port(), 0).await;
    for (place, why) in [("web-r1-1.", web), ("web-r1-2.", web), ("greedy-r1-1.", greedy)] {
        renewed(&project, place, why).await;
    }
    good_for(&load, Duration::from_secs(1));
    let died = project.events().await.iter().filter(|event| event.kind == "replica.died").count();
    assert_eq!(died, 0, "nothing was wrong with anybody");
}
on_one_engine!(Next, what_is_worn_is_replaced_before_it_breaks_and_no_request_is_lost);

const QUIET: &str = r#"
services:
  quiet:
    image: ${BUSYBOX}
    command: [sh, -c, "while :; do sleep 0.2; done"]
    stop_grace_period: 1s
    environment: { VERSION: "${VERSION:-v1}" }
    x-bulsa: { role: worker, bake: { time: 0s } }
"#;

async fn another_healer_on_this_host_is_named_at_each_deploy(engine: &Engine) {
    let busybox = images::busybox().load(engine);
    let mut project = Project::new(engine, QUIET);
    project.set("BUSYBOX", busybox.clone());
    project.serve().await;
    let ran = project.run(&["up", "-d"]).exits(0);
    assert!(!ran.err.contains("autoheal") && !ran.out.contains("autoheal"), "{ran:?}");

    let image = format!("{}/autoheal:1", project.name());
    engine.docker(&["tag", &busybox, &image]);
    let name = unique("bulsa-test-healer");
    // It is removed with the project.
    let label = format!("com.docker.compose.project={}", project.name());
    let words = ["run", "--detach", "--init", "--name", &name, "--label", &label, &image, "sleep", "600"];
    engine.docker(&words);
    project.set("VERSION", "v2");
    let ran = project.run(&["deploy"]).exits(0);
    engine.docker(&["rm", "--force", &name]);
    engine.docker(&["rmi", &image]);
    ran.says(&[&name, "restarts what Docker calls unhealthy", "stop it"]);
}
on_both_engines!(another_healer_on_this_host_is_named_at_each_deploy);

const STORE: &str = r#"
services:
  store:
    image: ${BUSYBOX}
    command: [sh, -c, "while :; do sleep 0.2; done"]
    restart: always
    ports: ["127.0.0.1:${STORE_PORT}:6379"]
    x-bulsa: { role: shared }
"#;

const TAKER: &str = "
import socket, sys, time
while True:
    taken = socket.socket()
    try:
        taken.bind(('127.0.0.1', int(sys.argv[1])))
        taken.listen()
        break
    except OSError:
        taken.close()
time.sleep(60)
";

/// Docker tries once to start what died while somebody else has its port, and then never again, whatever `restart` says.
async fn what_docker_has_given_up_on_is_started_once_it_can_be(engine: &Engine) {
    let mut project = Project::new(engine, STORE);
    let port = free_port();
    project.set("BUSYBOX", images::busybox().load(engine));
    project.set("STORE_PORT", port.to_string());
    project.up().await;
    let container = project.containers("store").remove(0);
    let state = |template: &str| {
        engine.try_docker(&["inspect", "--format", template, &container]).unwrap_or_default()
    };
    let pid = state("{{.State.Pid}}");
    // Whoever wants the port has it in the moment in which the container lets it go.
    let mut taker = engine.command("python3").args(["-c", TAKER, &port.to_string()]).spawn().unwrap();
    let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until("Docker's start fails for want of the port", || {
        state("{{.State.Error}}").contains("address already in use").then_some(())
    });
    taker.kill().unwrap();
    taker.wait().unwrap();
    until("it runs again", || (state("{{.State.Running}}") == "true").then_some(()));
    project.well().await;
}
on_both_engines!(what_docker_has_given_up_on_is_started_once_it_can_be);

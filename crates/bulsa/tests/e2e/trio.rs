//! A Python, a Node and a Rust service in one file, through their whole life, under load.

use std::collections::BTreeMap;

use bulsa::load::LoadHandle;
use bulsa_core::wire::api::Event;

use crate::{
    traffic::{answers, answers_of, on_demo, perfect},
    watch::pids,
    world::{BULSA, World, ended, free_port, has, is_closed, pid},
};

const PORTS: [&str; 3] = ["PYTHON_PORT", "NODE_PORT", "RUST_PORT"];
/// Each waits until the one before it is healthy.
const SERVICES: [&str; 3] = ["python", "node", "rust"];

/// The world, where this machine has the programs.
fn world() -> Option<World> {
    if !has("python3") || !has("node") {
        return None;
    }
    if !std::path::Path::new("/usr/share/nodejs/express").is_dir() {
        eprintln!("skipped: Express (Debian's node-express) is not installed");
        return None;
    }
    let mut world = World::new("trio.yaml");
    world.set("BULSA_BIN", BULSA);
    for port in PORTS {
        world.set(port, free_port().to_string());
    }
    world.set("VERSION", "v1");
    Some(world)
}

#[tokio::test]
async fn three_languages_are_deployed_rolled_back_and_taken_down_without_a_failed_request() {
    let Some(mut world) = world() else { return };
    world.up().await;
    let first = world.well("trio").await;
    assert_starts_in_order(&world, 1, 0).await;
    assert_eq!(world.replica_processes().len(), 6);
    let loads = vec![
        on_demo(world.target_of("PYTHON_PORT"), 0).await,
        on_demo(world.target_of("NODE_PORT"), 0).await,
        on_demo(world.target_of("RUST_PORT"), 8).await,
    ];
    for load in &loads {
        answers(load, 30).await;
    }

    let before = world.last_event().await;
    world.set("VERSION", "v2");
    world.run(&["deploy"]).await.exits(0);
    assert_starts_in_order(&world, 2, before).await;
    all_answered_by(&loads, "v2").await;

    let mark: Vec<_> = loads.iter().map(LoadHandle::mark).collect();
    world.run(&["rollback"]).await.exits(0);
    for (load, mark) in loads.iter().zip(mark) {
        answers_of(load, mark, "v1").await;
    }
    let second = world.well("trio").await;
    let project = second.project("trio").unwrap();
    assert_eq!(project.live, Some(1));
    let same = pids(project);
    for (id, process) in pids(first.project("trio").unwrap()) {
        assert_eq!(same.get(&id), Some(&process), "the rollback went to the replicas that were still warm");
    }
    for load in loads {
        let report = load.stop().await;
        perfect(&report);
        assert_eq!(report.releases.keys().collect::<Vec<_>>(), ["v1", "v2"]);
    }

    world.run(&["down"]).await.exits(0);
    let after = world.snapshot().await;
    assert!(after.projects.is_empty(), "{:#?}", after.projects);
    assert_eq!(world.replica_processes(), [0; 0], "replicas outlived `down`");
    for port in PORTS {
        assert!(is_closed(world.target_of(port)), "the port of {port} is still open");
    }
    let keeper = pid(after.keeper_pid);
    crate::world::kill(keeper, rustix::process::Signal::TERM);
    ended(keeper).await;
    assert_eq!(world.processes(), [0; 0], "processes outlived the daemon");
}

async fn all_answered_by(loads: &[LoadHandle], release: &str) {
    for load in loads {
        answers_of(load, load.mark(), release).await;
    }
}

/// Each service's first replica of the release is started only after the one that it depends on was ready.
async fn assert_starts_in_order(world: &World, release: u32, after: u64) {
    let ready_of_last = |event: &Event| is(event, "replica.ready", "rust", release);
    world.event(after, "the last service is ready", ready_of_last).await;
    let mut first: BTreeMap<(&str, String), u64> = BTreeMap::new();
    let mut last = after;
    let mut seen = |event: &Event| {
        last = event.id;
        for kind in ["replica.started", "replica.ready"] {
            for service in SERVICES {
                if is(event, kind, service, release) {
                    first.entry((kind, service.to_owned())).or_insert(event.id);
                }
            }
        }
    };
    world.events_after(Some(after)).await.iter().for_each(&mut seen);
    for pair in SERVICES.windows(2) {
        let ready = first.get(&("replica.ready", pair[0].to_owned()));
        let started = first.get(&("replica.started", pair[1].to_owned()));
        assert!(ready.is_some() && ready < started, "{pair:?}: ready {ready:?}, started {started:?}");
    }
    assert!(last > after);
}

fn is(event: &Event, kind: &str, service: &str, release: u32) -> bool {
    let of_release = |replica: &String| replica.contains(&format!("-r{release}-"));
    event.kind == kind
        && event.service.as_deref() == Some(service)
        && event.replica.as_ref().is_some_and(of_release)
}

//! `bulsa why` of a container: what the Engine saw, and what it wrote last.

use bulsa_core::wire::api::Why;

use crate::{
    shop::on_both_engines,
    support::{engine::Engine, images, project::Project, until},
};

/// A worker that fills its memory as soon as a file is there, and says so before.
const COMPOSE: &str = "services:\n  eater:\n    image: ${BUSYBOX}\n    command: [sh, -c, \"until test -e /tmp/eat; do sleep 0.1; done; echo eating now; sleep 0.5; exec tail /dev/zero\"]\n    mem_limit: 32m\n    memswap_limit: 32m\n    x-bulsa: {role: worker}\n";

async fn a_container_that_runs_out_of_memory_is_told_as_such(engine: &Engine) {
    let mut project = Project::new(engine, COMPOSE);
    project.set("BUSYBOX", images::busybox().load(engine));
    project.up().await;
    let eater = project.containers("eater").remove(0);
    engine.docker(&["exec", &eater, "touch", "/tmp/eat"]);
    let why: Why = until("the incident is over", || {
        let answer = project.run(&["why", "eater", "--json"]).exits(0).out;
        let why: Why = serde_json::from_str(&answer).unwrap();
        why.incidents.first().is_some_and(|incident| incident.recovered_at_ms.is_some()).then_some(why)
    });
    let incident = &why.incidents[0];
    assert_eq!(incident.cause, "out of memory", "{why:#?}");
    assert!(why.verdict.contains("was killed for want of memory"), "{why:#?}");
    assert!(why.advice[0].contains("mem_limit"), "{why:#?}");
    assert_eq!(incident.evidence.last_lines, ["eating now"], "{why:#?}");
    project.run(&["down"]).exits(0);
}

on_both_engines!(a_container_that_runs_out_of_memory_is_told_as_such);

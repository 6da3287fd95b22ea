//! A job that must be done before a service starts.

use std::fs;

use rustix::process::Signal;

use crate::world::{World, ended, kill, pid};

#[tokio::test]
async fn a_job_runs_once_for_each_release_before_the_service_that_waits_for_it() {
    let mut world = World::new("jobs.yaml");
    let journal = world.path("journal");
    world.set("JOURNAL", journal.to_str().unwrap());
    world.set("VERSION", "v1");
    world.up().await;
    assert_eq!(fs::read_to_string(&journal).unwrap(), "r1 v1\n");
    let events = world.events_after(Some(0)).await;
    let id = |kind: &str, service: Option<&str>| {
        let found =
            events.iter().find(|e| e.kind == kind && (service.is_none() || e.service.as_deref() == service));
        found.unwrap_or_else(|| panic!("no {kind} of {service:?}: {events:#?}")).id
    };
    assert!(id("job.done", None) < id("replica.started", Some("web")));

    world.set("VERSION", "v2");
    world.run(&["deploy"]).await.exits(0);
    world.set("VERSION", "v3");
    world.set("MIGRATION", "1");
    let ran = world.run(&["deploy"]).await.exits(3);
    assert!(format!("{}{}", ran.out, ran.err).contains("the job `migrate` failed"), "{ran:?}");
    world.run(&["rollback"]).await.exits(0);
    world.run(&["status"]).await.exits(0);
    // Going back does not run the job of the earlier release again.
    assert_eq!(fs::read_to_string(&journal).unwrap(), "r1 v1\nr2 v2\nr3 v3\n");
}

#[tokio::test]
async fn a_job_that_ends_while_no_agent_lives_is_not_run_again() {
    let mut world = World::new("jobs.yaml");
    let (journal, gate) = (world.path("journal"), world.path("gate"));
    world.set("JOURNAL", journal.to_str().unwrap());
    world.set("VERSION", "v1");
    // It waits for a writer, which is us.
    let made = std::process::Command::new("mkfifo").arg(&gate).status().unwrap();
    assert!(made.success());
    world.set("WAIT_FOR", gate.to_str().unwrap());
    let up = world.start(&["up", "-d"]);
    world.event(0, "the job's start", |event| event.kind == "replica.started").await;
    let agent = pid(world.snapshot().await.agent.pid);
    let job = world.replica_processes()[0];
    // Stopped first: the next agent has to find the job's end in what the keeper has kept.
    kill(agent, Signal::STOP);
    fs::write(&gate, "go\n").unwrap();
    ended(job).await;
    kill(agent, Signal::KILL);
    up.end().await.exits(0);
    world.well("jobs").await;
    assert_eq!(fs::read_to_string(&journal).unwrap(), "r1 v1\n");
}

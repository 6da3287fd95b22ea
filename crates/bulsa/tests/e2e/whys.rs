//! `bulsa why`: what happened to a service, and what was seen of it.

use bulsa_core::wire::api::{ServiceState, Snapshot, Why};
use rustix::process::Signal;

use crate::{
    watch::only,
    world::{World, ended, kill, pid},
};

impl World {
    async fn why(&self, service: &str) -> Why {
        serde_json::from_value(self.run(&["why", service, "--json"]).await.exits(0).json()).unwrap()
    }
}

#[tokio::test]
async fn a_kill_and_a_hang_are_told_with_what_was_seen() {
    let world = World::web(&[("PROBE_TIMEOUT", "800ms")]).await;
    let before = world.well("web").await;
    let calm = world.why("web").await;
    assert!(calm.verdict.contains("no incident is remembered") && calm.incidents.is_empty(), "{calm:?}");

    let start = world.last_event().await;
    let (killed, hung) = (&only(&before).1.replicas[0], &only(&before).1.replicas[1]);
    kill(pid(killed.pid.unwrap()), Signal::KILL);
    ended(pid(killed.pid.unwrap())).await;
    let over = world.event(start, "the end of the incident", |event| event.kind == "incident.over").await;
    let why = world.why("web").await;
    assert!(why.verdict.contains("was killed by SIGKILL after"), "{why:?}");
    assert!(why.advice.iter().any(|text| text.contains("want of memory")), "{why:?}");
    let incident = &why.incidents[0];
    assert_eq!((incident.replica.as_str(), incident.cause.as_str()), (killed.id.as_str(), "killed"));
    assert!(incident.recovered_at_ms.is_some() && incident.again.is_none(), "{incident:?}");
    assert_eq!(incident.evidence.probes.last().unwrap().text, "passing");
    assert!(!incident.evidence.last_lines.is_empty(), "{incident:?}");

    kill(pid(hung.pid.unwrap()), Signal::STOP);
    world.event(over.id, "the end of the hang", |event| event.kind == "incident.over").await;
    let why = world.why("web").await;
    assert!(why.verdict.contains("hung after") && why.verdict.contains("and was killed"), "{why:?}");
    assert_eq!(why.incidents.iter().map(|i| i.cause.as_str()).collect::<Vec<_>>(), ["hung", "killed"]);
    let probes = &why.incidents[0].evidence.probes;
    assert!(probes.len() >= 2 && probes.last().unwrap().text != "passing", "{probes:?}");

    let text = world.run(&["why", "web"]).await.exits(0).out;
    for part in [
        "`web` is healthy, 2 of 2 replicas serve. ",
        "probe   ",
        "output  ",
        "what to look at:",
        "hung, killed by SIGKILL",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    world.run(&["why", "nope"]).await.exits(1).complains(&["no service `nope`", "bulsa ps"]);
}

#[tokio::test]
async fn a_crash_loop_is_told_by_its_last_line_and_its_end_outlives_the_agent() {
    let mut world = World::new("queue.yaml");
    let flag = world.path("flag");
    world.set("FLAG", flag.to_str().unwrap());
    world.up().await;
    let before = world.well("shop").await;
    let replica = &only(&before).1.replicas[0];
    std::fs::write(&flag, "").unwrap();
    kill(pid(replica.pid.unwrap()), Signal::KILL);
    let loops = |s: &Snapshot| (only(s).1.state == ServiceState::CrashLooping).then_some(());
    world.until("a crash loop", loops).await;
    let why = world.why("queue").await;
    assert!(why.verdict.starts_with("`queue` is crash-looping"), "{why:?}");
    assert!(why.verdict.contains("exited with 3") && why.verdict.contains("ECONNREFUSED"), "{why:?}");
    assert!(why.advice[0].contains("refused the connection"), "{why:?}");
    let first = &why.incidents[0];
    let again = first.again.as_ref().unwrap();
    assert_eq!((first.replica.as_str(), first.cause.as_str()), (replica.id.as_str(), "killed"));
    assert!(again.deaths >= 2 && again.cause == "exited", "{again:?}");
    assert_eq!(again.evidence.status.as_deref(), Some("code 3"));

    let agent = world.snapshot().await.agent.pid;
    kill(pid(agent), Signal::KILL);
    std::fs::remove_file(&flag).unwrap();
    let is_back = |s: &Snapshot| {
        (s.agent.pid != agent && !s.projects.is_empty() && only(s).1.state == ServiceState::Healthy)
            .then_some(())
    };
    world.until("the worker to be back", is_back).await;
    let start = 0;
    world.event(start, "the end of the incident", |event| event.kind == "incident.over").await;
    let why = world.why("queue").await;
    assert_eq!(why.incidents.len(), 1, "{why:?}");
    assert_eq!(why.incidents[0].id, first.id);
    assert!(why.incidents[0].recovered_at_ms.is_some(), "{why:?}");
    assert!(why.verdict.starts_with("`queue` is healthy, 1 of 1 replicas serve."), "{why:?}");

    // A place that a person gives up is no open wound.
    std::fs::write(&flag, "").unwrap();
    let snapshot = world.snapshot().await;
    kill(pid(only(&snapshot).1.replicas[0].pid.unwrap()), Signal::KILL);
    world.until("a crash loop again", loops).await;
    world.run(&["stop", "queue"]).await.exits(0);
    let why = world.why("queue").await;
    assert!(why.verdict.starts_with("`queue` is stopped"), "{why:?}");
    assert!(
        why.incidents[0].given_up_at_ms.is_some() && why.incidents[0].recovered_at_ms.is_none(),
        "{why:?}"
    );
}

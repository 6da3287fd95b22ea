//! `bulsa status --since`: how much of the time a service was served, over deaths of replicas and of the agent.

use bulsa_core::wire::api::SinceView;
use rustix::process::Signal;

use crate::{
    watch::only,
    world::{World, ended, kill, pid},
};

impl World {
    async fn since(&self) -> SinceView {
        let status = self.run(&["status", "--since", "1h", "--json"]).await.json();
        serde_json::from_value(status["projects"][0]["since"].clone()).unwrap()
    }
}

#[tokio::test]
async fn gaps_are_recorded_and_what_nobody_watched_is_told_apart() {
    let world = World::web(&[("REPLICAS", "1")]).await;
    let before = world.well("web").await;
    let calm = world.since().await;
    let web = &calm.services[0];
    assert_eq!((web.service.as_str(), web.served_share, web.time.gaps), ("web", Some(1.0), 0), "{calm:?}");
    let all = |view: &SinceView| {
        let time = view.services[0].time;
        time.served_ms + time.unserved_ms + time.unwanted_ms + time.unwatched_ms
    };
    assert_eq!(all(&calm), 3_600_000, "the rest of the hour is not watched");
    assert!(web.recorded_since_ms.unwrap() > calm.from_ms);

    let start = world.last_event().await;
    let replica = pid(only(&before).1.replicas[0].pid.unwrap());
    kill(replica, Signal::KILL);
    ended(replica).await;
    world.event(start, "the end of the incident", |event| event.kind == "incident.over").await;
    let healed = world.since().await;
    let web = &healed.services[0];
    assert_eq!((web.time.gaps, web.incidents), (1, 1), "{healed:?}");
    assert!(web.time.longest_gap_ms > 0 && web.time.unserved_ms == web.time.longest_gap_ms, "{healed:?}");
    assert!(web.served_share.unwrap() < 1.0);

    // While no agent lives nobody watches, also if the service goes on.
    let agent = world.snapshot().await.agent.pid;
    kill(pid(agent), Signal::KILL);
    let is_new =
        |s: &bulsa_core::wire::api::Snapshot| (s.agent.pid != agent && !s.projects.is_empty()).then_some(());
    world.until("another agent", is_new).await;
    world.well("web").await;
    let later = world.since().await;
    assert_eq!(later.services[0].time.gaps, 1, "no gap is made up: {later:?}");
    assert_eq!(all(&later), 3_600_000);
    let end_of_record = later.now_ms - healed.now_ms;
    let more = later.services[0].time.served_ms - web.time.served_ms;
    assert!(more < end_of_record, "time without an agent is not served: {more} of {end_of_record}");

    world.run(&["stop", "web"]).await.exits(0);
    world.until("it to stop", |s| (only(s).1.replicas.is_empty()).then_some(())).await;
    let stopped = world.since().await;
    assert_eq!(stopped.services[0].time.gaps, 1, "what a person stopped is no gap: {stopped:?}");
    let text = world.run(&["status", "--since", "1h"]).await.exits(0).out;
    assert!(text.contains("LONGEST GAP") && text.contains("there are records since"), "{text}");
    world.run(&["status", "--since", "1y"]).await.exits(2).complains(&["30d"]);
}

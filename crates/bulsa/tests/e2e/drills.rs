//! `bulsa drill` on processes: what it does, what it refuses, and that it leaves nothing hurt.

use std::fs;

use bulsa_core::wire::api::{Detail, DrillKind, DrillPlan, DrillReport, Event, Why};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    watch::pids,
    world::{LIMIT, LOOK_EVERY, World, ended, free_port, kill, pid},
};

async fn project(variables: &[(&'static str, &str)]) -> World {
    let mut world = World::new("drills.yaml");
    world.set("BEHIND_PORT", free_port().to_string());
    world.set("BLIND_PORT", free_port().to_string());
    for (name, value) in variables {
        world.set(name, *value);
    }
    world.up().await;
    world.well("drills").await;
    world
}

impl World {
    /// Whether any of the daemon's processes is stopped.
    fn has_stopped(&self) -> bool {
        let state = |pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
        };
        self.processes().into_iter().any(|pid| state(pid) == Some('T'))
    }

    /// Waits until some of them are stopped, or none is: the keeper signals them a moment after it is asked.
    async fn stopped(&self, is: bool) {
        let end = Instant::now() + LIMIT;
        while self.has_stopped() != is {
            assert!(Instant::now() < end, "never so: stopped {is}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// The report of the drill that ends after an event.
    async fn drill_over(&self, after: u64) -> DrillReport {
        let over = self.event(after, "the end of the drill", |event| event.kind == "drill.over").await;
        match over.detail {
            Some(Detail::Drill { report }) => *report,
            other => panic!("it says what came of it: {other:?}"),
        }
    }
}

fn report(done: &Value) -> DrillReport {
    serde_json::from_value(done.clone()).unwrap()
}

#[tokio::test]
async fn each_injury_is_healed_measured_and_written_down_as_wanted() {
    let world = project(&[]).await;
    let start = world.last_event().await;
    let line = ["drill", "web.2", "--yes", "--rate", "60", "--json"];
    let all = world.run(&line).await.exits(0).json();
    assert_eq!((all["passed"].as_bool(), all["project"].as_str()), (Some(true), Some("drills")), "{all:#}");
    let done: Vec<DrillReport> = all["drills"].as_array().unwrap().iter().map(report).collect();
    let kinds: Vec<DrillKind> = done.iter().map(|report| report.kind).collect();
    assert_eq!(kinds, [DrillKind::Kill, DrillKind::Hang, DrillKind::Block, DrillKind::CrashLoop]);
    for one in &done {
        assert!(one.passed && one.replica.starts_with("web-r1-2."), "{one:?}");
        let (detected, unrouted, recovered) =
            (one.detected_ms.unwrap(), one.unrouted_ms.unwrap(), one.recovered_ms.unwrap());
        assert!(detected <= unrouted, "{one:?}");
        if one.kind != DrillKind::CrashLoop {
            assert!(unrouted <= recovered && recovered < one.limit_ms && one.deaths <= 1, "{one:?}");
        }
    }
    assert_eq!(done[3].deaths, 5, "{done:?}");
    for (one, requests) in done.iter().zip(all["drills"].as_array().unwrap()) {
        assert_eq!(requests["requests"]["failed"], 0, "{}: {requests:#}", one.kind);
        assert!(requests["requests"]["requests"].as_u64().unwrap() >= 10, "{requests:#}");
    }
    let not: Vec<(&str, &str)> = all["not"].as_array().unwrap().iter().map(text_of_not).collect();
    let names: Vec<&str> = not.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(names, ["app-dead", "cut", "memory", "probe"], "{not:?}");
    assert!(not.iter().all(|(_, why)| !why.is_empty()), "{not:?}");

    let events = world.events_after(Some(start)).await;
    let moments: Vec<&str> = events.iter().map(|event| event.kind.as_str()).filter(is_drills).collect();
    for moment in ["drill.begun", "drill.detected", "drill.unrouted", "drill.recovered", "drill.over"] {
        assert_eq!(moments.iter().filter(|kind| **kind == moment).count(), 4, "{moments:?}");
    }
    let why = world.run(&["why", "web", "--json", "-n", "20"]).await.exits(0).json();
    let why: Why = serde_json::from_value(why).unwrap();
    let asked = |incident: &bulsa_core::wire::api::Incident| {
        incident.evidence.asked_by.as_deref().is_some_and(|text| text.contains("a drill"))
    };
    assert!(why.incidents.len() >= 4 && why.incidents.iter().all(asked), "{why:#?}");
    assert!(why.verdict.contains("a drill wanted it"), "{}", why.verdict);
    world.stopped(false).await;
}

fn is_drills(kind: &&str) -> bool {
    kind.starts_with("drill.")
}

fn text_of_not(step: &Value) -> (&str, &str) {
    (step["kind"].as_str().unwrap(), step["not"].as_str().unwrap())
}

#[tokio::test]
async fn an_app_that_dies_under_a_shell_that_lives_on_is_found_and_replaced() {
    let world = project(&[]).await;
    let before = world.snapshot().await;
    let line = ["drill", "behind", "--only", "app-dead", "--yes", "--json"];
    let all = world.run(&line).await.exits(0).json();
    let one = report(&all["drills"][0]);
    assert!(one.passed && one.kind == DrillKind::AppDead && one.service == "behind", "{one:?}");
    assert_eq!(all["drills"][0]["requests"]["failed"], 0, "{all:#}");
    let after = world.well("drills").await;
    let changed: Vec<String> = pids(before.project("drills").unwrap())
        .into_iter()
        .filter(|(id, pid)| pids(after.project("drills").unwrap()).get(id) != Some(pid))
        .map(|(id, _)| id)
        .collect();
    assert_eq!(changed, ["behind-r1-1.1"], "nobody else was touched");
    let table = world.run(&["drill", "behind", "--only", "kill,memory", "--yes"]).await.exits(0);
    for part in ["DETECTED", "UN-ROUTED", "RECOVERED", "as expected", "does not apply: it is a process"] {
        assert!(table.out.contains(part), "{part} is not in\n{}", table.out);
    }
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_done_and_touches_nobody() {
    let world = project(&[]).await;
    let before = pids(world.snapshot().await.project("drills").unwrap());
    let start = world.last_event().await;
    let plan = world.run(&["drill", "--dry-run", "--json"]).await.exits(0).json();
    let plan: DrillPlan = serde_json::from_value(plan).unwrap();
    let of = |service: &str, kind: DrillKind| {
        plan.steps.iter().find(|step| step.service == service && step.kind == kind).unwrap()
    };
    assert_eq!(plan.steps.len(), 4 * DrillKind::ALL.len(), "{plan:#?}");
    assert!(of("web", DrillKind::Block).injury.contains("/block"));
    assert!(of("web", DrillKind::AppDead).not.as_ref().unwrap().contains("main process"));
    assert!(of("behind", DrillKind::AppDead).not.is_none());
    assert!(of("blind", DrillKind::Probe).not.is_none());
    assert!(of("worker", DrillKind::Hang).not.as_ref().unwrap().contains("no probe"));
    assert!(of("web", DrillKind::Kill).url.as_ref().unwrap().path == "/health");
    assert!(plan.refusals.is_empty(), "{plan:#?}");
    let text = world.run(&["drill", "web", "--dry-run"]).await.exits(0).out;
    assert!(text.contains("web-r1-1") && text.contains("SIGKILL to its main process"), "{text}");
    assert_eq!(pids(world.snapshot().await.project("drills").unwrap()), before);
    let events: Vec<Event> = world.events_after(Some(start)).await;
    assert!(events.iter().all(|event| !is_drills(&event.kind.as_str())), "{events:#?}");
}

#[tokio::test]
async fn without_a_yes_and_where_users_would_lose_the_last_one_nothing_is_hurt() {
    let world = project(&[("REPLICAS", "1")]).await;
    let before = pids(world.snapshot().await.project("drills").unwrap());
    world.run(&["drill", "behind", "--only", "kill"]).await.exits(1).complains(&["without a yes", "--yes"]);
    let last = ["drill", "web", "--only", "kill", "--yes"];
    world.run(&last).await.exits(1).complains(&["web-r1-1 is the last healthy replica of `web`", "--last"]);
    let plan = world.run(&["drill", "web", "--only", "kill", "--dry-run"]).await.exits(0).out;
    assert!(plan.contains("it would be refused: web-r1-1 is the last"), "{plan}");
    for (line, says) in [
        (["drill", "nobody", "--yes"], "has no service `nobody`"),
        (["drill", "web.2", "--yes"], "has 1 replicas, and no number 2"),
    ] {
        world.run(&line).await.exits(1).complains(&[says]);
    }
    world
        .run(&["drill", "web", "--only", "burn"])
        .await
        .exits(2)
        .complains(&["no kind of injury", "crash-loop"]);
    let none = ["drill", "worker", "--only", "hang", "--yes"];
    world.run(&none).await.exits(1).complains(&["none of these drills applies", "no probe"]);
    let url = ["drill", "behind", "--only", "kill", "--yes", "--url", "http://127.0.0.1:1/"];
    world.run(&url).await.exits(1).complains(&["does not answer well", "--url"]);
    assert_eq!(pids(world.snapshot().await.project("drills").unwrap()), before);
    let told = [&last[..], &["--last", "--json"]].concat();
    let done = world.run(&told).await.exits(0).json();
    assert!(report(&done["drills"][0]).passed, "{done:#}");
    assert_eq!(done["drills"][0]["requests"]["failed"], 0, "they waited: {done:#}");
}

#[tokio::test]
async fn nobody_drills_while_a_deploy_runs_or_another_drill_or_something_is_not_well() {
    let mut world = project(&[("FALL", "50")]).await;
    let start = world.last_event().await;
    let first = world.start(&["drill", "web", "--only", "hang", "--yes", "--rate", "0"]);
    let begun = world.event(start, "the drill", |event| event.kind == "drill.begun").await;
    let second = ["drill", "behind", "--only", "kill", "--yes"];
    world.run(&second).await.exits(4).complains(&["a drill runs: `hang` of web-r1-1", "nothing was hurt"]);
    // Its verdict is far off; the replica's own end is one, too.
    let victim = begun.replica.unwrap();
    let snapshot = world.snapshot().await;
    let replicas = snapshot.project("drills").unwrap().services.iter().flat_map(|service| &service.replicas);
    let victim = replicas.clone().find(|replica| replica.id == victim).unwrap();
    kill(pid(victim.pid.unwrap()), Signal::KILL);
    first.end().await.exits(0);
    world.well("drills").await;

    world.set("BAKE", "20s");
    world.run(&["deploy", "--detach"]).await.exits(0);
    world.until("the deploy", |s| s.project("drills").unwrap().deploying().map(drop)).await;
    world.run(&second).await.exits(4).complains(&["a deploy runs"]);
}

#[tokio::test]
async fn what_is_not_seen_is_a_result_and_is_taken_back() {
    let world = project(&[]).await;
    let before = pids(world.snapshot().await.project("drills").unwrap());
    let line = ["drill", "blind.2", "--only", "hang", "--yes", "--rate", "0", "--json"];
    let done = world.run(&line).await.exits(1).json();
    let one = report(&done["drills"][0]);
    assert!(!one.passed && one.detected_ms.is_none() && one.text.contains("not seen within"), "{one:?}");
    world.stopped(false).await;
    assert_eq!(pids(world.snapshot().await.project("drills").unwrap()), before, "it goes on");
}

#[tokio::test]
async fn a_command_that_is_killed_leaves_nobody_stopped() {
    let world = project(&[]).await;
    let before = pids(world.snapshot().await.project("drills").unwrap());
    let start = world.last_event().await;
    let command = world.start(&["drill", "blind", "--only", "hang,probe", "--yes", "--rate", "0"]);
    world.event(start, "the drill", |event| event.kind == "drill.begun").await;
    world.stopped(true).await;
    command.kill().await;
    let one = world.drill_over(start).await;
    assert!(one.kind == DrillKind::Hang && !one.passed, "{one:?}");
    world.stopped(false).await;
    assert_eq!(pids(world.snapshot().await.project("drills").unwrap()), before);
    let events = world.events_after(Some(start)).await;
    let begun = events.iter().filter(|event| event.kind == "drill.begun").count();
    assert_eq!(begun, 1, "the next drill was not begun: {events:#?}");
}

#[tokio::test]
async fn an_agent_that_is_killed_in_a_drill_leaves_nobody_stopped() {
    let world = project(&[]).await;
    let before = world.snapshot().await;
    let start = world.last_event().await;
    let command = world.start(&["drill", "blind", "--only", "hang", "--yes", "--rate", "0"]);
    world.event(start, "the drill", |event| event.kind == "drill.begun").await;
    world.stopped(true).await;
    kill(pid(before.agent.pid), Signal::KILL);
    ended(pid(before.agent.pid)).await;
    world.event(start, "what its successor does", |event| event.kind == "drill.undone").await;
    world.stopped(false).await;
    command.end().await.exits(5).complains(&["drill", "taken back"]);
    let after = world.well("drills").await;
    assert_eq!(pids(after.project("drills").unwrap()), pids(before.project("drills").unwrap()));
}

#[tokio::test]
async fn a_probe_that_can_not_run_is_told_and_restarts_nobody() {
    let world = project(&[]).await;
    let before = pids(world.snapshot().await.project("drills").unwrap());
    let done = world.run(&["drill", "blind", "--only", "probe", "--yes", "--json"]).await.exits(0).json();
    let one = report(&done["drills"][0]);
    assert!(one.passed && one.unrouted_ms.is_none() && one.deaths == 0, "{one:?}");
    assert!(one.detected_ms.is_some() && one.text.contains("nothing was restarted"), "{one:?}");
    assert_eq!(pids(world.snapshot().await.project("drills").unwrap()), before);
}

//! Messages about what happened, and the heartbeat: to a server of the test's own.

use std::time::Duration;

use bulsa_core::wire::api::{Event, NotifyTested, ServiceState, Snapshot};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    hooks::{Hooks, SECRET, total},
    traffic::on_demo,
    world::{World, ended, kill, pid},
};

/// A project whose messages go to these URLs; two names for the webhooks, one for the heartbeat.
async fn world(hooks: &Hooks, [first, second]: [&str; 2], variables: &[(&'static str, &str)]) -> World {
    let mut world = World::new("notify.yaml");
    let flag = world.path("flag");
    world.set("FLAG", flag.to_str().unwrap());
    for (name, hook) in [("HOOK", first), ("SECOND", second), ("BEAT", "beat")] {
        world.set(name, hooks.url(hook));
    }
    for (name, value) in variables {
        world.set(name, *value);
    }
    world.up().await;
    world.well("web").await;
    world
}

/// The processes of the service `web`.
fn web(snapshot: &Snapshot) -> Vec<i32> {
    let service = snapshot.projects[0].service("web").unwrap();
    service.replicas.iter().filter_map(|replica| Some(pid(replica.pid?))).collect()
}

async fn kill_one(world: &World) {
    let replica = web(&world.well("web").await)[0];
    kill(replica, Signal::KILL);
    ended(replica).await;
}

/// Nobody reads the secret part of a URL, wherever they look.
async fn keeps_the_secret(world: &World) {
    for command in [&["status"][..], &["status", "--json"], &["events", "--last", "1000"], &["ps", "--json"]]
    {
        let ran = world.run(command).await;
        assert!(!ran.out.contains(SECRET) && !ran.err.contains(SECRET), "{command:?}: {ran:?}");
    }
    assert!(!world.daemon_log().contains(SECRET), "{}", world.daemon_log());
}

#[tokio::test]
async fn a_kill_and_its_end_are_told_with_what_was_seen() {
    let hooks = Hooks::start().await;
    let world = world(&hooks, ["first", "second"], &[]).await;
    let deploy = hooks.told("first", "deploy", 1).await;
    assert_eq!((deploy[0]["kind"].as_str(), deploy[0]["version"].as_u64()), (Some("deploy"), Some(1)));
    assert!(deploy[0]["text"].as_str().unwrap().contains(": deployed"), "{deploy:?}");

    kill_one(&world).await;
    hooks.told("first", "heal", 1).await;
    let told = hooks.told("first", "incident", 1).await;
    let message = told.iter().find(|message| message["kind"] == "incident").unwrap();
    assert_eq!((&message["project"], &message["events_left_out"]), (&"web".into(), &0.into()));
    assert!(!message["host"].as_str().unwrap().is_empty());
    assert_eq!(message["counts"]["incident"]["by"][0]["cause"], "killed");
    let event = &message["events"][0];
    assert_eq!((event["topic"].as_str(), event["service"].as_str()), (Some("incident"), Some("web")));
    let incident = &message["incidents"][0];
    assert_eq!((&incident["cause"], &incident["exit"]), (&"killed".into(), &"killed by SIGKILL".into()));
    assert_eq!(incident["last_probe"], "passing");
    assert!(!incident["last_lines"].as_array().unwrap().is_empty(), "{incident}");

    let slack = hooks.until("second", "a message", |got| got.first().cloned()).await.body;
    let text = slack["blocks"][0]["text"]["text"].as_str().unwrap();
    assert!(text.contains("web was killed") && text.contains("died after"), "{text}");
    let all = hooks.to("second");
    assert!(all.iter().all(|got| !got.body["text"].as_str().unwrap().contains("deploy")), "{all:?}");
    keeps_the_secret(&world).await;
}

#[tokio::test]
async fn a_webhook_that_never_answers_delays_no_healing_and_no_other_message() {
    let hooks = Hooks::start().await;
    let world = world(&hooks, ["never-1", "second"], &[("FORMAT", "json")]).await;
    // The message about the first deploy is stuck from here on.
    hooks.until("never-1", "a call", |got| (!got.is_empty()).then_some(())).await;
    let start = world.last_event().await;
    let mut after = start;
    for _ in 0..10 {
        kill_one(&world).await;
        let is_over = |event: &Event| event.kind == "incident.over";
        after = world.event(after, "the end of the incident", is_over).await.id;
    }
    let told = hooks.told("second", "heal", 10).await;
    assert_eq!(total(&hooks.to("second"), "incident"), 10);
    assert!(told.len() <= 7, "the limit of messages holds: {told:#?}");
    let shown = world.until("the trouble to be shown", |snapshot| {
        let view = snapshot.projects[0].notify.first()?;
        (view.waiting >= 20 && view.error.is_some()).then(|| view.clone())
    });
    let shown = shown.await;
    assert!(shown.error.unwrap().contains("no answer within") && shown.target.contains("127.0.0.1"));
    let text = world.run(&["status"]).await.exits(0).out;
    assert!(text.contains("events wait") && text.contains("bulsa notify test"), "{text}");
    keeps_the_secret(&world).await;
}

#[tokio::test]
async fn what_an_agent_was_killed_with_is_told_by_its_successor() {
    let hooks = Hooks::start().await;
    let world = world(&hooks, ["first", "second"], &[]).await;
    hooks.told("first", "deploy", 1).await;
    let start = world.last_event().await;
    kill_one(&world).await;
    let death = world.event(start, "the death", |event| event.kind == "replica.died").await;
    // Messages gather for some seconds: none is out yet.
    assert_eq!(total(&hooks.to("first"), "incident"), 0);
    let agent = world.snapshot().await.agent.pid;
    kill(pid(agent), Signal::KILL);
    let told = hooks.told("first", "incident", 1).await;
    let ids = |message: &Value| -> Vec<u64> {
        message["events"].as_array().unwrap().iter().filter_map(|event| event["id"].as_u64()).collect()
    };
    let ids: Vec<u64> = told.iter().flat_map(ids).collect();
    assert!(ids.contains(&death.id), "{ids:?} has not {}", death.id);
    let different: std::collections::BTreeSet<&u64> = ids.iter().collect();
    assert_eq!(different.len(), ids.len(), "what was told before isn't told again: {told:#?}");
    assert_ne!(world.snapshot().await.agent.pid, agent);
}

#[tokio::test]
async fn a_deploy_that_fails_or_is_undone_is_told_and_so_is_a_way_back() {
    let hooks = Hooks::start().await;
    let mut world = world(&hooks, ["first", "second"], &[]).await;
    hooks.told("first", "deploy", 1).await;
    for (name, value) in [("VERSION", "v2"), ("BROKEN", "1"), ("GATE", "1500ms")] {
        world.set(name, value);
    }
    world.run(&["deploy"]).await.exits(3);
    let told = hooks.told("first", "deploy", 2).await;
    let event = &told[1]["events"][0];
    assert_eq!((&event["detail"]["outcome"], &event["detail"]["serving"]), (&"failed".into(), &true.into()));

    let load = on_demo(world.target(), 0).await;
    for (name, value) in [("BROKEN", "0"), ("GATE", "20s"), ("CRASH_MS", "300"), ("BAKE", "8s")] {
        world.set(name, value);
    }
    world.run(&["deploy"]).await.exits(3);
    load.stop().await;
    let told = hooks.told("first", "rollback", 1).await;
    let undone = told.iter().find(|message| message["counts"]["rollback"].is_object()).unwrap();
    let events = undone["events"].as_array().unwrap();
    let event = events.iter().find(|event| event["topic"] == "rollback").unwrap();
    assert_eq!(event["detail"]["outcome"], "rolled_back");

    for (name, value) in [("CRASH_MS", "600000"), ("BAKE", "300ms"), ("VERSION", "v3")] {
        world.set(name, value);
    }
    world.run(&["deploy"]).await.exits(0);
    world.run(&["rollback"]).await.exits(0);
    let told = hooks.told("first", "rollback", 2).await;
    assert!(told.iter().any(|m| m["text"].as_str().unwrap().contains("rolled back")), "{told:#?}");
}

#[tokio::test]
async fn another_url_in_the_file_is_taken_over_without_a_release_and_a_project_that_is_down_is_told_of() {
    let hooks = Hooks::start().await;
    let mut world = world(&hooks, ["gone-1", "second"], &[]).await;
    let given_up =
        world.event(0, "the message to be given up", |event| event.kind == "notify.given_up").await;
    assert!(given_up.text.contains("404") && given_up.text.contains("http://127.0.0.1"), "{given_up:?}");
    keeps_the_secret(&world).await;
    let before = world.snapshot().await.projects[0].live;
    world.set("HOOK", hooks.url("new"));
    let ran = world.run(&["deploy"]).await.exits(0);
    let said = format!("{}{}", ran.out, ran.err);
    assert!(said.contains("who is told"), "{said}");
    assert_eq!(world.snapshot().await.projects[0].live, before);

    kill_one(&world).await;
    world.run(&["down"]).await.exits(0);
    let told = hooks.told("new", "incident", 1).await;
    assert_eq!(told[0]["counts"]["deploy"], Value::Null, "that was given up: {told:#?}");
    assert!(hooks.to("gone-1").iter().all(|got| total(std::slice::from_ref(got), "incident") == 0));
}

#[tokio::test]
async fn a_receiver_that_is_busy_is_asked_again_when_it_said() {
    let hooks = Hooks::start().await;
    let world = world(&hooks, ["busy-1", "second"], &[]).await;
    let got = hooks.until("busy-1", "a second try", |got| (got.len() >= 2).then(|| got.to_vec())).await;
    assert!(got[1].at - got[0].at >= Duration::from_secs(1), "{got:?}");
    assert_eq!(got[0].body["id"], got[1].body["id"], "it is the same message");
    let sent =
        world.until("it to be sent", |s| s.projects[0].notify.first().filter(|view| view.sent == 1).cloned());
    let sent = sent.await;
    assert_eq!((sent.given_up, sent.waiting, sent.error), (0, 0, None));
}

#[tokio::test]
async fn the_heartbeat_is_called_while_all_serves_and_no_longer() {
    let hooks = Hooks::start().await;
    let world = world(&hooks, ["first", "second"], &[]).await;
    let first = hooks.until("beat", "three calls", |got| (got.len() >= 3).then(|| got.to_vec())).await;
    assert!(first.iter().all(|got| got.method == "GET"), "{first:?}");
    std::fs::write(world.path("flag"), "").unwrap();
    let queue = world.snapshot().await.projects[0].service("queue").unwrap().replicas[0].pid.unwrap();
    kill(pid(queue), Signal::KILL);
    let queue_is = |snapshot: &Snapshot, state| {
        (snapshot.projects[0].service("queue").unwrap().state == state).then_some(())
    };
    world.until("a crash loop", |s| queue_is(s, ServiceState::CrashLooping)).await;
    // One may be under way that was called when all served. That none comes has no better sign than time.
    let interval = Duration::from_secs(1);
    sleep(interval).await;
    let silent = hooks.to("beat").len();
    sleep(interval * 4).await;
    assert_eq!(hooks.to("beat").len(), silent, "it is called though a service is down");
    std::fs::remove_file(world.path("flag")).unwrap();
    world.until("the worker", |s| queue_is(s, ServiceState::Healthy)).await;
    hooks.until("beat", "another call", |got| (got.len() > silent).then_some(())).await;
}

#[tokio::test]
async fn a_place_that_is_parked_is_told_of_with_the_last_words_of_who_died_there() {
    let hooks = Hooks::start().await;
    let world = world(&hooks, ["first", "second"], &[("FORMAT", "discord")]).await;
    std::fs::write(world.path("flag"), "").unwrap();
    let queue = world.snapshot().await.projects[0].service("queue").unwrap().replicas[0].pid.unwrap();
    kill(pid(queue), Signal::KILL);
    let parked = hooks.until("first", "a park", |got| {
        got.iter().map(|got| got.body.clone()).find(|body| body["kind"] == "park")
    });
    let parked = parked.await;
    assert!(parked["text"].as_str().unwrap().contains("queue is crash-looping"), "{parked}");
    let lines = parked["incidents"][0]["last_lines"].as_array().unwrap();
    assert!(lines.iter().any(|line| line.as_str().unwrap().contains("ECONNREFUSED")), "{parked}");
    let discord = hooks.until("second", "the same", |got| {
        got.iter().find_map(|got| {
            got.body["content"].as_str().filter(|text| text.contains("parked")).map(str::to_owned)
        })
    });
    let text = discord.await;
    assert!(text.contains("```\n") && text.contains("connect <ECONNREFUSED> 127.0.0.1:6379"), "{text}");
    assert!(
        hooks
            .to("second")
            .iter()
            .all(|got| got.body["allowed_mentions"]["parse"] == Value::Array(Vec::new()))
    );
}

#[tokio::test]
async fn notify_test_tries_every_url_and_says_what_to_do() {
    let hooks = Hooks::start().await;
    let world = world(&hooks, ["first", "gone-1"], &[]).await;
    let ran = world.run(&["notify", "test"]).await.exits(1);
    for text in ["accepted (200)", "it answered 404", "no hook at", "heartbeat", "make a new one"] {
        assert!(ran.out.contains(text), "{text} is not in\n{}", ran.out);
    }
    assert!(!ran.out.contains(SECRET), "{}", ran.out);
    let tested: Vec<NotifyTested> =
        serde_json::from_value(world.run(&["notify", "test", "--json"]).await.exits(1).json()).unwrap();
    let kinds: Vec<(&str, bool)> = tested.iter().map(|one| (one.kind.as_str(), one.accepted)).collect();
    assert_eq!(kinds, [("json", true), ("slack", false), ("heartbeat", true)]);
    assert_eq!(tested[1].status, Some(404));
    let test =
        hooks.until("first", "a test", |got| got.iter().find(|g| g.body["kind"] == "test").cloned()).await;
    assert_eq!((&test.body["version"], &test.body["project"]), (&1.into(), &"web".into()));

    let other = hooks.url("other");
    world.run(&["notify", "test", "--url", &other, "--format", "discord"]).await.exits(0);
    assert!(hooks.to("other")[0].body["content"].is_string());
    let closed = format!("http://127.0.0.1:{}/{SECRET}", crate::world::free_port());
    let ran = world.run(&["notify", "test", "--url", &closed]).await.exits(1);
    assert!(ran.out.contains("can't connect") && !ran.out.contains(SECRET), "{}", ran.out);
    world.run(&["notify", "test", "--url", "nonsense"]).await.exits(1).complains(&["no URL of http"]);
}

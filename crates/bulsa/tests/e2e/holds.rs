//! `bulsa hold on` and `off`: requests that wait because a person wants it, whoever dies meanwhile.

use std::net::SocketAddr;

use bulsa_core::wire::api::{HeldView, Snapshot};
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

use crate::{
    watch::only,
    world::{LIMIT, World, kill, pid},
};

/// Sends a GET; its whole answer, once there is one.
fn get(target: SocketAddr, path: &str) -> JoinHandle<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
    tokio::spawn(async move {
        let mut stream = TcpStream::connect(target).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    })
}

async fn answer(asked: JoinHandle<String>) -> String {
    timeout(LIMIT, asked).await.expect("it is answered").unwrap()
}

fn held(snapshot: &Snapshot) -> Option<HeldView> {
    snapshot.projects.first()?.services.first()?.held
}

/// Waits until every proxy holds, and so many requests wait.
async fn waiting(world: &World, count: u64) -> HeldView {
    let is_so = |held: &HeldView| held.in_force && held.waiting == count;
    world.until("requests that wait", |snapshot| held(snapshot).filter(is_so)).await
}

#[tokio::test]
async fn a_held_request_waits_through_the_agents_death_and_a_deploy_until_it_is_let_out() {
    let mut world = World::web(&[("HOLD_TIME", "10m")]).await;
    let before = world.well("web").await;
    let under_way = get(world.target(), "/slow?ms=1500");
    let begun = |s: &Snapshot| s.proxies.iter().any(|proxy| proxy.in_flight > 0).then_some(());
    world.until("a request that is under way", begun).await;

    let on = world.run(&["hold", "on", "--json"]).await.exits(0).json();
    assert_eq!((&on["on"], &on["services"][0]["held"]["in_force"]), (&true.into(), &true.into()), "{on}");
    let asked = get(world.target(), "/");
    let since = waiting(&world, 1).await.since_ms;
    assert!(answer(under_way).await.starts_with("HTTP/1.1 200"), "what was under way goes on");
    assert_eq!(told(&world, "hold.begun").await, 1);

    kill(pid(before.agent.pid), Signal::KILL);
    let is_next = |s: &Snapshot| (s.agent.pid != before.agent.pid && held(s).is_some()).then_some(());
    world.until("another agent", is_next).await;
    assert_eq!(waiting(&world, 1).await.since_ms, since, "the next agent knows of it");

    world.set("VERSION", "v2");
    let deploy = world.run(&["deploy"]).await.exits(0);
    assert!(deploy.err.contains("the requests for `web` stay held"), "{}", deploy.err);
    assert_eq!(waiting(&world, 1).await.since_ms, since, "a deploy lets nobody out");
    let status = world.run(&["status"]).await.exits(0).out;
    for text in ["healthy, held", "a human holds its requests since", "1 wait", "`bulsa hold off web`"] {
        assert!(status.contains(text), "`{text}` in {status}");
    }
    assert!(!asked.is_finished(), "nobody has answered it");

    world.run(&["hold", "off"]).await.exits(0);
    let answered = answer(asked).await;
    assert!(answered.starts_with("HTTP/1.1 200") && answered.contains("version v2"), "{answered}");
    assert_eq!(held(&world.snapshot().await), None);
    assert_eq!(told(&world, "hold.ended").await, 1);
}

/// How many events of this kind there are.
async fn told(world: &World, kind: &str) -> usize {
    let events = world.run(&["events", "--json", "--last", "1000"]).await.exits(0).json_lines();
    events.iter().filter(|event| event["kind"] == kind).count()
}

#[tokio::test]
async fn a_hold_has_its_limits_and_ends_with_its_project() {
    let world = World::web(&[("HOLD", "1"), ("HOLD_TIME", "10m")]).await;
    world.run(&["hold", "on", "wep"]).await.exits(1).complains(&["no service `wep`", "did you mean `web`?"]);
    world.run(&["hold", "off", "web"]).await.exits(0).complains(&["the requests for `web` aren't held"]);
    world.run(&["hold", "on", "web"]).await.exits(0).complains(&["each waits up to 600 s, 1 at most"]);
    world.run(&["hold", "on"]).await.exits(0).complains(&["are held already"]);
    world.run(&["up", "-d"]).await.exits(0).complains(&["nothing has changed", "stay held"]);
    let asked = get(world.target(), "/");
    waiting(&world, 1).await;
    let refused = answer(get(world.target(), "/")).await;
    assert!(
        refused.starts_with("HTTP/1.1 503") && refused.to_lowercase().contains("retry-after"),
        "{refused}"
    );

    // Who has gone waits no longer.
    asked.abort();
    waiting(&world, 0).await;
    // Stopping comes first: whoever comes then is told at once.
    world.run(&["stop", "web"]).await.exits(0);
    assert!(answer(get(world.target(), "/")).await.starts_with("HTTP/1.1 503"));
    world.run(&["start", "web"]).await.exits(0);
    let asked = get(world.target(), "/");
    waiting(&world, 1).await;
    asked.abort();

    world.run(&["down"]).await.exits(0);
    world.run(&["up", "-d"]).await.exits(0);
    let again = world.well("web").await;
    assert_eq!(only(&again).1.held, None, "it went with the project");
    assert!(answer(get(world.target(), "/")).await.starts_with("HTTP/1.1 200"));
}

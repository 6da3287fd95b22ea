use std::collections::BTreeMap;

use bulsa_proxy::{Policy, Secret};
use tokio::sync::watch;

use crate::support::*;

/// Which backend answered each of so many requests, each on a connection of its own.
async fn answers(rig: &Rig, count: usize) -> BTreeMap<String, usize> {
    let mut by = BTreeMap::new();
    for _ in 0..count {
        *by.entry(rig.get("/").await.text()).or_insert(0) += 1;
    }
    by
}

#[tokio::test]
async fn shares_follow_weights() {
    let (a, b) = (Backend::saying("a").await, Backend::saying("b").await);
    let mut table = table(1, &[a.target("a"), b.target("b")]);
    table.services[0].targets[0].weight = 3;
    let rig = Rig::new(&table).await;
    assert_eq!(answers(&rig, 20).await, BTreeMap::from([("a".into(), 15), ("b".into(), 5)]));
}

#[tokio::test]
async fn a_fresh_target_begins_with_little() {
    let (a, b) = (Backend::saying("a").await, Backend::saying("b").await);
    let mut table = table(1, &[a.target("a")]);
    table.services[0].balance.slow_start_ms = 1_000;
    let rig = Rig::new(&table).await;
    tokio::time::sleep(std::time::Duration::from_millis(1_000)).await;
    table.number = 2;
    table.services[0].targets.push(b.target("b"));
    table.services[0].balance.slow_start_ms = 3_600_000;
    rig.apply(&table).await;
    // Both are in their first hour now: alike.
    assert_eq!(answers(&rig, 10).await["b"], 5);
    table.number = 3;
    table.services[0].balance.slow_start_ms = 1_000;
    rig.apply(&table).await;
    let by = answers(&rig, 20).await;
    assert!((1..10).contains(&by["b"]), "{by:?}");
}

#[tokio::test]
async fn least_conn_avoids_the_busy_one() {
    let (go, _) = watch::channel(false);
    let (busy, free) = (Backend::waiting("busy", &go).await, Backend::saying("free").await);
    let mut table = table(1, &[busy.target("busy"), free.target("free")]);
    table.services[0].balance.policy = Policy::LeastConn;
    let rig = Rig::new(&table).await;
    let mut caught = Vec::new();
    while busy.seen.count() < 3 {
        let mut client = Wire::connect(rig.addr).await;
        client.write(&get("/")).await;
        caught.push(client);
        let sent = caught.len() as u64;
        // Each has been answered, or is stuck, before the next one comes.
        rig.until(|report| {
            let of = |id| report.targets.iter().find(|target| target.id == id).unwrap();
            of("free").requests + of("busy").in_flight == sent
        })
        .await;
        // The busy one would get no second one by itself.
        table.number += 1;
        table.services[0].balance.policy = Policy::RoundRobin;
        rig.apply(&table).await;
    }
    table.number += 1;
    table.services[0].balance.policy = Policy::LeastConn;
    rig.apply(&table).await;
    assert_eq!(answers(&rig, 10).await, BTreeMap::from([("free".into(), 10)]));
    go.send_replace(true);
}

#[tokio::test]
async fn two_choices_answers_everything_and_leaves_the_stuck_one_alone() {
    let (go, _) = watch::channel(false);
    let (stuck, a) = (Backend::waiting("stuck", &go).await, Backend::saying("a").await);
    let mut table = table(1, &[stuck.target("stuck"), a.target("a")]);
    table.services[0].balance.policy = Policy::TwoChoices;
    let rig = Rig::new(&table).await;
    let mut waiting = Vec::new();
    for sent in 1..=20 {
        let mut client = Wire::connect(rig.addr).await;
        client.write(&get("/")).await;
        waiting.push(client);
        // Each has been answered, or is stuck, before the next one comes.
        rig.until(|report| {
            let of = |id| report.targets.iter().find(|target| target.id == id).unwrap();
            of("a").requests + of("stuck").in_flight == sent
        })
        .await;
    }
    assert!(stuck.seen.count() < 10, "{}", stuck.seen.count());
    go.send_replace(true);
    for client in &mut waiting {
        assert_eq!(patient(client.message()).await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_clients_address_leads_to_the_same_target() {
    let names = ["a", "b", "c", "d"];
    let mut backends = Vec::new();
    for name in names {
        backends.push(Backend::saying(name).await);
    }
    let targets: Vec<_> = backends.iter().zip(names).map(|(backend, id)| backend.target(id)).collect();
    let mut table = table(1, &targets);
    table.services[0].balance.policy = Policy::IpHash;
    table.trusted = vec!["127.0.0.0/8".parse().unwrap()];
    let rig = Rig::with_workers(2, &table).await;
    let of = |client: u8| {
        let request =
            format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9, 192.0.2.{client}\r\n\r\n");
        async move { ask(rig.addr, &request).await.text() }
    };
    let mut by = BTreeMap::new();
    for client in 0..40 {
        let first = of(client).await;
        assert_eq!(of(client).await, first, "client {client}");
        *by.entry(first).or_insert(0) += 1;
    }
    assert_eq!(by.len(), 4, "{by:?}");
}

#[tokio::test]
async fn a_sticky_client_stays_and_moves_on_when_its_target_has_gone() {
    let (a, b) = (Backend::saying("a").await, Backend::saying("b").await);
    let mut table = table(1, &[a.target("a"), b.target("b")]);
    table.services[0].balance.policy = Policy::Sticky;
    table.secret = Some(Secret(b"0123456789abcdef".to_vec()));
    let rig = Rig::new(&table).await;
    let first = rig.get("/").await;
    let cookie = first.field("set-cookie");
    let pair = cookie.split(';').next().unwrap().to_owned();
    let with = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: x=y; {pair}\r\n\r\n");
    for _ in 0..6 {
        let again = ask(rig.addr, &with).await;
        assert_eq!((again.text(), again.field("set-cookie")), (first.text(), String::new()));
    }
    table.number = 2;
    table.services[0].targets.retain(|target| target.id != first.text());
    rig.apply(&table).await;
    let moved = ask(rig.addr, &with).await;
    assert_ne!(moved.text(), first.text());
    assert!(moved.field("set-cookie").starts_with("bulsa_"), "it gets the new one's cookie");
}

#[tokio::test]
async fn a_full_target_gets_no_more_and_the_rest_wait_for_room() {
    let (go, _) = watch::channel(false);
    let backend = Backend::waiting("x", &go).await;
    let mut table = table(1, &[backend.target("a")]);
    table.services[0].balance.max_in_flight = 2;
    let rig = Rig::with_workers(2, &table).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = Wire::connect(rig.addr).await;
        client.write(&get("/")).await;
        clients.push(client);
    }
    rig.held(3).await;
    backend.seen.at_least(2).await;
    assert_eq!((rig.target("a").in_flight, backend.seen.count()), (2, 2));
    go.send_replace(true);
    for client in &mut clients {
        assert_eq!(patient(client.message()).await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_backup_gets_requests_only_while_no_other_target_is_ready() {
    let (spare, other) = (Backend::saying("spare").await, Backend::saying("other").await);
    let (gone, socket) = nowhere("main");
    let mut table = table(1, &[spare.target("spare"), other.target("other")]);
    table.services[0].targets[0].backup = true;
    let rig = Rig::new(&table).await;
    assert_eq!(answers(&rig, 6).await, BTreeMap::from([("other".into(), 6)]));
    table.number = 2;
    table.services[0].targets[1] = gone;
    rig.apply(&table).await;
    assert_eq!(rig.get("/").await.text(), "spare");
    drop(socket);
}

#[tokio::test]
async fn while_a_target_answers_nobody_who_may_not_be_sent_twice_goes_to_the_other() {
    let (never, _) = watch::channel(false);
    let (hung, well) = (Backend::waiting("late", &never).await, Backend::saying("well").await);
    let rig = Rig::new(&table(1, &[hung.target("hung"), well.target("well")])).await;
    let mut first = Wire::connect(rig.addr).await;
    let mut second = Wire::connect(rig.addr).await;
    first.write(&post("/", "1")).await;
    second.write(&post("/", "2")).await;
    hung.seen.at_least(1).await;
    // The time after which it is taken for silent has to pass.
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    for _ in 0..6 {
        assert_eq!(ask(rig.addr, &post("/", "3")).await.text(), "well");
    }
    assert_eq!(hung.seen.count(), 1);
    never.send_replace(true);
    rig.until(|report| report.targets.iter().all(|target| target.in_flight == 0)).await;
    assert_eq!(answers(&rig, 4).await["late"], 2, "it has its share again");
}

use std::time::{Duration, Instant};

use bulsa_proxy::CloseTunnels;

use crate::support::*;

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n";

/// A server that upgrades, says something at once, and then echoes.
async fn echo(glued: &'static str) -> Backend {
    Backend::serving(move |mut wire, seen| async move {
        seen.next(&mut wire).await;
        wire.write(&format!("{ANSWER}{glued}")).await;
        loop {
            let Some(byte) = wire.bytes(1).await else { return };
            wire.write(std::str::from_utf8(&byte).unwrap()).await;
        }
    })
    .await
}

async fn open(rig: &Rig) -> Wire {
    let mut client = Wire::connect(rig.addr).await;
    client.write(ASK).await;
    let head = patient(client.head()).await.expect("an answer");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    client
}

async fn says(client: &mut Wire, text: &str) {
    client.write(text).await;
    assert_eq!(patient(client.bytes(text.len())).await.unwrap(), text.as_bytes());
}

#[tokio::test]
async fn a_tunnel_passes_bytes_both_ways_from_the_first_on() {
    let backend = echo("first").await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = open(&rig).await;
    assert_eq!(patient(client.bytes(5)).await.unwrap(), b"first");
    says(&mut client, "hello").await;
    let target = rig.target("a");
    assert_eq!((target.tunnels, target.in_flight, target.requests), (1, 0, 1));
    let asked = &backend.seen.all()[0];
    assert_eq!(
        (asked.field("connection").as_str(), asked.field("upgrade").as_str()),
        ("upgrade", "websocket")
    );
    assert_eq!(asked.field("sec-websocket-key"), "x");
    drop(client);
    rig.until(|report| report.targets[0].tunnels == 0 && report.connections == 0).await;
}

#[tokio::test]
async fn bytes_that_the_client_sends_with_its_request_are_not_lost() {
    let backend = echo("").await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write(&format!("{ASK}early")).await;
    patient(client.head()).await.unwrap();
    assert_eq!(patient(client.bytes(5)).await.unwrap(), b"early");
}

#[tokio::test]
async fn a_tunnel_stays_when_its_target_is_no_longer_routed() {
    let (old, new) = (echo("").await, echo("").await);
    let rig = Rig::new(&table(1, &[old.target("old")])).await;
    let mut client = open(&rig).await;
    rig.apply(&table(2, &[new.target("new")])).await;
    says(&mut client, "still here").await;
    let report = rig.proxy.report();
    let of = |id: &str| report.targets.iter().find(|target| target.id == id).unwrap();
    assert_eq!((of("old").tunnels, of("old").routed, of("new").tunnels), (1, false, 0));
    drop(client);
    rig.until(|report| report.targets.iter().all(|target| target.tunnels == 0)).await;
}

#[tokio::test]
async fn an_upgrade_that_the_target_declines_is_an_ordinary_answer() {
    let backend = Backend::saying("no").await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    assert_eq!(client.ask(ASK).await.text(), "no");
    assert_eq!(client.ask(&get("/")).await.text(), "no", "the connection goes on as HTTP");
    assert_eq!(rig.target("a").tunnels, 0);
}

#[tokio::test]
async fn another_protocol_than_the_one_asked_for_is_no_tunnel() {
    let backend = Backend::serving(|mut wire, seen| async move {
        seen.next(&mut wire).await;
        wire.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n").await;
        wire.rest_to_end().await;
    })
    .await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    assert_eq!(ask(rig.addr, ASK).await.status(), 502);
}

#[tokio::test]
async fn half_a_close_is_passed_on() {
    let backend = Backend::serving(|mut wire, seen| async move {
        seen.next(&mut wire).await;
        wire.write(ANSWER).await;
        let all = wire.rest_to_end().await;
        wire.write(&format!("got {}", all.len())).await;
    })
    .await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = open(&rig).await;
    client.write("12345").await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.unwrap();
    assert_eq!(patient(client.rest_to_end()).await, b"got 5");
}

#[tokio::test]
async fn tunnels_end_over_the_window_with_a_clean_close_on_both_sides() {
    let ended = tokio::sync::watch::Sender::new(0);
    let counting = ended.clone();
    let backend = Backend::serving(move |mut wire, seen| {
        let counting = counting.clone();
        async move {
            seen.next(&mut wire).await;
            wire.write(ANSWER).await;
            wire.rest_to_end().await;
            counting.send_modify(|count| *count += 1);
        }
    })
    .await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(open(&rig).await);
    }
    let mut next = table(2, &[]);
    next.close_tunnels = vec![CloseTunnels { target: "a".into(), within_ms: 400 }];
    let begun = Instant::now();
    rig.apply(&next).await;
    let mut moments = Vec::new();
    let ends: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                assert_eq!(client.rest_to_end().await, b"");
                begun.elapsed()
            })
        })
        .collect();
    for end in ends {
        moments.push(patient(end).await.unwrap());
    }
    moments.sort_unstable();
    assert!(moments[0] < Duration::from_millis(150), "{moments:?}");
    assert!(Duration::from_millis(300) < moments[7], "{moments:?}");
    patient(ended.subscribe().wait_for(|count| *count == 8)).await.unwrap();
    rig.until(|report| report.connections == 0).await;
}

#[tokio::test]
async fn a_shutdown_ends_tunnels_at_its_deadline_only() {
    let backend = echo("").await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = open(&rig).await;
    rig.proxy.shutdown(Duration::from_secs(600));
    rig.until(|report| report.settled).await;
    says(&mut client, "during").await;
    rig.proxy.shutdown(Duration::ZERO);
    assert_eq!(patient(client.rest_to_end()).await, b"");
    drop(client);
    patient(rig.proxy.ended()).await;
}

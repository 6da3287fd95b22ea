//! Requests one behind the other on one connection, and what an upgrade does to those behind it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A target that answers every request with its request line.
async fn echo() -> Backend {
    Backend::serving(|mut wire, seen| async move {
        while let Some(message) = seen.next(&mut wire).await {
            wire.write(&ok(&format!("{} {}", message.line(), message.text()))).await;
        }
    })
    .await
}

async fn answers(client: &mut Wire, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(patient(client.message()).await.expect("an answer").text());
    }
    all
}

#[tokio::test]
async fn what_comes_before_a_refusal_is_answered_in_order() {
    let backend = echo().await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write(&[&get("/1"), &post("/2", "x"), "GET /3 HTTP/1.1\nHost: a\n\n", &get("/4")].concat()).await;
    assert_eq!(answers(&mut client, 2).await, ["GET /1 HTTP/1.1 ", "POST /2 HTTP/1.1 x"]);
    let refused = patient(client.message()).await.unwrap();
    assert_eq!((refused.status(), refused.field("connection").as_str()), (400, "close"));
    assert_eq!(patient(client.rest_to_end()).await, b"");
    assert_eq!(backend.seen.count(), 2);
}

#[tokio::test]
async fn a_violation_in_a_later_packet_does_not_harm_the_answer_that_is_awaited() {
    let (go, _) = tokio::sync::watch::channel(false);
    let backend = Backend::waiting("x", &go).await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write(&get("/1")).await;
    backend.seen.at_least(1).await;
    client.write("BAD\r\n\r\n").await;
    // The proxy has read it when the next bytes find their way into the kernel's buffer only.
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    go.send_replace(true);
    assert_eq!(patient(client.message()).await.unwrap().status(), 200);
    assert_eq!(patient(client.message()).await.unwrap().status(), 400);
    assert_eq!(patient(client.rest_to_end()).await, b"");
}

#[tokio::test]
async fn a_client_that_goes_on_sending_still_hears_why_it_was_refused() {
    let backend = echo().await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let client = Wire::connect(rig.addr).await;
    let (mut reader, mut writer) = client.stream.into_split();
    let junk = format!("BAD\r\n{}", "x".repeat(600_000));
    let write = tokio::spawn(async move { writer.write_all(junk.as_bytes()).await });
    let mut all = String::new();
    patient(reader.read_to_string(&mut all)).await.expect("no reset");
    assert!(all.starts_with("HTTP/1.1 431 "), "{all}");
    patient(write).await.unwrap().unwrap();
}

#[tokio::test]
async fn requests_behind_one_that_asks_for_an_upgrade_in_vain_are_served() {
    let backend = echo().await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    let h2c = "POST /2 HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    client.write(&[UPGRADE, &get("/1"), h2c, UPGRADE, &get("/3")].concat()).await;
    let lines = ["GET /chat HTTP/1.1 ", "GET /1 HTTP/1.1 ", "POST /2 HTTP/1.1 ab", "GET /chat HTTP/1.1 "];
    assert_eq!(answers(&mut client, 4).await, lines);
    assert_eq!(answers(&mut client, 1).await, ["GET /3 HTTP/1.1 "]);
    assert_eq!(client.ask(&get("/4")).await.text(), "GET /4 HTTP/1.1 ");
    client.write(&[UPGRADE, "GET /5\r\n\r\n"].concat()).await;
    assert_eq!(answers(&mut client, 1).await, ["GET /chat HTTP/1.1 "]);
    assert_eq!(patient(client.message()).await.unwrap().status(), 400, "what was held is looked at, too");
    assert_eq!(patient(client.rest_to_end()).await, b"");
}

#[tokio::test]
async fn an_early_answer_to_an_upgrade_with_a_body_lets_the_next_request_through() {
    let mut table = table(1, &[]);
    table.listeners.clear();
    let rig = Rig::new(&table).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nContent-Length: 6\r\n\r\nabc").await;
    assert_eq!(patient(client.message()).await.unwrap().status(), 404);
    client.write(&["def", &get("/")].concat()).await;
    assert_eq!(patient(client.message()).await.unwrap().status(), 404);
}

#[tokio::test]
async fn bytes_behind_an_upgrade_are_the_tunnels_whatever_they_are() {
    let backend = Backend::serving(|mut wire, seen| async move {
        let head = wire.head().await.unwrap_or_default();
        seen.note(Message { head, body: Vec::new() });
        // What comes before the 101 must not reach the target as anything.
        assert!(wire.rest.is_empty());
        wire.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )
        .await;
        let bytes = wire.bytes(13).await.unwrap();
        wire.stream.write_all(&bytes).await.unwrap();
    })
    .await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.stream.write_all(&[UPGRADE.as_bytes(), b"\0\r\n early"].concat()).await.unwrap();
    backend.seen.at_least(1).await;
    client.stream.write_all(b" \xff\n").await.unwrap();
    assert!(patient(client.head()).await.unwrap().starts_with("HTTP/1.1 101"));
    client.stream.write_all(b"!").await.unwrap();
    assert_eq!(patient(client.bytes(13)).await.unwrap(), b"\0\r\n early \xff\n!");
}

#[tokio::test]
async fn a_client_that_goes_away_while_its_upgrade_waits_is_noticed() {
    let (go, _) = tokio::sync::watch::channel(false);
    let backend = Backend::waiting("x", &go).await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write(UPGRADE).await;
    backend.seen.at_least(1).await;
    drop(client);
    rig.until(|report| report.targets[0].in_flight == 0 && report.connections == 0).await;
}

use bulsa_proxy::{CloseTunnels, Table};

use crate::support::*;

mod ends;
mod upgrade;

/// With the example key of the RFC.
const ASK: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// What a client hears when its tunnel is told to end.
const CLOSE: &[u8] = b"\x88\x11\x03\xf4service restart";
/// A client's answer to that, under a mask of zeros.
const CLIENTS_CLOSE: &[u8] = b"\x88\x82\0\0\0\0\x03\xf4";

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

/// An order to end the tunnels on target `a` over this time.
fn close(number: u64, within_ms: u64) -> Table {
    let close_tunnels = vec![CloseTunnels { target: "a".into(), within_ms }];
    Table { close_tunnels, ..table(number, &[]) }
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
    assert_eq!(asked.field("sec-websocket-key"), "dGhlIHNhbXBsZSBub25jZQ==");
    drop(client);
    rig.until(|report| report.targets[0].tunnels == 0 && report.connections == 0).await;
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

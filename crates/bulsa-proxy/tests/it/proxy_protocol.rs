//! Balancers that say who their clients are, and targets that want to hear it.

use std::time::Duration;

use bulsa_proxy::{Bounds, Limits, ListenerRoutes, ProxyHeader, Service, Table, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

const V1: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
const V2_BEGIN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(command: u8, rest: &[u8]) -> Vec<u8> {
    [V2_BEGIN, &[command, 0x11, 0, rest.len() as u8], rest].concat()
}

fn behind_balancer(number: u64, targets: &[Target]) -> Table {
    let mut table = table(number, targets);
    table.listeners[0].proxy_from = vec!["127.0.0.1/32".parse().unwrap()];
    table
}

async fn forwarded_for(rig: &Rig, backend: &Backend, header: &[u8]) -> String {
    let mut client = Wire::connect(rig.addr).await;
    client.stream.write_all(&[header, get("/").as_bytes()].concat()).await.unwrap();
    assert_eq!(patient(client.message()).await.unwrap().status(), 200);
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    backend.seen.all().last().unwrap().field("x-forwarded-for")
}

async fn is_reset(rig: &Rig, bytes: &[u8]) -> bool {
    let mut client = Wire::connect(rig.addr).await;
    client.stream.write_all(bytes).await.unwrap();
    let mut all = Vec::new();
    patient(client.stream.read_to_end(&mut all)).await.is_err() && all.is_empty()
}

#[tokio::test]
async fn a_balancers_word_about_its_client_is_taken() {
    let backend = Backend::saying("x").await;
    let rig = Rig::new(&behind_balancer(1, &[backend.target("a")])).await;
    assert_eq!(forwarded_for(&rig, &backend, V1.as_bytes()).await, "192.0.2.7");
    let addresses = [203, 0, 113, 9, 198, 51, 100, 1, 1, 2, 3, 4];
    assert_eq!(forwarded_for(&rig, &backend, &v2(0x21, &addresses)).await, "203.0.113.9");
    assert_eq!(forwarded_for(&rig, &backend, &v2(0x20, &[])).await, "127.0.0.1", "its own connection");
    assert_eq!(forwarded_for(&rig, &backend, b"PROXY UNKNOWN\r\n").await, "127.0.0.1");
}

#[tokio::test]
async fn a_balancer_that_says_nothing_sound_is_reset() {
    let backend = Backend::saying("x").await;
    let bounds = Bounds { proxy_header_time: Duration::from_millis(200), ..Bounds::default() };
    let rig = Rig::within(bounds, 1, &behind_balancer(1, &[backend.target("a")])).await;
    for bytes in
        [&get("/").into_bytes()[..], b"PROXY TCP4 x\r\n\r\n", &v2(0x22, &[]), b"PROXY TCP4 192.0", b""]
    {
        assert!(is_reset(&rig, bytes).await, "{bytes:?}");
    }
    assert_eq!(rig.until(|report| report.connections == 0).await.refused_clients, 5);
    assert_eq!(backend.seen.count(), 0);
}

#[tokio::test]
async fn anybody_elses_header_is_no_http() {
    let backend = Backend::saying("x").await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    for header in [V1.as_bytes(), &v2(0x21, &[0; 12])] {
        let mut client = Wire::connect(rig.addr).await;
        client.stream.write_all(&[header, get("/").as_bytes()].concat()).await.unwrap();
        assert_eq!(patient(client.message()).await.unwrap().status(), 400);
    }
    assert_eq!(backend.seen.count(), 0);
}

#[tokio::test]
async fn clients_behind_a_balancer_are_counted_each_on_its_own() {
    let backend = Backend::saying("x").await;
    let limits = Limits { connections_per_address: 1 };
    let rig = Rig::new(&Table { limits, ..behind_balancer(1, &[backend.target("a")]) }).await;
    let mut open = Vec::new();
    for client in ["192.0.2.1", "192.0.2.2"] {
        let mut wire = Wire::connect(rig.addr).await;
        wire.write(&format!("PROXY TCP4 {client} 198.51.100.1 1 2\r\n")).await;
        assert_eq!(wire.ask(&get("/")).await.status(), 200);
        open.push(wire);
    }
    assert!(is_reset(&rig, b"PROXY TCP4 192.0.2.1 198.51.100.1 3 4\r\n").await);
    for _ in 0..2 {
        let mut own = Wire::connect(rig.addr).await;
        own.stream.write_all(&v2(0x20, &[])).await.unwrap();
        assert_eq!(own.ask(&get("/")).await.status(), 200, "the balancer itself is not counted");
        open.push(own);
    }
}

/// A target that says what it was sent.
async fn recorder() -> Backend {
    Backend::serving(|mut wire, _| async move {
        let mut all = Vec::new();
        wire.stream.read_to_end(&mut all).await.ok();
        wire.stream.write_all(&all).await.ok();
    })
    .await
}

fn tcp_table(backend: &Backend, send_proxy: Option<ProxyHeader>) -> Table {
    let mut listener = ListenerRoutes::tcp("http", 0);
    listener.proxy_from = vec!["127.0.0.1/32".parse().unwrap()];
    let service = Service { send_proxy, ..Service::new("db", vec![backend.target("a")]) };
    Table { listeners: vec![listener], services: vec![service], ..Table::empty(1) }
}

async fn through(rig: &Rig, bytes: &[u8]) -> Vec<u8> {
    let mut client = Wire::connect(rig.addr).await;
    client.stream.write_all(bytes).await.unwrap();
    client.stream.shutdown().await.unwrap();
    patient(client.rest_to_end()).await
}

#[tokio::test]
async fn a_tcp_target_hears_whose_connection_it_is_before_anything_else() {
    let backend = recorder().await;
    let rig = Rig::new(&tcp_table(&backend, Some(ProxyHeader::V1))).await;
    let heard = through(&rig, &[V1.as_bytes(), b"hello"].concat()).await;
    assert_eq!(String::from_utf8_lossy(&heard), format!("{V1}hello"));
    let heard = String::from_utf8(through(&rig, b"PROXY UNKNOWN\r\nhello").await).unwrap();
    let own = "PROXY TCP4 127.0.0.1 127.0.0.1 ";
    assert!(heard.starts_with(own) && heard.ends_with(&format!(" {}\r\nhello", rig.addr.port())), "{heard}");

    let rig = Rig::new(&tcp_table(&backend, Some(ProxyHeader::V2))).await;
    let addresses = [203, 0, 113, 9, 198, 51, 100, 1, 1, 2, 3, 4];
    let sent = [v2(0x21, &addresses), b"hello".to_vec()].concat();
    assert_eq!(through(&rig, &sent).await, sent);

    let rig = Rig::new(&tcp_table(&backend, None)).await;
    assert_eq!(through(&rig, &[V1.as_bytes(), b"hello"].concat()).await, b"hello");
    assert!(is_reset(&rig, b"no header here").await);
}

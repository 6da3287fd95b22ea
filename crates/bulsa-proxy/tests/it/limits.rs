//! What one client may take: connections, time for a request's head, time to take an answer.

use std::time::{Duration, Instant};

use bulsa_proxy::{Bounds, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::*;

fn limited(number: u64, target: bulsa_proxy::Target, connections_per_address: u32) -> bulsa_proxy::Table {
    bulsa_proxy::Table { limits: Limits { connections_per_address }, ..table(number, &[target]) }
}

/// Whether a new connection is reset without a byte.
async fn is_turned_away(rig: &Rig) -> bool {
    let connect = async {
        let mut stream = TcpStream::connect(rig.addr).await?;
        stream.read(&mut [0; 1]).await
    };
    let error = patient(connect).await.expect_err("neither a byte nor a clean end");
    error.kind() == std::io::ErrorKind::ConnectionReset
}

async fn connect_from(ip: &str, rig: &Rig) -> Wire {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{ip}:0").parse().unwrap()).unwrap();
    Wire::new(socket.connect(rig.addr).await.unwrap())
}

#[tokio::test]
async fn an_address_has_so_many_connections_over_all_workers() {
    let backend = Backend::saying("x").await;
    let rig = Rig::with_workers(3, &limited(1, backend.target("a"), 4)).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut client = Wire::connect(rig.addr).await;
        assert_eq!(client.ask(&get("/")).await.status(), 200);
        open.push(client);
    }
    assert!(is_turned_away(&rig).await);
    assert_eq!(rig.until(|report| report.connections == 4).await.refused_clients, 1);
    let mut other = connect_from("127.0.0.2", &rig).await;
    assert_eq!(other.ask(&get("/")).await.status(), 200, "another address has its own");
    open.pop();
    rig.until(|report| report.connections == 4).await;
    assert_eq!(rig.get("/").await.status(), 200);
}

#[tokio::test]
async fn trusted_peers_and_a_limit_of_0_have_none() {
    let backend = Backend::saying("x").await;
    let rig = Rig::new(&limited(1, backend.target("a"), 1)).await;
    let mut first = Wire::connect(rig.addr).await;
    assert_eq!(first.ask(&get("/")).await.status(), 200);
    assert!(is_turned_away(&rig).await);
    let mut table = limited(2, backend.target("a"), 1);
    table.trusted = vec!["127.0.0.1/32".parse().unwrap()];
    rig.apply(&table).await;
    assert_eq!(rig.get("/").await.status(), 200);
    rig.apply(&limited(3, backend.target("a"), 0)).await;
    assert_eq!(rig.get("/").await.status(), 200);
    rig.apply(&limited(4, backend.target("a"), 1)).await;
    assert!(is_turned_away(&rig).await, "the first one is still counted");
}

#[tokio::test]
async fn the_connection_that_was_idle_for_longest_makes_room() {
    let backend = Backend::saying("x").await;
    let bounds = Bounds { connections: 4, ..Bounds::default() };
    let rig = Rig::within(bounds, 1, &table(1, &[backend.target("a")])).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Wire::connect(rig.addr).await;
        assert_eq!(client.ask(&get("/")).await.status(), 200);
        clients.push(client);
    }
    // The first one is the youngest now.
    assert_eq!(clients[0].ask(&get("/")).await.status(), 200);
    let mut newest = Wire::connect(rig.addr).await;
    assert_eq!(newest.ask(&get("/")).await.status(), 200);
    assert_eq!(patient(clients[1].rest_to_end()).await, b"", "closed, and not reset");
    for index in [2, 0] {
        assert_eq!(
            rig.until(|report| report.connections <= 3).await.evicted as usize,
            1 + usize::from(index == 0)
        );
        assert_eq!(clients[0].ask(&get("/")).await.status(), 200);
        assert_eq!(rig.get("/").await.status(), 200);
        if index == 2 {
            assert_eq!(patient(clients[2].rest_to_end()).await, b"");
        }
    }
}

#[tokio::test]
async fn neither_a_request_under_way_nor_the_begin_of_one_is_evicted() {
    let (go, _) = tokio::sync::watch::channel(false);
    let backend = Backend::waiting("x", &go).await;
    let bounds = Bounds { connections: 3, ..Bounds::default() };
    let rig = Rig::within(bounds, 1, &table(1, &[backend.target("a")])).await;
    let mut busy = Wire::connect(rig.addr).await;
    busy.write(&get("/busy")).await;
    let mut begun = Wire::connect(rig.addr).await;
    begun.write("GET /begun HT").await;
    let mut silent = Wire::connect(rig.addr).await;
    rig.until(|report| report.connections == 2).await;
    backend.seen.at_least(1).await;
    assert_eq!(patient(silent.rest_to_end()).await, b"", "it had nothing to say so far");
    let mut waiting = Wire::connect(rig.addr).await;
    waiting.write(&get("/waiting")).await;
    go.send_replace(true);
    assert_eq!(patient(busy.message()).await.unwrap().status(), 200);
    assert_eq!(begun.ask("TP/1.1\r\nHost: a\r\n\r\n").await.status(), 200);
    assert_eq!(patient(waiting.message()).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_head_has_its_time_however_slowly_it_drips() {
    let backend = Backend::saying("x").await;
    let bounds = Bounds { head_time: Duration::from_millis(300), ..Bounds::default() };
    let rig = Rig::within(bounds, 1, &table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    let begun = Instant::now();
    let (mut reader, mut writer) = client.stream.into_split();
    let drip = tokio::spawn(async move {
        for byte in get("/slow").repeat(100).bytes() {
            if writer.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut all = Vec::new();
    // What was on its way then makes it a reset.
    drop(patient(reader.read_to_end(&mut all)).await);
    assert!(all.is_empty() || all.starts_with(b"HTTP/1.1 408"), "no answer to what is no request yet");
    assert!(Duration::from_millis(290) <= begun.elapsed(), "{:?}", begun.elapsed());
    drip.abort();
    rig.until(|report| report.connections == 0).await;
    assert_eq!(backend.seen.count(), 1);
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_cut_off() {
    let backend = Backend::serving(|mut wire, seen| async move {
        seen.next(&mut wire).await;
        wire.write("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await;
        while wire.stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
    })
    .await;
    let bounds = Bounds { stall_time: Duration::from_millis(300), ..Bounds::default() };
    let rig = Rig::within(bounds, 1, &table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write(&get("/")).await;
    backend.seen.at_least(1).await;
    let begun = Instant::now();
    rig.until(|report| report.connections == 0 && report.targets[0].in_flight == 0).await;
    assert!(Duration::from_millis(290) <= begun.elapsed(), "{:?}", begun.elapsed());
    let mut all = Vec::new();
    let error = patient(client.stream.read_to_end(&mut all)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_client_that_takes_its_answer_slowly_is_not_cut_off() {
    let backend = Backend::serving(|mut wire, seen| async move {
        seen.next(&mut wire).await;
        wire.write("HTTP/1.1 200 OK\r\nContent-Length: 16777216\r\n\r\n").await;
        wire.stream.write_all(&vec![b'x'; 1 << 24]).await.unwrap();
    })
    .await;
    let bounds = Bounds { stall_time: Duration::from_millis(500), ..Bounds::default() };
    let rig = Rig::within(bounds, 1, &table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write(&get("/")).await;
    assert_eq!(patient(client.head()).await.unwrap().lines().next(), Some("HTTP/1.1 200 OK"));
    let (mut read, begun) = (client.rest.len(), Instant::now());
    let mut buffer = vec![0; 1 << 20];
    while read < 1 << 24 {
        tokio::time::sleep(Duration::from_millis(40)).await;
        read += patient(client.stream.read(&mut buffer)).await.unwrap();
    }
    assert!(
        Duration::from_millis(500) < begun.elapsed(),
        "longer than one stall may be: {:?}",
        begun.elapsed()
    );
}

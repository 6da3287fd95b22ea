use std::time::Duration;

use bulsa_proxy::Table;
use tokio::sync::watch;

use crate::support::*;

#[tokio::test]
async fn a_request_in_flight_finishes_and_its_connection_is_closed() {
    let (go, _) = watch::channel(false);
    let backend = Backend::waiting("done", &go).await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write(&get("/")).await;
    backend.seen.at_least(1).await;
    rig.proxy.shutdown(Duration::from_secs(600));
    rig.until(|report| report.settled).await;
    go.send_replace(true);
    let answer = patient(client.message()).await.unwrap();
    assert_eq!((answer.text().as_str(), answer.field("connection").as_str()), ("done", "close"));
    assert_eq!(patient(client.rest_to_end()).await, b"");
    patient(rig.proxy.ended()).await;
    assert_eq!(rig.proxy.report().workers_ended, 1);
}

#[tokio::test]
async fn an_idle_connection_may_ask_once_more() {
    let backend = Backend::saying("x").await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    assert_eq!(client.ask(&get("/")).await.field("connection"), "");
    rig.proxy.shutdown(Duration::from_secs(600));
    rig.until(|report| report.settled).await;
    assert_eq!(client.ask(&get("/")).await.field("connection"), "close");
    patient(rig.proxy.ended()).await;
}

#[tokio::test]
async fn nothing_more_is_accepted_and_idle_connections_are_closed() {
    let backend = Backend::saying("x").await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut idle = Wire::connect(rig.addr).await;
    idle.ask(&get("/")).await;
    rig.proxy.shutdown(Duration::from_millis(200));
    rig.until(|report| report.settled).await;
    patient(async { while tokio::net::TcpStream::connect(rig.addr).await.is_ok() {} }).await;
    assert_eq!(patient(idle.rest_to_end()).await, b"");
    patient(rig.proxy.ended()).await;
}

#[tokio::test]
async fn what_is_left_at_the_deadline_is_cut() {
    let (go, _) = watch::channel(false);
    let backend = Backend::waiting("never", &go).await;
    let rig = Rig::with_workers(2, &table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write(&get("/")).await;
    backend.seen.at_least(1).await;
    rig.proxy.shutdown(Duration::from_millis(50));
    assert!(patient(client.message()).await.is_none());
    patient(rig.proxy.ended()).await;
    assert_eq!(rig.target("a").in_flight, 0);
}

#[tokio::test]
async fn a_proxy_that_is_dropped_ends() {
    let backend = Backend::saying("x").await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut idle = Wire::connect(rig.addr).await;
    idle.ask(&get("/")).await;
    drop(rig);
    assert_eq!(patient(idle.rest_to_end()).await, b"");
}

#[tokio::test]
async fn a_listener_that_loses_its_routes_loses_the_connections_that_clients_keep_to_it() {
    let (go, _) = watch::channel(false);
    let (idle, waiting) = (Backend::saying("x").await, Backend::waiting("done", &go).await);
    let rig = Rig::new(&table(1, &[idle.target("a")])).await;
    let mut kept = Wire::connect(rig.addr).await;
    assert_eq!(kept.ask(&get("/")).await.field("connection"), "");
    rig.apply(&table(2, &[waiting.target("b")])).await;
    let mut busy = Wire::connect(rig.addr).await;
    busy.write(&get("/")).await;
    waiting.seen.at_least(1).await;
    rig.apply(&Table::empty(3)).await;
    assert_eq!(patient(kept.rest_to_end()).await, b"", "its client is to look where to go now");
    go.send_replace(true);
    let answer = patient(busy.message()).await.unwrap();
    assert_eq!((answer.text().as_str(), answer.field("connection").as_str()), ("done", "close"));
    assert_eq!(patient(busy.rest_to_end()).await, b"");
}

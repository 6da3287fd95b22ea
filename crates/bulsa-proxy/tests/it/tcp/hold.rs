use tokio::io::AsyncWriteExt;

use super::{echo, ends, hears, tcp, write_until_stuck};
use crate::support::*;

#[tokio::test]
async fn a_connection_waits_for_a_target() {
    let rig = Rig::new(&tcp(1, &[])).await;
    let (mut silent, mut asking) = (Wire::connect(rig.addr).await, Wire::connect(rig.addr).await);
    asking.write("hello").await;
    rig.held(2).await;
    let backend = echo("hi").await;
    rig.apply(&tcp(2, &[backend.target("a")])).await;
    hears(&mut silent, "hi").await;
    hears(&mut asking, "hihello").await;
    rig.held(0).await;
}

#[tokio::test]
async fn a_wait_ends_with_a_close() {
    let mut table = tcp(1, &[]);
    table.services[0].hold.time_ms = 20;
    let rig = Rig::new(&table).await;
    let mut client = Wire::connect(rig.addr).await;
    ends(&mut client).await;
    rig.held(0).await;
    assert_eq!(rig.proxy.report().unavailable, 1);
}

#[tokio::test]
async fn without_room_to_wait_a_connection_is_closed_at_once() {
    let mut table = tcp(1, &[]);
    table.services[0].hold.requests = 1;
    let rig = Rig::with_workers(2, &table).await;
    let _waiting = Wire::connect(rig.addr).await;
    rig.held(1).await;
    ends(&mut Wire::connect(rig.addr).await).await;
    table.number = 2;
    table.services[0].hold.time_ms = 0;
    rig.apply(&table).await;
    ends(&mut Wire::connect(rig.addr).await).await;
}

#[tokio::test]
async fn the_bytes_of_a_connection_that_waits_are_not_read() {
    let rig = Rig::new(&tcp(1, &[])).await;
    let mut client = Wire::connect(rig.addr).await;
    assert!(write_until_stuck(&mut client).await < 50_000_000, "the proxy takes in what it cannot pass on");
    rig.held(1).await;
}

#[tokio::test]
async fn a_client_that_is_gone_waits_no_more() {
    let rig = Rig::new(&tcp(1, &[])).await;
    let silent = Wire::connect(rig.addr).await;
    let mut resetting = Wire::connect(rig.addr).await;
    resetting.write("hello").await;
    rig.held(2).await;
    drop(silent);
    rig.held(1).await;
    resetting.stream.set_zero_linger().unwrap();
    drop(resetting);
    rig.held(0).await;
    rig.until(|report| report.connections == 0).await;
}

#[tokio::test]
async fn a_whole_question_behind_which_the_client_has_ended_is_still_answered() {
    let rig = Rig::new(&tcp(1, &[])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write("question").await;
    client.stream.shutdown().await.unwrap();
    rig.held(1).await;
    let backend = echo("").await;
    rig.apply(&tcp(2, &[backend.target("a")])).await;
    assert_eq!(patient(client.rest_to_end()).await, b"question");
}

#[tokio::test]
async fn a_connection_waits_for_a_target_that_refuses_now() {
    let (gone, socket) = nowhere("a");
    let rig = Rig::new(&tcp(1, &[gone])).await;
    let mut client = Wire::connect(rig.addr).await;
    rig.held(1).await;
    let _back = Backend::serving_on(socket.listen(16).unwrap(), |mut wire, _| async move {
        wire.write("back").await;
    });
    assert_eq!(patient(client.rest_to_end()).await, b"back");
    assert!(1 <= rig.target("a").refused);
}

#[tokio::test]
async fn a_connection_that_waits_follows_the_table_to_http_and_away() {
    let rig = Rig::new(&tcp(1, &[])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write(&get("/x")).await;
    rig.held(1).await;
    let web = Backend::saying("page").await;
    rig.apply(&table(2, &[web.target("web")])).await;
    assert_eq!(patient(client.message()).await.unwrap().text(), "page");
    rig.apply(&tcp(3, &[])).await;
    let mut client = Wire::connect(rig.addr).await;
    rig.held(1).await;
    let mut none = tcp(4, &[]);
    none.listeners.clear();
    rig.apply(&none).await;
    ends(&mut client).await;
    assert_eq!(rig.proxy.report().no_route, 1);
}

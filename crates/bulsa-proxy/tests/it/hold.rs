use tokio::sync::watch;

use crate::support::*;

#[tokio::test]
async fn requests_wait_for_a_target_and_are_answered() {
    let rig = Rig::new(&table(1, &[])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write(&post("/", "body")).await;
    rig.held(1).await;
    let backend = Backend::saying("x").await;
    rig.apply(&table(2, &[backend.target("a")])).await;
    assert_eq!(patient(client.message()).await.unwrap().status(), 200);
    assert_eq!(backend.seen.all()[0].text(), "body");
    rig.held(0).await;
}

#[tokio::test]
async fn a_wait_ends_with_503() {
    let mut table = table(1, &[]);
    table.services[0].hold.time_ms = 20;
    let rig = Rig::new(&table).await;
    let answer = rig.get("/").await;
    assert_eq!((answer.status(), answer.field("retry-after").as_str()), (503, "1"));
    assert_eq!(rig.proxy.report().unavailable, 1);
    rig.held(0).await;
}

#[tokio::test]
async fn only_so_many_may_wait_over_all_workers() {
    let mut table = table(1, &[]);
    table.services[0].hold.requests = 3;
    let rig = Rig::with_workers(2, &table).await;
    let mut waiting = Vec::new();
    for count in 1..=3 {
        let mut client = Wire::connect(rig.addr).await;
        client.write(&get("/")).await;
        waiting.push(client);
        rig.held(count).await;
    }
    assert_eq!(rig.get("/").await.status(), 503);
    drop(waiting.pop());
    rig.held(2).await;
    let mut again = Wire::connect(rig.addr).await;
    again.write(&get("/")).await;
    rig.held(3).await;
}

#[tokio::test]
async fn a_service_that_holds_nothing_answers_at_once() {
    let mut table = table(1, &[]);
    table.services[0].hold.requests = 0;
    let rig = Rig::new(&table).await;
    assert_eq!(rig.get("/").await.status(), 503);
}

#[tokio::test]
async fn a_target_that_refused_is_tried_again_without_a_new_table() {
    let (gone, socket) = nowhere("a");
    let rig = Rig::new(&table(1, std::slice::from_ref(&gone))).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write(&get("/")).await;
    rig.held(1).await;
    let _back = Backend::serving_on(socket.listen(16).unwrap(), |mut wire, seen| async move {
        seen.next(&mut wire).await;
        wire.write(&ok("back")).await;
    });
    assert_eq!(patient(client.message()).await.unwrap().text(), "back");
    assert!(1 <= rig.target("a").refused);
}

#[tokio::test]
async fn a_held_body_is_not_read() {
    let rig = Rig::new(&table(1, &[])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n").await;
    rig.held(1).await;
    let block = vec![b'x'; 1 << 16];
    let mut written = 0;
    // Everything between here and there fills up and then takes no more.
    while let Ok(Ok(count)) = tokio::time::timeout(
        std::time::Duration::from_millis(200),
        tokio::io::AsyncWriteExt::write(&mut client.stream, &block),
    )
    .await
    {
        written += count;
        assert!(written < 50_000_000, "the proxy takes in the body");
    }
}

#[tokio::test]
async fn held_requests_are_let_out_paced() {
    let mut held = table(1, &[]);
    held.services[0].hold.requests = 1000;
    let rig = Rig::new(&held).await;
    let mut clients = Vec::new();
    for _ in 0..80 {
        let mut client = Wire::connect(rig.addr).await;
        client.write(&get("/")).await;
        clients.push(client);
    }
    rig.held(80).await;
    let (go, _) = watch::channel(false);
    let backend = Backend::waiting("x", &go).await;
    rig.apply(&table(2, &[backend.target("a")])).await;
    backend.seen.at_least(32).await;
    rig.until(|report| report.held[0].requests == 48 && report.targets[0].in_flight == 32).await;
    assert_eq!(backend.seen.count(), 32);
    go.send_replace(true);
    for client in &mut clients {
        assert_eq!(patient(client.message()).await.unwrap().status(), 200);
    }
    assert_eq!(backend.seen.count(), 80);
}

#[tokio::test]
async fn a_waiting_request_whose_route_goes_away_is_told_so() {
    let rig = Rig::new(&table(1, &[])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write(&get("/")).await;
    rig.held(1).await;
    let mut next = table(2, &[]);
    next.listeners[0].routes[0].path = "/api".into();
    rig.apply(&next).await;
    assert_eq!(patient(client.message()).await.unwrap().status(), 404);
}

#[tokio::test]
async fn on_request_all_wait_though_a_target_is_ready() {
    let backend = Backend::saying("x").await;
    let mut table = table(1, &[backend.target("a")]);
    table.services[0].hold.on = true;
    let rig = Rig::new(&table).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write(&get("/")).await;
    rig.held(1).await;
    assert_eq!(backend.seen.count(), 0);
    table.number = 2;
    table.services[0].hold.on = false;
    rig.apply(&table).await;
    assert_eq!(patient(client.message()).await.unwrap().status(), 200);
}

#[tokio::test]
async fn who_waits_in_vain_gets_the_services_own_page() {
    let mut table = table(1, &[]);
    table.services[0].hold.time_ms = 1;
    table.services[0].hold.page = Some("<h1>soon</h1>".into());
    let rig = Rig::new(&table).await;
    let answer = rig.get("/").await;
    assert_eq!((answer.status(), answer.text().as_str()), (503, "<h1>soon</h1>"));
    assert_eq!(answer.field("content-type"), "text/html; charset=utf-8");
    assert_eq!(answer.field("retry-after"), "1");
}

#[tokio::test]
async fn while_requests_wait_an_outer_balancer_is_told_that_all_is_well() {
    let mut table = table(1, &[]);
    table.services[0].health_path = Some("/health?full".into());
    table.services[0].hold.time_ms = 200;
    let rig = Rig::new(&table).await;
    assert_eq!(rig.get("/health").await.status(), 200);
    assert_eq!(ask(rig.addr, &post("/health", "")).await.status(), 503, "that is no check");
    assert_eq!(rig.get("/health").await.status(), 503, "as long as requests may wait, and no longer");
}

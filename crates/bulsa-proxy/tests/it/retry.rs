use crate::support::*;

#[tokio::test]
async fn a_refused_request_goes_to_another_target_whatever_its_method() {
    let backend = Backend::saying("x").await;
    let (gone, _unused) = nowhere("gone");
    let rig = Rig::new(&table(1, &[gone, backend.target("a")])).await;
    for _ in 0..4 {
        assert_eq!(ask(rig.addr, &post("/", "body")).await.status(), 200);
    }
    assert_eq!(rig.target("gone").refused, 1, "it is left out after the first time");
    assert_eq!(rig.target("gone").in_flight, 0);
    assert_eq!(backend.seen.all()[0].text(), "body");
}

#[tokio::test]
async fn a_target_left_out_is_back_when_it_is_routed_anew() {
    let (gone, socket) = nowhere("a");
    let other = Backend::saying("other").await;
    let rig = Rig::new(&table(1, &[gone.clone(), other.target("b")])).await;
    rig.get("/").await;
    rig.get("/").await;
    let back = Backend::serving_on(socket.listen(16).unwrap(), |mut wire, seen| async move {
        seen.next(&mut wire).await;
        wire.write(&ok("back")).await;
    });
    rig.apply(&table(2, &[other.target("b")])).await;
    rig.apply(&table(3, &[gone, other.target("b")])).await;
    let answers = [rig.get("/").await.text(), rig.get("/").await.text()];
    assert!(answers.contains(&"back".into()), "{answers:?}");
    assert_eq!(back.seen.count(), 1);
}

#[tokio::test]
async fn a_get_that_was_lost_goes_once_to_another_target() {
    let (dying, alive) = (Backend::dying().await, Backend::saying("x").await);
    let rig = Rig::new(&table(1, &[dying.target("dying"), alive.target("alive")])).await;
    for _ in 0..4 {
        assert_eq!(rig.get("/").await.status(), 200);
    }
    let report = rig.proxy.report();
    assert_eq!(report.retried, dying.seen.count() as u64);
    assert_eq!(rig.target("dying").broken, dying.seen.count() as u64);
    assert_eq!(alive.seen.count(), 4);
    let (first, second) = (&dying.seen.all()[0], &alive.seen.all()[0]);
    assert_eq!(first.head, second.head, "it is the same request");
}

#[tokio::test]
async fn when_the_second_target_dies_too_there_is_no_third() {
    let all = [Backend::dying().await, Backend::dying().await, Backend::dying().await];
    let targets: Vec<_> = all.iter().zip(["a", "b", "c"]).map(|(b, id)| b.target(id)).collect();
    let rig = Rig::new(&table(1, &targets)).await;
    assert_eq!(rig.get("/").await.status(), 502);
    assert_eq!(all.iter().map(|backend| backend.seen.count()).sum::<usize>(), 2);
    assert_eq!(rig.proxy.report().bad_gateway, 1);
}

#[tokio::test]
async fn a_post_that_was_sent_and_lost_is_not_sent_again() {
    let (dying, alive) = (Backend::dying().await, Backend::saying("x").await);
    let rig = Rig::new(&table(1, &[dying.target("dying"), alive.target("alive")])).await;
    let answers = [ask(rig.addr, &post("/", "a")).await, ask(rig.addr, &post("/", "a")).await];
    let mut statuses = answers.map(|answer| answer.status());
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502]);
    assert_eq!((dying.seen.count(), alive.seen.count()), (1, 1));
}

#[tokio::test]
async fn a_put_is_sent_again_with_its_body_unless_that_is_too_long_to_be_kept() {
    let (dying, alive) = (Backend::dying().await, Backend::saying("x").await);
    for (body, expected) in [("a".repeat(60_000), [200, 200]), ("a".repeat(70_000), [200, 502])] {
        let rig = Rig::new(&table(1, &[dying.target("dying"), alive.target("alive")])).await;
        let request = post("/", &body).replace("POST", "PUT");
        let mut statuses = [ask(rig.addr, &request).await.status(), ask(rig.addr, &request).await.status()];
        statuses.sort_unstable();
        assert_eq!(statuses, expected, "{} bytes", body.len());
        assert!(alive.seen.all().iter().all(|message| message.body.len() % 10_000 == 0));
    }
}

#[tokio::test]
async fn a_chunked_put_is_sent_again_whole() {
    let (dying, alive) = (Backend::dying().await, Backend::saying("x").await);
    let rig = Rig::new(&table(1, &[dying.target("dying"), alive.target("alive")])).await;
    let request =
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    for _ in 0..2 {
        assert_eq!(ask(rig.addr, request).await.status(), 200);
    }
    assert!(alive.seen.all().iter().all(|message| message.text() == "abcde"));
}

#[tokio::test]
async fn a_get_lost_to_a_connection_closed_in_that_moment_goes_to_the_same_target() {
    // Every other request is answered by closing the connection, as if its keep-alive had just run out.
    let backend = Backend::serving(|mut wire, seen| async move {
        while seen.next(&mut wire).await.is_some() && seen.count() % 2 == 1 {
            wire.write(&ok("x")).await;
        }
    })
    .await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    assert_eq!(client.ask(&get("/")).await.status(), 200);
    let begun = std::time::Instant::now();
    assert_eq!(client.ask(&get("/")).await.status(), 200, "on a fresh connection");
    assert!(begun.elapsed() < std::time::Duration::from_millis(900), "nothing is waited for");
    assert!(!rig.target("a").left_out);
    // Since then nothing that must not be sent twice goes on an idle connection.
    let before = backend.seen.connections();
    client.ask(&post("/", "x")).await;
    assert_eq!(backend.seen.connections(), before + 1);
}

#[tokio::test]
async fn a_get_that_got_part_of_an_answer_is_not_sent_again() {
    let garbling = Backend::serving(|mut wire, seen| async move {
        seen.next(&mut wire).await;
        wire.write("HTTP/1.1 200").await;
    })
    .await;
    let rig = Rig::new(&table(1, &[garbling.target("a")])).await;
    assert_eq!(rig.get("/").await.status(), 502);
    assert_eq!(garbling.seen.count(), 1);
    assert_eq!(rig.target("a").broken, 1);
}

#[tokio::test]
async fn a_lost_get_waits_for_a_new_target_when_there_is_no_other() {
    let dying = Backend::dying().await;
    let rig = Rig::new(&table(1, &[dying.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write(&get("/")).await;
    rig.held(1).await;
    let next = Backend::saying("next").await;
    rig.apply(&table(2, &[next.target("b")])).await;
    assert_eq!(patient(client.message()).await.unwrap().text(), "next");
    assert_eq!((dying.seen.count(), next.seen.count()), (1, 1));
}

#[tokio::test]
async fn a_post_on_a_pooled_connection_that_died_goes_on_a_fresh_one() {
    // Each connection serves one request and is closed some time after its answer.
    let backend = Backend::serving(|mut wire, seen| async move {
        seen.next(&mut wire).await;
        wire.write(&ok("x")).await;
    })
    .await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    for _ in 0..50 {
        assert_eq!(client.ask(&post("/", "body")).await.status(), 200);
    }
    assert_eq!(backend.seen.count(), 50);
    assert_eq!(rig.target("a").refused, 0);
}

#[tokio::test]
async fn a_killed_target_costs_no_get_and_its_idle_connections_cost_no_post() {
    let (a, b) = (Backend::saying("a").await, Backend::saying("b").await);
    let rig = Rig::new(&table(1, &[a.target("a"), b.target("b")])).await;
    let mut client = Wire::connect(rig.addr).await;
    for _ in 0..4 {
        assert_eq!(client.ask(&get("/")).await.status(), 200);
    }
    a.kill().await;
    for request in [post("/", "1"), get("/"), post("/", "2"), get("/")] {
        let answer = client.ask(&request).await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, "b"));
    }
}

#[tokio::test]
async fn a_101_that_nobody_asked_for_is_a_bad_gateway() {
    let backend = Backend::serving(|mut wire, seen| async move {
        seen.next(&mut wire).await;
        wire.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
            .await;
        wire.rest_to_end().await;
    })
    .await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    assert_eq!(rig.get("/").await.status(), 502);
}

use std::net::SocketAddr;

use bulsa_proxy::{Applied, Route, Service, TableError};

use crate::support::*;

#[tokio::test]
async fn a_request_and_its_answer_pass_with_their_bodies() {
    let backend = Backend::saying("hello").await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let answer = ask(rig.addr, &post("/path?q=1", "some body")).await;
    assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
    let asked = &backend.seen.all()[0];
    assert_eq!((asked.line(), asked.text().as_str()), ("POST /path?q=1 HTTP/1.1", "some body"));
    assert_eq!(asked.field("host"), "shop.example");
    let target = rig.until(|report| report.targets[0].in_flight == 0).await.targets.remove(0);
    assert_eq!((target.requests, target.answers_5xx, target.broken), (1, 0, 0));
}

#[tokio::test]
async fn fields_keep_their_case_both_ways() {
    let backend = Backend::serving(|mut wire, seen| async move {
        seen.next(&mut wire).await;
        wire.write("HTTP/1.1 200 Fine\r\nX-CamelCase: Yes\r\nContent-Length: 0\r\n\r\n").await;
    })
    .await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let answer = ask(rig.addr, "GET / HTTP/1.1\r\nHost: a\r\nX-ReQuest: Yes\r\n\r\n").await;
    assert!(answer.head.starts_with("HTTP/1.1 200 Fine\r\n"), "{}", answer.head);
    assert!(answer.head.contains("X-CamelCase: Yes"), "{}", answer.head);
    let asked = &backend.seen.all()[0];
    assert!(asked.head.contains("X-ReQuest: Yes"), "{}", asked.head);
}

#[tokio::test]
async fn connections_to_a_target_are_reused() {
    let backend = Backend::saying("x").await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    for _ in 0..5 {
        assert_eq!(client.ask(&get("/")).await.status(), 200);
    }
    assert_eq!((backend.seen.count(), backend.seen.connections()), (5, 1));
}

#[tokio::test]
async fn a_target_that_says_it_closes_soon_is_not_reused() {
    let backend = Backend::serving(|mut wire, seen| async move {
        while seen.next(&mut wire).await.is_some() {
            wire.write("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 0\r\n\r\n").await;
        }
    })
    .await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    for _ in 0..3 {
        assert_eq!(client.ask(&get("/")).await.field("keep-alive"), "");
    }
    assert_eq!(backend.seen.connections(), 3);
}

#[tokio::test]
async fn targets_take_turns() {
    let (a, b) = (Backend::saying("a").await, Backend::saying("b").await);
    let rig = Rig::new(&table(1, &[a.target("a"), b.target("b")])).await;
    for _ in 0..10 {
        rig.get("/").await;
    }
    assert_eq!((a.seen.count(), b.seen.count()), (5, 5));
}

#[tokio::test]
async fn a_stranger_cannot_say_where_it_comes_from() {
    let backend = Backend::saying("x").await;
    let mut table = table(1, &[backend.target("a")]);
    let rig = Rig::new(&table).await;
    let request =
        "GET / HTTP/1.1\r\nHost: shop\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\r\n";
    ask(rig.addr, request).await;
    table.number = 2;
    table.trusted = vec!["127.0.0.0/8".parse().unwrap()];
    rig.apply(&table).await;
    ask(rig.addr, request).await;
    let all = backend.seen.all();
    let said: Vec<_> =
        all.iter().map(|m| (m.field("x-forwarded-for"), m.field("x-forwarded-proto"))).collect();
    assert_eq!(said[0], ("127.0.0.1".into(), "http".into()));
    assert_eq!(said[1], ("6.6.6.6, 127.0.0.1".into(), "https".into()));
    assert_eq!(all[0].field("x-forwarded-host"), "shop");
}

#[tokio::test]
async fn what_no_route_takes_is_404_and_reveals_nothing() {
    let backend = Backend::saying("x").await;
    let mut table = table(1, &[backend.target("secret-id")]);
    table.listeners[0].routes[0].path = "/api".into();
    let rig = Rig::new(&table).await;
    let answer = rig.get("/other").await;
    assert_eq!((answer.status(), answer.field("content-type").as_str()), (404, "text/plain; charset=utf-8"));
    assert!(!answer.text().contains("secret"));
    assert_eq!(rig.get("/api/x").await.status(), 200);
    assert_eq!(rig.proxy.report().no_route, 1);
}

#[tokio::test]
async fn hosts_are_told_apart() {
    let (shop, any) = (Backend::saying("shop").await, Backend::saying("any").await);
    let mut table = table(1, &[any.target("any")]);
    table.services.push(Service {
        name: "shop".into(),
        targets: vec![shop.target("shop")],
        ..table.services[0].clone()
    });
    table.listeners[0].routes.push(Route::new(Some("shop.example"), "/", 1));
    let rig = Rig::new(&table).await;
    assert_eq!(ask(rig.addr, "GET / HTTP/1.1\r\nHost: SHOP.example:80\r\n\r\n").await.text(), "shop");
    assert_eq!(ask(rig.addr, "GET / HTTP/1.1\r\nHost: else\r\n\r\n").await.text(), "any");
    assert_eq!(ask(rig.addr, "GET http://shop.example/ HTTP/1.1\r\nHost: else\r\n\r\n").await.text(), "shop");
}

#[tokio::test]
async fn unfit_requests_are_answered_without_a_target() {
    let backend = Backend::saying("x").await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", 417),
    ] {
        assert_eq!(ask(rig.addr, request).await.status(), status, "{request}");
    }
    assert_eq!(backend.seen.count(), 0);
}

#[tokio::test]
async fn an_old_client_is_served_without_chunks() {
    let backend = Backend::serving(|mut wire, seen| async move {
        seen.next(&mut wire).await;
        wire.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    })
    .await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write("GET / HTTP/1.0\r\n\r\n").await;
    let all = String::from_utf8(patient(client.rest_to_end()).await).unwrap();
    assert!(all.starts_with("HTTP/1.1 200 OK") && all.ends_with("\r\n\r\nhello"), "{all}");
    assert_eq!(backend.seen.all()[0].line(), "GET / HTTP/1.1");
}

#[tokio::test]
async fn a_chunked_body_is_passed_on_also_with_get() {
    let backend = Backend::saying("x").await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    for method in ["POST", "GET"] {
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        );
        assert_eq!(ask(rig.addr, &request).await.status(), 200);
    }
    assert!(backend.seen.all().iter().all(|message| message.text() == "abcde"));
}

#[tokio::test]
async fn a_message_with_two_lengths_is_refused_and_nothing_is_read_behind_it() {
    let backend = Backend::saying("x").await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = Wire::connect(rig.addr).await;
    assert_eq!(client.ask(request).await.status(), 400);
    assert!(patient(client.message()).await.is_none(), "the connection is closed after it");
    assert_eq!(backend.seen.count(), 0);
}

#[tokio::test]
async fn the_proxy_itself_gives_leave_to_send_a_body() {
    let backend = Backend::saying("x").await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").await;
    let leave = patient(client.head()).await.unwrap();
    assert!(leave.starts_with("HTTP/1.1 100"), "{leave}");
    assert_eq!(client.ask("body").await.status(), 200);
    let asked = &backend.seen.all()[0];
    assert_eq!((asked.field("expect").as_str(), asked.text().as_str()), ("", "body"));
}

#[tokio::test]
async fn the_answer_to_head_keeps_its_length() {
    let backend = Backend::serving(|mut wire, seen| async move {
        while seen.next(&mut wire).await.is_some() {
            wire.write("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n").await;
        }
    })
    .await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    for _ in 0..2 {
        client.write("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = patient(client.head()).await.unwrap().to_ascii_lowercase();
        assert!(head.contains("content-length: 1234"), "{head}");
    }
    assert_eq!(backend.seen.connections(), 1);
}

#[tokio::test]
async fn a_large_body_passes_in_both_directions() {
    let backend = Backend::serving(|mut wire, seen| async move {
        let message = seen.next(&mut wire).await.unwrap();
        wire.write(&ok(&message.text())).await;
    })
    .await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let body = "0123456789abcdef".repeat(1 << 16);
    let mut client = Wire::connect(rig.addr).await;
    let request = post("/", &body);
    let (mut reader, mut writer) = client.stream.split();
    let write = async {
        tokio::io::AsyncWriteExt::write_all(&mut writer, request.as_bytes()).await.unwrap();
    };
    let mut all = Vec::new();
    let read = async {
        while !all.ends_with(b"cdef") || all.len() < body.len() {
            let mut buffer = vec![0; 1 << 16];
            let read = tokio::io::AsyncReadExt::read(&mut reader, &mut buffer).await.unwrap();
            assert_ne!(read, 0, "the answer is whole");
            all.extend_from_slice(&buffer[..read]);
        }
    };
    patient(async { tokio::join!(write, read) }).await;
    assert!(all.ends_with(body.as_bytes()));
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_request_with_it() {
    let (go, _) = tokio::sync::watch::channel(false);
    let backend = Backend::waiting("x", &go).await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write(&get("/")).await;
    backend.seen.at_least(1).await;
    assert_eq!(rig.target("a").in_flight, 1);
    drop(client);
    rig.until(|report| report.targets[0].in_flight == 0 && report.connections == 0).await;
    assert_eq!(rig.target("a").broken, 0, "the target is not to blame");
}

#[tokio::test]
async fn an_answer_before_the_bodys_end_reaches_the_client_and_ends_the_connection_to_the_target() {
    let backend = Backend::serving(|mut wire, seen| async move {
        let head = wire.head().await.unwrap_or_default();
        seen.note(Message { head, body: Vec::new() });
        wire.write("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n").await;
        wire.rest_to_end().await;
    })
    .await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc").await;
    assert_eq!(patient(client.message()).await.unwrap().status(), 413);
    assert_eq!(rig.get("/").await.status(), 413);
    assert_eq!(backend.seen.connections(), 2);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_broken_for_the_client_too() {
    let backend = Backend::serving(|mut wire, seen| async move {
        seen.next(&mut wire).await;
        wire.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    })
    .await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write(&get("/")).await;
    assert!(patient(client.message()).await.is_none());
    let target = rig.until(|report| report.targets[0].broken == 1).await.targets.remove(0);
    assert_eq!((target.requests, target.in_flight), (1, 0));
}

#[tokio::test]
async fn several_workers_share_one_socket_and_one_worker_serves_several() {
    let backend = Backend::saying("x").await;
    let rig = Rig::with_workers(3, &table(1, &[backend.target("a")])).await;
    for _ in 0..20 {
        assert_eq!(rig.get("/").await.status(), 200);
    }
    let sockets: Vec<_> = (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addrs: Vec<SocketAddr> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    rig.proxy.add_listener("http", sockets).unwrap();
    rig.until(|report| report.settled).await;
    for addr in addrs {
        assert_eq!(ask(addr, &get("/")).await.status(), 200);
    }
}

#[tokio::test]
async fn listeners_come_and_go() {
    let backend = Backend::saying("x").await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut open = Wire::connect(rig.addr).await;
    assert_eq!(open.ask(&get("/")).await.status(), 200);
    assert!(rig.proxy.remove_listener("http"));
    assert!(!rig.proxy.remove_listener("http"));
    rig.until(|report| report.settled).await;
    assert_eq!(open.ask(&get("/")).await.status(), 200, "what was accepted goes on");
    let refused = async { while tokio::net::TcpStream::connect(rig.addr).await.is_ok() {} };
    patient(refused).await;
    assert!(rig.proxy.add_listener("none", Vec::new()).is_err());
}

#[tokio::test]
async fn an_old_or_unsound_table_changes_nothing() {
    let backend = Backend::saying("x").await;
    let rig = Rig::new(&table(5, &[backend.target("a")])).await;
    assert_eq!(rig.proxy.apply(&table(5, &[])), Ok(Applied::Old));
    assert_eq!(rig.proxy.apply(&table(4, &[])), Ok(Applied::Old));
    let newer = bulsa_proxy::Table { version: 9, ..table(6, &[]) };
    assert!(matches!(rig.proxy.apply(&newer), Err(TableError::Version { found: 9, .. })));
    assert_eq!(rig.get("/").await.status(), 200);
    assert_eq!(rig.proxy.report().table, 5);
}

#[tokio::test]
async fn a_client_in_the_middle_of_a_large_body_still_hears_that_nobody_wants_it() {
    let mut table = table(1, &[]);
    table.listeners.clear();
    let rig = Rig::new(&table).await;
    let mut client = Wire::connect(rig.addr).await;
    assert_eq!(client.ask(&post("/", &"x".repeat(600_000))).await.status(), 404);
    assert_eq!(client.ask(&get("/")).await.status(), 404, "the connection is still good");
}

#[tokio::test]
async fn errors_of_accept_do_not_end_the_loop_nor_the_others() {
    let backend = Backend::saying("x").await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    // Accepting on a socket that does not listen is an error each time.
    let (_, deaf) = nowhere("deaf");
    let deaf = std::os::fd::AsFd::as_fd(&deaf).try_clone_to_owned().unwrap();
    rig.proxy.add_listener("deaf", vec![deaf.into()]).unwrap();
    rig.until(|report| 4 <= report.accept_errors).await;
    assert_eq!(rig.get("/").await.status(), 200);
}

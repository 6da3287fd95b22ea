//! The access log: a line for each request to a service that wants one, whatever becomes of the request.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulsa_proxy::{Hold, Redirect, Report, Route, Rules, Service, Table, Target};

use crate::support::*;

/// What was written of a log.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Paper {
    /// The lines, once there are so many, without what differs from run to run: address, time, request id and duration.
    async fn lines(&self, count: usize) -> Vec<String> {
        let wait = async {
            loop {
                let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
                if count <= text.lines().count() {
                    return text;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let text = patient(wait).await;
        assert!(text.ends_with('\n'), "{text}");
        text.lines().map(short).collect()
    }
}

fn short(line: &str) -> String {
    let (address, rest) = line.split_once(" - - [").expect("an address");
    let (time, rest) = rest.split_once("] ").expect("a time");
    assert!(address.parse::<std::net::IpAddr>().is_ok(), "{line}");
    assert!(time.ends_with(" +0000") && time.len() == 26, "{line}");
    let mut words: Vec<&str> = rest.split(' ').collect();
    assert!(words.pop().is_some_and(|took| took.parse::<f64>().is_ok()), "{line}");
    let target = words.pop().unwrap();
    assert_eq!(words.pop().map(str::len), Some(32), "{line}");
    words.push(target);
    words.join(" ")
}

fn logged(table: Table) -> Table {
    let mut table = table;
    for service in &mut table.services {
        service.access_log = true;
    }
    table
}

async fn rig(table: &Table) -> (Rig, Paper) {
    let (rig, paper) = (Rig::new(table).await, Paper::default());
    rig.proxy.write_access_log(Box::new(paper.clone()), u64::MAX).unwrap();
    (rig, paper)
}

#[tokio::test]
async fn answers_refusals_and_redirects_have_a_line_each_and_what_has_no_service_none() {
    let backend = Backend::saying("hello").await;
    let mut table = table(1, &[backend.target("shop/a")]);
    let to = "https://shop.example{path}{query}".into();
    let rules = Rules { redirect: Some(Redirect { status: 301, to }), ..Rules::default() };
    table.listeners[0].routes[0] = Route::new(Some("shop.example"), "/", 0);
    table.listeners[0].routes.push(Route { rules, ..Route::new(Some("www.shop.example"), "/", 0) });
    table.listeners[0].routes.push(Route::new(Some("down.example"), "/", 1));
    let hold = Hold { time_ms: 0, requests: 0, ..Hold::default() };
    table.services.push(Service { hold, ..Service::new("down", Vec::new()) });
    let (rig, paper) = rig(&logged(table)).await;

    let mut wire = Wire::connect(rig.addr).await;
    wire.ask(
        "GET /a?b=c HTTP/1.1\r\nHost: shop.example\r\nReferer: http://r/\"\r\nuser-agent: A \\ 1\r\n\r\n",
    )
    .await;
    wire.ask(&post("/form", "body")).await;
    wire.write("HEAD /head HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
    patient(wire.head()).await.expect("a head");
    wire.ask("GET /b HTTP/1.1\r\nHost: www.shop.example\r\n\r\n").await;
    assert_eq!(wire.ask("GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n").await.status(), 404);
    let refused = wire.ask("GET /down HTTP/1.1\r\nHost: down.example\r\n\r\n").await;
    assert_eq!(refused.status(), 503);
    assert_eq!(
        paper.lines(5).await,
        [
            r#""GET /a?b=c HTTP/1.1" 200 5 "http://r/\x22" "A \x5C 1" shop/a"#.to_owned(),
            r#""POST /form HTTP/1.1" 200 5 "-" "-" shop/a"#.to_owned(),
            r#""HEAD /head HTTP/1.1" 200 0 "-" "-" shop/a"#.to_owned(),
            r#""GET /b HTTP/1.1" 301 0 "-" "-" -"#.to_owned(),
            format!(r#""GET /down HTTP/1.1" 503 {} "-" "-" -"#, refused.body.len()),
        ]
    );
    let report = rig.proxy.report();
    assert_eq!(report.access_log_dropped, Some(0));
    // A proxy of before says nothing of it: it is not to be given a file.
    let mut old = serde_json::to_value(&report).unwrap();
    old.as_object_mut().unwrap().remove("access_log_dropped");
    assert_eq!(serde_json::from_value::<Report>(old).unwrap(), Report { access_log_dropped: None, ..report });
}

#[tokio::test]
async fn a_service_that_wants_no_log_has_none_and_the_next_table_may_want_one() {
    let backend = Backend::saying("x").await;
    let off = table(1, &[backend.target("a")]);
    let (rig, paper) = rig(&off).await;
    rig.get("/before").await;
    rig.apply(&logged(Table { number: 2, ..off.clone() })).await;
    rig.get("/while").await;
    rig.apply(&Table { number: 3, ..off }).await;
    rig.get("/after").await;
    assert_eq!(paper.lines(1).await, [r#""GET /while HTTP/1.1" 200 1 "-" "-" a"#]);
    rig.proxy.shutdown(Duration::ZERO);
    patient(rig.proxy.ended()).await;
    patient(rig.proxy.access_log_written()).await;
    assert_eq!(paper.lines(0).await.len(), 1);
}

#[tokio::test]
async fn a_client_that_goes_before_its_answer_is_499_and_one_that_goes_in_it_keeps_the_status() {
    let backend = Backend::serving(|mut wire, seen| async move {
        while let Some(asked) = seen.next(&mut wire).await {
            if asked.line().contains("/never") {
                std::future::pending::<()>().await;
            }
            wire.write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun").await;
            // The rest never comes, until the client is gone.
            wire.bytes(1).await;
        }
    })
    .await;
    let (rig, paper) = rig(&logged(table(1, &[backend.target("a")]))).await;
    let mut wire = Wire::connect(rig.addr).await;
    wire.write(&get("/never")).await;
    backend.seen.at_least(1).await;
    drop(wire);
    assert_eq!(paper.lines(1).await, [r#""GET /never HTTP/1.1" 499 0 "-" "-" a"#]);

    let nobody: [Target; 0] = [];
    let mut wire = Wire::connect(rig.addr).await;
    wire.write(&get("/part")).await;
    patient(wire.head()).await.expect("a head");
    patient(wire.bytes(5)).await.expect("what has begun");
    // The target breaks off: that is no fault of the client.
    backend.kill().await;
    patient(wire.message()).await.is_none().then_some(()).expect("no more");
    assert_eq!(paper.lines(2).await[1], r#""GET /part HTTP/1.1" 200 5 "-" "-" a"#);

    rig.apply(&logged(table(2, &nobody))).await;
    let mut wire = Wire::connect(rig.addr).await;
    wire.write(&get("/held")).await;
    rig.held(1).await;
    drop(wire);
    assert_eq!(paper.lines(3).await[2], r#""GET /held HTTP/1.1" 499 0 "-" "-" -"#);
}

#[tokio::test]
async fn a_client_that_takes_only_a_part_is_logged_with_what_went_out() {
    const LENGTH: usize = 64 << 20;
    let backend = Backend::serving(|mut wire, seen| async move {
        while seen.next(&mut wire).await.is_some() {
            wire.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
            let part = vec![b'x'; 1 << 16];
            while tokio::io::AsyncWriteExt::write_all(&mut wire.stream, &part).await.is_ok() {}
        }
    })
    .await;
    let (rig, paper) = rig(&logged(table(1, &[backend.target("a")]))).await;
    let mut wire = Wire::connect(rig.addr).await;
    wire.write(&get("/large")).await;
    patient(wire.head()).await.expect("a head");
    patient(wire.bytes(1 << 20)).await.expect("a MiB");
    drop(wire);
    let line = paper.lines(1).await.remove(0);
    let words: Vec<&str> = line.split(' ').collect();
    let bytes: usize = words[4].parse().unwrap();
    assert_eq!(words[3], "200", "{line}");
    assert!((1 << 20..LENGTH).contains(&bytes), "{line}");
}

#[tokio::test]
async fn a_tunnel_has_its_line_when_it_begins_and_a_stream_when_it_ends() {
    let backend = Backend::serving(|mut wire, seen| async move {
        while let Some(asked) = seen.next(&mut wire).await {
            if asked.line().contains("/events") {
                wire.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").await;
                wire.bytes(1).await;
            } else {
                wire.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n").await;
                wire.bytes(1).await;
            }
        }
    })
    .await;
    let (rig, paper) = rig(&logged(table(1, &[backend.target("a")]))).await;
    let mut tunnel = Wire::connect(rig.addr).await;
    tunnel
        .write("GET /ws HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        .await;
    assert!(patient(tunnel.head()).await.unwrap().starts_with("HTTP/1.1 101"));
    assert_eq!(paper.lines(1).await, [r#""GET /ws HTTP/1.1" 101 0 "-" "-" a"#]);
    let mut stream = Wire::connect(rig.addr).await;
    stream.write(&get("/events")).await;
    patient(stream.head()).await.expect("a head");
    patient(stream.bytes(3 + 9 + 2)).await.expect("an event");
    assert_eq!(paper.lines(1).await.len(), 1, "the stream goes on");
    backend.kill().await;
    assert_eq!(paper.lines(2).await[1], r#""GET /events HTTP/1.1" 200 9 "-" "-" a"#);
}

#[tokio::test]
async fn the_address_is_the_clients_behind_trusted_peers_and_nobody_elses_word_counts() {
    let backend = Backend::saying("x").await;
    let mut table = logged(table(1, &[backend.target("a")]));
    let (rig, paper) = rig(&table).await;
    let request = "GET / HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 6.6.6.6, 9.9.9.9\r\n\r\n";
    ask(rig.addr, request).await;
    paper.lines(1).await;
    table.number = 2;
    table.trusted = vec!["127.0.0.0/8".parse().unwrap()];
    rig.apply(&table).await;
    ask(rig.addr, request).await;
    paper.lines(2).await;
    let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
    let addresses: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(addresses, ["127.0.0.1", "9.9.9.9"]);
}

#[tokio::test]
async fn what_was_logged_before_the_file_came_and_right_before_the_end_is_written() {
    let backend = Backend::saying("x").await;
    let rig = Rig::with_workers(2, &logged(table(1, &[backend.target("a")]))).await;
    for _ in 0..10 {
        rig.get("/early").await;
    }
    let paper = Paper::default();
    rig.proxy.write_access_log(Box::new(paper.clone()), u64::MAX).unwrap();
    for _ in 0..10 {
        rig.get("/late").await;
    }
    rig.proxy.shutdown(Duration::from_secs(5));
    patient(rig.proxy.ended()).await;
    patient(rig.proxy.access_log_written()).await;
    let lines = paper.lines(20).await;
    assert_eq!(lines.len(), 20);
    assert_eq!(lines.iter().filter(|line| line.contains("/late")).count(), 10);
}

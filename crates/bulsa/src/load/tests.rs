use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::*;
use crate::demo::app::{End, tests::TestApp};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nx-release: v1\r\ncontent-length: 2\r\n\r\nok";

/// `requests` quick GETs at `rate`, all over pooled connections.
fn quick(target: SocketAddr, rate: u32, requests: u64) -> Config {
    Config { rate, requests, fresh: 0.0, mix: Shot::only_get("/"), ..Config::to(target) }
}

/// A server that hands each connection to `talk`, which runs in a thread; the second number counts connections.
fn server(talk: impl Fn(TcpStream, u64) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let talk = Arc::new(talk);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let talk = Arc::clone(&talk);
            std::thread::spawn(move || talk(stream.unwrap(), number as u64));
        }
    });
    address
}

/// Reads one request's head; false at the end of the connection.
fn read_head(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return false,
        }
    }
    true
}

#[test]
fn nothing_but_loopback_is_ever_bothered() {
    let away = SocketAddr::from(([192, 0, 2, 1], 80));
    assert!(matches!(Load::start(Config::to(away)), Err(LoadError::NotLoopback(_))));
}

#[test]
fn a_load_without_an_end_or_beyond_a_limit_does_not_start() {
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    for config in [
        Config { rate: 0, ..Config::to(here) },
        Config { rate: 1_000_000, ..Config::to(here) },
        Config { requests: REQUESTS_MAX + 1, ..Config::to(here) },
        Config { time: TIME_MAX * 2, ..Config::to(here) },
        Config { outstanding: 0, ..Config::to(here) },
        Config { mix: vec![], ..Config::to(here) },
    ] {
        assert!(matches!(Load::start(config), Err(LoadError::Limit { .. })));
    }
}

#[tokio::test]
async fn a_healthy_app_fails_nothing_and_every_answer_is_told_by_its_release() {
    let app = TestApp::start(&[("DEMO_VERSION", "v3")]);
    let config = Config { rate: 1000, requests: 200, fresh: 0.5, ..Config::to(app.address) };
    let config = Config { expect: Some("version v3".to_owned()), ..config };
    let report = Load::start(config).unwrap().finish().await;
    assert_eq!((report.requests, report.failed), (200, 0), "{:?}", report.failures);
    assert_eq!(report.releases.get("v3"), Some(&200));
    assert!(report.max >= Duration::from_millis(300), "some were slow: {report:?}");
    app.stop();
}

#[tokio::test]
async fn it_goes_on_sending_though_nothing_is_answered() {
    let seen = Arc::new(AtomicU64::new(0));
    let theirs = Arc::clone(&seen);
    let address = server(move |mut stream, _| {
        while read_head(&mut stream) {
            theirs.fetch_add(1, Ordering::SeqCst);
        }
    });
    let config = Config { timeout: Duration::from_millis(150), ..quick(address, 1000, 30) };
    let report = Load::start(config).unwrap().finish().await;
    assert_eq!(report.failed_by_kind, BTreeMap::from([("timeout".to_owned(), 30)]));
    assert_eq!(seen.load(Ordering::SeqCst), 30, "each was sent, and none of them twice");
}

#[tokio::test]
async fn who_had_to_wait_is_charged_from_the_due_time() {
    let begun = Instant::now();
    let address = server(move |mut stream, _| {
        // Nobody gets an answer in the first 150 ms.
        std::thread::sleep(Duration::from_millis(150).saturating_sub(begun.elapsed()));
        while read_head(&mut stream) {
            stream.write_all(ANSWER).unwrap();
        }
    });
    let report = Load::start(quick(address, 1000, 50)).unwrap().finish().await;
    assert_eq!(report.failed, 0);
    assert!(report.p50 >= Duration::from_millis(100), "{:?}", report.p50);
    assert!(report.longest_gap >= Duration::from_millis(100), "{:?}", report.longest_gap);
}

#[tokio::test]
async fn a_crash_costs_exactly_what_the_server_did_not_answer() {
    let answered = Arc::new(AtomicU64::new(0));
    let theirs = Arc::clone(&answered);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    // One connection at a time, ten answers, then everything is closed in the middle of the eleventh request.
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for _ in 0..10 {
            read_head(&mut stream);
            stream.write_all(ANSWER).unwrap();
            theirs.fetch_add(1, Ordering::SeqCst);
        }
        read_head(&mut stream);
    });
    let report = Load::start(quick(address, 50, 30)).unwrap().finish().await;
    thread.join().unwrap();
    assert_eq!(report.requests, 30);
    assert_eq!(report.requests - report.failed, answered.load(Ordering::SeqCst));
    // On a busy machine a second connection may have waited in the queue when the listener went: that is a reset.
    assert!(report.failures.iter().all(|failure| matches!(failure.kind, Kind::Refused | Kind::Reset)));
    assert!(report.failed_by_kind.contains_key("refused"), "{:?}", report.failed_by_kind);
    let cut = |failure: &Failure| {
        failure.kind == Kind::Reset && failure.connection.is_some_and(|connection| connection.reused)
    };
    assert!(report.failures.iter().any(cut), "the eleventh was cut: {:?}", report.failures);
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closed_costs_nothing() {
    let address = server(|mut stream, _| {
        // Corked, answer and end go out together: the close can't come after the next request.
        rustix::net::sockopt::set_tcp_cork(&stream, true).unwrap();
        read_head(&mut stream);
        stream.write_all(ANSWER).unwrap();
    });
    let report = Load::start(quick(address, 100, 20)).unwrap().finish().await;
    assert_eq!((report.requests, report.failed), (20, 0), "{:?}", report.failures);
}

#[tokio::test]
async fn a_connection_closed_after_the_request_was_sent_is_a_failure_and_is_not_tried_again() {
    let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let theirs = Arc::clone(&counts);
    // Answers the first request of each connection and cuts the second.
    let address = server(move |mut stream, _| {
        read_head(&mut stream);
        stream.write_all(ANSWER).unwrap();
        theirs[0].fetch_add(1, Ordering::SeqCst);
        if read_head(&mut stream) {
            theirs[1].fetch_add(1, Ordering::SeqCst);
        }
    });
    let report = Load::start(quick(address, 50, 20)).unwrap().finish().await;
    let [answered, cut] = [0, 1].map(|n: usize| counts[n].load(Ordering::SeqCst));
    assert_eq!((report.requests, answered + cut), (20, 20), "each request was seen once");
    assert_eq!((report.failed, report.failed_by_kind.get("reset")), (cut, Some(&cut)));
    assert!(cut > 0);
}

#[tokio::test]
async fn what_is_wrong_with_an_answer_is_told_apart() {
    let address = server(|mut stream, number| {
        if read_head(&mut stream) {
            let answer: &[u8] = match number % 3 {
                0 => b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 5\r\nx-release: v2\r\n\r\nsorry",
                1 => b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong",
                _ => b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\nshort",
            };
            stream.write_all(answer).unwrap();
        }
    });
    let config = Config { fresh: 1.0, expect: Some("ok".to_owned()), ..quick(address, 50, 9) };
    let report = Load::start(config).unwrap().finish().await;
    let expected = [("bad body", 3), ("reset", 3), ("status 502", 3)];
    assert_eq!(report.failed_by_kind, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
    let bad = report.failures.iter().find(|failure| failure.kind == Kind::Status(502)).unwrap();
    assert_eq!((bad.release.as_deref(), bad.detail.as_str()), (Some("v2"), "sorry"));
}

#[tokio::test]
async fn more_than_the_cap_under_way_is_not_sent_and_is_a_failure() {
    let address = server(|mut stream, _| while read_head(&mut stream) {});
    let config = Config { outstanding: 5, timeout: Duration::from_millis(200), ..quick(address, 1000, 20) };
    let report = Load::start(config).unwrap().finish().await;
    let expected = [("cap", 15), ("timeout", 5)];
    assert_eq!(report.failed_by_kind, expected.map(|(kind, count)| (kind.to_owned(), count)).into());
}

#[tokio::test]
async fn posts_are_not_idempotent_and_their_body_must_come_back() {
    let app = TestApp::start(&[]);
    let posts = vec![Shot { weight: 1, method: Method::Post, path: "/echo".to_owned() }];
    let report =
        Load::start(Config { mix: posts.clone(), ..quick(app.address, 500, 20) }).unwrap().finish().await;
    assert_eq!((report.requests, report.failed), (20, 0));
    app.stop();
    let address = server(|mut stream, _| {
        read_head(&mut stream);
        stream.write_all(ANSWER).unwrap();
    });
    let report = Load::start(Config { mix: posts, ..quick(address, 500, 5) }).unwrap().finish().await;
    assert_eq!(report.failed, 5);
    assert!(report.failures.iter().all(|failure| !failure.idempotent));
}

#[tokio::test]
async fn dropped_websockets_are_counted_with_their_code_and_come_back() {
    let app = TestApp::start(&[]);
    let sockets = Sockets { every: Duration::from_millis(20), ..Sockets::new(3) };
    let config = Config { sockets: Some(sockets), ..quick(app.address, 10, 600) };
    let mut load = Load::start(config).unwrap();
    assert!(load.connected(3, Duration::from_secs(10)).await);
    let (address, before) = (app.address, load.mark());
    assert_eq!(app.stop(), End::Stopped);
    let between = load.mark();
    let listener = TcpListener::bind(address).unwrap();
    let app = TestApp::start_on(listener, &[]);
    assert!(load.connected(3, Duration::from_secs(10)).await, "they all came back");
    let after = load.mark();
    let stop = load.window(before, between).sockets;
    assert_eq!((stop.at_start, stop.kept, stop.drops.len()), (3, 0, 3));
    assert!(stop.drops.iter().all(|drop| drop.code == Some(1001)), "{:?}", stop.drops);
    assert!(stop.longest_absence > Duration::ZERO);
    let later = load.mark();
    let calm = load.window(after, later).sockets;
    assert_eq!((calm.at_start, calm.kept, calm.drops.len()), (3, 3, 0));
    let report = load.stop().await;
    assert_eq!(report.sockets.drops.len(), 3, "the load's own end is no drop");
    app.stop();
}

#[tokio::test]
async fn a_websocket_whose_echo_stays_away_counts_as_dropped() {
    let app = TestApp::start(&[]);
    let upstream = app.address;
    // A relay that lets the handshake through and then holds back what the app says.
    let address = server(move |mut client, _| {
        let mut app = TcpStream::connect(upstream).unwrap();
        let mut buffer = [0; 4096];
        let asked = client.read(&mut buffer).unwrap();
        app.write_all(&buffer[..asked]).unwrap();
        let answered = app.read(&mut buffer).unwrap();
        client.write_all(&buffer[..answered]).unwrap();
        while client.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {}
    });
    let sockets = Sockets { echo_timeout: Duration::from_millis(50), ..Sockets::new(1) };
    let time = Duration::from_millis(300);
    let config = Config { sockets: Some(sockets), time, ..quick(address, 1, 600) };
    let report = Load::start(config).unwrap().finish().await;
    assert!(!report.sockets.drops.is_empty());
    assert!(report.sockets.drops.iter().all(|drop| drop.code.is_none() && drop.detail.contains("no echo")));
    app.stop();
}

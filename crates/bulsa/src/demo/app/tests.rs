use std::{
    net::{Ipv4Addr, TcpListener as StdListener},
    thread::JoinHandle,
};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::{client_async, tungstenite::Message};
use tokio_util::sync::CancellationToken;

use super::*;

/// The app in a thread of its own, on a port that the system chose.
pub(crate) struct TestApp {
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    thread: JoinHandle<End>,
}

impl TestApp {
    pub(crate) fn start(env: &[(&str, &str)]) -> Self {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self::start_on(listener, env)
    }

    pub(crate) fn start_on(listener: StdListener, env: &[(&str, &str)]) -> Self {
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let get = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let settings =
            Settings::from_env(|name| if name == "PORT" { Some("0".to_owned()) } else { get(name) }).unwrap();
        let stop = CancellationToken::new();
        let asked = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async {
                let listener = TcpListener::from_std(listener).unwrap();
                serve(listener, settings, None, asked.cancelled()).await
            })
        });
        Self { address, stop, thread }
    }

    /// What SIGTERM does.
    pub(crate) fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    pub(crate) fn end(self) -> End {
        self.thread.join().unwrap()
    }

    pub(crate) fn stop(self) -> End {
        self.ask_to_stop();
        self.end()
    }
}

/// Sends `request` on a connection of its own and reads all that comes.
async fn ask(app: &TestApp, request: &str) -> String {
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: demo\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn each_answer_names_version_worker_and_instance() {
    let app =
        TestApp::start(&[("DEMO_VERSION", "v7"), ("BULSA_REPLICA", "web-r2-1"), ("BULSA_INSTANCE", "abc")]);
    let answer = ask(&app, &get("/")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("x-release: v7\r\n"), "{answer}");
    assert!(answer.ends_with("version v7 worker web-r2-1 instance abc\n"), "{answer}");
    assert_eq!(app.stop(), End::Stopped);
}

#[tokio::test]
async fn health_is_200_and_500_for_a_broken_version() {
    let app = TestApp::start(&[]);
    assert!(ask(&app, &get("/health")).await.starts_with("HTTP/1.1 200"));
    app.stop();
    let app = TestApp::start(&[("DEMO_BROKEN", "1")]);
    assert!(ask(&app, &get("/health")).await.starts_with("HTTP/1.1 500"));
    app.stop();
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_told_apart() {
    let app = TestApp::start(&[]);
    assert!(ask(&app, &get("/nothing")).await.starts_with("HTTP/1.1 404"));
    assert!(ask(&app, &get("/echo")).await.starts_with("HTTP/1.1 405"));
    assert!(ask(&app, &get("/ws")).await.starts_with("HTTP/1.1 426"));
    app.stop();
}

#[tokio::test]
async fn a_slow_request_is_finished_after_the_stop_and_nobody_new_is_let_in() {
    let app = TestApp::start(&[]);
    let address = app.address;
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(get("/slow?ms=200").as_bytes()).await.unwrap();
    // The answer to a later connection's request shows that the slow one was taken.
    ask(&app, &get("/health")).await;
    app.ask_to_stop();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(app.end(), End::Stopped);
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn a_websocket_gets_its_message_back_with_the_worker_behind_it_and_1001_at_the_stop() {
    let app = TestApp::start(&[("DEMO_VERSION", "v1"), ("BULSA_REPLICA", "web-r1-2")]);
    let stream = TcpStream::connect(app.address).await.unwrap();
    let (mut socket, _) = client_async(format!("ws://{}/ws", app.address), stream).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello v1 web-r1-2"));
    app.ask_to_stop();
    let Some(Ok(Message::Close(Some(frame)))) = socket.next().await else { panic!("no Close") };
    assert_eq!(u16::from(frame.code), 1001);
    assert!(socket.next().await.is_none_or(|rest| rest.is_err()));
    assert_eq!(app.end(), End::Stopped);
}

#[tokio::test]
async fn a_crash_is_due_after_the_first_request_that_is_no_health_check() {
    let app = TestApp::start(&[("DEMO_CRASH_AFTER_TRAFFIC_MS", "0")]);
    for _ in 0..3 {
        assert!(ask(&app, &get("/health")).await.starts_with("HTTP/1.1 200"));
    }
    let cut = ask(&app, &get("/slow?ms=5000")).await;
    assert_eq!(cut, "", "the request in flight is cut");
    assert_eq!(app.end(), End::Crashed);
}

#[tokio::test]
async fn a_stop_during_the_start_delay_ends_it_at_once() {
    let env = |name: &str| match name {
        "PORT" => Some("1".to_owned()),
        "DEMO_START_MS" => Some("600000".to_owned()),
        _ => None,
    };
    let settings = Settings::from_env(env).unwrap();
    assert_eq!(run(settings, std::future::ready(())).await.unwrap(), End::Stopped);
}

#[tokio::test]
async fn one_that_exits_at_once_leaves_what_it_has_in_flight() {
    let app = TestApp::start(&[("DEMO_ON_TERM", "exit")]);
    let mut slow = TcpStream::connect(app.address).await.unwrap();
    slow.write_all(get("/slow?ms=60000").as_bytes()).await.unwrap();
    // The answer to a later connection's request shows that the slow one was taken.
    ask(&app, &get("/health")).await;
    app.ask_to_stop();
    let mut answer = String::new();
    // Cut off, with or without a reset.
    slow.read_to_string(&mut answer).await.ok();
    assert_eq!(answer, "");
    assert_eq!(app.end(), End::Stopped);
}

#[tokio::test]
async fn one_that_hangs_takes_connections_and_answers_nothing_not_even_its_health() {
    let app = TestApp::start(&[("DEMO_HANG_AFTER_TRAFFIC_MS", "0"), ("DEMO_ON_TERM", "exit")]);
    assert!(ask(&app, &get("/health")).await.starts_with("HTTP/1.1 200"), "no traffic yet");
    let mut first = TcpStream::connect(app.address).await.unwrap();
    first.write_all(get("/").as_bytes()).await.unwrap();
    let mut byte = [0_u8; 1];
    let silence = tokio::time::timeout(Duration::from_millis(50), first.read(&mut byte)).await;
    assert!(silence.is_err(), "it answered");
    let mut health = TcpStream::connect(app.address).await.unwrap();
    health.write_all(get("/health").as_bytes()).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), health.read(&mut byte)).await.is_err());
    app.stop();
}

#[tokio::test]
async fn a_crash_after_the_start_needs_no_traffic() {
    assert_eq!(TestApp::start(&[("DEMO_CRASH_AFTER_MS", "1")]).end(), End::Crashed);
}

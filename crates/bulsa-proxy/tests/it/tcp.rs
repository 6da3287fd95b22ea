use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulsa_proxy::{CloseTunnels, ListenerRoutes, Protocol, Service, Table, Target};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::support::*;

mod hold;

/// The time between two connections of the open-loop client.
const INTERVAL: Duration = Duration::from_millis(4);
const SWAPS: u64 = 24;
const CONNECTIONS_PER_SWAP: usize = 10;

/// A table whose one listener speaks TCP. (Its name says nothing of that.)
fn tcp(number: u64, targets: &[Target]) -> Table {
    let mut table = table(number, targets);
    table.listeners[0].protocol = Protocol::Tcp;
    table
}

/// A server that says something at once, and then echoes until the end, and ends then.
async fn echo(greeting: &'static str) -> Backend {
    Backend::serving(move |mut wire, _| async move {
        wire.write(greeting).await;
        while let Some(byte) = wire.bytes(1).await {
            wire.write(std::str::from_utf8(&byte).unwrap()).await;
        }
    })
    .await
}

async fn says(client: &mut Wire, text: &str) {
    client.write(text).await;
    hears(client, text).await;
}

async fn hears(client: &mut Wire, text: &str) {
    let heard = patient(client.bytes(text.len())).await.expect("the connection is open");
    assert_eq!(String::from_utf8_lossy(&heard), text);
}

async fn ends(client: &mut Wire) {
    assert_eq!(patient(client.rest_to_end()).await, b"");
}

#[tokio::test]
async fn bytes_pass_both_ways_unseen_and_a_connection_is_counted_as_a_tunnel() {
    let backend = echo("").await;
    let rig = Rig::new(&tcp(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    says(&mut client, "GET / HTTP/0.1\r\n\r\n").await;
    says(&mut client, "\0\u{1}\u{7f}").await;
    let target = rig.target("a");
    assert_eq!((target.tunnels, target.in_flight, target.requests), (1, 0, 1));
    drop(client);
    let report = rig.until(|report| report.targets[0].tunnels == 0 && report.connections == 0).await;
    assert_eq!((report.targets[0].broken, report.targets[0].refused), (0, 0));
}

#[tokio::test]
async fn a_server_may_speak_first() {
    let backend = echo("8.0.36 ready").await;
    let rig = Rig::new(&tcp(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    hears(&mut client, "8.0.36 ready").await;
    says(&mut client, "login").await;
}

#[tokio::test]
async fn half_a_close_is_passed_on_in_either_direction() {
    let backend = Backend::serving(|mut wire, _| async move {
        let all = wire.rest_to_end().await;
        wire.write(&format!("got {}", all.len())).await;
    })
    .await;
    let rig = Rig::new(&tcp(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write("12345").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(patient(client.rest_to_end()).await, b"got 5");

    let heard = watch::Sender::new(Vec::new());
    let hearing = heard.clone();
    let backend = Backend::serving(move |mut wire, _| {
        let hearing = hearing.clone();
        async move {
            wire.write("bye").await;
            wire.stream.shutdown().await.unwrap();
            hearing.send_replace(wire.rest_to_end().await);
        }
    })
    .await;
    rig.apply(&tcp(2, &[backend.target("b")])).await;
    let mut client = Wire::connect(rig.addr).await;
    assert_eq!(patient(client.rest_to_end()).await, b"bye");
    client.write("after your end").await;
    client.stream.shutdown().await.unwrap();
    patient(heard.subscribe().wait_for(|all| all == b"after your end")).await.unwrap();
    rig.until(|report| report.connections == 0).await;
}

/// Everything between here and the reader fills up and then takes no more; how many bytes that were.
async fn write_until_stuck(wire: &mut Wire) -> usize {
    let block = vec![b'x'; 1 << 16];
    let mut written = 0;
    while let Ok(Ok(count)) = timeout(Duration::from_millis(200), wire.stream.write(&block)).await {
        written += count;
        if 100_000_000 < written {
            break;
        }
    }
    written
}

#[tokio::test]
async fn a_slow_reader_stops_the_writer() {
    let written = watch::Sender::new(None);
    let writing = written.clone();
    let backend = Backend::serving(move |mut wire, _| {
        let writing = writing.clone();
        async move {
            let count = write_until_stuck(&mut wire).await;
            writing.send_replace(Some(count));
        }
    })
    .await;
    let rig = Rig::new(&tcp(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    let count = patient(written.subscribe().wait_for(Option::is_some)).await.unwrap().unwrap();
    assert!(count < 50_000_000, "the proxy takes in what nobody reads");
    // Nothing of it is lost meanwhile.
    assert_eq!(patient(client.rest_to_end()).await.len(), count);
}

#[tokio::test]
async fn a_target_that_refuses_is_passed_over() {
    let ((gone, _socket), backend) = (nowhere("gone"), echo("").await);
    let rig = Rig::new(&tcp(1, &[gone, backend.target("a")])).await;
    for _ in 0..4 {
        says(&mut Wire::connect(rig.addr).await, "x").await;
    }
    assert_eq!((rig.target("gone").refused, rig.target("gone").requests), (1, 0));
    assert_eq!(rig.target("a").requests, 4);
}

#[tokio::test]
async fn a_reset_is_passed_on_and_counted_if_nothing_was_answered() {
    let backend = Backend::serving(|mut wire, _| async move {
        if wire.bytes(1).await == Some(b"b".to_vec()) {
            wire.write("begun").await;
            wire.bytes(1).await;
        }
        wire.stream.set_zero_linger().unwrap();
    })
    .await;
    let rig = Rig::new(&tcp(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    client.write("a").await;
    let error = patient(client.stream.readable()).await.and_then(|()| client.stream.try_read(&mut [0]));
    assert_eq!(error.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    rig.until(|report| report.targets[0].broken == 1 && report.targets[0].tunnels == 0).await;
    let mut client = Wire::connect(rig.addr).await;
    says_then_hears(&mut client, "b", "begun").await;
    client.write("!").await;
    assert_eq!(patient(client.bytes(1)).await, None);
    let report = rig.until(|report| report.targets[0].tunnels == 0).await;
    assert_eq!((report.targets[0].requests, report.targets[0].broken), (2, 1));
}

#[tokio::test]
async fn the_last_words_of_a_target_that_reads_no_more_are_heard() {
    let say = watch::Sender::new(false);
    let saying = say.subscribe();
    let backend = Backend::serving(move |mut wire, _| {
        let mut saying = saying.clone();
        async move {
            saying.wait_for(|say| *say).await.unwrap();
            // With what it has not read the end is a reset.
            wire.write("too many connections").await;
        }
    })
    .await;
    let rig = Rig::new(&tcp(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    write_until_stuck(&mut client).await;
    say.send_replace(true);
    hears(&mut client, "too many connections").await;
    rig.until(|report| report.connections == 0 && report.targets[0].broken == 0).await;
}

async fn says_then_hears(client: &mut Wire, text: &str, answer: &str) {
    client.write(text).await;
    hears(client, answer).await;
}

#[tokio::test]
async fn a_switch_leads_new_connections_away_and_leaves_the_others() {
    let (old, new) = (echo("old").await, echo("new").await);
    let rig = Rig::new(&tcp(1, &[old.target("old")])).await;
    let mut first = Wire::connect(rig.addr).await;
    hears(&mut first, "old").await;
    rig.apply(&tcp(2, &[new.target("new")])).await;
    hears(&mut Wire::connect(rig.addr).await, "new").await;
    says(&mut first, "still here").await;
    assert_eq!((rig.target("old").tunnels, rig.target("old").routed), (1, false));
}

/// Opens connections at a fixed pace, however they fare, and counts those that fail.
async fn load(addr: SocketAddr, stop: Arc<AtomicBool>, failed: Arc<Mutex<Vec<String>>>) -> usize {
    let mut next = Instant::now();
    let mut opened = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let (failed, number) = (Arc::clone(&failed), opened.len());
        opened.push(tokio::spawn(async move {
            let mut wire = Wire::connect(addr).await;
            let text = format!("connection {number}");
            if number % 2 == 0 {
                wire.write(&text).await;
            }
            let greeting = wire.bytes(2).await;
            if number % 2 == 1 {
                wire.write(&text).await;
            }
            let echoed = wire.bytes(text.len()).await;
            wire.stream.shutdown().await.unwrap();
            let rest = wire.rest_to_end().await;
            if greeting.as_deref() != Some(b"hi") || echoed != Some(text.into_bytes()) || !rest.is_empty() {
                failed.lock().unwrap().push(format!("{number}: {greeting:?} {echoed:?} {rest:?}"));
            }
        }));
        next += INTERVAL;
        sleep_until(next).await;
    }
    let count = opened.len();
    for one in opened {
        patient(one).await.expect("no panic in the client");
    }
    count
}

#[tokio::test]
async fn a_target_killed_when_its_last_connection_has_ended_is_missed_by_nobody() {
    let mut live = echo("hi").await;
    let rig = Rig::with_workers(2, &tcp(1, &[live.target("1")])).await;
    let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let client = tokio::spawn(load(rig.addr, Arc::clone(&stop), Arc::clone(&failed)));
    for number in 2..=SWAPS {
        let old = (number - 1).to_string();
        let next = echo("hi").await;
        if number % 3 == 0 {
            // Now and then with a moment in which there is no target at all: connections are held.
            rig.apply(&tcp(number * 2 - 1, &[])).await;
        }
        rig.apply(&tcp(number * 2, &[next.target(&number.to_string())])).await;
        rig.until(|report| report.targets.iter().all(|t| t.id != old || t.in_flight + t.tunnels == 0)).await;
        live.kill().await;
        next.seen.connected(CONNECTIONS_PER_SWAP).await;
        live = next;
    }
    stop.store(true, Ordering::Relaxed);
    let count = patient(client).await.unwrap();
    let failed = std::mem::take(&mut *failed.lock().unwrap());
    assert!(failed.is_empty(), "{} of {count} connections failed: {:?}", failed.len(), failed.first());
    assert!(SWAPS as usize * CONNECTIONS_PER_SWAP / 2 < count, "{count} connections are no load");
    let report = rig.until(|report| report.connections == 0).await;
    assert_eq!((report.unavailable, report.accepted), (0, count as u64));
}

#[tokio::test]
async fn one_id_may_have_two_addresses_and_an_order_to_close_is_for_both() {
    let (page, data) = (echo("").await, echo("data").await);
    let mut table = table(1, &[page.target("a")]);
    let mut other = page.target("a");
    other.addr = data.addr;
    table.services.push(Service { name: "data".into(), targets: vec![other], ..table.services[0].clone() });
    table.listeners[0].protocol = Protocol::Tcp;
    table.listeners.push(ListenerRoutes::tcp("data", 1));
    let rig = Rig::new(&table).await;
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    rig.proxy.add_listener("data", vec![listener]).unwrap();
    let (mut first, mut second) = (Wire::connect(rig.addr).await, Wire::connect(addr).await);
    says(&mut first, "hello").await;
    hears(&mut second, "data").await;
    let of_each = |report: &bulsa_proxy::Report| {
        report.targets.iter().map(|t| (t.id.clone(), t.requests, t.tunnels)).collect::<Vec<_>>()
    };
    assert_eq!(of_each(&rig.proxy.report()), [("a".to_owned(), 1, 1), ("a".to_owned(), 1, 1)]);
    table.number = 2;
    table.services[0].targets.clear();
    table.services[1].targets.clear();
    table.close_tunnels = vec![CloseTunnels { target: "a".into(), within_ms: 50 }];
    rig.apply(&table).await;
    ends(&mut first).await;
    ends(&mut second).await;
    rig.until(|report| report.targets.iter().all(|t| t.tunnels == 0) && report.connections == 0).await;
}

#[tokio::test]
async fn what_is_spoken_follows_the_newest_table() {
    let (web, raw) = (Backend::saying("page").await, echo("raw").await);
    let rig = Rig::new(&table(1, &[web.target("web")])).await;
    let mut browser = Wire::connect(rig.addr).await;
    assert_eq!(browser.ask(&get("/")).await.text(), "page");
    rig.apply(&tcp(2, &[web.target("web")])).await;
    let last = browser.ask(&get("/")).await;
    assert_eq!((last.text().as_str(), last.field("connection").as_str()), ("page", "close"));
    rig.apply(&tcp(3, &[raw.target("raw")])).await;
    hears(&mut Wire::connect(rig.addr).await, "raw").await;
    rig.apply(&table(4, &[web.target("web")])).await;
    assert_eq!(rig.get("/").await.text(), "page");
}

#[tokio::test]
async fn a_shutdown_ends_connections_at_its_deadline_only() {
    let backend = echo("").await;
    let rig = Rig::new(&tcp(1, &[backend.target("a")])).await;
    let mut client = Wire::connect(rig.addr).await;
    says(&mut client, "before").await;
    rig.proxy.shutdown(Duration::from_secs(600));
    rig.until(|report| report.settled).await;
    says(&mut client, "during").await;
    rig.proxy.shutdown(Duration::ZERO);
    ends(&mut client).await;
    drop(client);
    patient(rig.proxy.ended()).await;
}

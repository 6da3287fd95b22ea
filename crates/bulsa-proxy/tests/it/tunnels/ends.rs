use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bulsa_proxy::{Protocol, Table, Times};
use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use super::{ANSWER, CLIENTS_CLOSE, CLOSE, close, open};
use crate::support::*;

/// The answer of a target to a Close.
const TARGETS_CLOSE: &[u8] = b"\x88\x02\x03\xe9";
/// Tunnels that are ended together, and over how long.
const MANY: usize = 1000;
const WINDOW_MS: u64 = 2000;

/// An app that echoes messages; what it gets is sent on.
async fn app() -> (Backend, mpsc::Receiver<Message>) {
    let (heard, hearing) = mpsc::channel(MANY * 4);
    let backend = Backend::serving(move |wire, _| {
        let heard = heard.clone();
        async move {
            let mut socket = accept_async(wire.stream).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                heard.send(message.clone()).await.unwrap();
                if message.is_text() {
                    socket.send(message).await.unwrap();
                }
            }
        }
    })
    .await;
    (backend, hearing)
}

async fn browser(addr: SocketAddr) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(addr).await.unwrap();
    patient(client_async("ws://shop.example/ws", stream)).await.unwrap().0
}

fn closed(message: Message) -> (u16, String) {
    match message {
        Message::Close(Some(frame)) => (frame.code.into(), frame.reason.to_string()),
        other => panic!("no Close: {other:?}"),
    }
}

/// A target that shows its end of the wire to the test once it has upgraded.
async fn shown() -> (Backend, mpsc::Receiver<Wire>) {
    let (show, shown) = mpsc::channel(8);
    let backend = Backend::serving(move |mut wire, seen| {
        let show = show.clone();
        async move {
            seen.next(&mut wire).await;
            wire.write(ANSWER).await;
            show.send(wire).await.unwrap();
        }
    })
    .await;
    (backend, shown)
}

/// A tunnel whose both ends the test holds.
async fn both(table: impl FnOnce(&Backend) -> Table) -> (Rig, Backend, Wire, Wire) {
    let (backend, mut shown) = shown().await;
    let rig = Rig::new(&table(&backend)).await;
    let client = open(&rig).await;
    let target = patient(shown.recv()).await.unwrap();
    (rig, backend, client, target)
}

fn plain(backend: &Backend) -> Table {
    table(1, &[backend.target("a")])
}

async fn writes(wire: &mut Wire, bytes: &[u8]) {
    patient(wire.stream.write_all(bytes)).await.unwrap();
}

async fn hears(wire: &mut Wire, bytes: &[u8]) {
    assert_eq!(patient(wire.bytes(bytes.len())).await.unwrap(), bytes);
}

/// The target gets a masked Close 1001 without a reason.
async fn hears_close(target: &mut Wire) {
    let frame = patient(target.bytes(8)).await.unwrap();
    assert_eq!(frame[..2], [0x88, 0x82]);
    assert_eq!([frame[6] ^ frame[2], frame[7] ^ frame[3]], [0x03, 0xe9]);
}

#[tokio::test]
async fn a_real_client_hears_close_1012_and_a_real_app_1001() {
    let (backend, mut heard) = app().await;
    let rig = Rig::new(&table(1, &[backend.target("a")])).await;
    let mut client = browser(rig.addr).await;
    client.send("hello".into()).await.unwrap();
    assert_eq!(patient(client.next()).await.unwrap().unwrap(), "hello".into());
    rig.apply(&close(2, 0)).await;
    let heard_close = patient(client.next()).await.unwrap().unwrap();
    assert_eq!(closed(heard_close), (1012, "service restart".into()));
    assert!(patient(client.next()).await.is_none(), "a clean end");
    assert_eq!(patient(heard.recv()).await.unwrap(), "hello".into());
    assert_eq!(closed(patient(heard.recv()).await.unwrap()), (1001, String::new()));
    let report = rig.until(|report| report.connections == 0).await;
    assert_eq!((report.targets[0].tunnels, report.targets[0].broken), (0, 0));
}

#[tokio::test]
async fn many_tunnels_end_spread_over_the_window_and_cleanly() {
    let (backend, mut heard) = app().await;
    let rig = Rig::with_workers(2, &table(1, &[backend.target("a")])).await;
    let mut clients = Vec::new();
    for _ in 0..MANY {
        clients.push(browser(rig.addr).await);
    }
    rig.until(|report| report.targets[0].tunnels == MANY as u64).await;
    let begun = Instant::now();
    rig.apply(&close(2, WINDOW_MS)).await;
    let ends: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                let code = closed(client.next().await.unwrap().unwrap()).0;
                let at = begun.elapsed();
                assert!(client.next().await.is_none(), "a clean end");
                (code, at)
            })
        })
        .collect();
    let mut ended = Vec::new();
    for end in ends {
        let (code, at) = patient(end).await.unwrap();
        assert_eq!(code, 1012);
        ended.push(at.as_millis() as usize);
    }
    ended.sort_unstable();
    // Each has a moment of its own, before which it doesn't end; a busy machine may only be late.
    for (index, at) in ended.iter().enumerate() {
        assert!(
            WINDOW_MS as usize * index / MANY <= at + WINDOW_MS as usize / 50,
            "{index} at {at}: {ended:?}"
        );
    }
    assert!(ended[MANY / 4] < WINDOW_MS as usize, "not all at the window's end: {ended:?}");
    for _ in 0..MANY {
        assert_eq!(closed(patient(heard.recv()).await.unwrap()).0, 1001);
    }
    rig.until(|report| report.connections == 0).await;
}

#[tokio::test]
async fn frames_pass_byte_for_byte_both_ways_until_the_message_has_ended() {
    let (rig, _backend, mut client, mut target) = both(plain).await;
    // Compressed (RSV1), in two fragments, with a ping between them; longer than anything is read at once.
    let noise = |seed: u8| (0..70_000_u32).map(|n| (n % 251 * n % 241) as u8 ^ seed).collect::<Vec<_>>();
    let down = [&b"\x42\x7f\0\0\0\0\0\x01\x11\x70"[..], &noise(1), b"\x89\x01p", b"\x80\x02zz"].concat();
    let up =
        [&b"\x42\xff\0\0\0\0\0\x01\x11\x70mask"[..], &noise(2), b"\x8a\x81maskp", b"\x80\x82maskzz"].concat();
    let (down_last, up_last) = (down.len() - 3, up.len() - 5);
    tokio::join!(writes(&mut target, &down[..down_last]), hears(&mut client, &down[..down_last]));
    tokio::join!(writes(&mut client, &up[..up_last]), hears(&mut target, &up[..up_last]));
    rig.apply(&close(2, 0)).await;
    writes(&mut target, &down[down_last..]).await;
    writes(&mut target, b"\x81\x04more").await;
    hears(&mut client, &down[down_last..]).await;
    hears(&mut client, CLOSE).await;
    writes(&mut client, &up[up_last..]).await;
    writes(&mut client, b"\x81\x84maskmore").await;
    hears(&mut target, &up[up_last..]).await;
    hears_close(&mut target).await;
    writes(&mut client, CLIENTS_CLOSE).await;
    writes(&mut target, TARGETS_CLOSE).await;
    assert_eq!(patient(client.rest_to_end()).await, b"");
    assert_eq!(patient(target.rest_to_end()).await, b"");
    rig.until(|report| report.targets[0].tunnels == 0).await;
}

#[tokio::test]
async fn a_message_that_does_not_end_gets_its_close_between_two_fragments() {
    let (rig, _backend, mut client, mut target) = both(plain).await;
    writes(&mut target, b"\x01\x03one").await;
    hears(&mut client, b"\x01\x03one").await;
    rig.apply(&close(2, 0)).await;
    let told = Instant::now();
    writes(&mut target, b"\x00\x03two").await;
    hears(&mut client, b"\x00\x03two").await;
    hears(&mut client, CLOSE).await;
    hears_close(&mut target).await;
    assert!((700..3000).contains(&told.elapsed().as_millis()), "{:?}", told.elapsed());
    writes(&mut target, b"\x80\x05three").await;
    writes(&mut client, CLIENTS_CLOSE).await;
    assert_eq!(patient(client.rest_to_end()).await, b"");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_left_behind_in_time() {
    let (rig, _backend, client, mut target) = both(plain).await;
    // More than the kernel takes for a client that does not read.
    let head = b"\x82\x7f\0\0\0\0\x10\0\0\0";
    let block = vec![0; 1 << 20];
    writes(&mut target, head).await;
    while let Ok(written) =
        tokio::time::timeout(Duration::from_millis(300), target.stream.write(&block)).await
    {
        written.unwrap();
    }
    rig.apply(&close(2, 0)).await;
    let told = Instant::now();
    hears_close(&mut target).await;
    rig.until(|report| report.targets[0].tunnels == 0).await;
    assert!((4500..9500).contains(&told.elapsed().as_millis()), "{:?}", told.elapsed());
    drop(client);
}

#[tokio::test]
async fn limits_on_the_time_of_a_tunnel_come_with_its_service() {
    let limited = |times: Times| {
        move |backend: &Backend| {
            let mut table = plain(backend);
            table.services[0].times = times;
            table
        }
    };
    let begun = Instant::now();
    let idle = limited(Times { tunnel_idle_ms: 200, ..Times::default() });
    let (_rig, _backend, mut client, mut target) = both(idle).await;
    hears(&mut client, b"\x88\x06\x03\xe9idle").await;
    assert_eq!(patient(target.bytes(12)).await.unwrap()[..2], [0x88, 0x86]);
    assert!(Duration::from_millis(200) < begun.elapsed());

    let old = limited(Times { tunnel_life_ms: 200, ..Times::default() });
    let (_rig, _backend, mut client, _target) = both(old).await;
    hears(&mut client, b"\x88\x0c\x03\xf4time is up").await;

    let backend = Backend::serving(|mut wire, _| async move { drop(wire.rest_to_end().await) }).await;
    let mut table = idle(&backend);
    table.listeners[0].protocol = Protocol::Tcp;
    let rig = Rig::new(&table).await;
    assert_eq!(patient(Wire::connect(rig.addr).await.rest_to_end()).await, b"");
}

#[tokio::test]
async fn a_shutdown_ends_tunnels_at_its_deadline_only_and_cleanly() {
    let (rig, _backend, mut client, mut target) = both(plain).await;
    rig.proxy.shutdown(Duration::from_secs(600));
    rig.until(|report| report.settled).await;
    writes(&mut client, b"\x81\x86maskduring").await;
    hears(&mut target, b"\x81\x86maskduring").await;
    // In the midst of a message.
    writes(&mut target, b"\x01\x03one").await;
    hears(&mut client, b"\x01\x03one").await;
    rig.proxy.shutdown(Duration::ZERO);
    let told = Instant::now();
    hears_close(&mut target).await;
    hears(&mut client, CLOSE).await;
    writes(&mut client, CLIENTS_CLOSE).await;
    writes(&mut target, TARGETS_CLOSE).await;
    assert_eq!(patient(client.rest_to_end()).await, b"");
    assert_eq!(patient(target.rest_to_end()).await, b"");
    drop((client, target));
    patient(rig.proxy.ended()).await;
    assert!(told.elapsed() < Duration::from_secs(4), "{:?}", told.elapsed());
}

#[tokio::test]
async fn an_app_that_dies_within_a_message_is_no_message() {
    let (rig, backend, mut client, mut target) = both(plain).await;
    writes(&mut target, b"\x81\x05hel").await;
    hears(&mut client, b"\x81\x05hel").await;
    target.stream.set_zero_linger().unwrap();
    drop(target);
    backend.kill().await;
    assert_eq!(patient(client.rest_to_end()).await, b"");
    rig.until(|report| report.targets[0].tunnels == 0).await;
}

#[test]
fn a_service_restart_is_1012() {
    assert_eq!(u16::from(CloseCode::Restart), 1012);
    assert_eq!(u16::from_be_bytes([CLOSE[2], CLOSE[3]]), 1012);
}

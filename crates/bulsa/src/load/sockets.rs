//! The WebSocket clients: each sends a message every so often, expects it back, and comes again when it is dropped.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    net::TcpStream,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, protocol::CloseFrame},
};

use super::{Shared, config::Sockets, record::SocketDrop, scatter};

/// Drops of one client; after so many it stays away.
const DROPS_MAX: u32 = 1000;
/// How long a handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The shortest and the longest pause before a client comes again; the longest doubles with each try up to the cap.
const PAUSE_MIN_MS: u64 = 20;
const PAUSE_FIRST_MS: u64 = 200;
const PAUSE_CAP_MS: u64 = 2000;

/// How long the peer may take to answer a Close.
const GOODBYE: Duration = Duration::from_millis(500);

type Socket = WebSocketStream<TcpStream>;

/// Why a connection is over.
struct End {
    code: Option<u16>,
    detail: String,
}

/// One client, until the load stops.
pub(super) async fn client(shared: Arc<Shared>, number: u32) {
    let Some(sockets) = shared.config.sockets.clone() else { return };
    let (mut drops, mut tries) = (0, 0);
    while drops < DROPS_MAX {
        let connected = tokio::select! {
            () = shared.stop.cancelled() => return,
            connected = connect(&shared, &sockets) => connected,
        };
        if let Some(mut socket) = connected {
            tries = 0;
            drops += 1;
            let stopped = spend(&shared, &sockets, &mut socket, number).await;
            say_goodbye(&mut socket).await;
            if stopped {
                return;
            }
        } else {
            tries += 1;
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = sleep(pause(number, drops, tries)) => {}
        }
    }
}

/// One connection's life, written down; true where it was the load that ended it.
async fn spend(shared: &Shared, sockets: &Sockets, socket: &mut Socket, number: u32) -> bool {
    let from = shared.mark();
    shared.log().connected(number, from);
    shared.connected.send_modify(|connected| *connected += 1);
    let end = tokio::select! {
        () = shared.stop.cancelled() => None,
        end = talk(socket, sockets, number) => Some(end),
    };
    shared.connected.send_modify(|connected| *connected = connected.saturating_sub(1));
    let Some(end) = end else { return true };
    let at = shared.mark();
    shared.log().dropped(SocketDrop { client: number, at, code: end.code, detail: end.detail });
    false
}

/// Answers a Close, or sends one, where the connection still allows it.
async fn say_goodbye(socket: &mut Socket) {
    let goodbye = async {
        if socket.close(None).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    // A peer that doesn't answer is left.
    drop(timeout(GOODBYE, goodbye).await);
}

async fn connect(shared: &Shared, sockets: &Sockets) -> Option<Socket> {
    let url = format!("ws://{}{}", shared.config.host, sockets.path);
    let handshake = async {
        let stream = TcpStream::connect(shared.config.target).await.ok()?;
        stream.set_nodelay(true).ok()?;
        client_async(url, stream).await.ok()
    };
    timeout(CONNECT_TIMEOUT, handshake).await.ok().flatten().map(|(socket, _)| socket)
}

/// Sends and compares until the connection is over.
async fn talk(socket: &mut Socket, sockets: &Sockets, number: u32) -> End {
    let mut tick = interval(sockets.every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = 0_u64;
    let mut waits_since: Option<Instant> = None;
    loop {
        let silence = async {
            match waits_since {
                Some(since) => tokio::time::sleep_until(since + sockets.echo_timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) if text.starts_with(&expected(number, sent)) => waits_since = None,
                Some(Ok(Message::Text(text))) => return End::broken(format!("wrong echo: {text}")),
                Some(Ok(Message::Close(frame))) => return End::closed(frame),
                Some(Ok(_)) => {}
                Some(Err(error)) => return End::error(&error),
                None => return End::broken("the connection ended".to_owned()),
            },
            // One message at a time: the next is sent once the last came back.
            _ = tick.tick(), if waits_since.is_none() => {
                sent += 1;
                waits_since = Some(Instant::now());
                if let Err(error) = socket.send(Message::text(expected(number, sent))).await {
                    return End::error(&error);
                }
            }
            () = silence => return End::broken(format!("no echo for {:?}", sockets.echo_timeout)),
        }
    }
}

fn expected(number: u32, sent: u64) -> String {
    format!("client {number} message {sent}.")
}

/// A pause with full jitter above a floor, so that dropped clients don't all come back at once.
fn pause(number: u32, drops: u32, tries: u32) -> Duration {
    let longest = PAUSE_CAP_MS.min(PAUSE_FIRST_MS << tries.min(4));
    let seed = u64::from(number) << 40 | u64::from(drops) << 8 | u64::from(tries.min(255));
    Duration::from_millis(PAUSE_MIN_MS + scatter(seed) % (longest - PAUSE_MIN_MS))
}

impl End {
    fn closed(frame: Option<CloseFrame>) -> Self {
        match frame {
            Some(frame) => Self { code: Some(frame.code.into()), detail: frame.reason.to_string() },
            None => Self { code: Some(1005), detail: "a Close without a code".to_owned() },
        }
    }

    fn broken(detail: String) -> Self {
        Self { code: None, detail }
    }

    fn error(error: &Error) -> Self {
        Self::broken(error.to_string())
    }
}

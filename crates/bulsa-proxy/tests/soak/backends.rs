//! Backends that answer in various ways, and can be hurt.
//!
//! They run on a thread of their own. Each has an address of its own in 127.0.0.0/8, so that nobody takes its port while
//! it is dead.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::dice::Dice;
use crate::wire::{Head, Wire, filling};

/// What the backends of a service do. The name is the first segment of its paths.
pub(crate) const KINDS: [&str; 6] = ["plain", "slow", "chunked", "events", "socket", "large"];
pub(crate) const BACKENDS_PER_KIND: usize = 3;
/// One answer in so many is a 500.
const ERROR_ONE_IN: u64 = 100;

/// How a backend fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Fine,
    /// Its listener and all of its connections are gone.
    Dead,
    /// It takes requests and answers none.
    Hung,
    /// It resets connections in the middle of some answers.
    Resetting,
    /// It closes connections when it likes.
    Closing,
    /// Some of its answers are no HTTP.
    Garbling,
}

/// What the backends did, all together.
#[derive(Debug, Default)]
pub(crate) struct Deeds {
    /// Answers that were begun and not brought to their end.
    pub(crate) cut: AtomicU64,
    /// Connections open now.
    pub(crate) open: AtomicU64,
    pub(crate) requests: AtomicU64,
}

/// One backend, as the test holds it.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) addr: SocketAddr,
    pub(crate) mood: watch::Sender<Mood>,
}

/// Starts the backends of all kinds, and says when they listen. They end with their [`Backend`]s.
pub(crate) fn start(deeds: &Arc<Deeds>, dice: &mut Dice) -> (Vec<Backend>, std::thread::JoinHandle<()>) {
    let (mut backends, mut tasks, mut ready) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..KINDS.len() * BACKENDS_PER_KIND {
        let mood = watch::Sender::new(Mood::Fine);
        let (bound, binding) = oneshot::channel();
        let addr = SocketAddr::from(([127, 0, 1, number as u8 + 1], 0));
        tasks.push((addr, mood.subscribe(), bound, dice.fork()));
        ready.push((mood, binding));
    }
    let deeds = Arc::clone(deeds);
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut all = JoinSet::new();
            for (addr, mood, bound, dice) in tasks {
                all.spawn(live(addr, mood, bound, (Arc::clone(&deeds), dice)));
            }
            all.join_all().await;
        });
    });
    for (mood, binding) in ready {
        backends.push(Backend { addr: binding.blocking_recv().unwrap(), mood });
    }
    (backends, thread)
}

/// One backend: lives, dies, comes back at its address.
async fn live(
    addr: SocketAddr,
    mut mood: watch::Receiver<Mood>,
    bound: oneshot::Sender<SocketAddr>,
    (deeds, mut dice): (Arc<Deeds>, Dice),
) {
    let (mut addr, mut bound) = (addr, Some(bound));
    while mood.wait_for(|mood| *mood != Mood::Dead).await.is_ok() {
        let listener = TcpListener::bind(addr).await.unwrap();
        addr = listener.local_addr().unwrap();
        if let Some(bound) = bound.take() {
            bound.send(addr).unwrap();
        }
        let mut serving = JoinSet::new();
        let mut watching = mood.clone();
        loop {
            tokio::select! {
                dead = watching.wait_for(|mood| *mood == Mood::Dead) => {
                    if dead.is_err() {
                        return;
                    }
                    break;
                }
                accepted = listener.accept() => {
                    let (stream, _) = accepted.unwrap();
                    let one = Connection { mood: mood.clone(), deeds: Arc::clone(&deeds), dice: dice.fork() };
                    serving.spawn(one.serve(stream));
                }
                Some(_) = serving.join_next() => {}
            }
        }
        serving.shutdown().await;
    }
}

/// Counts something while it is there.
struct Counted(Arc<Deeds>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An answer that is cut unless it is said to be done.
struct Answering {
    deeds: Arc<Deeds>,
    is_done: bool,
}

impl Drop for Answering {
    fn drop(&mut self) {
        if !self.is_done {
            self.deeds.cut.fetch_add(1, Ordering::SeqCst);
        }
    }
}

struct Connection {
    mood: watch::Receiver<Mood>,
    deeds: Arc<Deeds>,
    dice: Dice,
}

/// What a request asks for.
struct Asked {
    id: u64,
    kind: String,
    is_head: bool,
}

impl Connection {
    async fn serve(mut self, stream: TcpStream) {
        self.deeds.open.fetch_add(1, Ordering::SeqCst);
        let _open = Counted(Arc::clone(&self.deeds));
        let Ok(mut wire) = Wire::new(stream) else { return };
        // A connection that breaks is nothing that a backend has to answer for.
        while let Ok(true) = self.request(&mut wire).await {}
    }

    /// Serves one request. Returns whether the connection goes on.
    async fn request(&mut self, wire: &mut Wire) -> io::Result<bool> {
        let Some(head) = wire.head().await? else { return Ok(false) };
        self.deeds.requests.fetch_add(1, Ordering::SeqCst);
        let mood = *self.mood.borrow();
        match mood {
            Mood::Hung => std::future::pending().await,
            Mood::Garbling if self.dice.one_in(3) => {
                wire.write(b"SSH-2.0-nothing\r\n\r\n").await?;
                return Ok(false);
            }
            _ => {}
        }
        if let Some(key) = head.field("sec-websocket-key") {
            let accept = derive_accept_key(key.as_bytes());
            return self.socket(wire, &accept).await;
        }
        wire.body(&head).await?;
        let asked = Asked::read(&head);
        let mut answering = Answering { deeds: Arc::clone(&self.deeds), is_done: false };
        let is_reset = mood == Mood::Resetting && self.dice.one_in(3);
        self.answer(wire, &asked, is_reset).await?;
        if is_reset {
            wire.stream.set_zero_linger()?;
            return Ok(false);
        }
        answering.is_done = true;
        if mood == Mood::Closing && self.dice.one_in(2) {
            let kept = Duration::from_micros(self.dice.number(0..20_000));
            tokio::select! {
                () = sleep(kept) => return Ok(false),
                ready = wire.stream.readable() => ready?,
            }
        }
        Ok(true)
    }

    /// Answers; only in part if the connection is to be reset then.
    async fn answer(&mut self, wire: &mut Wire, asked: &Asked, is_reset: bool) -> io::Result<()> {
        let status = if self.dice.one_in(ERROR_ONE_IN) { "500 No" } else { "200 OK" };
        let head = format!("HTTP/1.1 {status}\r\nX-Id: {}\r\n", asked.id);
        let (pieces, size, pause) = match asked.kind.as_str() {
            "slow" => {
                sleep(Duration::from_millis(self.dice.number(5..80))).await;
                (1, self.dice.number(1..2000), 0)
            }
            "chunked" => (self.dice.number(1..12), self.dice.number(1..3000), self.dice.number(0..5)),
            "events" => (self.dice.number(5..30), 20, 10),
            "large" => (1, self.dice.number(64 << 10..1 << 20), 0),
            _ => (1, self.dice.number(1..2000), 0),
        };
        let filled = vec![filling(asked.id); size as usize];
        if pause == 0 && pieces == 1 {
            wire.write(format!("{head}Content-Length: {size}\r\n\r\n").as_bytes()).await?;
            let part = if is_reset { filled.len() / 2 } else { filled.len() };
            return if asked.is_head { Ok(()) } else { wire.write(&filled[..part]).await };
        }
        let kind = if asked.kind == "events" { "Content-Type: text/event-stream\r\n" } else { "" };
        wire.write(format!("{head}{kind}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await?;
        if asked.is_head {
            return Ok(());
        }
        let pieces_now = if is_reset { pieces / 2 } else { pieces };
        for _ in 0..pieces_now {
            let chunk = [format!("{size:x}\r\n").as_bytes(), &filled, b"\r\n"].concat();
            wire.write(&chunk).await?;
            sleep(Duration::from_millis(pause)).await;
        }
        if is_reset { Ok(()) } else { wire.write(b"0\r\n\r\n").await }
    }

    /// A WebSocket that says everything back until it is closed.
    async fn socket(&mut self, wire: &mut Wire, accept: &str) -> io::Result<bool> {
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        wire.write(head.as_bytes()).await?;
        let mut socket = WebSocketStream::from_raw_socket(&mut wire.stream, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() {
                break;
            }
            if socket.send(message).await.is_err() {
                break;
            }
        }
        // The rest of the closing handshake.
        while let Some(Ok(_)) = socket.next().await {}
        Ok(false)
    }
}

impl Asked {
    fn read(head: &Head) -> Self {
        let mut words = head.line().split(' ');
        let is_head = words.next() == Some("HEAD");
        let kind = words.next().and_then(|path| path.split('/').nth(1)).unwrap_or_default().to_owned();
        let id = head.field("x-id").and_then(|id| id.parse().ok()).unwrap_or(0);
        Self { id, kind, is_head }
    }
}

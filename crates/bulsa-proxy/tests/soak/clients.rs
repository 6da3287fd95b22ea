//! Clients of several manners, each of which accounts for every request that it has sent.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::backends::KINDS;
use crate::dice::Dice;
use crate::wire::{Body, Head, Wire, filling};

/// How long a client waits for anything. Whatever takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest body that is sent, in bytes.
const BODY_BYTES_MAX: u64 = 256 * 1024;

/// How a client goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Many requests on a connection.
    Kept,
    /// One on each.
    Closing,
    /// With bodies.
    Uploading,
    /// Takes its time to read.
    Slow,
    /// Goes away in the middle.
    Aborting,
    /// Asks for what there is not.
    Lost,
    /// Speaks over a WebSocket.
    Socket,
}

/// How many clients of each manner there are.
pub(crate) const CROWD: [(Manner, usize); 7] = [
    (Manner::Kept, 12),
    (Manner::Closing, 4),
    (Manner::Uploading, 8),
    (Manner::Slow, 3),
    (Manner::Aborting, 2),
    (Manner::Lost, 1),
    (Manner::Socket, 8),
];

/// What became of all requests: each counts in exactly one of the others than `sent`.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) sent: AtomicU64,
    /// Answered by a backend, to the last byte; WebSockets that were opened too.
    pub(crate) whole: AtomicU64,
    /// The same, with a part missing.
    pub(crate) cut: AtomicU64,
    /// Answered by the proxy itself.
    pub(crate) no_route: AtomicU64,
    pub(crate) bad_gateway: AtomicU64,
    pub(crate) unavailable: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    /// Answered by the proxy with something else.
    pub(crate) odd: AtomicU64,
    /// The connection ended without an answer.
    pub(crate) none: AtomicU64,
    /// The client went away by itself.
    pub(crate) aborted: AtomicU64,
    /// Nothing happened for [`PATIENCE`].
    pub(crate) stuck: AtomicU64,
    /// Of `whole` and `cut`: with what belongs to another request. There must be none.
    pub(crate) crossed: AtomicU64,
    /// Of `whole`: WebSockets that ended with a close frame, and those that just ended.
    pub(crate) closed_sockets: AtomicU64,
    pub(crate) broken_sockets: AtomicU64,
    /// The first things that should not have happened, in words.
    pub(crate) told: Mutex<Vec<String>>,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::SeqCst);
}

/// Things that are told in words, at most.
const TOLD_MAX: usize = 20;

impl Account {
    /// Counts something that should not have happened.
    fn tell(&self, counter: &AtomicU64, what: String) {
        count(counter);
        let mut told = self.told.lock().unwrap();
        if told.len() < TOLD_MAX {
            told.push(what);
        }
    }

    /// All that became of requests; equal to what was sent once the clients have ended.
    pub(crate) fn ends(&self) -> u64 {
        let all = [
            &self.whole,
            &self.cut,
            &self.no_route,
            &self.bad_gateway,
            &self.unavailable,
            &self.timed_out,
            &self.odd,
            &self.none,
            &self.aborted,
            &self.stuck,
        ];
        all.map(|counter| counter.load(Ordering::SeqCst)).iter().sum()
    }
}

/// One client.
pub(crate) struct Client {
    pub(crate) manner: Manner,
    pub(crate) addr: SocketAddr,
    pub(crate) account: Arc<Account>,
    pub(crate) dice: Dice,
    pub(crate) ids: Arc<AtomicU64>,
}

/// How one exchange ended.
enum End {
    /// The connection can be used again.
    Kept(Wire),
    Closed,
}

impl Client {
    /// Asks until it is told to stop.
    pub(crate) async fn run(mut self, stop: Arc<AtomicBool>) {
        let mut kept = None;
        while !stop.load(Ordering::Relaxed) {
            // What those get who go away, nobody sees: there are to be few of them.
            let rarely = if matches!(self.manner, Manner::Aborting | Manner::Lost) { 20 } else { 1 };
            sleep(Duration::from_millis(self.dice.number(0..12) * rarely)).await;
            if self.manner == Manner::Socket {
                self.socket().await;
                continue;
            }
            let wire = match kept.take() {
                Some(wire) => wire,
                None => Wire::new(TcpStream::connect(self.addr).await.unwrap()).unwrap(),
            };
            if let End::Kept(wire) = self.exchange(wire).await {
                kept = Some(wire).filter(|_| !self.dice.one_in(50));
            }
        }
    }

    /// One request's head, its body, and whether it is a HEAD.
    fn request(&mut self, id: u64) -> (String, Vec<u8>, bool) {
        let kind = match self.manner {
            Manner::Lost => "nowhere",
            Manner::Slow => "large",
            _ => loop {
                let kind = self.dice.of(&KINDS);
                // An event stream takes its time: not too many of them.
                if kind != "events" || self.dice.one_in(4) {
                    break kind;
                }
            },
        };
        let method = match self.manner {
            Manner::Uploading => self.dice.of(&["POST", "PUT"]),
            _ => self.dice.of(&["GET", "GET", "GET", "GET", "HEAD", "DELETE"]),
        };
        let close = if self.manner == Manner::Closing { "Connection: close\r\n" } else { "" };
        let head = format!("{method} /{kind}/{id} HTTP/1.1\r\nHost: soak.example\r\nX-Id: {id}\r\n{close}");
        if self.manner != Manner::Uploading {
            return (head + "\r\n", Vec::new(), method == "HEAD");
        }
        let most = if self.dice.one_in(4) { BODY_BYTES_MAX } else { 2000 };
        let body = vec![filling(id); self.dice.number(1..most) as usize];
        if self.dice.one_in(3) {
            let mut chunks = Vec::new();
            for piece in body.chunks(10_000) {
                chunks.extend(format!("{:x}\r\n", piece.len()).as_bytes());
                chunks.extend([piece, b"\r\n"].concat());
            }
            chunks.extend(b"0\r\n\r\n");
            return (head + "Transfer-Encoding: chunked\r\n\r\n", chunks, false);
        }
        (format!("{head}Content-Length: {}\r\n\r\n", body.len()), body, false)
    }

    async fn exchange(&mut self, mut wire: Wire) -> End {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let (head, body, is_head) = self.request(id);
        count(&self.account.sent);
        // An answer may have come all the same.
        let sent = async { wire.write(&[head.as_bytes(), &body].concat()).await };
        if timeout(PATIENCE, sent).await.is_err() {
            count(&self.account.stuck);
            return End::Closed;
        }
        if self.manner == Manner::Aborting {
            sleep(Duration::from_millis(self.dice.number(0..30))).await;
            count(&self.account.aborted);
            return End::Closed;
        }
        if self.manner == Manner::Slow {
            sleep(Duration::from_millis(self.dice.number(0..200))).await;
        }
        let answer = match timeout(PATIENCE, wire.head()).await {
            Ok(Ok(Some(answer))) => answer,
            Ok(ended) => {
                self.account.tell(&self.account.none, format!("no answer to {}: {ended:?}", line_of(&head)));
                return End::Closed;
            }
            Err(_) => {
                self.account.tell(&self.account.stuck, format!("no answer in time to {}", line_of(&head)));
                return End::Closed;
            }
        };
        let body = async { if is_head { Ok(Body::default()) } else { wire.body(&answer).await } };
        let is_whole = match timeout(PATIENCE, body).await {
            Ok(body) => self.note(id, &answer, body),
            Err(_) => {
                self.account.tell(&self.account.stuck, format!("no end of {}", line_of(&head)));
                false
            }
        };
        let ends = answer.is("connection", "close") || self.manner == Manner::Closing;
        if is_whole && !ends { End::Kept(wire) } else { End::Closed }
    }

    /// Accounts for an answer. Returns whether it was whole.
    fn note(&self, id: u64, answer: &Head, body: io::Result<Body>) -> bool {
        let account = &self.account;
        let Some(theirs) = answer.field("x-id") else {
            // The proxy's own.
            match (answer.status(), &body) {
                (404, Ok(_)) => count(&account.no_route),
                (502, Ok(_)) => count(&account.bad_gateway),
                (503, Ok(_)) => count(&account.unavailable),
                (504, Ok(_)) => count(&account.timed_out),
                _ => account.tell(&account.odd, format!("an odd answer: {answer:?}, {body:?}")),
            }
            return body.is_ok();
        };
        let is_own = |body: &Body| body.length == 0 || body.fill == Some(filling(id));
        if theirs != id.to_string() || !body.as_ref().map_or(true, is_own) {
            account.tell(&account.crossed, format!("{id} got what belongs to {theirs}: {body:?}"));
        }
        count(if body.is_ok() { &account.whole } else { &account.cut });
        body.is_ok()
    }

    /// A WebSocket: opened, spoken over for a while, closed.
    async fn socket(&mut self) {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        count(&self.account.sent);
        let stream = TcpStream::connect(self.addr).await.unwrap();
        let asked = tokio_tungstenite::client_async(format!("ws://soak.example/socket/{id}"), stream);
        let account = Arc::clone(&self.account);
        let mut socket = match timeout(PATIENCE, asked).await {
            Ok(Ok((socket, _))) => socket,
            Ok(Err(Error::Http(answer))) => {
                return match answer.status().as_u16() {
                    502 => count(&account.bad_gateway),
                    503 => count(&account.unavailable),
                    504 => count(&account.timed_out),
                    _ => account.tell(&account.odd, format!("an odd answer: {answer:?}")),
                };
            }
            Ok(Err(error)) => return account.tell(&account.none, format!("no WebSocket: {error}")),
            Err(_) => return account.tell(&account.stuck, "no WebSocket in time".to_owned()),
        };
        count(&account.whole);
        for number in 0..self.dice.number(1..200) {
            let text = format!("{id} says {number}");
            let said = async {
                socket.send(Message::text(text.clone())).await.ok()?;
                socket.next().await
            };
            match timeout(PATIENCE, said).await {
                Ok(Some(Ok(Message::Text(back)))) if back.as_str() == text => {}
                Ok(Some(Ok(Message::Close(_)))) => return count(&account.closed_sockets),
                Ok(None | Some(Err(_))) => return count(&account.broken_sockets),
                Ok(other) => return account.tell(&account.crossed, format!("{text}: {other:?}")),
                // Its backend may be hung for that long, and is then not the proxy's affair.
                Err(_) => return count(&account.broken_sockets),
            }
            sleep(Duration::from_millis(self.dice.number(0..40))).await;
        }
        let closed = async {
            let closed = socket.close(None).await.is_ok();
            while let Some(Ok(_)) = socket.next().await {}
            closed
        };
        match timeout(PATIENCE, closed).await {
            Ok(true) => count(&account.closed_sockets),
            _ => count(&account.broken_sockets),
        }
    }
}

fn line_of(head: &str) -> &str {
    head.lines().next().unwrap_or_default()
}

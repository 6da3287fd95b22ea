//! Backends whose every byte a test decides, and a client that sees every byte.

use std::collections::HashMap;
use std::future::Future;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulsa_proxy::{
    Applied, Bounds, Hold, Limits, ListenerRoutes, Options, Proxy, Report, Route, Service, Table, Target,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a test waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A message as it came over the wire.
#[derive(Debug, Clone, Default)]
pub(crate) struct Message {
    /// The first line and the fields, as they were sent.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub(crate) fn status(&self) -> u16 {
        self.line().split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
    }

    /// All values of a field, case of the name ignored, joined by `|`.
    pub(crate) fn field(&self, name: &str) -> String {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let values = fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
        values.collect::<Vec<_>>().join("|")
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection with what was read beyond the last message.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    pub(crate) rest: Vec<u8>,
}

impl Wire {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::new(TcpStream::connect(addr).await.expect("the listener accepts"))
    }

    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream, rest: Vec::new() }
    }

    pub(crate) async fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("the peer reads");
    }

    /// Reads more. False at the end, also at a reset.
    async fn fill(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer).await {
            Ok(0) | Err(_) => false,
            Ok(read) => {
                self.rest.extend_from_slice(&buffer[..read]);
                true
            }
        }
    }

    pub(crate) async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.rest, b"\r\n\r\n") {
                let head: Vec<u8> = self.rest.drain(..end + 4).collect();
                return Some(String::from_utf8(head).expect("an ASCII head"));
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    pub(crate) async fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.rest.len() < count {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.rest.drain(..count).collect())
    }

    /// One message with its body. `None` if the connection ended before it was whole.
    pub(crate) async fn message(&mut self) -> Option<Message> {
        let mut message = Message { head: self.head().await?, body: Vec::new() };
        let length = message.field("content-length");
        if message.field("transfer-encoding").contains("chunked") {
            loop {
                let size = self.line().await?;
                let size = usize::from_str_radix(size.trim(), 16).expect("a chunk size");
                message.body.extend(self.bytes(size).await?);
                self.bytes(2).await?;
                if size == 0 {
                    return Some(message);
                }
            }
        }
        if let Ok(length) = length.parse() {
            message.body = self.bytes(length).await?;
        }
        Some(message)
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.rest, b"\r\n") {
                let line: Vec<u8> = self.rest.drain(..end + 2).collect();
                return Some(String::from_utf8(line).expect("an ASCII line"));
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// What comes until the other side's clean end. A reset fails the test.
    pub(crate) async fn rest_to_end(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.rest);
        self.stream.read_to_end(&mut all).await.expect("a clean end, not a reset");
        all
    }

    pub(crate) async fn ask(&mut self, request: &str) -> Message {
        self.write(request).await;
        patient(self.message()).await.expect("an answer")
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Sends one request on a connection of its own.
pub(crate) async fn ask(addr: SocketAddr, request: &str) -> Message {
    Wire::connect(addr).await.ask(request).await
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n")
}

pub(crate) fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

pub(crate) async fn patient<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it happens in time")
}

/// A server whose connections a test's function serves.
pub(crate) struct Backend {
    pub(crate) addr: SocketAddr,
    pub(crate) seen: Seen,
    tasks: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// What a backend was asked.
#[derive(Clone)]
pub(crate) struct Seen {
    messages: watch::Sender<Vec<Message>>,
    connections: watch::Sender<usize>,
}

impl Seen {
    pub(crate) fn all(&self) -> Vec<Message> {
        self.messages.borrow().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.messages.borrow().len()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.connections.borrow()
    }

    pub(crate) async fn at_least(&self, count: usize) {
        patient(self.messages.subscribe().wait_for(|m| count <= m.len())).await.expect("the backend lives");
    }

    pub(crate) async fn connected(&self, count: usize) {
        patient(self.connections.subscribe().wait_for(|n| count <= *n)).await.expect("the backend lives");
    }

    /// Reads a request and notes it.
    pub(crate) async fn next(&self, wire: &mut Wire) -> Option<Message> {
        let message = wire.message().await?;
        self.note(message.clone());
        Some(message)
    }

    pub(crate) fn note(&self, message: Message) {
        self.messages.send_modify(|all| all.push(message));
    }
}

impl Backend {
    pub(crate) async fn serving<F, S>(serve: S) -> Self
    where
        S: Fn(Wire, Seen) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::serving_on(TcpListener::bind("127.0.0.1:0").await.expect("a free port"), serve)
    }

    pub(crate) fn serving_on<F, S>(listener: TcpListener, serve: S) -> Self
    where
        S: Fn(Wire, Seen) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let addr = listener.local_addr().expect("bound");
        let seen = Seen { messages: watch::Sender::new(Vec::new()), connections: watch::Sender::new(0) };
        let tasks = Arc::new(Mutex::new(Vec::new()));
        let (noting, known) = (seen.clone(), Arc::clone(&tasks));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                noting.connections.send_modify(|count| *count += 1);
                let served = tokio::spawn(serve(Wire::new(stream), noting.clone()));
                known.lock().unwrap().push(served);
            }
        });
        tasks.lock().unwrap().push(accepting);
        Self { addr, seen, tasks }
    }

    /// A server that answers everything with 200 and this text, and keeps its connections.
    pub(crate) async fn saying(text: &'static str) -> Self {
        Self::serving(move |mut wire, seen| async move {
            while seen.next(&mut wire).await.is_some() {
                wire.write(&ok(text)).await;
            }
        })
        .await
    }

    /// A server that answers nothing until it is told to, then everything with 200 and this text.
    pub(crate) async fn waiting(text: &'static str, go: &watch::Sender<bool>) -> Self {
        let go = go.subscribe();
        Self::serving(move |mut wire, seen| {
            let mut go = go.clone();
            async move {
                while seen.next(&mut wire).await.is_some() {
                    go.wait_for(|go| *go).await.expect("the test lives");
                    wire.write(&ok(text)).await;
                }
            }
        })
        .await
    }

    /// A server that reads requests and closes the connection without a word.
    pub(crate) async fn dying() -> Self {
        Self::serving(|mut wire, seen| async move {
            seen.next(&mut wire).await;
        })
        .await
    }

    /// As SIGKILL would: the listener and all connections are gone.
    pub(crate) async fn kill(&self) {
        let tasks: Vec<_> = self.tasks.lock().unwrap().drain(..).collect();
        for task in tasks {
            task.abort();
            // Its sockets are closed when it is gone.
            drop(task.await);
        }
    }

    pub(crate) fn target(&self, id: &str) -> Target {
        Target { release: "1".into(), ..Target::new(id, self.addr) }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        for task in self.tasks.lock().unwrap().drain(..) {
            task.abort();
        }
    }
}

/// An address that is taken, and where nothing listens until the socket is told to.
pub(crate) fn nowhere(id: &str) -> (Target, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (Target { release: "1".into(), ..Target::new(id, socket.local_addr().unwrap()) }, socket)
}

/// A table with one listener, `http`, and one service that takes everything. All clients of a test have one address, so
/// that one has no limit.
pub(crate) fn table(number: u64, targets: &[Target]) -> Table {
    let hold = Hold { time_ms: 5_000, requests: 100, ..Hold::default() };
    Table {
        listeners: vec![ListenerRoutes::http("http", vec![Route::to(0)])],
        services: vec![Service { hold, ..Service::new("web", targets.to_vec()) }],
        limits: Limits { connections_per_address: 0 },
        ..Table::empty(number)
    }
}

/// A proxy with one listener.
pub(crate) struct Rig {
    pub(crate) proxy: Proxy,
    pub(crate) addr: SocketAddr,
}

impl Rig {
    pub(crate) async fn new(table: &Table) -> Self {
        Self::with_workers(1, table).await
    }

    pub(crate) async fn with_workers(workers: usize, table: &Table) -> Self {
        Self::within(Bounds::default(), workers, table).await
    }

    pub(crate) async fn within(bounds: Bounds, workers: usize, table: &Table) -> Self {
        let proxy = Proxy::start_within(Options { workers }, table, bounds).unwrap();
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        proxy.add_listener("http", vec![listener]).unwrap();
        let rig = Self { proxy, addr };
        rig.until(|report| report.settled).await;
        rig
    }

    /// Publishes a table and waits until all workers run on it.
    pub(crate) async fn apply(&self, table: &Table) {
        assert_eq!(self.proxy.apply(table), Ok(Applied::Taken));
        self.until(|report| table.number <= report.table).await;
    }

    /// Waits until the report is as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&Report) -> bool) -> Report {
        let look = async {
            loop {
                let report = self.proxy.report();
                if wanted(&report) {
                    return report;
                }
                // Not every number is worth a signal; look again soon in any case.
                let again = tokio::time::timeout(Duration::from_millis(2), self.proxy.changed());
                drop(again.await);
            }
        };
        match tokio::time::timeout(PATIENCE, look).await {
            Ok(report) => report,
            Err(_) => panic!("never as wanted: {:#?}", self.proxy.report()),
        }
    }

    pub(crate) async fn held(&self, count: u64) {
        self.until(|report| report.held.iter().map(|held| held.requests).sum::<u64>() == count).await;
    }

    pub(crate) async fn get(&self, path: &str) -> Message {
        ask(self.addr, &get(path)).await
    }

    /// A counter of one target.
    pub(crate) fn target(&self, id: &str) -> bulsa_proxy::TargetReport {
        let all: HashMap<_, _> =
            self.proxy.report().targets.into_iter().map(|target| (target.id.clone(), target)).collect();
        all.get(id).cloned().unwrap_or_else(|| panic!("target {id} is reported"))
    }
}

//! The HTTP clients: one request each, over a fresh or an idle connection, and its fate written down.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    RELEASE_FIELD, Shared,
    config::{Config, Method, Shot, is_near},
    is_refused,
    record::{Connection, Failure, Kind, Mark},
    scatter,
    tap::{Seen, Tap},
};

/// Idle connections kept; more are closed.
const IDLE_MAX: usize = 256;
/// The longest answer read, in bytes.
const ANSWER_MAX: usize = 4 << 20;
/// The bytes of a POST, about.
const POST_BYTES: usize = 400;

/// One request to be sent.
#[derive(Debug)]
pub(super) struct Due {
    number: u64,
    at: Mark,
    method: Method,
    path: String,
    fresh: bool,
}

impl Due {
    /// What request `number` is: the same in each run.
    pub(super) fn draw(config: &Config, number: u64, after: Duration) -> Self {
        let mut draw = scatter(number) % config.weights().max(1);
        let shot = config.mix.iter().find(|shot| {
            let here = draw < u64::from(shot.weight);
            draw = draw.saturating_sub(shot.weight.into());
            here
        });
        let (method, path) = match shot {
            Some(Shot { method, path, .. }) => (*method, path.clone()),
            None => (Method::Get, "/".to_owned()),
        };
        // 53 bits make a fraction from 0 to 1.
        let fraction = (scatter(scatter(number)) >> 11) as f64 / (1_u64 << 53) as f64;
        Self { number, at: Mark(after), method, path, fresh: fraction < config.fresh }
    }

    fn body(&self) -> Bytes {
        match self.method {
            Method::Get => Bytes::new(),
            Method::Post => Bytes::from(format!("request {} ", self.number).repeat(POST_BYTES / 16)),
        }
    }
}

/// A connection and what is known of it.
struct Wire {
    sender: SendRequest<Full<Bytes>>,
    seen: Arc<Seen>,
    opened: Mark,
    reused: bool,
}

/// What went wrong with one try.
struct Fault {
    kind: Kind,
    detail: String,
    release: Option<String>,
}

/// All of a load's requests.
pub(super) struct Client {
    shared: Arc<Shared>,
    idle: Mutex<VecDeque<Wire>>,
}

impl Client {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, idle: Mutex::default() }
    }

    /// Writes down that a request was not sent because too many are under way.
    pub(super) fn refuse(&self, due: &Due) {
        let detail = format!("{} requests are under way already", self.shared.config.outstanding);
        self.fail(due, None, Fault { kind: Kind::Cap, detail, release: None });
    }

    /// Sends one request and writes down what became of it.
    pub(super) async fn send(&self, due: Due) {
        let mut connection = None;
        let end = self.shared.started + due.at.0 + self.shared.config.timeout;
        let answered = tokio::time::timeout_at(end.into(), self.exchange(&due, &mut connection)).await;
        match answered {
            Ok(Ok(release)) => {
                let at = self.shared.mark();
                self.shared.log().answered(due.at, at, release.as_deref(), &due.path);
            }
            Ok(Err(fault)) => self.fail(&due, connection, fault),
            Err(_) => {
                let detail = format!("no complete answer after {:?}", self.shared.config.timeout);
                self.fail(&due, connection, Fault { kind: Kind::Timeout, detail, release: None });
            }
        }
    }

    fn fail(&self, due: &Due, connection: Option<Connection>, fault: Fault) {
        let at = self.shared.mark();
        self.shared.log().failed(Failure {
            due: due.at,
            at,
            kind: fault.kind,
            method: due.method,
            idempotent: due.method.is_idempotent(),
            path: due.path.clone(),
            connection,
            release: fault.release,
            detail: fault.detail,
        });
    }

    /// Idle connections are tried until one takes the first byte; a fresh one is tried once.
    async fn exchange(&self, due: &Due, used: &mut Option<Connection>) -> Result<Option<String>, Fault> {
        loop {
            let idle = if due.fresh { None } else { self.take_idle() };
            let mut wire = match idle {
                Some(wire) => wire,
                None => self.connect().await?,
            };
            *used = Some(Connection { opened: wire.opened, reused: wire.reused });
            let before = wire.seen.written();
            let answered = self.try_on(&mut wire, due).await;
            match answered {
                Ok(release) => {
                    if !due.fresh {
                        self.keep(wire).await;
                    }
                    return Ok(release);
                }
                Err(_) if wire.reused && wire.seen.written() == before => {
                    let at = self.shared.mark();
                    self.shared.log().unsent(at);
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    async fn connect(&self) -> Result<Wire, Fault> {
        let stream = self.open().await.map_err(|error| Fault::io(&error))?;
        let opened = self.shared.mark();
        stream.set_nodelay(true).map_err(|error| Fault::io(&error))?;
        let (tap, seen) = Tap::new(stream);
        let (sender, connection) =
            http1::handshake(TokioIo::new(tap)).await.map_err(|error| Fault::of(&error))?;
        // Its error is also what the request gets.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Wire { sender, seen, opened, reused: false })
    }

    /// Connects to the target, or to what its name means now, as a client would that keeps no address.
    async fn open(&self) -> io::Result<TcpStream> {
        let Some(name) = &self.shared.config.name else {
            return TcpStream::connect(self.shared.config.target).await;
        };
        let near: Vec<_> =
            tokio::net::lookup_host(name).await?.filter(|address| is_near(address.ip())).collect();
        if near.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("no private address is named {name}"),
            ));
        }
        TcpStream::connect(near.as_slice()).await
    }

    async fn try_on(&self, wire: &mut Wire, due: &Due) -> Result<Option<String>, Fault> {
        let (method, body) = (due.method, due.body());
        let request = Request::builder()
            .method(match method {
                Method::Get => http::Method::GET,
                Method::Post => http::Method::POST,
            })
            .uri(due.path.as_str())
            .header(header::HOST, self.shared.config.host.as_str())
            .body(Full::new(body.clone()))
            .map_err(|error| Fault::bad(format!("cannot make the request: {error}"), None))?;
        let answer = wire.sender.send_request(request).await.map_err(|error| Fault::of(&error))?;
        self.judge(answer, method, &body).await
    }

    async fn judge(
        &self,
        answer: Response<Incoming>,
        method: Method,
        sent: &Bytes,
    ) -> Result<Option<String>, Fault> {
        let (head, body) = answer.into_parts();
        let release =
            head.headers.get(RELEASE_FIELD).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = match Limited::new(body, ANSWER_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(Fault::bad(format!("more than {ANSWER_MAX} bytes"), release));
            }
            Err(error) => {
                return Err(Fault { kind: Kind::Reset, detail: format!("in the body: {error}"), release });
            }
        };
        if !head.status.is_success() {
            let detail = String::from_utf8_lossy(&body).trim().to_owned();
            return Err(Fault { kind: Kind::Status(head.status.as_u16()), detail, release });
        }
        let good = match (method, &self.shared.config.expect) {
            (Method::Post, _) => body == *sent,
            (Method::Get, Some(expected)) => String::from_utf8_lossy(&body).contains(expected.as_str()),
            (Method::Get, None) => true,
        };
        match good {
            true => Ok(release),
            false => Err(Fault::bad(String::from_utf8_lossy(&body).into_owned(), release)),
        }
    }

    /// The idle connection that has waited longest, so that all of them see use.
    fn take_idle(&self) -> Option<Wire> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(wire) = idle.pop_front() {
            if wire.sender.is_ready() {
                wire.seen.was_idle();
                return Some(wire);
            }
        }
        None
    }

    async fn keep(&self, mut wire: Wire) {
        // A connection that the answer closed never gets ready.
        if wire.sender.ready().await.is_err() {
            return;
        }
        wire.reused = true;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push_back(wire);
        }
    }
}

impl Fault {
    fn bad(detail: String, release: Option<String>) -> Self {
        Self { kind: Kind::BadBody, detail, release }
    }

    fn io(error: &io::Error) -> Self {
        let kind = match error.kind() {
            _ if is_refused(error) => Kind::Refused,
            io::ErrorKind::TimedOut => Kind::Timeout,
            _ => Kind::Reset,
        };
        Self { kind, detail: error.to_string(), release: None }
    }

    /// Whatever ends an exchange on an established connection without an answer counts as a reset.
    fn of(error: &hyper::Error) -> Self {
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        Self { kind: Kind::Reset, detail: format!("{error}{source}"), release: None }
    }
}

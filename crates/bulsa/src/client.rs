//! The client side of the local API.
//!
//! Owns: finding the daemon's socket, one HTTP/1.1 connection per call, and reading its answers and streams. Never:
//! prints, starts a daemon, or decides what an error means for the exit code (that is [`crate::report`]).

mod sync;

use std::{
    io,
    marker::PhantomData,
    path::{Path, PathBuf},
    time::Duration,
};

use bulsa_core::wire::api::{
    Answer, ApiError, Event, LogLine, NotifyTest, NotifyTested, PREPARE_SECS_MAX, ProgressV1, Request,
    SinceView, Snapshot, SourceFile, Why,
};
use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, time::timeout};

/// How long the socket may take to let us in.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long the daemon may take to answer; longer than its own limits, so that its own words reach us.
const ANSWER_MAX: Duration = Duration::from_secs(45);
/// An answer is at most this long, in bytes.
const ANSWER_MAX_BYTES: usize = 64 << 20;
/// A line of a stream is at most this long, in bytes.
const LINE_MAX_BYTES: usize = 4 << 20;

pub use self::sync::Place;

/// Why the daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no daemon answers at {}", list(.sockets))]
    NoDaemon {
        /// Where it was looked for.
        sockets: Vec<PathBuf>,
    },
    /// The socket is there, and not for us.
    #[error("the daemon at {} belongs to another user", socket.display())]
    NotAllowed {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket can't be used.
    #[error("can't reach the daemon at {}: {source}", socket.display())]
    Unusable {
        /// The socket.
        socket: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It went away in the middle.
    #[error("lost the connection to the daemon at {}: {detail}", socket.display())]
    Lost {
        /// The socket.
        socket: PathBuf,
        /// What happened.
        detail: String,
    },
    /// It did not answer in time.
    #[error("the daemon at {} did not answer within {} s", socket.display(), limit.as_secs())]
    TimedOut {
        /// The socket.
        socket: PathBuf,
        /// How long it was waited for.
        limit: Duration,
    },
    /// It answered with an error of its own.
    #[error("{}", error.error)]
    Api {
        /// The HTTP status.
        status: StatusCode,
        /// What it said.
        error: ApiError,
    },
    /// It speaks another language.
    #[error("the daemon's answer makes no sense to this version of bulsa: {detail}")]
    Unreadable {
        /// What was wrong with it.
        detail: String,
    },
}

impl ClientError {
    /// Whether the daemon may be back in a moment: its agent is being replaced.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::NoDaemon { .. } => true,
            Self::Api { status, .. } => *status == StatusCode::SERVICE_UNAVAILABLE,
            Self::NotAllowed { .. }
            | Self::Unusable { .. }
            | Self::TimedOut { .. }
            | Self::Unreadable { .. } => false,
        }
    }
}

fn list(sockets: &[PathBuf]) -> String {
    sockets.iter().map(|socket| socket.display().to_string()).collect::<Vec<_>>().join(" or ")
}

/// A daemon that answered.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The first of `sockets` where a daemon lets us in.
    ///
    /// # Errors
    /// [`ClientError::NoDaemon`] when nobody listens at any of them; another when one is there and can't be used: a
    /// daemon that doesn't let us in is no reason to look for a second one.
    pub async fn find(sockets: &[PathBuf]) -> Result<Self, ClientError> {
        for socket in sockets {
            let client = Self { socket: socket.clone() };
            match client.connect().await {
                Ok(_) => return Ok(client),
                Err(ClientError::NoDaemon { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ClientError::NoDaemon { sockets: sockets.to_vec() })
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the driver published last.
    ///
    /// # Errors
    /// When the daemon doesn't answer.
    pub async fn snapshot(&self) -> Result<Snapshot, ClientError> {
        self.get("/v1/snapshot").await
    }

    /// The first snapshot with a higher number than `after`, or the same one after `wait` (at most half a minute).
    ///
    /// # Errors
    /// When the daemon doesn't answer.
    pub async fn snapshot_after(&self, after: u64, wait: Duration) -> Result<Snapshot, ClientError> {
        let wait_ms = wait.min(Duration::from_secs(30)).as_millis();
        self.get(&format!("/v1/snapshot?after={after}&wait_ms={wait_ms}")).await
    }

    /// Asks the driver for a change.
    ///
    /// # Errors
    /// When the daemon doesn't answer, or not with an [`Answer`].
    pub async fn request(&self, request: &Request) -> Result<Answer, ClientError> {
        let body = serde_json::to_vec(request)
            .map_err(|error| ClientError::Unreadable { detail: error.to_string() })?;
        let limit = match request {
            Request::Deploy(_) => ANSWER_MAX + Duration::from_secs(PREPARE_SECS_MAX),
            _ => ANSWER_MAX,
        };
        self.call(Method::POST, "/v1/request", body.into(), limit).await
    }

    /// The files that a release was read from.
    ///
    /// # Errors
    /// When the daemon doesn't answer, or doesn't know the release.
    pub async fn sources(&self, project: &str, release: u32) -> Result<Vec<SourceFile>, ClientError> {
        self.get(&format!("/v1/sources?project={}&release={release}", encode(project))).await
    }

    /// What a deployment says after its line `after`, up to its last line.
    ///
    /// # Errors
    /// When the daemon doesn't answer or has no such deployment.
    pub async fn progress(
        &self,
        project: &str,
        id: u32,
        after: u32,
    ) -> Result<LineStream<ProgressV1>, ClientError> {
        self.stream(&format!("/v1/deploys/{}/{id}/progress?after={after}", encode(project))).await
    }

    /// Events, oldest first.
    ///
    /// # Errors
    /// When the daemon doesn't answer.
    pub async fn events(&self, which: &EventsQuery) -> Result<LineStream<Event>, ClientError> {
        let mut path = format!("/v1/events?follow={}", which.follow);
        if let Some(project) = &which.project {
            path += &format!("&project={}", encode(project));
        }
        if let Some(after) = which.after {
            path += &format!("&after={after}");
        }
        if let Some(last) = which.last {
            path += &format!("&last={last}");
        }
        self.stream(&path).await
    }

    /// What replicas wrote.
    ///
    /// # Errors
    /// When the daemon doesn't answer or has no such project or service.
    pub async fn logs(&self, which: &LogsQuery) -> Result<LineStream<LogLine>, ClientError> {
        let mut path = format!("/v1/logs?project={}&follow={}", encode(&which.project), which.follow);
        if let Some(service) = &which.service {
            path += &format!("&service={}", encode(service));
        }
        if let Some(tail) = which.tail {
            path += &format!("&tail={tail}");
        }
        self.stream(&path).await
    }

    /// Why a service is as it is, with its last `last` incidents.
    ///
    /// # Errors
    /// When the daemon doesn't answer, or has no such project or service.
    pub async fn why(&self, project: &str, service: &str, last: u64) -> Result<Why, ClientError> {
        let (project, service) = (encode(project), encode(service));
        self.get(&format!("/v1/why?project={project}&service={service}&last={last}")).await
    }

    /// How much of the last `window` a project's services were served.
    ///
    /// # Errors
    /// When the daemon doesn't answer, or has no such project.
    pub async fn since(&self, project: &str, window: Duration) -> Result<SinceView, ClientError> {
        self.get(&format!("/v1/since?project={}&ms={}", encode(project), window.as_millis())).await
    }

    /// Has the URLs tried that a project's messages go to.
    ///
    /// # Errors
    /// When the daemon doesn't answer, or has no such project.
    pub async fn notify_test(&self, test: &NotifyTest) -> Result<Vec<NotifyTested>, ClientError> {
        let body = serde_json::to_vec(test)
            .map_err(|error| ClientError::Unreadable { detail: error.to_string() })?;
        self.call(Method::POST, "/v1/notify/test", body.into(), ANSWER_MAX).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, Bytes::new(), ANSWER_MAX).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<T, ClientError> {
        self.call_with(method, path, Full::new(body), limit).await
    }

    async fn call_with<T, B>(
        &self,
        method: Method,
        path: &str,
        body: B,
        limit: Duration,
    ) -> Result<T, ClientError>
    where
        T: DeserializeOwned,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let call = async {
            let answer = self.send(method, path, body).await?;
            let bytes = self.whole(answer).await?;
            serde_json::from_slice(&bytes)
                .map_err(|error| ClientError::Unreadable { detail: error.to_string() })
        };
        timeout(limit, call)
            .await
            .map_err(|_| ClientError::TimedOut { socket: self.socket.clone(), limit })?
    }

    async fn stream<T>(&self, path: &str) -> Result<LineStream<T>, ClientError> {
        let body = timeout(ANSWER_MAX, self.send(Method::GET, path, Full::new(Bytes::new())))
            .await
            .map_err(|_| ClientError::TimedOut { socket: self.socket.clone(), limit: ANSWER_MAX })??;
        Ok(LineStream { socket: self.socket.clone(), body, buffer: BytesMut::new(), of: PhantomData })
    }

    /// Sends one request on a connection of its own; the body of a good answer.
    async fn send<B>(&self, method: Method, path: &str, body: B) -> Result<Incoming, ClientError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let stream = self.connect().await?;
        let lost = |error: hyper::Error| self.lost(error);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        // It ends with the body or the sender, whichever is dropped last; its error reaches us through those.
        drop(tokio::spawn(connection));
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "bulsa")
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| ClientError::Unreadable { detail: error.to_string() })?;
        let response = sender.send_request(request).await.map_err(lost)?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response.into_body());
        }
        let text = self.whole(response.into_body()).await?;
        let error = serde_json::from_slice(&text).unwrap_or_else(|_| ApiError {
            error: format!("the daemon answered {status}: {}", String::from_utf8_lossy(&text).trim()),
            hint: None,
        });
        Err(ClientError::Api { status, error })
    }

    async fn whole(&self, body: Incoming) -> Result<Bytes, ClientError> {
        let limited = Limited::new(body, ANSWER_MAX_BYTES);
        Ok(limited.collect().await.map_err(|error| self.lost(error))?.to_bytes())
    }

    fn lost(&self, error: impl ToString) -> ClientError {
        ClientError::Lost { socket: self.socket.clone(), detail: error.to_string() }
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        let socket = self.socket.clone();
        let connected = timeout(CONNECT_MAX, UnixStream::connect(&socket)).await;
        match connected {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
                    ClientError::NoDaemon { sockets: vec![socket] }
                }
                io::ErrorKind::PermissionDenied => ClientError::NotAllowed { socket },
                // The agent that listened has died with us in its queue; the next one listens in a moment.
                io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => self.lost(error),
                _ => ClientError::Unusable { socket, source: error },
            }),
            Err(_) => Err(ClientError::TimedOut { socket, limit: CONNECT_MAX }),
        }
    }
}

/// Which events to read.
#[derive(Clone, Debug, Default)]
pub struct EventsQuery {
    /// Only this project's.
    pub project: Option<String>,
    /// Only those after this id.
    pub after: Option<u64>,
    /// Only the newest so many, where `after` isn't given.
    pub last: Option<u64>,
    /// Go on with what happens then.
    pub follow: bool,
}

/// Which logs to read.
#[derive(Clone, Debug, Default)]
pub struct LogsQuery {
    /// The project.
    pub project: String,
    /// Only this service's.
    pub service: Option<String>,
    /// The last so many lines of each replica.
    pub tail: Option<u32>,
    /// Go on with what is written then.
    pub follow: bool,
}

/// A stream of one JSON object per line.
#[derive(Debug)]
pub struct LineStream<T> {
    socket: PathBuf,
    body: Incoming,
    buffer: BytesMut,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> LineStream<T> {
    /// The next object; `None` at the end. Cancel safe: what was read stays for the next call.
    ///
    /// # Errors
    /// When the connection is lost, or a line is no `T`.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                let object = serde_json::from_slice(&line);
                return object
                    .map(Some)
                    .map_err(|error| ClientError::Unreadable { detail: error.to_string() });
            }
            if self.buffer.len() > LINE_MAX_BYTES {
                return Err(ClientError::Unreadable {
                    detail: format!("a line beyond {LINE_MAX_BYTES} bytes"),
                });
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    return Err(ClientError::Lost { socket: self.socket.clone(), detail: error.to_string() });
                }
            }
        }
    }
}

/// Percent-encodes what isn't plain in a path or query.
fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn where_nobody_listens_every_place_that_was_looked_at_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let stale = dir.path().join("stale.sock");
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        let absent = dir.path().join("absent.sock");
        let error = Client::find(&[absent.clone(), stale.clone()]).await.unwrap_err();
        assert!(error.may_pass());
        let text = error.to_string();
        assert!(text.contains("absent.sock") && text.contains("stale.sock"), "{text}");
    }

    #[tokio::test]
    async fn a_daemon_that_hangs_up_is_lost_and_not_misread() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let client = Client::find(std::slice::from_ref(&path)).await.unwrap();
        let server = async {
            drop(listener.accept().await.unwrap());
            drop(listener.accept().await.unwrap());
        };
        let (result, ()) = tokio::join!(client.snapshot(), server);
        assert!(matches!(result, Err(ClientError::Lost { .. })), "{result:?}");
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(encode("a b/ü-1"), "a%20b%2F%C3%BC-1");
    }
}

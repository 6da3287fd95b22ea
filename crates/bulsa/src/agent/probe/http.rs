//! One HTTP request to a replica.
//!
//! Owns: a GET over a connection of its own, judged by the status. Never: follows redirects, keeps a connection, or
//! reads more of a body than evidence needs. A body that never ends (an event stream at `/`) is no failure: the
//! status has been said.

use std::{error::Error, io, net::SocketAddr, pin::pin, time::Duration};

use bulsa_core::spec::Accept;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{EVIDENCE_BYTES_MAX, ProbeResult, is_ours};

/// An answer's head may be this large, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// How long a failed answer's body is waited for, for the evidence.
const BODY_WAIT: Duration = Duration::from_millis(200);

/// What is asked, and of whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Get<'a> {
    pub(super) address: SocketAddr,
    /// The path with its query.
    pub(super) path: &'a str,
    /// The `Host` field; the address where none is given.
    pub(super) host: Option<&'a str>,
    pub(super) accept: Accept,
}

/// Asks once.
pub(super) async fn run(get: &Get<'_>, started: Instant, timeout: Duration) -> ProbeResult {
    let deadline = started + timeout;
    let request = match request(get) {
        Ok(request) => request,
        Err(e) => {
            return ProbeResult::could_not_run(format!("no request can be made for `{}`: {e}", get.path));
        }
    };
    let stream = match timeout_at(deadline, TcpStream::connect(get.address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(e)) if is_ours(&e) => {
            return ProbeResult::could_not_run(format!("no connection can be made from here: {e}"));
        }
        Ok(Err(e)) => return ProbeResult::fail(connect_failed(get.address, &e)),
        Err(_) => {
            return ProbeResult::no_answer(format!("{}: no connection within {timeout:?}", get.address));
        }
    };
    match timeout_at(deadline, exchange(stream, request, get.accept, deadline)).await {
        Ok(Ok(None)) => ProbeResult::Pass { took: started.elapsed() },
        Ok(Ok(Some(evidence))) => ProbeResult::fail(evidence),
        Ok(Err(e)) => ProbeResult::fail(format!("{}: {}", get.address, broken(&e))),
        Err(_) => {
            ProbeResult::no_answer(format!("{}: connected, but no answer within {timeout:?}", get.address))
        }
    }
}

fn request(get: &Get<'_>) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let host = get.host.map_or_else(|| get.address.to_string(), str::to_owned);
    Request::get(get.path)
        .header("Host", host)
        .header("User-Agent", "bulsa-probe")
        .header("Accept", "*/*")
        .header("Connection", "close")
        .body(Empty::new())
}

/// Sends the request; `None` for an answer that passes, otherwise what it was.
async fn exchange(
    stream: TcpStream,
    request: Request<Empty<Bytes>>,
    accept: Accept,
    deadline: Instant,
) -> hyper::Result<Option<String>> {
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await?;
    let answered = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let passes = match accept {
            Accept::Success => (200..400).contains(&status),
            Accept::AnyAnswer => status < 500,
        };
        if passes {
            return Ok(None);
        }
        Ok(Some(evidence(response, deadline.min(Instant::now() + BODY_WAIT)).await))
    };
    let answered = pin!(answered);
    // The connection only has to be driven: what goes wrong with it is told by the request.
    let driven = pin!(async {
        drop(connection.await);
        std::future::pending().await
    });
    tokio::select! {
        biased;
        result = answered => result,
        never = driven => never,
    }
}

/// The status line and the first bytes of the body, as far as they come before `until`.
async fn evidence(response: Response<Incoming>, until: Instant) -> String {
    let status = response.status();
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while bytes.len() < EVIDENCE_BYTES_MAX {
        // A body that is late or breaks off is evidence enough as it is.
        let Ok(Some(Ok(frame))) = timeout_at(until, body.frame()).await else { break };
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(&data[..data.len().min(EVIDENCE_BYTES_MAX)]);
        }
    }
    format!("HTTP {status}: {}", String::from_utf8_lossy(&bytes))
}

fn connect_failed(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("{address}: connection refused: nothing listens there"),
        io::ErrorKind::ConnectionReset => format!("{address}: connection reset"),
        _ => format!("{address}: no connection: {error}"),
    }
}

fn broken(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return "the connection was closed without an answer".to_owned();
    }
    if error.is_parse() {
        return format!("the answer isn't HTTP/1: {error}");
    }
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            "the connection was reset without an answer".to_owned()
        }
        _ => format!("no answer: {error}"),
    }
}

//! One client connection that speaks HTTP. One that is passed through whole is in [`crate::tcp`].
//!
//! Owns: hyper's server connection and its limits, and its end when the worker drains.
//! Never: knows targets; requests go to [`crate::forward`].

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use crate::accept::Permit;
use crate::forward::answer;
use crate::worker::{Phase, Worker};

/// How long a client may take to send a request's head, from the end of the answer before it or the connection's
/// begin.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);
/// The longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What is known of a client connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    /// The name of the listener that it came in by.
    pub(crate) listener: Rc<str>,
    pub(crate) peer: IpAddr,
    pub(crate) _permit: Permit,
}

/// Serves a connection until either side ends it.
pub(crate) async fn serve(client: Rc<Client>, stream: TcpStream) {
    let mut phase = client.worker.phase();
    let service = service_fn(|request| {
        let client = Rc::clone(&client);
        async move { Ok::<_, Infallible>(answer(client, request).await) }
    });
    let connection = builder().serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = pin!(connection);
    let mut told = Phase::Serving;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a client connection ended");
                }
                return;
            }
            reached = phase.wait_for(|phase| *phase != told) => match reached.map(|phase| *phase) {
                Ok(Phase::Ended) | Err(_) => return,
                Ok(Phase::ClosingIdle) => {
                    connection.as_mut().graceful_shutdown();
                    told = Phase::ClosingIdle;
                }
                Ok(phase) => told = phase,
            },
        }
    }
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .preserve_header_case(true);
    builder
}

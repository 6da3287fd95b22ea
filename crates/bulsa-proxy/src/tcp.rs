//! One TCP connection: passed through to one target, whole.
//!
//! Owns: the way of a client's connection to a target, and what becomes of it when there is none.
//! Never: reads a byte before a target has taken the connection, or looks at one after that.
//!
//! ```text
//! choose ─▶ connect ─▶ tunnel: bytes both ways until both sides have ended
//!   │  ▲       └ refused: that target is left out for a moment, choose again
//!   └ hold ─▶ no target in time, or no room to wait: closed
//! ```
//!
//! It is chosen for, held and counted as a request is; from the connect on it is a [`Tunnel`] and stays where it is,
//! whatever the table says. Nothing is sent to a second target, since what the first made of the bytes is unknown.
//!
//! A client that waits has its end looked for without reading. If it ends before it sent anything, it is
//! forgotten, and so is one that resets. If its end comes behind bytes, that may be half a close: a question that is
//! complete, from a client that listens for the answer. Such a one keeps its place.

use std::io;
use std::rc::Rc;

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::local::{LocalService, LocalTarget};
use crate::proxy_header::{self, Ends};
use crate::respond::Refusal;
use crate::retry::{Attempts, Next};
use crate::server::{Client, serve};
use crate::table::Protocol;
use crate::target::Outcome;
use crate::tunnel::Tunnel;
use crate::upstream::{ConnectError, open};
use crate::wait::{Chosen, Wait, Wanted};

/// Why a connection was not passed through.
#[derive(Debug)]
enum Unopened {
    /// Its client has gone.
    Gone,
    /// There is no target for it.
    Refused(Refusal),
}

/// Takes a client's connection to a target and back until both sides have ended it.
pub(crate) async fn pass_through(client: Rc<Client>, stream: TcpStream) {
    match tunnel_to_target(&client, &stream).await {
        Ok((tunnel, target)) => tunnel.pass_through(stream, target).await,
        Err(Unopened::Gone) => tracing::debug!("a client was gone before a target was ready"),
        Err(Unopened::Refused(refusal)) => {
            let spoken = client.worker.table().plan.routes.protocol(&client.listener);
            if refusal == Refusal::NoRoute && spoken == Some(Protocol::Http) {
                // It waited while the table changed its mind. Not a byte of it was read yet.
                return serve(client, stream).await;
            }
            refusal.count(client.worker.stats());
        }
    }
}

/// Finds a target that takes the connection.
async fn tunnel_to_target(client: &Client, stream: &TcpStream) -> Result<(Tunnel, TcpStream), Unopened> {
    let worker = &client.worker;
    let (mut wait, mut attempts) = (Wait::default(), Attempts::default());
    // Not a byte has been sent when a target refuses: the next one may have it.
    let wanted = Wanted { lost: None, may_fail: true, from: client.peer, request: None };
    loop {
        // In this order: who need not wait is not asked whether it is still there.
        let chosen = tokio::select! {
            biased;
            chosen = wait.choose(client, wanted, |table| table.find_tcp(&client.listener)) => {
                chosen.map_err(Unopened::Refused)?
            }
            () = gone(stream) => return Err(Unopened::Gone),
        };
        // The pass is given back as soon as the target has taken or refused the connection.
        let Chosen { service, target, in_flight, pass: _pass, .. } = chosen;
        // A client that has reset the connection has no address any more.
        let header = header(client, stream, &service).map_err(|_| Unopened::Gone)?;
        let asked = Instant::now();
        match open_with_header(&target, header).await {
            Ok(socket) => {
                in_flight.count(Outcome::Opened);
                worker.succeeded(&service, &target, asked, Instant::now());
                let tunnel = Tunnel::enter(worker.tunnels(), in_flight.into_tunnel(), service.plan.tunnels);
                worker.apply_orders_to_tunnels();
                return Ok((tunnel, socket));
            }
            Err(error) => {
                let failure = worker.cannot_connect(&service, &target, &error);
                if attempts.failed(failure, false, asked) != Next::Again {
                    return Err(Unopened::Refused(Refusal::Unavailable));
                }
            }
        }
    }
}

/// Opens a socket to a target, and says there whose connection it is if the target wants to hear it.
async fn open_with_header(target: &LocalTarget, header: Option<Vec<u8>>) -> Result<TcpStream, ConnectError> {
    let mut socket = open(target.stats.addr()).await?;
    if let Some(header) = header {
        // No byte of the client's was sent: it may still go elsewhere.
        socket.write_all(&header).await.map_err(ConnectError::Refused)?;
    }
    Ok(socket)
}

/// What a target is told of a connection, if it wants to hear it.
fn header(client: &Client, stream: &TcpStream, service: &LocalService) -> io::Result<Option<Vec<u8>>> {
    let Some(version) = service.plan.send_proxy else { return Ok(None) };
    let ends = client.ends.map_or_else(|| Ends::of(stream), Ok)?;
    Ok(Some(proxy_header::write(version, ends)))
}

/// Waits until a client that waits is certainly gone.
async fn gone(stream: &TcpStream) {
    if let Ok(1..) = stream.peek(&mut [0_u8; 1]).await {
        // What comes behind the bytes cannot be seen without reading them, except for a reset.
        while stream.ready(Interest::ERROR).await.is_ok_and(|ready| !ready.is_error()) {}
    }
}

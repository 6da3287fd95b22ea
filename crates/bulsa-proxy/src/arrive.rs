//! A client connection from the moment it was accepted: whose it is, whether it may stay, and what is spoken on it.
//!
//! Owns: the limit on connections of one address, and the balancers that say who their clients are.
//! Never: holds up the accept loop, or answers who may not stay: such a connection is reset.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::accept::Permit;
use crate::addresses::Counted;
use crate::proxy_header::{self, Ends};
use crate::report::count;
use crate::server::{Client, serve};
use crate::table::Protocol;
use crate::tcp::pass_through;
use crate::worker::Worker;

/// A connection that was just accepted.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) worker: Rc<Worker>,
    pub(crate) listener: Rc<str>,
    pub(crate) stream: TcpStream,
    /// The socket's other end.
    pub(crate) from: SocketAddr,
    pub(crate) permit: Permit,
}

/// Why a connection may not stay.
#[derive(Debug, thiserror::Error)]
enum Unwelcome {
    #[error("it should begin with a PROXY header: {0}")]
    NoHeader(io::Error),
    #[error("its address has as many connections as it may")]
    TooMany,
}

impl Arrival {
    /// Takes the connection in and serves it to its end.
    pub(crate) async fn welcome(mut self) {
        match self.admit().await {
            Ok((ends, counted)) => {
                let Self { worker, listener, stream, from, permit } = self;
                let peer = ends.map_or(from, |ends| ends.source).ip().to_canonical();
                let peer_text = in_words(peer);
                let client =
                    Client { worker, listener, peer, peer_text, ends, _permit: permit, _counted: counted };
                speak(Rc::new(client), stream).await;
            }
            Err(error) => {
                tracing::debug!(from = %self.from, %error, "a client's connection is reset");
                count(&self.worker.stats().refused_clients);
                if let Err(error) = self.stream.set_zero_linger() {
                    tracing::debug!(%error, "a client that is turned away gets an ordinary end");
                }
            }
        }
    }

    /// Finds out whose connection it is, if it is not the socket's own, and counts it.
    async fn admit(&mut self) -> Result<(Option<Ends>, Option<Counted>), Unwelcome> {
        let mut ends = None;
        let from = self.from.ip().to_canonical();
        if self.worker.table().plan.expects_header(&self.listener, from) {
            let limit = self.worker.bounds().proxy_header_time;
            // On the heap while it lasts: few connections have one, and it takes room.
            let header = timeout(limit, Box::pin(proxy_header::read(&mut self.stream))).await;
            match header.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(Some(said)) => ends = Some(said),
                // The balancer's own.
                Ok(None) => return Ok((None, None)),
                Err(error) => return Err(Unwelcome::NoHeader(error)),
            }
        }
        let peer = ends.map_or(from, |ends| ends.source.ip().to_canonical());
        let table = self.worker.table();
        let limit = table.plan.connections_per_address;
        if limit == 0 || table.plan.trusts(peer) {
            return Ok((ends, None));
        }
        let counted = self.worker.addresses().enter(peer, limit).ok_or(Unwelcome::TooMany)?;
        Ok((ends, Some(counted)))
    }
}

/// Serves a connection. New ones follow the newest table, also in what is spoken.
async fn speak(client: Rc<Client>, stream: TcpStream) {
    match client.worker.table().plan.routes.protocol(&client.listener) {
        Some(Protocol::Tcp) => Box::pin(pass_through(client, stream)).await,
        Some(Protocol::Http) | None => serve(client, stream).await,
    }
}

/// An address in words. One of IPv4 by hand: nearly every connection has one, and the general way takes as long as the rest
/// of taking a connection in.
fn in_words(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else { return address.to_string() };
    let mut text = String::with_capacity("255.255.255.255".len());
    for (index, octet) in address.octets().into_iter().enumerate() {
        if 0 < index {
            text.push('.');
        }
        for (unit, least) in [(100, 100), (10, 10), (1, 0)] {
            if least <= octet {
                text.push(char::from(b'0' + octet / unit % 10));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_address_is_written_as_the_library_writes_it() {
        for octet in 0..=255 {
            let address = IpAddr::V4(Ipv4Addr::new(octet, 255 - octet, 0, octet / 7));
            assert_eq!(in_words(address), address.to_string());
        }
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(in_words(address), "2001:db8::1");
    }
}

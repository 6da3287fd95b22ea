//! The agent's side of its link to one proxy.
//!
//! A proxy says first who it is and how it stands, then whenever something changed, and at once when asked. Its
//! report's table number is its acknowledgement: every worker runs on that table. A proxy that does not answer a
//! [`ProxyLink::ping`] is silent; what to do then is the caller's decision.

use std::os::fd::{BorrowedFd, OwnedFd};

use bulsa_proxy::Report;

use crate::link::async_link::AsyncLink;
use crate::link::memfd::{self, MAX_REPORT_BYTES};
use crate::link::messages::{AgentToProxy, PROTOCOL, ProxyToAgent};
use crate::link::{LinkError, Message};

/// What a proxy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyEvent {
    /// The first event of a link.
    Hello {
        /// The proxy's generation.
        generation: u64,
        /// How it stands.
        report: Report,
    },
    /// Something changed.
    Report(Report),
    /// The answer to a ping.
    Pong {
        /// From the ping.
        nonce: u64,
        /// How it stands.
        report: Report,
    },
    /// A route table was not taken; the one before it is still served.
    TableRefused {
        /// Its number.
        number: u64,
        /// Why.
        error: String,
    },
}

/// A link to one proxy. Its methods take `&self`: one task may wait for events while another asks.
#[derive(Debug)]
pub struct ProxyLink {
    link: AsyncLink,
}

impl ProxyLink {
    /// Registers a link that came from the keeper with the current runtime.
    ///
    /// # Errors
    /// When the descriptor is no link.
    ///
    /// # Panics
    /// Outside a runtime with I/O.
    pub fn new(link: OwnedFd) -> Result<Self, LinkError> {
        Ok(Self { link: AsyncLink::from_fd(link)? })
    }

    /// Gives the proxy a route table: a sealed memfd with the JSON of a [`bulsa_proxy::Table`]. The keeper hands out
    /// the table of `KeeperClient::set_table` too; whichever comes second changes nothing.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the proxy is gone.
    pub async fn send_table(&self, number: u64, table: BorrowedFd<'_>) -> Result<(), LinkError> {
        self.link.send(&AgentToProxy::Table { number }, &[table]).await
    }

    /// Gives the proxy the file of its access log, of which it may write so many bytes. Only for one whose reports say how
    /// much of its log it has lost: others know no such message.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the proxy is gone.
    pub async fn send_access_log(&self, bytes_max: u64, file: BorrowedFd<'_>) -> Result<(), LinkError> {
        self.link.send(&AgentToProxy::AccessLog { bytes_max }, &[file]).await
    }

    /// Asks for a report, which comes as [`ProxyEvent::Pong`].
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the proxy is gone.
    pub async fn ping(&self, nonce: u64) -> Result<(), LinkError> {
        self.link.send(&AgentToProxy::Ping { nonce }, &[]).await
    }

    /// The next event. Cancelling it loses nothing.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the proxy is gone; the keeper tells so, too.
    pub async fn next(&self) -> Result<ProxyEvent, LinkError> {
        let Message { body, fds } = self.link.recv::<ProxyToAgent<Report>>().await?;
        Ok(match body {
            ProxyToAgent::Hello { protocol: PROTOCOL, generation, report: body } => {
                ProxyEvent::Hello { generation, report: report(body, fds)? }
            }
            ProxyToAgent::Hello { .. } => {
                return Err(LinkError::Protocol("the proxy speaks another version"));
            }
            ProxyToAgent::Report { report: body } => ProxyEvent::Report(report(body, fds)?),
            ProxyToAgent::Pong { nonce, report: body } => {
                ProxyEvent::Pong { nonce, report: report(body, fds)? }
            }
            ProxyToAgent::TableRefused { number, error } => ProxyEvent::TableRefused { number, error },
        })
    }
}

/// A report is in the message, or beside it when it is long.
fn report(body: Option<Report>, fds: Vec<OwnedFd>) -> Result<Report, LinkError> {
    match body {
        Some(report) => Ok(report),
        None => {
            let bytes = memfd::read(Message::<()>::one_fd(fds)?, MAX_REPORT_BYTES)?;
            Ok(serde_json::from_slice(&bytes)?)
        }
    }
}

//! What this proxy serves, and the copies of it that a successor of the keeper will ask for.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use bulsa_proxy::{Proxy, Table};

use crate::link::async_link::AsyncLink;
use crate::link::memfd::{self, MAX_TABLE_BYTES};
use crate::link::messages::{FromProxy, PROTOCOL};
use crate::link::{LinkError, MAX_MESSAGE_FDS};

type Sockets = BTreeMap<String, Rc<Vec<OwnedFd>>>;

/// The data plane and what it was given.
#[derive(Debug)]
pub(super) struct Served {
    proxy: Rc<Proxy>,
    sockets: Sockets,
    /// The first parts of a set of sockets whose last part has not come yet.
    partial: Option<(String, Vec<OwnedFd>)>,
    table: Option<(u64, Rc<OwnedFd>)>,
}

impl Served {
    /// Nothing yet.
    pub(super) fn new(proxy: Rc<Proxy>) -> Self {
        Self { proxy, sockets: Sockets::new(), partial: None, table: None }
    }

    /// The data plane.
    pub(super) fn proxy(&self) -> Rc<Proxy> {
        Rc::clone(&self.proxy)
    }

    /// Serves a set of sockets, once its last part has come.
    pub(super) fn add_sockets(&mut self, name: String, fds: Vec<OwnedFd>, more: bool) -> Result<(), String> {
        // The parts of a set follow each other; one of another name means that the first set was given up.
        let mut set = match self.partial.take() {
            Some((of, parts)) if of == name => parts,
            _ => Vec::new(),
        };
        set.extend(fds);
        if more {
            self.partial = Some((name, set));
            return Ok(());
        }
        let copies: Result<Vec<TcpListener>, _> =
            set.iter().map(|fd| fd.try_clone().map(TcpListener::from)).collect();
        let copies = copies.map_err(|error| format!("the sockets {name} cannot be copied: {error}"))?;
        let added = self.proxy.add_listener(&name, copies);
        added.map_err(|error| format!("the sockets {name} cannot be served: {error}"))?;
        self.sockets.insert(name, Rc::new(set));
        Ok(())
    }

    /// Stops serving a set of sockets. Requests on accepted connections go on.
    pub(super) fn drop_sockets(&mut self, name: &str) {
        self.proxy.remove_listener(name);
        self.sockets.remove(name);
    }

    /// Serves a route table, unless a newer one is served.
    pub(super) fn apply(&mut self, number: u64, memfd: OwnedFd) -> Result<(), String> {
        if self.table.as_ref().is_some_and(|(newest, _)| number <= *newest) {
            return Ok(());
        }
        let refused = |error: &dyn std::fmt::Display| format!("route table {number}: {error}");
        let bytes = memfd::read(&memfd, MAX_TABLE_BYTES).map_err(|error| refused(&error))?;
        let table: Table = serde_json::from_slice(&bytes).map_err(|error| refused(&error))?;
        if table.number != number {
            return Err(refused(&format_args!("it calls itself {}", table.number)));
        }
        self.proxy.apply(&table).map_err(|error| refused(&error))?;
        self.table = Some((number, Rc::new(memfd)));
        Ok(())
    }

    /// What a successor of the keeper gets.
    pub(super) fn handover(&self) -> Handover {
        Handover { sockets: self.sockets.clone(), table: self.table.clone() }
    }
}

/// Copies of everything that the keeper must keep.
#[derive(Debug)]
pub(super) struct Handover {
    sockets: Sockets,
    table: Option<(u64, Rc<OwnedFd>)>,
}

impl Handover {
    /// Sends all of it.
    pub(super) async fn send(&self, link: &AsyncLink, generation: u64) -> Result<(), LinkError> {
        let pid = rustix::process::getpid().as_raw_pid();
        link.send(&FromProxy::TakenOver { protocol: PROTOCOL, generation, pid }, &[]).await?;
        for (name, set) in &self.sockets {
            let fds: Vec<BorrowedFd<'_>> = set.iter().map(AsFd::as_fd).collect();
            let mut chunks = fds.chunks(MAX_MESSAGE_FDS).peekable();
            while let Some(chunk) = chunks.next() {
                let message = FromProxy::Socket { name: name.clone(), more: chunks.peek().is_some() };
                link.send(&message, chunk).await?;
            }
        }
        if let Some((number, table)) = &self.table {
            link.send(&FromProxy::Table { number: *number }, &[table.as_fd()]).await?;
        }
        link.send(&FromProxy::Done, &[]).await
    }
}

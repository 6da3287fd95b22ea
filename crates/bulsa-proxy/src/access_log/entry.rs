//! What becomes of one request, until there is a line to be written about it.
//!
//! The line is written when the entry is dropped: at its answer's last byte, or whenever nobody goes on with it.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;

use tokio::time::Instant;

use super::line::Line;
use crate::h1::fields::Known;
use crate::h1::head::RequestHead;
use crate::local::LocalTarget;
use crate::server::Client;

/// The status of a request whose client went before there was an answer, as nginx writes it.
const CLIENT_GONE: u16 = 499;

/// What has gone out of an answer.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Bytes of its body.
    body: Cell<u64>,
    /// A byte of it has gone out.
    is_begun: Cell<bool>,
}

impl Sent {
    /// So much was written of something with so long a head, and so much of a body behind it.
    pub(crate) fn add(&self, written: usize, head: usize, body: usize) {
        if 0 < written {
            self.is_begun.set(true);
            self.body.set(self.body.get() + written.saturating_sub(head).min(body) as u64);
        }
    }

    /// Bytes of the body.
    #[cfg(test)]
    pub(crate) fn body(&self) -> u64 {
        self.body.get()
    }
}

/// One request.
#[derive(Debug)]
pub(crate) struct Entry<'r> {
    client: &'r Client,
    head: &'r RequestHead,
    /// As in its `X-Request-Id`.
    pub(crate) id: &'r str,
    /// Since when it is under way, and whom it is for, if its service wants a line about it.
    wanted: Cell<Option<(Instant, IpAddr)>>,
    target: RefCell<Option<Rc<LocalTarget>>>,
    /// What the answer says; 0 before there is one.
    status: Cell<u16>,
    pub(crate) sent: Sent,
}

impl<'r> Entry<'r> {
    pub(crate) fn new(client: &'r Client, head: &'r RequestHead, id: &'r str) -> Self {
        let (wanted, target, status) = (Cell::new(None), RefCell::default(), Cell::new(0));
        Self { client, head, id, wanted, target, status, sent: Sent::default() }
    }

    /// There is to be a line.
    pub(crate) fn want(&self, from: IpAddr) {
        self.wanted.set(Some((Instant::now(), from)));
    }

    /// It is sent to a target.
    pub(crate) fn sent_to(&self, target: &Rc<LocalTarget>) {
        if self.wanted.get().is_some() {
            *self.target.borrow_mut() = Some(Rc::clone(target));
        }
    }

    /// There is an answer with this status.
    pub(crate) fn answered(&self, status: u16) {
        self.status.set(status);
    }

    /// An answer of the proxy's own was written, as far as the client took it.
    pub(crate) fn wrote(&self, status: u16, text: &[u8], written: usize) {
        self.answered(status);
        if self.wanted.get().is_some() {
            let head = memchr::memmem::find(text, b"\r\n\r\n").map_or(text.len(), |end| end + 4);
            self.sent.add(written, head, text.len() - head);
        }
        if written == 0 {
            self.client_gone();
        }
    }

    /// The client took no more. If it took nothing, it got no answer.
    pub(crate) fn client_gone(&self) {
        if !self.sent.is_begun.get() {
            self.status.set(CLIENT_GONE);
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let Some((begun, from)) = self.wanted.get() else { return };
        let target = self.target.borrow();
        let field = |name: &[u8]| {
            let mut fields = self.head.fields().filter(|(known, ..)| *known == Known::Other);
            fields.find(|(_, of, _)| of.eq_ignore_ascii_case(name)).map(|(.., value)| value)
        };
        let line = Line {
            from,
            method: self.head.method(),
            path: self.head.target().as_bytes(),
            minor: self.head.minor,
            status: if self.status.get() == 0 { CLIENT_GONE } else { self.status.get() },
            bytes: self.sent.body.get(),
            referer: field(b"referer"),
            agent: field(b"user-agent"),
            id: self.id,
            target: target.as_ref().map(|target| target.stats.id()),
            took: begun.elapsed(),
        };
        let worker = &self.client.worker;
        worker.lines().add(worker.date(), &line);
    }
}

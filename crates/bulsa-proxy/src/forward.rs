//! One request on its way: screened, routed, rewritten, carried to a target, answered.
//!
//! Owns: what a request is to the application, and what becomes of the client's connection after it. Never: chooses a
//! target or tries again (that is [`crate::courier`]), or moves bodies (that is [`crate::exchange`]).

use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use tokio::time::timeout;

use crate::access_log::Entry;
use crate::courier::{Courier, Parcel, Way};
use crate::desk::{AnswerDesk, Desk};
use crate::h1::framing::{self, Framing};
use crate::h1::head::RequestHead;
use crate::headers::{self, Rewriting, Screened};
use crate::life::Life;
use crate::local::LocalTable;
use crate::outlet::write_counted;
use crate::request_body::{Kept, Piece, RequestBody};
use crate::request_id;
use crate::respond::{self, Details, Refusal};
use crate::rules::RouteRules;
use crate::server::{Client, Wire};
use crate::tunnel::Tunnel;
use crate::upstream::Upstream;

/// What is read at most of a body that nobody wants, in bytes.
const LEFTOVER_BYTES_MAX: usize = 1 << 20;
/// How long a body that nobody wants is read at most.
const LEFTOVER_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(2);

/// What becomes of the client's connection after a request.
#[derive(Debug)]
pub(crate) enum Done {
    /// It waits for the next one.
    Kept,
    /// It ends, behind its last answer.
    Last,
    /// It ends, as its client asked: there is nothing more to be heard from it.
    Over,
    /// It ends at once: its client has gone, or has got part of an answer that there is no more of.
    Broken,
    /// It is a tunnel.
    Tunnel(Box<(Tunnel, Upstream)>),
}

/// How an answer was given.
#[derive(Debug)]
pub(crate) enum Answered {
    /// Whole. `kept`: the connection was said to be kept.
    Whole {
        /// Whether it was.
        kept: bool,
    },
    /// In part, or the client has gone.
    Broken,
    /// A tunnel has begun.
    Tunnel(Box<(Tunnel, Upstream)>),
}

/// Why a request is not answered by a target, with what is said instead of the usual text.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    pub(crate) page: Option<Bytes>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, page: None }
    }
}

/// Answers one request of a client.
pub(crate) async fn answer(client: &Rc<Client>, life: &Life, desk: &mut Desk, wire: &mut Wire<'_>) -> Done {
    let Desk { head, text, answer } = desk;
    let is_trusted = client.worker.table().plan.trusts(client.peer);
    let asked = Asked { client, life, head, is_trusted };
    let Ok(framing) = framing::of_request(head) else {
        return asked.refuse(wire, Refusal::Framing.into(), None, None).await;
    };
    let mut body = RequestBody::new(framing);
    let screened = match headers::screen(head) {
        Ok(screened) => screened,
        Err(unfit) => return asked.refuse(wire, Refusal::Unfit(unfit).into(), None, Some(&mut body)).await,
    };
    let mut expects_leave = screened.expects_leave && framing != Framing::None;
    let id = request_id::of(head, is_trusted, || client.worker.random_bits());
    let entry = Entry::new(client, head, &id);
    let request = Request { asked: &asked, screened: &screened, entry: &entry };
    let to = Outgoing { body: &mut body, expects_leave: &mut expects_leave, text, answer };
    match request.forward(wire, to).await {
        Ok(Answered::Whole { kept: true }) => {
            drop(entry);
            // A client that waits for leave to send its body would take our reading of it for that leave.
            if body.has_ended() || (!expects_leave && read_leftover(wire, &mut body).await) {
                Done::Kept
            } else {
                Done::Last
            }
        }
        // What has not been read would make the end a reset, which may overtake the answer.
        Ok(Answered::Whole { kept: false })
            if !headers::client_keeps(head) && body.has_ended() && wire.inbox.is_empty() =>
        {
            Done::Over
        }
        Ok(Answered::Whole { kept: false }) => Done::Last,
        Ok(Answered::Broken) => Done::Broken,
        Ok(Answered::Tunnel(opened)) => Done::Tunnel(opened),
        Err(refused) => {
            let body = Some(&mut body).filter(|_| !expects_leave);
            asked.refuse(wire, refused, Some(entry), body).await
        }
    }
}

/// Whether the connection may be kept after a request, as far as the client and the worker are concerned.
pub(crate) fn may_keep(client: &Client, life: &Life, head: &RequestHead) -> bool {
    headers::client_keeps(head)
        && !life.is_last()
        && !client.worker.is_draining()
        // Where TCP is spoken now, HTTP ends with what was still asked.
        && !client.worker.table().plan.routes.is_tcp(&client.listener)
}

/// What a client has asked.
struct Asked<'r> {
    client: &'r Rc<Client>,
    life: &'r Life,
    head: &'r RequestHead,
    /// The client's word about where it comes from is believed.
    is_trusted: bool,
}

impl Asked<'_> {
    fn may_keep(&self) -> bool {
        may_keep(self.client, self.life, self.head)
    }

    /// Answers a request without a target. `body` is read to its end if it can be.
    async fn refuse(
        &self,
        wire: &mut Wire<'_>,
        refused: Refused,
        entry: Option<Entry<'_>>,
        body: Option<&mut RequestBody>,
    ) -> Done {
        let Refused { refusal, page } = refused;
        refusal.count(self.client.worker.stats());
        let keep = self.may_keep() && !refusal.is_last() && body.is_some();
        let date = self.client.worker.date();
        let to_head = self.head.method() == b"HEAD";
        let id = entry.as_ref().map(|entry| entry.id);
        let details = Details { page, id, keep, minor: self.head.minor, to_head, date: &date };
        let text = respond::write(refusal, &details);
        let mut written = 0;
        let result = write_counted(&mut wire.writer, &[&text], Some(self.life), &mut written).await;
        if let Some(entry) = entry {
            entry.wrote(refusal.status(), &text, written);
        }
        if result.is_err() {
            return Done::Broken;
        }
        let Some(body) = body.filter(|_| keep) else { return Done::Last };
        if body.has_ended() || read_leftover(wire, body).await { Done::Kept } else { Done::Last }
    }
}

/// Reads a body that nobody wants, within limits, so that the connection can be kept. Returns whether that is so.
async fn read_leftover(wire: &mut Wire<'_>, body: &mut RequestBody) -> bool {
    let read = async {
        let mut read = 0;
        while let Ok(Some(Piece { skip, length })) = body.next(&mut wire.reader, wire.inbox).await {
            wire.inbox.consume(skip + length);
            read += length;
            if LEFTOVER_BYTES_MAX < read {
                break;
            }
        }
    };
    timeout(LEFTOVER_TIME_MAX, read).await.is_ok() && body.has_ended()
}

/// What changes while a request is forwarded.
struct Outgoing<'r> {
    body: &'r mut RequestBody,
    expects_leave: &'r mut bool,
    /// The head that a target gets.
    text: &'r mut Vec<u8>,
    answer: &'r mut AnswerDesk,
}

/// A request that is fit to be forwarded.
struct Request<'r> {
    asked: &'r Asked<'r>,
    screened: &'r Screened<'r>,
    entry: &'r Entry<'r>,
}

impl Request<'_> {
    async fn forward(&self, wire: &mut Wire<'_>, to: Outgoing<'_>) -> Result<Answered, Refused> {
        let Outgoing { body, expects_leave, text, answer } = to;
        let Self { asked: Asked { client, life, head, is_trusted }, screened, entry } = *self;
        let table = client.worker.table();
        let way = Way::new(client, screened);
        let rules = way.rules(&table).ok_or(Refusal::NoRoute)?.cloned();
        let from = self.from(&table);
        if way.service(&table).is_some_and(|service| service.plan.access_log) {
            entry.want(from);
        }
        if let Some(rules) = rules.as_deref()
            && let Some((status, text)) = self.redirect(rules)
        {
            let mut written = 0;
            let result = write_counted(&mut wire.writer, &[&text], Some(life), &mut written).await;
            entry.wrote(status, &text, written);
            return Ok(result.map_or(Answered::Broken, |()| Answered::Whole { kept: self.asked.may_keep() }));
        }
        let is_idempotent = is_idempotent(head.method());
        let websocket = headers::asks_for_websocket(head, body.framing());
        text.clear();
        self.rewrite(text, body.framing(), websocket, rules.as_deref());
        drop(table);
        let parcel = Parcel {
            way,
            head: text,
            answer,
            kept: Kept::new(is_idempotent && body.framing() != Framing::None),
            body,
            expects_leave,
            entry,
            from,
            websocket,
            is_idempotent,
            is_trusted: *is_trusted,
            rules: rules.as_deref(),
        };
        Courier::new(client, life, head, parcel).carry(wire).await
    }

    /// Whom the request is for.
    fn from(&self, table: &LocalTable) -> IpAddr {
        let Asked { client, head, is_trusted, .. } = *self.asked;
        if is_trusted {
            headers::client_behind(head, client.peer, |address| table.plan.trusts(*address))
        } else {
            client.peer
        }
    }

    /// Writes the head that a target gets.
    fn rewrite(&self, out: &mut Vec<u8>, framing: Framing, websocket: bool, rules: Option<&RouteRules>) {
        let Asked { client, head, is_trusted, .. } = *self.asked;
        let by = Rewriting {
            screened: self.screened,
            framing,
            websocket,
            peer: &client.peer_text,
            is_trusted,
            id: self.entry.id,
            rules,
        };
        headers::write_request(out, head, &by);
    }

    fn redirect(&self, rules: &RouteRules) -> Option<(u16, Vec<u8>)> {
        let (status, to) = rules.redirect(&self.screened.host, &self.screened.target)?;
        let mut more = Vec::new();
        rules.write_response(&mut more);
        let Asked { client, head, .. } = self.asked;
        let date = client.worker.date();
        let details = Details {
            keep: self.asked.may_keep(),
            minor: head.minor,
            to_head: head.method() == b"HEAD",
            date: &date,
            ..Details::default()
        };
        Some((status, respond::redirect(status, &to, &more, &details)))
    }
}

/// RFC 9110, 9.2.2.
fn is_idempotent(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE")
}

//! One request on its way: screened, rewritten, carried to a target, answered.
//!
//! Owns: what a request is to the application ([`forward`]), and what its answer is to the client ([`Exchange`]).
//! Never: chooses a target or tries again (that is [`crate::courier`]); holds a body.
//!
//! ```text
//! screen ─▶ route ─▶ rewrite ─▶ carry (courier.rs) ─▶ answer's head ─▶ answer's body (see body.rs)
//!             └▶ redirect                               └─▶ 101: tunnel
//! ```

use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderValue, LOCATION, SET_COOKIE, TRANSFER_ENCODING,
};
use http::{Method, Request, Response, StatusCode, Version, request};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use crate::body::{AnswerBody, TargetBody};
use crate::courier::{Courier, Exchange, Parcel, Way};
use crate::headers;
use crate::pool::Lease;
use crate::request_body::Source;
use crate::request_id::{self, X_REQUEST_ID};
use crate::respond::Refusal;
use crate::rules::RouteRules;
use crate::server::Client;
use crate::tunnel::Tunnel;

/// Why a request is not answered by a target, with what is known of it by then.
#[derive(Debug)]
pub(crate) struct Refused {
    refusal: Refusal,
    /// What is said instead of the usual text.
    page: Option<Bytes>,
    id: Option<HeaderValue>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, page: None, id: None }
    }
}

/// Answers one request of a client.
pub(crate) async fn answer(client: Rc<Client>, request: Request<Incoming>) -> Response<AnswerBody> {
    let mut response = match forward(&client, request).await {
        Ok(response) => response,
        Err(Refused { refusal, page, id }) => {
            refusal.count(client.worker.stats());
            let mut response = refusal.into_response(page);
            if let Some(id) = id {
                response.headers_mut().insert(X_REQUEST_ID, id);
            }
            response
        }
    };
    // Where TCP is spoken now, HTTP ends with what was still asked.
    let is_last = client.worker.is_draining() || client.worker.table().plan.routes.is_tcp(&client.listener);
    if is_last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn forward(client: &Rc<Client>, request: Request<Incoming>) -> Result<Response<AnswerBody>, Refused> {
    let mut request = request;
    let upgrade = headers::asks_for_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
    let (mut head, incoming) = request.into_parts();
    // A client that waits for leave to send its body would take our reading of the rest for that leave.
    let leftovers = (!head.headers.contains_key(EXPECT)).then(|| client.worker.leftovers());
    let is_idempotent = is_idempotent(&head.method);
    let source = Source::new(incoming, is_idempotent, leftovers);
    let host = headers::screen(&mut head).map_err(Refusal::Unfit)?;
    let websocket = headers::asks_for_websocket(&head);
    let table = client.worker.table();
    let trusted = |address: &IpAddr| table.plan.trusted.iter().any(|block| block.contains(address));
    let is_trusted = trusted(&client.peer);
    let from =
        if is_trusted { headers::client_behind(&head.headers, client.peer, trusted) } else { client.peer };
    let way = Way::new(client, &head.uri, host);
    let rules = way.rules(&table).ok_or(Refusal::NoRoute)?.cloned();
    if let Some(redirected) = rules.as_ref().and_then(|rules| redirect(rules, &way)) {
        return Ok(redirected);
    }
    drop(table);
    let by = Rewriting { websocket, is_trusted, rules: rules.as_deref() };
    let id = rewrite(client, &mut head, &source, &way, &by);
    let request = Request::from_parts(head, source.reader());
    let parcel = Parcel { way, source, id: id.clone(), from, websocket, is_idempotent };
    let courier = Courier::new(client, parcel);
    let (exchange, answer) =
        courier.carry(request).await.map_err(|(refusal, page)| Refused { refusal, page, id: Some(id) })?;
    match upgrade {
        Some(upgrade) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
            Ok(exchange.open_tunnel(client, answer, upgrade))
        }
        _ => Ok(exchange.pass_answer(answer, rules.as_deref())),
    }
}

/// RFC 9110, 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

fn redirect(rules: &RouteRules, way: &Way) -> Option<Response<AnswerBody>> {
    let (status, to) = rules.redirect(way.host(), way.uri())?;
    let mut response = Response::new(AnswerBody::text(Bytes::new()));
    *response.status_mut() = StatusCode::from_u16(status).ok()?;
    response.headers_mut().insert(LOCATION, to);
    rules.on_response(response.headers_mut());
    Some(response)
}

/// What a request is rewritten by.
struct Rewriting<'r> {
    websocket: bool,
    is_trusted: bool,
    rules: Option<&'r RouteRules>,
}

/// Makes the client's head the one that a target gets. Returns the request's id.
fn rewrite(
    client: &Client,
    head: &mut request::Parts,
    source: &Source,
    way: &Way,
    by: &Rewriting<'_>,
) -> HeaderValue {
    headers::strip_hop_by_hop(&mut head.headers);
    headers::set_forwarded(&mut head.headers, client.peer, by.is_trusted, way.host_field());
    let id = request_id::set(&mut head.headers, by.is_trusted, || client.worker.random_bits());
    head.headers.entry(HOST).or_insert(HeaderValue::from_static(""));
    head.version = Version::HTTP_11;
    if by.websocket {
        headers::set_websocket(&mut head.headers);
    } else if !source.is_empty() && !head.headers.contains_key(CONTENT_LENGTH) {
        // hyper would send a GET without its body otherwise.
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(rules) = by.rules {
        if let Some(stripped) = rules.strip(&head.uri) {
            head.uri = stripped;
            if let Some(prefix) = rules.stripped_prefix().and_then(|p| HeaderValue::from_str(p).ok()) {
                head.headers.insert(headers::X_FORWARDED_PREFIX, prefix);
            }
        }
        rules.on_request(&mut head.headers);
    }
    id
}

impl Exchange {
    fn pass_answer(self, answer: Response<Incoming>, rules: Option<&RouteRules>) -> Response<AnswerBody> {
        let (mut head, incoming) = answer.into_parts();
        let stated = headers::keep_alive_timeout(&head.headers);
        headers::strip_hop_by_hop(&mut head.headers);
        // hyper speaks the client's own version.
        head.version = Version::HTTP_11;
        if let Some(cookie) = self.set_cookie {
            head.headers.append(SET_COOKIE, cookie);
        }
        if let Some(rules) = rules {
            rules.on_response(&mut head.headers);
        }
        let lease = Lease::new(self.upstream, self.target, self.source, stated);
        let body = TargetBody::new(incoming, self.in_flight, lease);
        Response::from_parts(head, AnswerBody::Target(body))
    }

    fn open_tunnel(
        self,
        client: &Rc<Client>,
        mut answer: Response<Incoming>,
        client_side: OnUpgrade,
    ) -> Response<AnswerBody> {
        let target_side = hyper::upgrade::on(&mut answer);
        let (mut head, _) = answer.into_parts();
        headers::strip_hop_by_hop(&mut head.headers);
        headers::set_websocket(&mut head.headers);
        head.version = Version::HTTP_11;
        if let Some(cookie) = self.set_cookie {
            head.headers.append(SET_COOKIE, cookie);
        }
        let tunnel = Tunnel::enter(client.worker.tunnels(), self.in_flight.into_tunnel());
        client.worker.apply_orders_to_tunnels();
        let (client, upstream) = (Rc::clone(client), self.upstream);
        drop(tokio::task::spawn_local(async move {
            tunnel.run(client_side, target_side).await;
            // The connection's permit and hyper's task live as long as the tunnel.
            drop((client, upstream));
        }));
        Response::from_parts(head, AnswerBody::text(Bytes::new()))
    }
}

//! One request on its way: chosen, sent, retried, answered.
//!
//! Owns: the loop around choice, connection and exchange, and the guards of a request.
//! Never: holds a body; where a request waits for a target is in [`crate::wait`].
//!
//! ```text
//! screen ─▶ choose ─▶ connect ─▶ send ─▶ answer's head ─▶ answer's body (see body.rs)
//!             ▲  │       │         │           └─▶ 101: tunnel
//!             │  └ hold ◀┴─────────┘ per choose.rs
//! ```
//!
//! The request counts as in flight on its target from the choice on; the guard moves with it into the answer's body.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode, Uri, Version, request};
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use crate::body::{AnswerBody, BodyState, RequestBody, TargetBody};
use crate::choose::{Attempts, Failure, Next};
use crate::headers;
use crate::local::{LocalService, LocalTable, LocalTarget};
use crate::pool::Lease;
use crate::report::count;
use crate::respond::Refusal;
use crate::server::Client;
use crate::target::{InFlight, Outcome};
use crate::tunnel::Tunnel;
use crate::upstream::{Upstream, connect};
use crate::wait::{Chosen, Wait};

/// Answers one request of a client.
pub(crate) async fn answer(client: Rc<Client>, request: Request<Incoming>) -> Response<AnswerBody> {
    let mut response = match forward(&client, request).await {
        Ok(response) => response,
        Err(refusal) => {
            refusal.count(client.worker.stats());
            refusal.into_response()
        }
    };
    // Where TCP is spoken now, HTTP ends with what was still asked.
    let is_last = client.worker.is_draining() || client.worker.table().plan.routes.is_tcp(&client.listener);
    if is_last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn forward(client: &Rc<Client>, request: Request<Incoming>) -> Result<Response<AnswerBody>, Refusal> {
    let mut request = request;
    let upgrade = hyper::upgrade::on(&mut request);
    let (mut head, incoming) = request.into_parts();
    // A client that waits for leave to send its body would take our reading of the rest for that leave.
    let leftovers = (!head.headers.contains_key(EXPECT)).then(|| client.worker.leftovers());
    let body = RequestBody::new(incoming, leftovers);
    let host = headers::screen(&mut head).map_err(Refusal::Unfit)?;
    let websocket = headers::asks_for_websocket(&head);
    let way = Way { uri: head.uri.clone(), host };
    rewrite(client, &mut head, &body, &way.host, websocket);
    let replay = (is_idempotent(&head.method) && body.is_end_stream()).then(|| head.clone());
    let courier =
        Courier { client, way, websocket, replay, attempts: Attempts::default(), wait: Wait::default() };
    let (exchange, answer) = courier.carry(Request::from_parts(head, body)).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(exchange.open_tunnel(client, answer, upgrade));
    }
    Ok(exchange.pass_answer(answer))
}

fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// Makes the client's head the one that a target gets.
fn rewrite(
    client: &Client,
    head: &mut request::Parts,
    body: &RequestBody,
    host: &HeaderValue,
    websocket: bool,
) {
    let trusted = client.worker.table().plan.trusted.iter().any(|block| block.contains(&client.peer));
    headers::strip_hop_by_hop(&mut head.headers);
    headers::set_forwarded(&mut head.headers, client.peer, trusted, host);
    head.headers.entry(HOST).or_insert(HeaderValue::from_static(""));
    head.version = Version::HTTP_11;
    if websocket {
        headers::set_websocket(&mut head.headers);
    } else if !body.is_end_stream() && !head.headers.contains_key(CONTENT_LENGTH) {
        // hyper would send a GET without its body otherwise.
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// What a request is routed by.
struct Way {
    uri: Uri,
    host: HeaderValue,
}

impl Way {
    fn find<'t>(&self, listener: &str, table: &'t LocalTable) -> Option<&'t LocalService> {
        table.find(listener, self.host.to_str().unwrap_or_default(), self.uri.path())
    }
}

/// An exchange whose answer's head has come.
struct Exchange {
    target: Rc<LocalTarget>,
    in_flight: InFlight,
    upstream: Upstream,
    request: Rc<BodyState>,
}

/// Takes one request to a target, and to another one where that is safe.
struct Courier<'c> {
    client: &'c Rc<Client>,
    way: Way,
    websocket: bool,
    /// The head once more, if the request may be sent twice.
    replay: Option<request::Parts>,
    attempts: Attempts,
    wait: Wait,
}

impl Courier<'_> {
    async fn carry(
        mut self,
        request: Request<RequestBody>,
    ) -> Result<(Exchange, Response<Incoming>), Refusal> {
        let mut request = request;
        loop {
            let (worker, lost) = (&self.client.worker, self.attempts.lost());
            let chosen =
                self.wait.choose(worker, lost, |table| self.way.find(&self.client.listener, table)).await?;
            let (failure, back) = match self.connect(&chosen.target).await {
                Err(failure) => (failure, Some(request)),
                Ok((upstream, reused)) => {
                    // From here on the request is the target's; it waits no more.
                    self.wait.leave();
                    match self.send(chosen, upstream, reused, request).await {
                        Ok(answered) => return Ok(answered),
                        Err(failed) => failed,
                    }
                }
            };
            match self.attempts.failed(failure, self.replay.is_some()) {
                Next::Again => request = back.or_else(|| self.replayed()).ok_or(Refusal::BadGateway)?,
                Next::BadGateway => return Err(Refusal::BadGateway),
                Next::Unavailable => return Err(Refusal::Unavailable),
                Next::BadBody => return Err(Refusal::BadBody),
            }
        }
    }

    /// The request once more, after it was lost.
    fn replayed(&self) -> Option<Request<RequestBody>> {
        let head = self.replay.clone()?;
        count(&self.client.worker.stats().retried);
        Some(Request::from_parts(head, RequestBody::empty()))
    }

    /// An idle connection to the target, or a new one. Says whether it was used before.
    async fn connect(&self, target: &Rc<LocalTarget>) -> Result<(Upstream, bool), Failure> {
        if !self.attempts.wants_fresh_connection()
            && let Some(idle) = target.take_idle(Instant::now())
        {
            return Ok((idle, true));
        }
        match connect(target.stats.addr()).await {
            Ok(upstream) => Ok((upstream, false)),
            Err(error) => Err(self.client.worker.cannot_connect(target, &error)),
        }
    }

    /// Sends the request and waits for the answer's head. On failure the request comes back if it was not sent.
    async fn send(
        &self,
        chosen: Chosen,
        mut upstream: Upstream,
        reused: bool,
        request: Request<RequestBody>,
    ) -> Result<(Exchange, Response<Incoming>), (Failure, Option<Request<RequestBody>>)> {
        let Chosen { target, in_flight, pass } = chosen;
        let state = request.body().state();
        upstream.begin(reused);
        let sent = upstream.sender.try_send_request(request).await;
        drop(pass);
        let mut error = match sent {
            Ok(answer) if self.is_fit(&answer) => {
                in_flight.count(Outcome::Answered(answer.status().as_u16()));
                return Ok((Exchange { target, in_flight, upstream, request: state }, answer));
            }
            Ok(_) => {
                in_flight.count(Outcome::Lost);
                return Err((Failure::Garbled, None));
            }
            Err(error) => error,
        };
        let back = error.take_message();
        tracing::debug!(target = target.stats.id(), error = %error.error(), unsent = back.is_some(), "no answer");
        if back.is_some() {
            if !reused {
                // It took the connection and dropped it before a byte was sent: as good as refused.
                self.client.worker.leave_out(&target);
            }
            return Err((Failure::Unsent, back));
        }
        if state.failed() {
            return Err((Failure::Client, None));
        }
        in_flight.count(Outcome::Lost);
        let failure = if upstream.has_answered() {
            Failure::Garbled
        } else {
            Failure::Lost(target.lost(Instant::now()))
        };
        Err((failure, None))
    }

    /// Whether an answer may be passed on: a `101` only to who asked for it, and for what was asked.
    fn is_fit(&self, answer: &Response<Incoming>) -> bool {
        answer.status() != StatusCode::SWITCHING_PROTOCOLS
            || (self.websocket && headers::is_websocket(answer.headers()))
    }
}

impl Exchange {
    fn pass_answer(self, answer: Response<Incoming>) -> Response<AnswerBody> {
        let (mut head, incoming) = answer.into_parts();
        let stated = headers::keep_alive_timeout(&head.headers);
        headers::strip_hop_by_hop(&mut head.headers);
        // hyper speaks the client's own version.
        head.version = Version::HTTP_11;
        let lease = Lease::new(self.upstream, self.target, self.request, stated);
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

//! One request to a target, and to another one where that is safe.
//!
//! Owns: the loop around choice, connection and exchange, the guards of a request, and what is learned of a target by it.
//! Never: decides what follows a failure; that is [`crate::retry`]. Where a request waits is in [`crate::wait`].
//!
//! ```text
//! choose ─▶ connect ─▶ send ─▶ answer's head
//!   ▲  │       │         │
//!   │  └ hold ◀┴─────────┘ per retry.rs
//! ```
//!
//! The request counts as in flight on its target from the choice on; the guard moves with it into the answer's body.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{Request, Response, StatusCode, Uri, request};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep};

use crate::balance::Ask;
use crate::headers;
use crate::health::Fault;
use crate::local::{self, LocalService, LocalTable, LocalTarget};
use crate::pool::Reuse;
use crate::report::{SUSPECT_PATH_MAX, Suspect, count};
use crate::request_body::{RequestBody, Source};
use crate::respond::Refusal;
use crate::retry::{Attempts, Failure, Next};
use crate::rules::RouteRules;
use crate::server::Client;
use crate::target::{InFlight, Outcome};
use crate::upstream::{Upstream, connect};
use crate::wait::{Chosen, Wait, Wanted};

/// A connection that had been idle and breaks within this time of a request, without a byte of an answer, was being
/// closed when the request was sent.
const STALE_TIME_MAX: Duration = Duration::from_millis(250);

/// What a request is routed by.
#[derive(Debug)]
pub(crate) struct Way {
    listener: Rc<str>,
    uri: Uri,
    host: HeaderValue,
    /// The number of the table in which it was last looked up, and the service's index there.
    found: Cell<Option<(u64, usize)>>,
}

impl Way {
    pub(crate) fn new(client: &Client, uri: &Uri, host: HeaderValue) -> Self {
        Self { listener: Rc::clone(&client.listener), uri: uri.clone(), host, found: Cell::new(None) }
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(crate) fn host(&self) -> &str {
        self.host.to_str().unwrap_or_default()
    }

    pub(crate) fn host_field(&self) -> &HeaderValue {
        &self.host
    }

    /// Looks the request up. `None` if no route takes it; else the rules of the route that does, if there are any.
    pub(crate) fn rules<'t>(&self, table: &'t LocalTable) -> Option<Option<&'t Arc<RouteRules>>> {
        let found = table.find(&self.listener, self.host(), self.uri.path())?;
        self.found.set(Some((table.plan.number, found.service)));
        Some(found.rules)
    }

    fn service<'t>(&self, table: &'t LocalTable) -> Option<&'t Rc<LocalService>> {
        let known = self.found.get().filter(|(number, _)| *number == table.plan.number);
        let index = match known {
            Some((_, index)) => index,
            None => {
                let found = table.find(&self.listener, self.host(), self.uri.path())?;
                self.found.set(Some((table.plan.number, found.service)));
                found.service
            }
        };
        table.service(index)
    }
}

/// A request without its head, which is handed from one attempt to the next.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) way: Way,
    pub(crate) source: Rc<Source>,
    /// As in its `X-Request-Id`.
    pub(crate) id: HeaderValue,
    /// Whom it is for: the peer, or the client that a trusted peer names.
    pub(crate) from: IpAddr,
    /// It asks for a WebSocket.
    pub(crate) websocket: bool,
    pub(crate) is_idempotent: bool,
}

impl Parcel {
    /// Whether the request may be sent once more.
    fn is_replayable(&self) -> bool {
        self.is_idempotent && self.source.is_replayable()
    }
}

/// An exchange whose answer's head has come.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) target: Rc<LocalTarget>,
    pub(crate) in_flight: InFlight,
    pub(crate) upstream: Upstream,
    pub(crate) source: Rc<Source>,
    /// The cookie that keeps the client with this target, if it has not got it.
    pub(crate) set_cookie: Option<HeaderValue>,
}

/// Takes one request to a target, and to another one where that is safe.
#[derive(Debug)]
pub(crate) struct Courier<'c> {
    client: &'c Rc<Client>,
    parcel: Parcel,
    /// The head once more, if the request may be sent twice.
    head: Option<request::Parts>,
    attempts: Attempts,
    wait: Wait,
    /// The targets that it died with.
    died_with: Vec<String>,
}

/// What came of sending.
enum Sent {
    Answered(Response<Incoming>),
    Failed(Failure, Option<Request<RequestBody>>),
}

impl<'c> Courier<'c> {
    pub(crate) fn new(client: &'c Rc<Client>, parcel: Parcel) -> Self {
        let (attempts, wait) = (Attempts::default(), Wait::default());
        Self { client, parcel, head: None, attempts, wait, died_with: Vec::new() }
    }

    /// Carries the request until it is answered.
    ///
    /// # Errors
    /// Why it is not, with what is said instead of the usual text.
    pub(crate) async fn carry(
        mut self,
        request: Request<RequestBody>,
    ) -> Result<(Exchange, Response<Incoming>), (Refusal, Option<Bytes>)> {
        let mut request = request;
        self.wait.is_health_check = self.is_health_check(&request);
        self.head = self.parcel.is_idempotent.then(|| head_of(&request));
        let mut is_first = true;
        loop {
            let chosen = self.choose(&request).await?;
            if std::mem::take(&mut is_first) {
                chosen.service.budget.earn();
            }
            let service = Rc::clone(&chosen.service);
            let (failure, back) = match self.connect(&chosen).await {
                Err(failure) => (failure, Some(request)),
                Ok((upstream, reused)) => {
                    // From here on the request is the target's; it waits no more.
                    self.wait.leave();
                    match self.exchange(chosen, upstream, reused, request).await {
                        Ok(answered) => return Ok(answered),
                        Err(failed) => failed,
                    }
                }
            };
            let next = self.attempts.failed(failure, self.parcel.is_replayable(), Instant::now());
            request = self.next(next, failure, back, &service).map_err(|refusal| (refusal, None))?;
        }
    }

    async fn choose(&mut self, request: &Request<RequestBody>) -> Result<Chosen, (Refusal, Option<Bytes>)> {
        let wanted = Wanted {
            lost: self.attempts.lost(),
            may_fail: self.parcel.is_replayable(),
            from: self.parcel.from,
            cookies: Some(request.headers()),
        };
        let way = &self.parcel.way;
        let chosen = self.wait.choose(self.client, wanted, |table| way.service(table)).await;
        chosen.map_err(|refusal| (refusal, self.wait.page.take()))
    }

    /// The request for the next attempt, or why there is none.
    fn next(
        &self,
        next: Next,
        failure: Failure,
        back: Option<Request<RequestBody>>,
        service: &LocalService,
    ) -> Result<Request<RequestBody>, Refusal> {
        let stats = self.client.worker.stats();
        let refusal = match next {
            Next::Again => return back.ok_or(Refusal::BadGateway),
            Next::Resend if service.budget.spend() => {
                count(&stats.retried);
                let head = self.head.clone().ok_or(Refusal::BadGateway)?;
                return Ok(Request::from_parts(head, self.parcel.source.reader()));
            }
            Next::Resend => {
                count(&stats.over_budget);
                Refusal::BadGateway
            }
            Next::BadGateway => Refusal::BadGateway,
            Next::TimedOut => Refusal::TimedOut,
            Next::Unavailable => Refusal::Unavailable,
            Next::BadBody => Refusal::BadBody,
            Next::SlowBody => Refusal::SlowBody,
        };
        if failure == Failure::Stale {
            count(&stats.lost_to_idle_close);
        }
        if refusal == Refusal::BadGateway && self.attempts.is_suspect() {
            self.suspect(service);
        }
        Err(refusal)
    }

    /// Two targets died with it: it may be what kills them.
    fn suspect(&self, service: &LocalService) {
        let path = self.parcel.way.uri.path();
        let cut = (0..=SUSPECT_PATH_MAX.min(path.len())).rev().find(|end| path.is_char_boundary(*end));
        let method = self.head.as_ref().map(|head| head.method.to_string());
        self.client.worker.shared().suspect(Suspect {
            number: 0,
            service: service.plan.name.clone(),
            method: method.unwrap_or_default(),
            path: path[..cut.unwrap_or(0)].to_owned(),
            request: self.parcel.id.to_str().unwrap_or_default().to_owned(),
            targets: self.died_with.clone(),
        });
    }

    /// Whether it is an outer balancer's question whether the service is well.
    fn is_health_check(&self, request: &Request<RequestBody>) -> bool {
        let asks = matches!(*request.method(), http::Method::GET | http::Method::HEAD);
        let table = self.client.worker.table();
        let path = self.parcel.way.service(&table).and_then(|service| service.plan.health_path.as_deref());
        asks && path.is_some_and(|path| path.split('?').next() == Some(self.parcel.way.uri.path()))
    }

    /// An idle connection to the target, or a new one. Says whether it was used before.
    async fn connect(&self, chosen: &Chosen) -> Result<(Upstream, bool), Failure> {
        let reuse = if self.parcel.is_replayable() { Reuse::Any } else { Reuse::Proven };
        if !self.attempts.wants_fresh_connection()
            && let Some(idle) = chosen.target.take_idle(Instant::now(), reuse)
        {
            return Ok((idle, true));
        }
        match connect(chosen.target.stats.addr()).await {
            Ok(upstream) => Ok((upstream, false)),
            Err(error) => Err(self.client.worker.cannot_connect(&chosen.service, &chosen.target, &error)),
        }
    }

    /// Sends the request and waits for the answer's head. On failure the request comes back if it was not sent.
    async fn exchange(
        &mut self,
        chosen: Chosen,
        mut upstream: Upstream,
        reused: bool,
        request: Request<RequestBody>,
    ) -> Result<(Exchange, Response<Incoming>), (Failure, Option<Request<RequestBody>>)> {
        let set_cookie = self.new_cookie(&chosen, &request);
        let begun = Instant::now();
        let sent = self.send(&chosen, &mut upstream, reused, request).await;
        // The pass is given back with the answer's head.
        let Chosen { service, target, in_flight, .. } = chosen;
        let (failure, back) = match sent {
            Sent::Answered(answer) if self.is_fit(&answer) => {
                let now = Instant::now();
                in_flight.count(Outcome::Answered(answer.status().as_u16()));
                target.answered_in(now.saturating_duration_since(begun));
                self.client.worker.succeeded(&service, &target, begun, now);
                self.parcel.source.let_go();
                let source = Rc::clone(&self.parcel.source);
                return Ok((Exchange { target, in_flight, upstream, source, set_cookie }, answer));
            }
            Sent::Answered(_) => (Failure::Garbled, None),
            Sent::Failed(failure, back) => (failure, back),
        };
        self.learn(&service, &target, &in_flight, failure, begun);
        if let Some(idle_since) = upstream.idle_since.filter(|_| reused)
            && matches!(failure, Failure::Unsent | Failure::Stale)
        {
            target.closed_early(begun.saturating_duration_since(idle_since), begun);
        }
        if failure == Failure::Unsent && !reused {
            // It took the connection and dropped it before a byte was sent: as good as refused.
            self.client.worker.leave_out(&service, &target);
        }
        Err((failure, back))
    }

    /// What a failure says of the target.
    fn learn(
        &mut self,
        service: &LocalService,
        target: &LocalTarget,
        in_flight: &InFlight,
        failure: Failure,
        begun: Instant,
    ) {
        let (outcome, fault) = match failure {
            Failure::Lost(_) => (Outcome::Lost, Some(Fault::Died { sent: begun })),
            // Closing an idle connection is no fault.
            Failure::Stale => (Outcome::Lost, None),
            Failure::Garbled => (Outcome::Lost, Some(Fault::Garbled)),
            Failure::TimedOut(_) => (Outcome::TimedOut, Some(Fault::TimedOut)),
            Failure::Refused | Failure::Local | Failure::Unsent | Failure::Client | Failure::SlowClient => {
                return;
            }
        };
        in_flight.count(outcome);
        if let Some(fault) = fault {
            self.client.worker.failed(service, target, fault, Instant::now());
        }
        self.died_with.push(target.stats.id().to_owned());
    }

    async fn send(
        &self,
        chosen: &Chosen,
        upstream: &mut Upstream,
        reused: bool,
        request: Request<RequestBody>,
    ) -> Sent {
        let Chosen { service, target, in_flight, .. } = chosen;
        let begun = Instant::now();
        let waiting = in_flight.wait(begun);
        upstream.begin(reused);
        let answer = tokio::select! {
            biased;
            answer = upstream.sender.try_send_request(request) => answer,
            () = self.overdue(service, target) => {
                return Sent::Failed(Failure::TimedOut(target.lost(Instant::now())), None);
            }
        };
        let mut error = match answer {
            Ok(answer) => {
                waiting.answered(Instant::now());
                return Sent::Answered(answer);
            }
            Err(error) => error,
        };
        drop(waiting);
        let back = error.take_message();
        tracing::debug!(target = target.stats.id(), error = %error.error(), unsent = back.is_some(), "no answer");
        let now = Instant::now();
        let failure = if back.is_some() {
            Failure::Unsent
        } else if self.parcel.source.is_slow() {
            Failure::SlowClient
        } else if self.parcel.source.failed() {
            Failure::Client
        } else if upstream.has_answered() {
            Failure::Garbled
        } else if reused && now.saturating_duration_since(begun) < STALE_TIME_MAX {
            Failure::Stale
        } else {
            Failure::Lost(target.lost(now))
        };
        Sent::Failed(failure, back)
    }

    /// Waits until the target has had its time: the service's limit, or word that nobody is to wait there any longer, for
    /// a request that may go elsewhere.
    async fn overdue(&self, service: &LocalService, target: &LocalTarget) {
        let given_up = async {
            target.abandoned().await;
            if !self.parcel.is_replayable() {
                std::future::pending::<()>().await;
            }
        };
        let Some(limit) = service.plan.first_byte else { return given_up.await };
        let late = async {
            loop {
                // It counts from the request's end, which may have come in the meantime.
                let had_ended = self.parcel.source.ended();
                sleep(limit).await;
                if had_ended {
                    return;
                }
            }
        };
        tokio::select! {
            () = late => {}
            () = given_up => {}
        }
    }

    /// Whether an answer may be passed on: a `101` only to who asked for it, and for what was asked.
    fn is_fit(&self, answer: &Response<Incoming>) -> bool {
        answer.status() != StatusCode::SWITCHING_PROTOCOLS
            || (self.parcel.websocket && headers::is_websocket(answer.headers()))
    }

    /// The cookie for this target, if its service is sticky and the client has not got it already.
    fn new_cookie(&self, chosen: &Chosen, request: &Request<RequestBody>) -> Option<HeaderValue> {
        let (service, seat) = (&chosen.service, chosen.seat);
        let cookie = service.plan.cookie.as_ref()?;
        let ask = Ask { now: Instant::now(), lost: None, may_fail: false };
        let asked = local::Request { ask, client: self.parcel.from, cookies: Some(request.headers()) };
        if service.named(&asked) == Some(seat) {
            return None;
        }
        let secure = request.headers().get(headers::X_FORWARDED_PROTO).is_some_and(|proto| proto == "https");
        HeaderValue::from_str(&cookie.set(seat, secure)?).ok()
    }
}

fn head_of(request: &Request<RequestBody>) -> request::Parts {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.version_mut() = request.version();
    *head.headers_mut() = request.headers().clone();
    *head.extensions_mut() = request.extensions().clone();
    head.into_parts().0
}

//! One request to a target, and to another one where that is safe.
//!
//! Owns: the loop around choice, connection and exchange, the guards of a request, and what is learned of a target by it.
//! Never: decides what follows a failure; that is [`crate::retry`]. Where a request waits is in [`crate::wait`].
//!
//! ```text
//! choose ─▶ connect ─▶ exchange ─▶ answer
//!   ▲  │       │           │
//!   │  └ hold ◀┴───────────┘ per retry.rs
//! ```
//!
//! The request counts as in flight on its target from the choice on, until its answer has gone out or been dropped.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use memchr::memchr;
use tokio::time::Instant;

use crate::access_log::Entry;
use crate::attempt::{Attempt, Run};
use crate::balance::Ask;
use crate::desk::AnswerDesk;
use crate::exchange::{give_leave, gone};
use crate::forward::{Answered, Refused};
use crate::h1::fields::Known;
use crate::h1::framing::Framing;
use crate::h1::head::RequestHead;
use crate::headers::Screened;
use crate::health::Fault;
use crate::life::Life;
use crate::local::{self, LocalService, LocalTable, LocalTarget};
use crate::pool::Reuse;
use crate::report::{SUSPECT_PATH_MAX, Suspect, count};
use crate::request_body::{Kept, RequestBody};
use crate::respond::Refusal;
use crate::retry::{Attempts, Failure, Next};
use crate::rules::RouteRules;
use crate::server::{Client, Wire};
use crate::target::{InFlight, Outcome};
use crate::tunnel::Tunnel;
use crate::upstream::{Upstream, connect};
use crate::wait::{Chosen, Wait, Wanted};

/// What a request is routed by.
#[derive(Debug)]
pub(crate) struct Way<'r> {
    listener: &'r str,
    host: &'r str,
    /// Without its query.
    path: &'r str,
    /// The number of the table in which it was last looked up, and the service's index there.
    found: Cell<Option<(u64, usize)>>,
}

impl<'r> Way<'r> {
    pub(crate) fn new(client: &'r Client, screened: &'r Screened<'_>) -> Self {
        let (host, target) = (screened.host.as_ref(), screened.target.as_ref());
        let path = memchr(b'?', target.as_bytes()).map_or(target, |end| &target[..end]);
        Self { listener: &client.listener, host, path, found: Cell::new(None) }
    }

    /// Looks the request up. `None` if no route takes it; else the rules of the route that does, if there are any.
    pub(crate) fn rules<'t>(&self, table: &'t LocalTable) -> Option<Option<&'t Arc<RouteRules>>> {
        let found = table.find(self.listener, self.host, self.path)?;
        self.found.set(Some((table.plan.number, found.service)));
        Some(found.rules)
    }

    /// The service that it comes to.
    pub(crate) fn service<'t>(&self, table: &'t LocalTable) -> Option<&'t Rc<LocalService>> {
        let known = self.found.get().filter(|(number, _)| *number == table.plan.number);
        let index = match known {
            Some((_, index)) => index,
            None => {
                let found = table.find(self.listener, self.host, self.path)?;
                self.found.set(Some((table.plan.number, found.service)));
                found.service
            }
        };
        table.service(index)
    }
}

/// A request, ready to be sent.
#[derive(Debug)]
pub(crate) struct Parcel<'r> {
    pub(crate) way: Way<'r>,
    /// As a target gets it.
    pub(crate) head: &'r [u8],
    pub(crate) answer: &'r mut AnswerDesk,
    pub(crate) body: &'r mut RequestBody,
    pub(crate) kept: Kept,
    /// The client waits for leave to send its body.
    pub(crate) expects_leave: &'r mut bool,
    /// Its entry in the access log.
    pub(crate) entry: &'r Entry<'r>,
    /// Whom it is for: the peer, or the client that a trusted peer names.
    pub(crate) from: IpAddr,
    /// It asks for a WebSocket.
    pub(crate) websocket: bool,
    pub(crate) is_idempotent: bool,
    /// Its peer is trusted.
    pub(crate) is_trusted: bool,
    pub(crate) rules: Option<&'r RouteRules>,
}

impl Parcel<'_> {
    /// Whether the request may be sent once more.
    pub(crate) fn is_replayable(&self) -> bool {
        self.is_idempotent && (self.body.framing() == Framing::None || self.kept.is_whole())
    }
}

/// Takes one request to a target, and to another one where that is safe.
#[derive(Debug)]
pub(crate) struct Courier<'r> {
    client: &'r Rc<Client>,
    life: &'r Life,
    /// As the client sent it.
    request: &'r RequestHead,
    parcel: Parcel<'r>,
    attempts: Attempts,
    wait: Wait,
    /// The targets that it died with.
    died_with: Vec<String>,
}

/// How an attempt ended without an answer.
enum Failed {
    /// What follows is for the rules of retrying.
    At(Failure),
    /// The client has gone.
    Gone,
}

impl<'r> Courier<'r> {
    pub(crate) fn new(
        client: &'r Rc<Client>,
        life: &'r Life,
        request: &'r RequestHead,
        parcel: Parcel<'r>,
    ) -> Self {
        let (attempts, wait) = (Attempts::default(), Wait::default());
        Self { client, life, request, parcel, attempts, wait, died_with: Vec::new() }
    }

    /// Carries the request until it is answered.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) async fn carry(mut self, wire: &mut Wire<'_>) -> Result<Answered, Refused> {
        self.wait.is_health_check = self.is_health_check();
        let mut is_first = true;
        loop {
            let Some(chosen) = self.choose(wire).await? else { return Ok(Answered::Broken) };
            if std::mem::take(&mut is_first) {
                chosen.service.budget.earn();
            }
            let service = Rc::clone(&chosen.service);
            let failed = match self.connect(&chosen).await {
                Err(failure) => Failed::At(failure),
                Ok((upstream, reused)) => {
                    // From here on the request is the target's; it waits no more.
                    self.wait.leave();
                    match self.exchange(chosen, upstream, reused, wire).await {
                        Ok(answered) => return Ok(answered),
                        Err(failed) => failed,
                    }
                }
            };
            let Failed::At(failure) = failed else { return Ok(Answered::Broken) };
            let next = self.attempts.failed(failure, self.parcel.is_replayable(), Instant::now());
            self.next(next, failure, &service)?;
        }
    }

    /// A target; nothing if the client has gone.
    async fn choose(&mut self, wire: &mut Wire<'_>) -> Result<Option<Chosen>, Refused> {
        let wanted = Wanted {
            lost: self.attempts.lost(),
            may_fail: self.parcel.is_replayable(),
            from: self.parcel.from,
            request: Some(self.request),
        };
        let way = &self.parcel.way;
        let has_body = !self.parcel.body.has_ended();
        let left = async {
            // What it sends is its body, which is not read while the request waits.
            if has_body {
                std::future::pending::<()>().await;
            }
            gone(&mut wire.reader, wire.inbox).await;
        };
        let wait = &mut self.wait;
        let chosen = tokio::select! {
            biased;
            chosen = wait.choose(self.client, wanted, |table| way.service(table)) => chosen,
            () = left => return Ok(None),
        };
        chosen.map(Some).map_err(|refusal| Refused { refusal, page: self.page() })
    }

    fn page(&mut self) -> Option<Bytes> {
        self.wait.page.take()
    }

    /// Whether there is a next attempt.
    fn next(&self, next: Next, failure: Failure, service: &LocalService) -> Result<(), Refusal> {
        let stats = self.client.worker.stats();
        let refusal = match next {
            Next::Again => return Ok(()),
            Next::Resend if service.budget.spend() => {
                count(&stats.retried);
                return Ok(());
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
        if matches!(failure, Failure::Stale(_)) {
            count(&stats.lost_to_idle_close);
        }
        if refusal == Refusal::BadGateway && self.attempts.is_suspect() {
            self.suspect(service);
        }
        Err(refusal)
    }

    /// Two targets died with it: it may be what kills them.
    fn suspect(&self, service: &LocalService) {
        let path = self.parcel.way.path;
        let cut = (0..=SUSPECT_PATH_MAX.min(path.len())).rev().find(|end| path.is_char_boundary(*end));
        self.client.worker.shared().suspect(Suspect {
            number: 0,
            service: service.plan.name.clone(),
            method: String::from_utf8_lossy(self.request.method()).into_owned(),
            path: path[..cut.unwrap_or(0)].to_owned(),
            request: self.parcel.entry.id.to_owned(),
            targets: self.died_with.clone(),
        });
    }

    /// Whether it is an outer balancer's question whether the service is well.
    fn is_health_check(&self) -> bool {
        let way = &self.parcel.way;
        let table = self.client.worker.table();
        let path = way.service(&table).and_then(|service| service.plan.health_path.as_deref());
        path.is_some_and(|path| path.split('?').next() == Some(way.path))
            && matches!(self.request.method(), b"GET" | b"HEAD")
    }

    /// An idle connection to the target, or a new one. Says whether it was used before.
    async fn connect(&self, chosen: &Chosen) -> Result<(Upstream, bool), Failure> {
        let reuse = if self.parcel.is_replayable() { Reuse::Any } else { Reuse::Proven };
        if !self.attempts.wants_fresh_connection()
            && let Some(idle) = chosen.target.take_idle(Instant::now(), reuse)
        {
            return Ok((idle, true));
        }
        let worker = &self.client.worker;
        match connect(chosen.target.stats.addr(), worker.answer_buffers()).await {
            Ok(upstream) => Ok((upstream, false)),
            Err(error) => Err(worker.cannot_connect(&chosen.service, &chosen.target, &error)),
        }
    }

    /// Sends the request and passes the answer on.
    async fn exchange(
        &mut self,
        chosen: Chosen,
        upstream: Upstream,
        reused: bool,
        wire: &mut Wire<'_>,
    ) -> Result<Answered, Failed> {
        let mut upstream = upstream;
        if *self.parcel.expects_leave && wire.inbox.is_empty() && !self.parcel.body.has_ended() {
            *self.parcel.expects_leave = false;
            if give_leave(&mut wire.writer, self.life).await.is_err() {
                return Err(Failed::Gone);
            }
        }
        let cookie = self.new_cookie(&chosen);
        let Chosen { service, target, in_flight, pass, .. } = chosen;
        self.parcel.entry.sent_to(&target);
        let begun = Instant::now();
        let idle_since = upstream.idle_since.filter(|_| reused);
        let attempt = Attempt {
            client: self.client,
            life: self.life,
            request: self.request,
            service: &service,
            target: &target,
            cookie: cookie.as_deref(),
            begun,
            reused,
        };
        match attempt.run(&mut self.parcel, (in_flight, pass), &mut upstream, wire).await {
            Run::Answered { kept, idle_time } => {
                if let Some(idle_time) = idle_time {
                    target.put_idle(upstream, Instant::now(), idle_time);
                }
                Ok(Answered::Whole { kept })
            }
            Run::Broken => Ok(Answered::Broken),
            Run::Upgraded(in_flight) => {
                let (tunnels, bounds) = (self.client.worker.tunnels(), service.plan.tunnels);
                let tunnel = Tunnel::enter(tunnels, in_flight.into_tunnel(), bounds);
                self.client.worker.apply_orders_to_tunnels();
                Ok(Answered::Tunnel(Box::new((tunnel, upstream))))
            }
            Run::Gone => Err(Failed::Gone),
            Run::Failed(failure, in_flight) => {
                self.learn(&service, &target, &in_flight, failure, begun);
                if let Some(idle_since) = idle_since
                    && matches!(failure, Failure::Unsent | Failure::Stale(_))
                {
                    target.closed_early(begun.saturating_duration_since(idle_since), begun);
                }
                if failure == Failure::Unsent && !reused {
                    // It took the connection and dropped it before a byte was sent: as good as refused.
                    self.client.worker.leave_out(&service, &target);
                }
                Err(Failed::At(failure))
            }
        }
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
            Failure::Stale(_) => (Outcome::Lost, None),
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

    /// The cookie for this target, if its service is sticky and the client has not got it already.
    fn new_cookie(&self, chosen: &Chosen) -> Option<String> {
        let (service, seat) = (&chosen.service, chosen.seat);
        let cookie = service.plan.cookie.as_ref()?;
        let ask = Ask { now: Instant::now(), lost: None, may_fail: false };
        let asked = local::Request { ask, client: self.parcel.from, head: Some(self.request) };
        if service.named(&asked) == Some(seat) {
            return None;
        }
        let is_secure = self.parcel.is_trusted && self.request.get(Known::XForwardedProto) == Some(b"https");
        cookie.set(seat, is_secure)
    }
}

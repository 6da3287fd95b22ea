//! One attempt of one request at one target: sent, answered, passed on.
//!
//! Owns: the exchange from its first byte to its last, and its counts. Never: chooses the target, or decides what follows
//! a failure; that is [`crate::courier`].

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep};

use crate::access_log::Sent;
use crate::body::{Course, Passed, pass};
use crate::courier::Parcel;
use crate::desk::AnswerDesk;
use crate::exchange::{self, NoAnswer, Progress, Up, beside, receive_head, send};
use crate::forward::may_keep;
use crate::h1::buffer::Inbox;
use crate::h1::framing::{self, Framing};
use crate::h1::head::{AnswerHead, RequestHead};
use crate::headers::{self, Answering};
use crate::health::Fault;
use crate::hold::Pass;
use crate::life::Life;
use crate::local::{LocalService, LocalTarget};
use crate::outlet::write_all;
use crate::pool::idle_time;
use crate::request_body::BodyError;
use crate::retry::{Failure, LEAVE_OUT, STALE_LEAVE_OUT};
use crate::rules::RouteRules;
use crate::server::{Client, Wire};
use crate::target::{InFlight, Outcome};
use crate::tunnel::Tunnel;
use crate::upstream::Upstream;

/// A connection that had been idle and breaks within this time of a request, without a byte of an answer, was being
/// closed when the request was sent.
const STALE_TIME_MAX: Duration = Duration::from_millis(250);

/// One attempt.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    pub(crate) client: &'a Rc<Client>,
    pub(crate) life: &'a Life,
    /// As the client sent it.
    pub(crate) request: &'a RequestHead,
    pub(crate) service: &'a LocalService,
    pub(crate) target: &'a LocalTarget,
    /// The cookie that keeps the client with this target, if it has not got it.
    pub(crate) cookie: Option<&'a str>,
    pub(crate) begun: Instant,
    /// The connection had been idle.
    pub(crate) reused: bool,
}

/// What came of one attempt.
#[derive(Debug)]
pub(crate) enum Run {
    /// The answer went out whole.
    Answered {
        /// Whether the client's connection was said to be kept.
        kept: bool,
        /// How long the target's may be idle, if it can be used again.
        idle_time: Option<Duration>,
    },
    /// The answer went out in part.
    Broken,
    /// The connection is a tunnel now.
    Upgraded(InFlight),
    /// The client has gone.
    Gone,
    /// There was no answer.
    Failed(Failure, InFlight),
}

/// What an answer is counted as while it goes out.
#[derive(Debug)]
enum Guard {
    InFlight(InFlight),
    /// A stream of events lives as long as a tunnel does, and is told to end as one.
    Stream(Tunnel),
}

/// What comes behind an answer's head.
struct Answer {
    course: Course,
    keep: bool,
}

impl Attempt<'_> {
    /// Sends the request and passes the answer on. The pass is given back with the answer's head.
    pub(crate) async fn run(
        &self,
        parcel: &mut Parcel<'_>,
        (in_flight, pass): (InFlight, Option<Pass>),
        upstream: &mut Upstream,
        wire: &mut Wire<'_>,
    ) -> Run {
        let progress = Progress::default();
        progress.is_replayable.set(parcel.is_replayable());
        let up_ended = RefCell::new(None);
        let Parcel { head: sent, body, kept, websocket, rules, answer: desk, entry, .. } = parcel;
        let AnswerDesk { head, text } = &mut **desk;
        let Wire { reader, writer, inbox } = wire;
        let Upstream { stream, inbox: from_target, .. } = upstream;
        let (mut from, mut to) = stream.split();
        let sent = exchange::Request { head: sent, body, kept };
        let mut up = pin!(send(sent, (reader, inbox), &mut to, &progress));
        let waiting = in_flight.wait(self.begun);
        let target_side = (&mut from, &mut *from_target);
        let received =
            self.receive((head, text), target_side, (up.as_mut(), &up_ended), &progress, writer).await;
        drop(pass);
        let now = Instant::now();
        if let Err(none) = received {
            drop(waiting);
            return self.failed(none, &progress, now, in_flight);
        }
        waiting.answered(now);
        let Some(framing) = self.framing(head, *websocket) else {
            return Run::Failed(Failure::Garbled, in_flight);
        };
        self.target.answered_in(now.saturating_duration_since(self.begun));
        self.client.worker.succeeded(self.service, self.target, self.begun, now);
        in_flight.count(Outcome::Answered(head.status));

        let answer = self.answer(head, framing, *rules, text);
        if head.status == 101 {
            return match write_all(writer, &[text], Some(self.life)).await {
                Ok(()) => {
                    entry.answered(101);
                    Run::Upgraded(in_flight)
                }
                Err(_) => Run::Broken,
            };
        }
        entry.answered(head.status);
        let guard = self.guard(head, in_flight);
        let target_side = (&mut from, &mut *from_target);
        let down = pass_on((answer.course, text), target_side, (writer, self.life), &guard, &entry.sent);
        match beside(up, &up_ended, down).await {
            Passed::Whole => {
                let is_reusable = headers::target_keeps(head)
                    && progress.is_sent.get()
                    && framing != Framing::UntilClose
                    && from_target.is_empty();
                let idle_time = is_reusable.then(|| idle_time(headers::keep_alive_timeout(head))).flatten();
                Run::Answered { kept: answer.keep, idle_time }
            }
            Passed::Ended => Run::Answered { kept: answer.keep, idle_time: None },
            Passed::ClientBroke(error) => {
                tracing::debug!(%error, "a client did not take its answer");
                entry.client_gone();
                Run::Broken
            }
            Passed::TargetBroke => {
                // When the client broke off its own body, the target is not to blame.
                if !matches!(&*up_ended.borrow(), Some(Up::Client(_))) {
                    guard.count(Outcome::BrokenOff);
                    let fault = Fault::Died { sent: self.begun };
                    self.client.worker.failed(self.service, self.target, fault, Instant::now());
                }
                Run::Broken
            }
        }
    }

    /// Waits for the answer's head, and passes on what comes before it.
    async fn receive<U: Future<Output = Up>>(
        &self,
        (head, text): (&mut AnswerHead, &mut Vec<u8>),
        (from, inbox): (&mut ReadHalf<'_>, &mut Inbox),
        (mut up, up_ended): (Pin<&mut U>, &RefCell<Option<Up>>),
        progress: &Progress,
        writer: &mut WriteHalf<'_>,
    ) -> Result<(), NoAnswer> {
        let mut overdue = pin!(self.overdue(progress));
        loop {
            let sending = (up.as_mut(), up_ended);
            receive_head(head, (from, inbox), sending, overdue.as_mut(), self.life).await?;
            if 200 <= head.status || head.status == 101 {
                return Ok(());
            }
            // HTTP/1.0 knows none, and leave to send a body is the proxy's to give.
            if self.request.minor == 0 || head.status == 100 {
                continue;
            }
            self.answer(head, Framing::None, None, text);
            write_all(writer, &[text], Some(self.life)).await.map_err(|_| NoAnswer::Gone)?;
        }
    }

    /// How the answer's body is framed, if the answer may be passed on: a `101` only to who asked for it, and for what was
    /// asked.
    fn framing(&self, head: &AnswerHead, websocket: bool) -> Option<Framing> {
        let is_fit = head.status != 101 || (websocket && headers::is_websocket(head, self.request));
        framing::of_answer(head, self.request.method() == b"HEAD").ok().filter(|_| is_fit)
    }

    /// Writes the answer's head for the client.
    fn answer(
        &self,
        head: &AnswerHead,
        from: Framing,
        rules: Option<&RouteRules>,
        text: &mut Vec<u8>,
    ) -> Answer {
        let to = match (from, self.request.minor) {
            // HTTP/1.0 knows no chunks.
            (Framing::Chunked | Framing::UntilClose, 0) => Framing::UntilClose,
            (Framing::UntilClose, _) => Framing::Chunked,
            (framing, _) => framing,
        };
        let keep = to != Framing::UntilClose && may_keep(self.client, self.life, self.request);
        let date = self.client.worker.date();
        let answering = Answering {
            framing: to,
            keep,
            minor: self.request.minor,
            cookie: self.cookie.filter(|_| 200 <= head.status || head.status == 101),
            rules,
            date: &date,
        };
        text.clear();
        headers::write_answer(text, head, &answering);
        Answer { course: Course { from, to }, keep }
    }

    fn guard(&self, head: &AnswerHead, in_flight: InFlight) -> Guard {
        if !headers::is_stream(head) {
            return Guard::InFlight(in_flight);
        }
        let (tunnels, bounds) = (self.client.worker.tunnels(), self.service.plan.tunnels);
        let tunnel = Tunnel::enter(tunnels, in_flight.into_tunnel(), bounds);
        self.client.worker.apply_orders_to_tunnels();
        Guard::Stream(tunnel)
    }

    /// What it means that there is no answer.
    fn failed(&self, none: NoAnswer, progress: &Progress, now: Instant, in_flight: InFlight) -> Run {
        let lost = self.target.lost(now + LEAVE_OUT);
        let is_soon = now.saturating_duration_since(self.begun) < STALE_TIME_MAX;
        let failure = match none {
            NoAnswer::Gone => return Run::Gone,
            NoAnswer::Client(BodyError::Cut(error)) => {
                tracing::debug!(%error, "a client broke off its body");
                return Run::Gone;
            }
            NoAnswer::Client(BodyError::Malformed) => Failure::Client,
            NoAnswer::Client(BodyError::Slow) => Failure::SlowClient,
            NoAnswer::Overdue => Failure::TimedOut(lost),
            NoAnswer::Garbled => Failure::Garbled,
            NoAnswer::Nothing if progress.written.get() == 0 => Failure::Unsent,
            NoAnswer::Nothing if self.reused && is_soon => {
                Failure::Stale(self.target.lost(now + STALE_LEAVE_OUT))
            }
            NoAnswer::Nothing => Failure::Lost(lost),
        };
        tracing::debug!(target = self.target.stats.id(), ?failure, "no answer");
        Run::Failed(failure, in_flight)
    }

    /// Waits until the target has had its time: the service's limit, or word that nobody is to wait there any longer,
    /// for a request that may go elsewhere.
    async fn overdue(&self, progress: &Progress) {
        let given_up = async {
            self.target.abandoned().await;
            if !progress.is_replayable.get() {
                std::future::pending::<()>().await;
            }
        };
        let Some(limit) = self.service.plan.first_byte else { return given_up.await };
        let late = async {
            loop {
                // It counts from the request's end, which may have come in the meantime.
                let was_sent = progress.is_sent.get();
                sleep(limit).await;
                if was_sent {
                    return;
                }
            }
        };
        tokio::select! {
            () = late => {}
            () = given_up => {}
        }
    }
}

async fn pass_on(
    (course, head): (Course, &[u8]),
    target_side: (&mut ReadHalf<'_>, &mut Inbox),
    client_side: (&mut WriteHalf<'_>, &Life),
    guard: &Guard,
    sent: &Sent,
) -> Passed {
    pass(course, head, target_side, client_side, guard.ending(), sent).await
}

impl Guard {
    async fn ending(&self) {
        match self {
            Self::InFlight(_) => std::future::pending().await,
            Self::Stream(tunnel) => tunnel.ending().await,
        }
    }

    fn count(&self, outcome: Outcome) {
        match self {
            Self::InFlight(in_flight) => in_flight.count(outcome),
            Self::Stream(tunnel) => tunnel.count(outcome),
        }
    }
}

//! A tunnel while it is open: both of its directions, its limits of time, and its end.
//!
//! Owns: when a tunnel begins to end, how long each step of the end may take, and what each side still gets.
//! Never: opens or drops a socket, or counts.
//!
//! ```text
//! carrying ─ told, too old, idle ─▶ ending: a Close to each side once both are between two messages
//!                                     │     after Pace::message: to each at its next frame boundary
//!                                     │     after Pace::frame:   none; the connections are just closed
//!                                     └ both sides have got a Close ─▶ their own are awaited for Pace::answer
//! ```
//!
//! Each side has its own end. A side that has got a Close and said one gets a FIN at once, whatever the other still
//! does. Where the two have begun to close by themselves nothing is put in: the answer that is still missing is theirs,
//! within the same time. A direction whose frames cannot be followed, or that has none, ends as a TCP connection does:
//! what was read is written, then comes the FIN.
//!
//! Time costs nothing while nothing is due: one timer for everything, made when it is first needed, and not touched by
//! the bytes that pass. When it fires too early for an idle limit, it is set again.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

use super::close::Why;
use super::frames::Boundary;
use super::way::{Broken, End, Way};
use super::{Bounds, END_TIME_MAX, Handle};

/// How long an end may take.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// So long the end of a message is waited for.
    message: Duration,
    /// So long, from the begin, the end of a frame is.
    frame: Duration,
    /// So long, when both sides have got a Close, theirs are.
    answer: Duration,
}

/// The pace of most ends.
const CALM: Pace =
    Pace { message: Duration::from_secs(1), frame: Duration::from_secs(5), answer: END_TIME_MAX };
/// The pace when the worker itself ends: all of it within [`END_TIME_MAX`].
const HURRIED: Pace = Pace {
    message: Duration::from_millis(200),
    frame: Duration::from_millis(600),
    answer: Duration::from_millis(400),
};
/// The pace of bytes without frames: what was read is to be written. They have no boundaries to wait for.
const PLAIN: Pace = Pace { message: Duration::from_secs(60), frame: END_TIME_MAX, answer: END_TIME_MAX };
/// A worker that is so busy that it comes late still tries the end of a frame for so long.
const LATE: Duration = Duration::from_millis(50);
const _: () = assert!(HURRIED.frame.as_millis() + HURRIED.answer.as_millis() <= END_TIME_MAX.as_millis());

/// Whose socket it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Client,
    Target,
}

/// An open tunnel.
pub(super) struct Carrier<'t, C, T> {
    handle: &'t Handle,
    client: C,
    target: T,
    /// From the client to the target.
    up: Way,
    /// From the target to the client.
    down: Way,
    /// When it has lived for as long as it may.
    old_at: Option<Instant>,
    idle: Option<Duration>,
    /// When bytes were last carried, if there is an idle limit.
    carried: Instant,
    ending: Option<Box<Ending>>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whose socket took no more.
    broken: Option<Whose>,
}

/// What is known of an end that has begun.
#[derive(Debug)]
struct Ending {
    pace: Pace,
    to_client: Bytes,
    to_target: Bytes,
    at: Boundary,
    /// From then on the end of a frame will do.
    frame_at: Instant,
    /// Then it is over, however far it has come.
    over_at: Instant,
    /// Both sides have got a Close.
    said: bool,
    /// The worker itself ends.
    hurried: bool,
}

impl Ending {
    fn new(why: Why, now: Instant, is_followed: bool) -> Self {
        let pace = if is_followed { CALM } else { PLAIN };
        Self {
            pace,
            to_client: why.to_client(),
            to_target: why.to_target(),
            at: Boundary::Message,
            frame_at: now + pace.message,
            over_at: now + pace.frame,
            said: false,
            hurried: false,
        }
    }

    /// Goes on at the pace of a worker that ends.
    fn hurry(&mut self, now: Instant, is_followed: bool) {
        self.hurried = true;
        self.pace = if is_followed { HURRIED } else { PLAIN };
        self.frame_at = self.frame_at.min(now + self.pace.message);
        self.over_at = self.over_at.min(now + if self.said { self.pace.answer } else { self.pace.frame });
    }

    /// Notes that both sides have got a Close; says whether that is new.
    fn await_answers(&mut self, now: Instant) -> bool {
        if self.said {
            return false;
        }
        self.said = true;
        // No boundary is waited for any more.
        self.at = Boundary::Frame;
        self.over_at = now + self.pace.answer;
        true
    }

    /// The end of one direction, with this Close. Who gets a Close answers it, and says no more: so it comes when a
    /// message of the `other` direction is not cut short by that, while there is time for it.
    fn put<'e>(&self, close: &'e Bytes, other: &Way) -> End<'e> {
        End { at: self.at, close, may: self.at == Boundary::Frame || other.is_at(Boundary::Message) }
    }

    fn due(&self) -> Instant {
        match self.at {
            Boundary::Message => self.frame_at.min(self.over_at),
            Boundary::Frame => self.over_at,
        }
    }
}

impl<'t, C, T> Carrier<'t, C, T>
where
    C: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    /// `up` goes from the client to the target, `down` back.
    pub(super) fn new(
        handle: &'t Handle,
        bounds: Bounds,
        (client, up): (C, Way),
        (target, down): (T, Way),
    ) -> Self {
        let now = Instant::now();
        Self {
            handle,
            client,
            target,
            up,
            down,
            old_at: bounds.life.and_then(|life| now.checked_add(life)),
            idle: bounds.idle,
            carried: now,
            ending: None,
            timer: None,
            broken: None,
        }
    }

    /// The client's side and the target's.
    pub(super) fn into_sides(self) -> (C, T) {
        (self.client, self.target)
    }

    /// Whether a byte has come from the target.
    pub(super) fn is_answered(&self) -> bool {
        self.down.has_begun()
    }

    /// Carries until both directions have ended or the time for the end is over. Says whose socket broke, if one did.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Whose>> {
        self.handle.wake_on_change(cx);
        loop {
            if !self.keep_time(cx) {
                return Poll::Ready(self.broken);
            }
            let moved = match (self.step(cx, Whose::Client), self.step(cx, Whose::Target)) {
                (Err(whose), _) | (_, Err(whose)) => return Poll::Ready(Some(whose)),
                (Ok(up), Ok(down)) => up || down,
            };
            let settled = self.settle_sides();
            if self.up.is_over() && self.down.is_over() {
                return Poll::Ready(self.broken);
            }
            if !moved && !settled {
                return Poll::Pending;
            }
        }
    }

    /// One step of the direction from one side; says whether there was one. Fails if that side broke. A side that takes
    /// no more may have said why (a database that is full does, and closes): what came from it is still passed on.
    fn step(&mut self, cx: &mut Context<'_>, from: Whose) -> Result<bool, Whose> {
        let Self { client, target, up, down, ending, .. } = self;
        // Where the other side has begun to close, the answer is this one's.
        let step = match from {
            Whose::Client => {
                let end = ending.as_deref().filter(|_| !down.is_closing_itself() || !up.is_followed());
                up.step(cx, client, target, end.map(|end| end.put(&end.to_target, down)))
            }
            Whose::Target => {
                let end = ending.as_deref().filter(|_| !up.is_closing_itself() || !down.is_followed());
                down.step(cx, target, client, end.map(|end| end.put(&end.to_client, up)))
            }
        };
        match step {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(carried)) => {
                if 0 < carried && self.idle.is_some() {
                    self.carried = Instant::now();
                }
                Ok(true)
            }
            Poll::Ready(Err(Broken::Reading(error))) => {
                tracing::debug!(%error, whose = ?from, "a side of a tunnel broke");
                Err(from)
            }
            Poll::Ready(Err(Broken::Writing(error))) => {
                let (way, to) = match from {
                    Whose::Client => (&mut self.up, Whose::Target),
                    Whose::Target => (&mut self.down, Whose::Client),
                };
                tracing::debug!(%error, whose = ?to, "a side of a tunnel takes no more");
                way.give_up();
                if self.broken != Some(Whose::Target) {
                    self.broken = Some(to);
                }
                Ok(true)
            }
        }
    }

    /// While it ends: gives the end to a side that has got a Close and said one. Says whether anything is new.
    fn settle_sides(&mut self) -> bool {
        let Some(ending) = &mut self.ending else { return false };
        let (up, down) = (&mut self.up, &mut self.down);
        let mut new = false;
        if down.has_closed() && up.has_heard() {
            new |= down.finish();
        }
        if up.has_closed() && down.has_heard() {
            new |= up.finish();
        }
        if up.has_closed() && down.has_closed() {
            new |= ending.await_answers(Instant::now());
        }
        new
    }

    /// Does what is due, and sees to it that the next thing will be. False: the time is over.
    fn keep_time(&mut self, cx: &mut Context<'_>) -> bool {
        let is_followed = self.up.is_followed() || self.down.is_followed();
        if let Some(ending) = &mut self.ending
            && self.handle.hurried.get()
            && !ending.hurried
        {
            ending.hurry(Instant::now(), is_followed);
        }
        while let Some(due) = self.due() {
            let now = Instant::now();
            if now < due {
                if self.poll_timer(cx, due).is_pending() {
                    return true;
                }
                continue;
            }
            match &mut self.ending {
                None => self.begin_end(now, is_followed),
                Some(ending) if ending.at == Boundary::Message && ending.frame_at <= now => {
                    ending.at = Boundary::Frame;
                    ending.over_at = ending.over_at.max(now + LATE);
                }
                Some(_) => return false,
            }
        }
        true
    }

    fn due(&self) -> Option<Instant> {
        match &self.ending {
            Some(ending) => Some(ending.due()),
            None => [self.handle.end_at.get(), self.old_at, self.idle_at()].into_iter().flatten().min(),
        }
    }

    fn idle_at(&self) -> Option<Instant> {
        self.carried.checked_add(self.idle?)
    }

    fn begin_end(&mut self, now: Instant, is_followed: bool) {
        let is_due = |moment: Option<Instant>| moment.is_some_and(|moment| moment <= now);
        let why = if is_due(self.handle.end_at.get()) {
            Why::Told
        } else if is_due(self.old_at) {
            Why::Old
        } else {
            Why::Idle
        };
        let mut ending = Ending::new(why, now, is_followed);
        if self.handle.hurried.get() {
            ending.hurry(now, is_followed);
        }
        self.ending = Some(Box::new(ending));
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        // One that fires earlier is left: whoever sees it fire asks again what is due.
        if due < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests;

//! The life of client connections: which are idle, which are overdue, and how one is told to end.
//!
//! Owns: the open connections of one worker, their stages and deadlines. Never: reads or writes.
//!
//! A connection's task waits for sockets, and would need a timer for each of its waits. Instead it says here what it is
//! doing and until when that may last; the worker looks through all connections now and then, and wakes those that are
//! overdue, or are to end. So a request that nothing is wrong with sets no timer.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// A connection that has been idle for less time is not asked to make room: its request may be on its way.
const IDLE_TIME_MIN: Duration = Duration::from_millis(50);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing: the last answer was sent, and no byte of a next request has come.
    Idle,
    /// Its client is sending a head.
    Head,
    /// A request is under way.
    Busy,
}

/// Why a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It was idle for long, or its place is wanted, or the worker ends.
    Idle,
    /// Its client took too long to send a head.
    SlowHead,
    /// Its client does not read.
    Stalled,
    /// The worker's time is over.
    Cut,
}

/// One connection, as the worker knows it.
#[derive(Debug)]
pub(crate) struct Life {
    /// The name of the listener that it came in by.
    listener: Rc<str>,
    stage: Cell<Stage>,
    deadline: Cell<Option<Instant>>,
    end: Cell<Option<End>>,
    is_last: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// How long its client may not read.
    stall_time: Duration,
    /// Grows with each time that it falls idle: the least is idle longest.
    idle_turn: Cell<u64>,
    idle_since: Cell<Instant>,
}

/// The open connections of one worker.
#[derive(Debug)]
pub(crate) struct Lives {
    stall_time: Duration,
    open: RefCell<BTreeMap<u64, Rc<Life>>>,
    next: Cell<u64>,
    turns: Cell<u64>,
    fell_idle: Notify,
}

/// A place among the open connections; dropping it leaves.
#[derive(Debug)]
pub(crate) struct Place {
    lives: Rc<Lives>,
    number: u64,
    pub(crate) life: Rc<Life>,
}

impl Lives {
    /// None yet. `stall_time`: how long a client may not read what is written to it.
    pub(crate) fn new(stall_time: Duration) -> Rc<Self> {
        let (open, next, turns, fell_idle) = Default::default();
        Rc::new(Self { stall_time, open, next, turns, fell_idle })
    }

    /// Waits until one falls idle.
    pub(crate) async fn fell_idle(&self) {
        self.fell_idle.notified().await;
    }

    /// Enters a connection that came in by this listener.
    pub(crate) fn enter(self: &Rc<Self>, listener: &Rc<str>) -> Place {
        let number = self.next.get();
        self.next.set(number + 1);
        let life = Rc::new(Life {
            listener: Rc::clone(listener),
            stage: Cell::new(Stage::Idle),
            deadline: Cell::new(None),
            end: Cell::new(None),
            is_last: Cell::new(false),
            waker: RefCell::default(),
            stall_time: self.stall_time,
            idle_turn: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
        });
        self.open.borrow_mut().insert(number, Rc::clone(&life));
        Place { lives: Rc::clone(self), number, life }
    }

    /// Tells those that are overdue.
    pub(crate) fn sweep(&self, now: Instant) {
        for life in self.open.borrow().values() {
            if life.deadline.get().is_some_and(|deadline| deadline <= now) {
                life.end(match life.stage.get() {
                    Stage::Idle => End::Idle,
                    Stage::Head => End::SlowHead,
                    Stage::Busy => End::Stalled,
                });
            }
        }
    }

    /// Tells those that are idle to end.
    pub(crate) fn end_idle(&self) {
        for life in self.open.borrow().values().filter(|life| life.stage.get() == Stage::Idle) {
            life.end(End::Idle);
        }
    }

    /// Ends those that came in by listeners that are not in use any more: the idle ones now, the others behind their next
    /// answer. Their clients would get nothing but 404.
    pub(crate) fn leave(&self, is_used: impl Fn(&str) -> bool) {
        for life in self.open.borrow().values().filter(|life| !is_used(&life.listener)) {
            match life.stage.get() {
                Stage::Idle => life.end(End::Idle),
                Stage::Head | Stage::Busy => life.is_last.set(true),
            }
        }
    }

    /// Tells the one that has been idle longest to end. Returns false if none has been idle for a moment.
    pub(crate) fn end_oldest_idle(&self, now: Instant) -> bool {
        let open = self.open.borrow();
        let idle = open.values().filter(|life| life.stage.get() == Stage::Idle && life.end.get().is_none());
        let oldest = idle.min_by_key(|life| life.idle_turn.get());
        let oldest = oldest.filter(|life| life.idle_since.get() + IDLE_TIME_MIN <= now);
        oldest.inspect(|life| life.end(End::Idle)).is_some()
    }

    /// Cuts all.
    pub(crate) fn cut_all(&self) {
        for life in self.open.borrow().values() {
            life.end(End::Cut);
        }
    }
}

impl Place {
    /// The connection is idle from now on, for at most so long.
    pub(crate) fn idle(&self, now: Instant, most: Duration) {
        let turn = self.lives.turns.get();
        self.lives.turns.set(turn + 1);
        self.life.idle_turn.set(turn);
        self.life.idle_since.set(now);
        self.life.stage.set(Stage::Idle);
        self.lives.fell_idle.notify_waiters();
        self.life.deadline.set(Some(now + most));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lives.open.borrow_mut().remove(&self.number);
    }
}

impl Life {
    /// Its client is sending a head, and has so long for it.
    pub(crate) fn reading_head(&self, now: Instant, most: Duration) {
        if self.stage.replace(Stage::Head) == Stage::Idle {
            self.deadline.set(Some(now + most));
        }
    }

    /// A request is under way.
    pub(crate) fn busy(&self) {
        self.stage.set(Stage::Busy);
        self.deadline.set(None);
        // A request that came in the very moment is still answered.
        if self.end.get() == Some(End::Idle) {
            self.end.set(None);
            self.is_last.set(true);
        }
    }

    /// Whether the connection is to end with this request.
    pub(crate) fn is_last(&self) -> bool {
        self.is_last.get()
    }

    /// From now on it must get on by then; `None`: it may take its time.
    pub(crate) fn due(&self, deadline: Option<Instant>) {
        self.deadline.set(deadline);
    }

    /// How long its client may not read.
    pub(crate) fn stall_time(&self) -> Duration {
        self.stall_time
    }

    #[cfg(test)]
    fn ended(&self) -> Option<End> {
        self.end.get()
    }

    fn end(&self, why: End) {
        if self.end.get() != Some(End::Cut) {
            self.end.set(Some(why));
        }
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Whether it is to end; if not, whoever asks is woken when it is.
    pub(crate) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(end) = self.end.get() {
            return Poll::Ready(end);
        }
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *known = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Does something until it is done, or the connection is to end.
    pub(crate) async fn unless_ended<F: Future>(&self, what: F) -> Result<F::Output, End> {
        let mut what = pin!(what);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = what.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            self.poll_end(cx).map(Err)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_overdue_is_told_why() {
        let lives = Lives::new(Duration::from_secs(60));
        let place = lives.enter(&"http".into());
        let now = Instant::now();
        let second = Duration::from_secs(1);
        place.idle(now, second);
        lives.sweep(now);
        assert_eq!(place.life.ended(), None);
        place.life.reading_head(now, second * 5);
        place.life.reading_head(now + second, second * 5);
        lives.sweep(now + second * 4);
        assert_eq!(place.life.ended(), None);
        lives.sweep(now + second * 5);
        assert_eq!(place.life.ended(), Some(End::SlowHead), "from the first byte on");
    }

    #[tokio::test]
    async fn the_one_that_is_idle_longest_gives_way() {
        let lives = Lives::new(Duration::from_secs(60));
        let places: Vec<_> = (0..3).map(|_| lives.enter(&"http".into())).collect();
        let now = Instant::now();
        for index in [2, 0, 1] {
            places[index].idle(now, Duration::from_secs(1));
        }
        places[2].life.busy();
        assert!(!lives.end_oldest_idle(now), "they have just come");
        let later = now + IDLE_TIME_MIN;
        assert!(lives.end_oldest_idle(later));
        assert_eq!(places[0].life.ended(), Some(End::Idle));
        assert!(lives.end_oldest_idle(later));
        assert!(!lives.end_oldest_idle(later), "the third is busy");
        drop(places);
        assert!(lives.open.borrow().is_empty());
    }

    #[tokio::test]
    async fn who_came_in_by_a_listener_that_is_gone_ends_when_nothing_is_under_way() {
        let lives = Lives::new(Duration::from_secs(60));
        let names: [Rc<str>; 2] = ["gone".into(), "here".into()];
        let [idle, other, busy] = [0, 1, 0].map(|index| lives.enter(&names[index]));
        busy.life.busy();
        lives.leave(|listener| listener == "here");
        assert_eq!((idle.life.ended(), idle.life.is_last()), (Some(End::Idle), false));
        assert_eq!((other.life.ended(), other.life.is_last()), (None, false));
        assert_eq!((busy.life.ended(), busy.life.is_last()), (None, true));
    }

    #[tokio::test]
    async fn a_wait_ends_when_the_connection_does() {
        let lives = Lives::new(Duration::from_secs(60));
        let place = lives.enter(&"http".into());
        let life = Rc::clone(&place.life);
        let wait = life.unless_ended(std::future::pending::<()>());
        let (waited, ()) = tokio::join!(wait, async { lives.cut_all() });
        assert_eq!(waited, Err(End::Cut));
        assert_eq!(place.life.unless_ended(async { 1 }).await, Ok(1), "what is done is done");
    }
}

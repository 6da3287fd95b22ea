//! Where requests wait while no target of their service is ready.
//!
//! Owns: the queue of one service on one worker, and how fast it is let out.
//! Never: knows requests or targets; it hands out passes, oldest first.
//!
//! A waiting request keeps its [`Place`]; its body is not read meanwhile, and when its client goes away the place
//! goes with it. When targets become ready the oldest get a [`Pass`], no more than [`PASSES_PER_TARGET`] for each
//! ready target at a time: a replica that has just come up is not to be flooded by a thousand requests at once, and one
//! that is tried after a time out gets one. A pass is given back with the answer's head, and the next in line gets it. New requests do not queue behind waiting
//! ones: the pace is a limit on the burst, not on the service.
//!
//! The number of places is limited per service over all workers by a shared count.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::oneshot;
use tokio::time::Instant;

/// Requests let out of the hold and not yet answered, for each ready target and worker, at most.
pub(crate) const PASSES_PER_TARGET: usize = 32;

/// The queue of one service on one worker.
#[derive(Debug)]
pub(crate) struct Room {
    state: RefCell<State>,
    /// The places taken on all workers.
    places: Arc<AtomicU32>,
    /// Somebody looks after those who wait; see [`crate::worker::Worker::let_out`].
    pub(crate) is_watched: Cell<bool>,
    /// Since when no target has been ready.
    empty_since: Cell<Option<Instant>>,
}

#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<u64, oneshot::Sender<Pass>>,
    next: u64,
    /// Passes that may be out at a time.
    most: usize,
    passes: usize,
}

/// A place in the queue; dropping it leaves the queue. It keeps its turn when it has to wait again.
#[derive(Debug)]
pub(crate) struct Place {
    room: Rc<Room>,
    turn: u64,
}

/// Leave to go to a target that has just become ready.
#[derive(Debug)]
pub(crate) struct Pass {
    room: Rc<Room>,
}

impl Room {
    pub(crate) fn new(places: Arc<AtomicU32>) -> Rc<Self> {
        let (is_watched, empty_since) = (Cell::new(false), Cell::new(None));
        Rc::new(Self { state: RefCell::default(), places, is_watched, empty_since })
    }

    /// Takes a place, if fewer than `max` are taken.
    pub(crate) fn enter(self: &Rc<Self>, max: u32) -> Option<Place> {
        let more = |taken: u32| (taken < max).then(|| taken + 1);
        self.places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        let mut state = self.state.borrow_mut();
        let turn = state.next;
        state.next += 1;
        Some(Place { room: Rc::clone(self), turn })
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.state.borrow().waiting.is_empty()
    }

    /// Says how many passes may be out at a time now, and lets out as many requests as that allows.
    pub(crate) fn set_passes(self: &Rc<Self>, most: usize) {
        self.state.borrow_mut().most = most;
        self.let_out();
    }

    /// Notes that a target was ready.
    pub(crate) fn is_served(&self) {
        self.empty_since.set(None);
    }

    /// Notes that no target was ready, and says since when that is so.
    pub(crate) fn is_unserved(&self, now: Instant) -> Instant {
        let since = self.empty_since.get().unwrap_or(now);
        self.empty_since.set(Some(since));
        since
    }

    /// Sends everybody away without a pass, to look for a route again.
    pub(crate) fn disperse(&self) {
        // Dropped after the borrow has ended.
        let waiting = std::mem::take(&mut self.state.borrow_mut().waiting);
        drop(waiting);
    }

    fn let_out(self: &Rc<Self>) {
        while let Some(waiter) = self.next_out() {
            // If the waiter has just gone, the pass comes back with the error and is dropped at the end of this
            // statement, which frees it again; hence no borrow may be held here.
            drop(waiter.send(Pass { room: Rc::clone(self) }));
        }
    }

    fn next_out(&self) -> Option<oneshot::Sender<Pass>> {
        let mut state = self.state.borrow_mut();
        if state.most <= state.passes {
            return None;
        }
        let waiter = loop {
            let (_, waiter) = state.waiting.pop_first()?;
            if !waiter.is_closed() {
                break waiter;
            }
        };
        state.passes += 1;
        Some(waiter)
    }
}

impl Place {
    /// Whether the place is in this room.
    pub(crate) fn is_in(&self, room: &Rc<Room>) -> bool {
        Rc::ptr_eq(&self.room, room)
    }

    /// Stands in the queue. What comes is a pass, but never while no target is ready; an error says that a route is to
    /// be looked for again.
    pub(crate) fn queue(&mut self) -> oneshot::Receiver<Pass> {
        let (sender, receiver) = oneshot::channel();
        self.room.state.borrow_mut().waiting.insert(self.turn, sender);
        self.room.let_out();
        receiver
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The sender is dropped after the borrow has ended: it may carry a pass, which borrows again.
        let waiter = self.room.state.borrow_mut().waiting.remove(&self.turn);
        drop(waiter);
        self.room.places.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.room.state.borrow_mut().passes -= 1;
        self.room.let_out();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Waiting = Pin<Box<dyn Future<Output = Option<Pass>>>>;

    fn wait(room: &Rc<Room>) -> Waiting {
        let mut place = room.enter(1000).expect("there is room");
        Box::pin(async move { place.queue().await.ok() })
    }

    fn poll(waiting: &mut Waiting) -> Option<Pass> {
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(pass) => Some(pass.expect("the room is there")),
            Poll::Pending => None,
        }
    }

    fn room() -> Rc<Room> {
        Room::new(Arc::default())
    }

    #[test]
    fn nobody_leaves_while_no_target_is_ready() {
        let room = room();
        let mut one = wait(&room);
        assert!(poll(&mut one).is_none());
        room.set_passes(PASSES_PER_TARGET);
        assert!(poll(&mut one).is_some());
    }

    #[test]
    fn they_leave_in_order_and_paced() {
        let room = room();
        let mut all: Vec<_> = (0..PASSES_PER_TARGET + 2).map(|_| wait(&room)).collect();
        for one in &mut all {
            assert!(poll(one).is_none());
        }
        room.set_passes(PASSES_PER_TARGET);
        let mut passes: Vec<_> = all.iter_mut().map(poll).collect();
        assert!(passes[..PASSES_PER_TARGET].iter().all(Option::is_some));
        assert!(passes[PASSES_PER_TARGET..].iter().all(Option::is_none));
        passes[0] = None;
        passes[0] = poll(&mut all[PASSES_PER_TARGET]);
        assert!(passes[0].is_some());
        assert!(poll(&mut all[PASSES_PER_TARGET + 1]).is_none());
    }

    #[test]
    fn more_ready_targets_let_out_more() {
        let room = room();
        let mut all: Vec<_> = (0..PASSES_PER_TARGET + 1).map(|_| wait(&room)).collect();
        for one in &mut all {
            assert!(poll(one).is_none());
        }
        room.set_passes(2 * PASSES_PER_TARGET);
        assert_eq!(all.iter_mut().filter_map(poll).count(), PASSES_PER_TARGET + 1);
    }

    #[test]
    fn a_waiter_that_went_away_is_passed_over_and_frees_its_place() {
        let room = room();
        let (mut gone, mut stays) = (wait(&room), wait(&room));
        assert!(poll(&mut gone).is_none());
        assert!(poll(&mut stays).is_none());
        drop(gone);
        assert_eq!(room.places.load(Ordering::Relaxed), 1);
        room.set_passes(PASSES_PER_TARGET);
        assert!(poll(&mut stays).is_some());
    }

    #[test]
    fn a_pass_sent_to_a_waiter_that_goes_before_it_wakes_is_not_lost() {
        let room = room();
        let mut gone = wait(&room);
        assert!(poll(&mut gone).is_none());
        room.set_passes(PASSES_PER_TARGET);
        drop(gone);
        assert_eq!(room.state.borrow().passes, 0);
    }

    #[test]
    fn the_number_of_places_is_limited_over_all_workers() {
        let places = Arc::new(AtomicU32::new(0));
        let (one, other) = (Room::new(Arc::clone(&places)), Room::new(places));
        let first = one.enter(2).expect("empty");
        let _second = other.enter(2).expect("one is taken");
        assert!(one.enter(2).is_none());
        drop(first);
        assert!(other.enter(2).is_some());
        assert!(other.enter(0).is_none());
    }
}

//! The way from a service to one target, with the wait while none is ready: for a request, or a TCP connection.
//!
//! Owns: the loop of choosing and waiting, one request's place in the hold, and when its patience ends.
//! Never: connects or sends, or goes on with a table that the worker has left: each choice reads the current one.
//!
//! The patience begins with the first wait and covers all of them, however often a target comes and refuses.

use std::rc::Rc;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::choose::Lost;
use crate::hold::{Pass, Place};
use crate::local::{LocalService, LocalTable, LocalTarget, Turn};
use crate::respond::Refusal;
use crate::target::InFlight;
use crate::worker::Worker;

/// A request's place in a hold, and when its patience ends.
#[derive(Debug, Default)]
pub(crate) struct Wait {
    place: Option<Place>,
    deadline: Option<Instant>,
}

/// A target that was chosen, with the request counted on it.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) target: Rc<LocalTarget>,
    pub(crate) in_flight: InFlight,
    /// Leave to go there, if it had to wait; given back when the target has answered.
    pub(crate) pass: Option<Pass>,
}

impl Wait {
    /// Chooses a target from the current table, and waits for one while there is none. `find` says which service it is
    /// for, anew for each table.
    ///
    /// # Errors
    /// `NoRoute` if `find` knows none; `Unavailable` if the wait was too long, or there is no place to wait.
    pub(crate) async fn choose<F>(
        &mut self,
        worker: &Worker,
        lost: Option<Lost>,
        find: F,
    ) -> Result<Chosen, Refusal>
    where
        F: Fn(&LocalTable) -> Option<&LocalService>,
    {
        let mut pass = None;
        loop {
            let table = worker.table();
            let service = find(&table).ok_or(Refusal::NoRoute)?;
            let now = Instant::now();
            match service.choose(lost, now) {
                Turn::Go(target) => {
                    let in_flight = InFlight::begin(&target.stats, worker.index);
                    return Ok(Chosen { target, in_flight, pass });
                }
                Turn::Wait => {
                    // A pass for a room whose last target has just gone must not come back to us at once.
                    service.room.set_ready(0);
                    drop(pass.take());
                    let deadline = self.enter(&table, service, now)?;
                    drop(table);
                    pass = self.pass(deadline).await?;
                }
                Turn::WaitFor(until) => {
                    drop(pass.take());
                    let deadline = self.enter(&table, service, now)?;
                    drop(table);
                    let change = async {
                        tokio::select! {
                            () = sleep_until(until) => {}
                            () = worker.table_change() => {}
                        }
                    };
                    timeout_at(deadline, change).await.map_err(|_| Refusal::Unavailable)?;
                }
            }
        }
    }

    /// Gives the place up: a target has the request now.
    pub(crate) fn leave(&mut self) {
        self.place = None;
    }

    /// Takes a place in the service's hold, unless the request has one, and says when its patience ends.
    fn enter(
        &mut self,
        table: &LocalTable,
        service: &LocalService,
        now: Instant,
    ) -> Result<Instant, Refusal> {
        let plan = table.plan_of(service);
        let deadline = *self.deadline.get_or_insert(now + plan.hold_time);
        if deadline <= now {
            return Err(Refusal::Unavailable);
        }
        if !self.place.as_ref().is_some_and(|place| place.is_in(&service.room)) {
            self.place = None;
            self.place = Some(service.room.enter(plan.hold_requests).ok_or(Refusal::Unavailable)?);
        }
        Ok(deadline)
    }

    /// Waits for leave to go. `None`: the routes have changed, look again.
    async fn pass(&mut self, deadline: Instant) -> Result<Option<Pass>, Refusal> {
        let Some(place) = &mut self.place else { return Ok(None) };
        timeout_at(deadline, place.pass()).await.map_err(|_| Refusal::Unavailable)
    }
}

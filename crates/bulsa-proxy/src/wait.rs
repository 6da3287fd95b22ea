//! The way from a service to one target, with the wait while none is ready: for a request, or a TCP connection.
//!
//! Owns: the loop of choosing and waiting, one request's place in the hold, and when its patience ends.
//! Never: connects or sends, or goes on with a table that the worker has left: each choice reads the current one.
//!
//! The patience begins with the first wait and covers all of them, however often a target comes and refuses.

use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::balance::{Ask, Lost};
use crate::h1::head::RequestHead;
use crate::hold::{Pass, Place};
use crate::local::{LocalService, LocalTable, LocalTarget, Request, Turn};
use crate::respond::Refusal;
use crate::server::Client;
use crate::target::InFlight;

/// A request's place in a hold, and when its patience ends.
#[derive(Debug, Default)]
pub(crate) struct Wait {
    place: Option<Place>,
    deadline: Option<Instant>,
    /// It is an outer balancer's question whether the service is well.
    pub(crate) is_health_check: bool,
    /// What is said if it waits in vain, instead of the usual text.
    pub(crate) page: Option<Bytes>,
}

/// A target that was chosen, with the request counted on it.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) service: Rc<LocalService>,
    /// The target's place in the service.
    pub(crate) seat: usize,
    pub(crate) target: Rc<LocalTarget>,
    pub(crate) in_flight: InFlight,
    /// Leave to go there, if it had to wait; given back when the target has answered.
    pub(crate) pass: Option<Pass>,
}

/// What is chosen for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'r> {
    pub(crate) lost: Option<Lost>,
    /// It may be sent once more if it fails.
    pub(crate) may_fail: bool,
    /// Whom it is for: the peer, or the client that a trusted peer names.
    pub(crate) from: IpAddr,
    /// Its head, if it has one.
    pub(crate) request: Option<&'r RequestHead>,
}

impl Wait {
    /// Chooses a target from the current table, and waits for one while there is none. `find` says which service it is
    /// for, anew for each table.
    ///
    /// # Errors
    /// `NoRoute` if `find` knows none; `Unavailable` if the wait was too long, or there is no place to wait; `Held` for a
    /// health check, which does not wait.
    pub(crate) async fn choose<F>(
        &mut self,
        client: &Client,
        wanted: Wanted<'_>,
        find: F,
    ) -> Result<Chosen, Refusal>
    where
        F: Fn(&LocalTable) -> Option<&Rc<LocalService>>,
    {
        let worker = &client.worker;
        let mut pass = None;
        loop {
            let table = worker.table();
            let service = find(&table).ok_or(Refusal::NoRoute)?;
            let now = Instant::now();
            let ask = Ask { now, lost: wanted.lost, may_fail: wanted.may_fail };
            let request = Request { ask, client: wanted.from, head: wanted.request };
            match service.choose(&request, || worker.random()) {
                Turn::Go(target, seat) => {
                    let in_flight = InFlight::begin(&target.stats, worker.index);
                    if service.is_overfull(&target) {
                        // Another worker was faster to the last place.
                        drop(in_flight);
                        drop(pass.take());
                        let (deadline, service) = (self.enter(service, now)?, Rc::clone(service));
                        drop(table);
                        pass = self.pass(client, &service, deadline).await?;
                        continue;
                    }
                    service.room.is_served();
                    return Ok(Chosen { service: Rc::clone(service), seat, target, in_flight, pass });
                }
                Turn::Wait => {
                    // A pass for a room whose last target has just gone must not come back to us at once.
                    service.room.set_passes(0);
                    drop(pass.take());
                    let deadline = self.enter(service, now)?;
                    let service = Rc::clone(service);
                    drop(table);
                    pass = self.pass(client, &service, deadline).await?;
                }
                Turn::WaitFor(until) => {
                    drop(pass.take());
                    let deadline = self.enter(service, now)?;
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
    fn enter(&mut self, service: &LocalService, now: Instant) -> Result<Instant, Refusal> {
        let plan = &service.plan;
        self.page.clone_from(&plan.page);
        let unserved_since = service.room.is_unserved(now);
        if self.is_health_check && (plan.hold_on || now < unserved_since + plan.hold_time) {
            return Err(Refusal::Held);
        }
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
    async fn pass(
        &mut self,
        client: &Client,
        service: &LocalService,
        deadline: Instant,
    ) -> Result<Option<Pass>, Refusal> {
        let Some(place) = &mut self.place else { return Ok(None) };
        let queue = place.queue();
        client.worker.let_out(service);
        timeout_at(deadline, queue).await.map(Result::ok).map_err(|_| Refusal::Unavailable)
    }
}

//! One service as one worker sees it: whose turn it is, and who waits.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::target::LocalTarget;
use crate::balance::{Affinity, Ask, Candidate, Choice, Chooser, Smooth, Survey, policy};
use crate::h1::fields::Known;
use crate::h1::head::RequestHead;
use crate::health::Standing;
use crate::hold::{PASSES_PER_TARGET, Room};
use crate::plan::PlanService;
use crate::retry::Budget;
use crate::table::Policy;

/// The share of its weight with which a fresh target begins, in percent, if its service starts it slowly.
const SLOW_START_PERCENT: u128 = 10;
/// How often those who wait for room at a full target look again.
const FULL_LOOK: Duration = Duration::from_millis(5);
/// How often those who wait for a target that is left out look whether it was taken back.
const OUT_LOOK: Duration = Duration::from_millis(50);
/// How often the same choice is made again because somebody else was faster with the one trial that there is.
const TRIALS_MAX: usize = 4;

/// One service as one worker sees it.
#[derive(Debug)]
pub(crate) struct LocalService {
    pub(crate) plan: Arc<PlanService>,
    worker: usize,
    seats: Vec<Seat>,
    turn: Cell<usize>,
    pub(crate) room: Rc<Room>,
    pub(crate) budget: Rc<Budget>,
}

/// A target's place in a service.
#[derive(Debug)]
struct Seat {
    target: Rc<LocalTarget>,
    weight: u32,
    is_backup: bool,
    hash: u64,
    smooth: Rc<Smooth>,
}

/// What a choice is made for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'r> {
    pub(crate) ask: Ask,
    pub(crate) client: IpAddr,
    /// Its head, if it has one.
    pub(crate) head: Option<&'r RequestHead>,
}

/// What a service says to a request.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Send it there; the number is the target's place in the service.
    Go(Rc<LocalTarget>, usize),
    /// Wait until a target is ready.
    Wait,
    /// Wait until then, or for a newer table.
    WaitFor(Instant),
}

impl LocalService {
    pub(super) fn new(
        plan: &Arc<PlanService>,
        target: impl Fn(u64) -> Option<Rc<LocalTarget>>,
        known: Option<&Self>,
        worker: usize,
    ) -> Rc<Self> {
        let smooths: HashMap<u64, &Rc<Smooth>> = match known {
            Some(known) if !plan.is_plain => {
                known.seats.iter().map(|seat| (seat.target.stats.key(), &seat.smooth)).collect()
            }
            _ => HashMap::new(),
        };
        let seat = |planned: &crate::plan::PlanTarget| {
            let key = planned.stats.key();
            Some(Seat {
                target: target(key)?,
                weight: planned.weight,
                is_backup: planned.is_backup,
                hash: planned.hash,
                smooth: smooths.get(&key).map_or_else(Rc::default, |smooth| Rc::clone(smooth)),
            })
        };
        Rc::new(Self {
            worker,
            seats: plan.targets.iter().filter_map(seat).collect(),
            turn: Cell::new(known.map_or(worker, |known| known.turn.get())),
            room: known.map_or_else(|| Room::new(Arc::clone(&plan.places)), |known| Rc::clone(&known.room)),
            budget: known.map_or_else(Rc::default, |known| Rc::clone(&known.budget)),
            plan: Arc::clone(plan),
        })
    }

    /// Chooses a target for a request. `random` gives numbers from 0 to 1.
    pub(crate) fn choose(&self, request: &Request<'_>, random: impl Fn() -> f64) -> Turn {
        if self.plan.hold_on || self.seats.is_empty() {
            return Turn::Wait;
        }
        if self.plan.is_plain && self.plan.balance.policy == Policy::RoundRobin && request.ask.lost.is_none()
        {
            let index = self.turn.get() % self.seats.len();
            let seat = &self.seats[index];
            let stats = &seat.target.stats;
            if stats.health().standing(request.ask.now) == Standing::Fine
                && !stats.is_silent(self.worker, request.ask.now)
            {
                return self.go(index);
            }
        }
        self.choose_among(request, random)
    }

    fn choose_among(&self, request: &Request<'_>, random: impl Fn() -> f64) -> Turn {
        let now = request.ask.now;
        for _ in 0..TRIALS_MAX {
            let view = View { service: self, now };
            let survey = Survey::new(self.seats.len(), request.ask, |index| view.candidate(index));
            let chosen = match survey.verdict() {
                Some(Choice::Try(index)) if self.seats[index].target.stats.health().take_trial(now) => {
                    Some(index)
                }
                Some(Choice::Try(_)) => continue,
                Some(Choice::Go(index)) => Some(index),
                Some(Choice::WaitFor(until)) => return Turn::WaitFor(until),
                Some(Choice::Wait(_)) => return Turn::Wait,
                None => self.by_policy(&survey, &view, request, &random),
            };
            return chosen.map_or(Turn::Wait, |index| self.go(index));
        }
        Turn::Wait
    }

    fn by_policy(
        &self,
        survey: &Survey,
        view: &View<'_>,
        request: &Request<'_>,
        random: &impl Fn() -> f64,
    ) -> Option<usize> {
        let start = self.turn.get() % self.seats.len();
        match self.plan.balance.policy {
            Policy::LeastConn => policy::least_conn(survey, view, start),
            Policy::TwoChoices => policy::two_choices(survey, view, random),
            Policy::IpHash => policy::ip_hash(survey, view, Affinity::of(request.client)),
            Policy::Sticky => {
                let named = self.named(request).filter(|index| survey.admits(&view.candidate(*index)));
                named.or_else(|| policy::round_robin(survey, view))
            }
            Policy::RoundRobin if self.plan.is_plain => policy::next(survey, view, start),
            Policy::RoundRobin => policy::round_robin(survey, view),
        }
    }

    /// The seat that a request's cookie names.
    pub(crate) fn named(&self, request: &Request<'_>) -> Option<usize> {
        let (cookie, head) = (self.plan.cookie.as_ref()?, request.head?);
        let fields = head.all(Known::Cookie).filter_map(|field| std::str::from_utf8(field).ok());
        fields.into_iter().find_map(|field| cookie.find(field))
    }

    fn go(&self, index: usize) -> Turn {
        self.turn.set(index + 1);
        Turn::Go(Rc::clone(&self.seats[index].target), index)
    }

    /// Lets those who wait out, as many as may go. Returns when to look again, if somebody still waits and a target may
    /// be ready without a newer table by then.
    pub(crate) fn look(&self, now: Instant) -> Option<Instant> {
        if self.room.is_empty() {
            return None;
        }
        let view = View { service: self, now };
        let ask = Ask { now, lost: None, may_fail: true };
        let survey = Survey::new(self.seats.len(), ask, |index| view.candidate(index));
        let mut passes = 0;
        let mut is_full = false;
        for index in 0..self.seats.len() {
            let candidate = view.candidate(index);
            is_full |= candidate.is_full && candidate.standing == Standing::Fine;
            if survey.admits(&candidate) {
                passes += self.room_at(index);
            }
        }
        if matches!(survey.verdict(), Some(Choice::Try(_))) {
            passes += 1;
        }
        if self.plan.hold_on {
            passes = 0;
        }
        self.room.set_passes(passes);
        if self.room.is_empty() || self.plan.hold_on {
            return None;
        }
        match survey.verdict() {
            Some(Choice::Wait(_)) if is_full => Some(now + FULL_LOOK),
            // Another worker's request may take the target back before its time is up.
            Some(Choice::Wait(Some(until))) => Some(until.min(now + OUT_LOOK)),
            Some(Choice::Try(_)) => Some(now + OUT_LOOK),
            _ => None,
        }
    }

    /// Whether a target has more than it may have, the request that asks included.
    pub(crate) fn is_overfull(&self, target: &LocalTarget) -> bool {
        let (stats, balance) = (&target.stats, &self.plan.balance);
        let is_over = |max: u32, taken: &dyn Fn() -> u64| 0 < max && u64::from(max) < taken();
        is_over(balance.max_connections, &|| stats.load())
            || is_over(balance.max_in_flight, &|| stats.in_flight())
    }

    /// How many requests a target is given at once when a hold ends.
    fn room_at(&self, index: usize) -> usize {
        let (stats, balance) = (&self.seats[index].target.stats, &self.plan.balance);
        let free = |max: u32, taken: u64| match max {
            0 => PASSES_PER_TARGET,
            max => usize::try_from(u64::from(max).saturating_sub(taken)).unwrap_or(PASSES_PER_TARGET),
        };
        PASSES_PER_TARGET
            .min(free(balance.max_connections, stats.load()))
            .min(free(balance.max_in_flight, stats.in_flight()))
    }
}

/// A service at a moment, for the policies.
struct View<'s> {
    service: &'s LocalService,
    now: Instant,
}

impl Chooser for View<'_> {
    fn count(&self) -> usize {
        self.service.seats.len()
    }

    fn candidate(&self, index: usize) -> Candidate {
        let seat = &self.service.seats[index];
        let (stats, balance) = (&seat.target.stats, &self.service.plan.balance);
        let is_at = |max: u32, taken: &dyn Fn() -> u64| 0 < max && u64::from(max) <= taken();
        // Where a client belongs to a target, it stays there until the target is given up.
        let is_free = !matches!(balance.policy, Policy::IpHash | Policy::Sticky);
        Candidate {
            key: stats.key(),
            since: seat.target.since,
            standing: stats.health().standing(self.now),
            is_full: is_at(balance.max_connections, &|| stats.load())
                || is_at(balance.max_in_flight, &|| stats.in_flight()),
            is_silent: is_free && stats.is_silent(self.service.worker, self.now),
            is_backup: seat.is_backup,
        }
    }

    fn weight(&self, index: usize) -> u32 {
        let seat = &self.service.seats[index];
        let full = self.service.plan.slow_start;
        if full.is_zero() {
            return seat.weight;
        }
        // In percent of the weight, so that a weight of 1 can grow, too.
        let share = (seat.target.age(self.now).as_millis() * 100 / full.as_millis()).min(100);
        seat.weight * u32::try_from(share.max(SLOW_START_PERCENT)).unwrap_or(100)
    }

    fn load(&self, index: usize) -> u64 {
        self.service.seats[index].target.stats.load()
    }

    fn latency(&self, index: usize) -> f64 {
        self.service.seats[index].target.latency()
    }

    fn hash(&self, index: usize) -> u64 {
        self.service.seats[index].hash
    }

    fn smooth(&self, index: usize) -> &Smooth {
        &self.service.seats[index].smooth
    }
}

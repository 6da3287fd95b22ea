//! Who hurts the backends and changes the table, as the dice fall.
//!
//! It behaves as an embedder does: a table leaves out what is dead or hung, and says that nobody is to wait on it; what
//! is well comes back, under the same id or another.

use std::collections::HashMap;
use std::net::SocketAddr;

use bulsa_proxy::{
    Balance, CloseTunnels, Hold, Limits, ListenerRoutes, Policy, Proxy, Report, Route, Secret, Service,
    Table, Target, Times,
};

use crate::backends::{BACKENDS_PER_KIND, Backend, KINDS, Mood};
use crate::dice::Dice;

/// How long a target may take to answer, in milliseconds.
const FIRST_BYTE_MS: u64 = 2000;
/// How long requests are held, in milliseconds.
const HOLD_MS: u64 = 3000;
const POLICIES: [Policy; 5] =
    [Policy::RoundRobin, Policy::LeastConn, Policy::TwoChoices, Policy::IpHash, Policy::Sticky];
const ILLS: [Mood; 5] = [Mood::Dead, Mood::Hung, Mood::Resetting, Mood::Closing, Mood::Garbling];

/// What is known of one backend.
#[derive(Debug)]
struct Seat {
    backend: Backend,
    /// A new one each time that it comes back as another replica.
    generation: u64,
    is_routed: bool,
}

#[derive(Debug)]
pub(crate) struct Director {
    seats: Vec<Seat>,
    balances: [Balance; KINDS.len()],
    held: [bool; KINDS.len()],
    number: u64,
    dice: Dice,
    totals: Totals,
}

/// The counters of all targets that ever were, summed over reports.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// What the last report had said of each.
    last: HashMap<(String, SocketAddr), [u64; 3]>,
    gone: [u64; 3],
}

impl Totals {
    /// Requests, those broken, those timed out.
    pub(crate) fn sums(&self) -> [u64; 3] {
        self.last.values().fold(self.gone, |sums, one| add(sums, *one))
    }

    pub(crate) fn note(&mut self, report: &Report) {
        let now: HashMap<_, _> = report
            .targets
            .iter()
            .map(|t| ((t.id.clone(), t.addr), [t.requests, t.broken, t.timed_out]))
            .collect();
        // A target is forgotten only after a report has shown it without work: that was its last word. One that comes
        // back after that begins anew.
        for (key, last) in self.last.drain() {
            if now.get(&key).is_none_or(|now: &[u64; 3]| now[0] < last[0]) {
                self.gone = add(self.gone, last);
            }
        }
        self.last = now;
    }
}

fn add(sums: [u64; 3], one: [u64; 3]) -> [u64; 3] {
    [sums[0] + one[0], sums[1] + one[1], sums[2] + one[2]]
}

impl Director {
    pub(crate) fn new(backends: Vec<Backend>, dice: Dice) -> Self {
        let seat = |backend| Seat { backend, generation: 0, is_routed: true };
        Self {
            seats: backends.into_iter().map(seat).collect(),
            balances: [Balance::default(); KINDS.len()],
            held: [false; KINDS.len()],
            number: 0,
            dice,
            totals: Totals::default(),
        }
    }

    pub(crate) fn totals(&mut self, report: &Report) -> &Totals {
        self.totals.note(report);
        &self.totals
    }

    /// The next table, as things stand. The targets of `gone` lose their tunnels, those that are dead or hung whoever
    /// waits on them.
    pub(crate) fn table(&mut self, gone: &[usize]) -> Table {
        self.number += 1;
        let service = |kind: usize| Service {
            hold: Hold { time_ms: HOLD_MS, requests: 200, on: self.held[kind], ..Hold::default() },
            balance: self.balances[kind],
            times: Times { first_byte_ms: FIRST_BYTE_MS, ..Times::default() },
            ..Service::new(KINDS[kind], self.targets(kind))
        };
        let route = |kind: usize| Route::new(None, &format!("/{}", KINDS[kind]), kind);
        let is_lost = |index: &usize| matches!(self.mood(*index), Mood::Dead | Mood::Hung);
        Table {
            listeners: vec![ListenerRoutes::http("http", (0..KINDS.len()).map(route).collect())],
            services: (0..KINDS.len()).map(service).collect(),
            close_tunnels: gone
                .iter()
                .map(|index| CloseTunnels { target: self.id(*index), within_ms: 500 })
                .collect(),
            abandon: gone.iter().copied().filter(is_lost).map(|index| self.id(index)).collect(),
            secret: Some(Secret(vec![7; 32])),
            limits: Limits { connections_per_address: 0 },
            ..Table::empty(self.number)
        }
    }

    fn targets(&self, kind: usize) -> Vec<Target> {
        let seats = (kind * BACKENDS_PER_KIND..(kind + 1) * BACKENDS_PER_KIND)
            .filter(|index| self.seats[*index].is_routed);
        let target = |index: usize| Target {
            weight: 1 + (self.seats[index].generation % 3) as u32,
            ..Target::new(&self.id(index), self.seats[index].backend.addr)
        };
        seats.map(target).collect()
    }

    fn id(&self, index: usize) -> String {
        format!("{}-{}-{}", KINDS[index / BACKENDS_PER_KIND], index, self.seats[index].generation)
    }

    fn mood(&self, index: usize) -> Mood {
        *self.seats[index].backend.mood.borrow()
    }

    fn set(&self, index: usize, mood: Mood) {
        self.seats[index].backend.mood.send_replace(mood);
    }

    /// Something happens.
    pub(crate) fn act(&mut self, proxy: &Proxy) {
        let index = self.dice.number(0..self.seats.len() as u64) as usize;
        let kind = index / BACKENDS_PER_KIND;
        let mut gone = Vec::new();
        match self.dice.number(0..10) {
            // It falls ill, and the table does not know yet.
            0 if self.mood(index) == Mood::Fine => {
                let ill = self.dice.of(&ILLS);
                return self.set(index, ill);
            }
            // The next tables leave out who is dead or hung.
            0..4 => {
                for lost in 0..self.seats.len() {
                    if self.seats[lost].is_routed && matches!(self.mood(lost), Mood::Dead | Mood::Hung) {
                        self.seats[lost].is_routed = false;
                        gone.push(lost);
                    }
                }
            }
            // It is well again, sometimes as another replica; one that was hung has to die for that.
            4..7 => {
                if self.mood(index) == Mood::Hung {
                    self.seats[index].is_routed = false;
                    self.set(index, Mood::Dead);
                    gone.push(index);
                } else {
                    self.set(index, Mood::Fine);
                    if !self.seats[index].is_routed {
                        self.seats[index].generation += self.dice.number(0..2);
                        self.seats[index].is_routed = true;
                    }
                }
            }
            7 if self.seats[index].is_routed => {
                self.seats[index].is_routed = false;
                gone.push(index);
            }
            8 => self.held[kind] = !self.held[kind] && self.dice.one_in(2),
            _ => {
                let max_in_flight = self.dice.of(&[0, 0, 8]);
                self.balances[kind] =
                    Balance { policy: self.dice.of(&POLICIES), max_in_flight, ..Balance::default() };
                self.held = [false; KINDS.len()];
            }
        }
        let table = self.table(&gone);
        proxy.apply(&table).expect("a sound table");
    }

    /// All is well, and everybody is routed.
    pub(crate) fn heal(&mut self, proxy: &Proxy) {
        let is_hung: Vec<_> = (0..self.seats.len()).filter(|index| self.mood(*index) == Mood::Hung).collect();
        for index in &is_hung {
            self.seats[*index].is_routed = false;
        }
        let table = self.table(&is_hung);
        proxy.apply(&table).expect("a sound table");
        for index in is_hung {
            self.set(index, Mood::Dead);
        }
        // Whoever had waited on them is away when they are back.
        std::thread::sleep(std::time::Duration::from_millis(500));
        for index in 0..self.seats.len() {
            self.set(index, Mood::Fine);
            self.seats[index].is_routed = true;
        }
        self.held = [false; KINDS.len()];
        let table = self.table(&[]);
        proxy.apply(&table).expect("a sound table");
    }
}

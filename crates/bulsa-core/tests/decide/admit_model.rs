//! `admit` and `Desired::apply` against a small model of who is let in and what follows.

use std::collections::{BTreeMap, BTreeSet};

use bulsa_core::{
    decide::{
        Change, Desired, Kind, Outcome, Phase, ReleaseState, Request,
        admit::{Admission, REPLICAS_MAX, admit},
    },
    ids::ReleaseId,
    time::Timestamp,
};
use proptest::prelude::*;

use crate::build::{app, shared, v};

/// The services of every spec here, and how many replicas the file gives them.
const WEB: u32 = 2;
const CACHE: u32 = 1;

#[derive(Clone, Debug)]
enum Op {
    Deploy {
        hash: u32,
    },
    Rollback {
        to: Option<u32>,
    },
    Stop(&'static str),
    Start(&'static str),
    Restart(&'static str),
    Scale(&'static str, u32),
    /// Of all where no service is named.
    Hold(Option<&'static str>, bool),
    Down,
    /// The deployment takes its next step.
    Forward,
    /// The deployment is given up.
    Undo,
    Retire(u32),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Accepted,
    AlreadySo,
    Denied,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Rest,
    FirstGate,
    Gate,
    Bake,
}

/// What a person with a sheet of paper would keep.
struct Model {
    hashes: Vec<u32>,
    live: Option<u32>,
    /// Releases to go back to.
    good: BTreeSet<u32>,
    /// Releases that passed a gate.
    proven: BTreeSet<u32>,
    at: At,
    candidate: u32,
    previous: Option<u32>,
    deployments: u32,
    stopped: BTreeSet<&'static str>,
    scaled: BTreeMap<&'static str, u32>,
    /// Only `web` can be: the proxy sees nothing of the cache.
    is_held: bool,
    down: bool,
}

impl Model {
    fn verdict(&self, op: &Op) -> Verdict {
        use Verdict::{Accepted, AlreadySo, Denied};
        let gate = matches!(self.at, At::FirstGate | At::Gate);
        match *op {
            Op::Down if self.down => AlreadySo,
            _ if self.down => Denied,
            Op::Down => Accepted,
            Op::Deploy { .. } | Op::Rollback { .. } if gate => Denied,
            Op::Deploy { hash } if self.is_live(hash) && !self.is_tried_again() => AlreadySo,
            Op::Deploy { .. } => Accepted,
            _ if self.live.is_none() => Denied,
            Op::Rollback { to: Some(id) } if self.live == Some(id) => AlreadySo,
            Op::Rollback { to: Some(id) } if (1..=self.hashes.len() as u32).contains(&id) => Accepted,
            Op::Rollback { to: None } if !self.good.is_empty() => Accepted,
            Op::Rollback { .. } => Denied,
            Op::Stop(s) | Op::Start(s) | Op::Restart(s) | Op::Scale(s, _) if s == "nope" => Denied,
            Op::Hold(Some("nope"), _) | Op::Hold(Some("cache"), true) => Denied,
            Op::Hold(Some("cache"), false) => AlreadySo,
            Op::Hold(_, on) if self.is_held == on => AlreadySo,
            Op::Stop(s) if self.stopped.contains(s) => AlreadySo,
            Op::Start(s) if !self.stopped.contains(s) => AlreadySo,
            Op::Scale(s, n) if n == 0 || n > REPLICAS_MAX || s == "cache" && n > 1 => Denied,
            Op::Scale(s, n) if self.replicas(s) == n => AlreadySo,
            _ => Accepted,
        }
    }

    fn is_live(&self, hash: u32) -> bool {
        self.live.map(|id| self.hash(id)) == Some(hash)
    }

    /// Whether the live release never passed its gate, and nobody is at it.
    fn is_tried_again(&self) -> bool {
        self.at == At::Rest && self.live.is_some_and(|live| !self.proven.contains(&live))
    }

    fn hash(&self, id: u32) -> u32 {
        self.hashes[id as usize - 1]
    }

    fn replicas(&self, service: &str) -> u32 {
        let of_file = if service == "web" { WEB } else { CACHE };
        if self.stopped.contains(service) { 0 } else { *self.scaled.get(service).unwrap_or(&of_file) }
    }

    fn accepted(&mut self, op: &Op) {
        match *op {
            Op::Deploy { hash } if self.is_live(hash) => {
                (self.deployments, self.at) = (self.deployments + 1, At::FirstGate);
                (self.candidate, self.previous) = (self.live.unwrap(), None);
            }
            Op::Deploy { hash } => {
                self.hashes.push(hash);
                self.begin(self.hashes.len() as u32);
            }
            Op::Rollback { to } => {
                let live = self.live.unwrap();
                let below = self.good.range(..live).next_back();
                self.begin(to.unwrap_or_else(|| *below.or(self.good.last()).unwrap()));
            }
            Op::Stop(s) => drop(self.stopped.insert(s)),
            Op::Start(s) | Op::Restart(s) => drop(self.stopped.remove(s)),
            Op::Scale(s, n) => {
                self.stopped.remove(s);
                self.scaled.insert(s, n);
            }
            Op::Hold(_, on) => self.is_held = on,
            Op::Down => self.down = true,
            Op::Forward | Op::Undo | Op::Retire(_) => {}
        }
    }

    fn begin(&mut self, candidate: u32) {
        (self.candidate, self.previous, self.deployments) = (candidate, self.live, self.deployments + 1);
        self.good.remove(&candidate);
        self.at = if self.live.is_none() { At::FirstGate } else { At::Gate };
        self.live = self.live.or(Some(candidate));
    }

    /// The change that would come next, if one can.
    fn step(&mut self, op: &Op, now: Timestamp) -> Option<Change> {
        let (at, reason) = (now, "it is bad".to_owned());
        match (op, self.at) {
            (Op::Forward, At::Gate) => {
                self.good.extend(self.previous.filter(|id| self.proven.contains(id)));
                self.proven.insert(self.candidate);
                (self.live, self.at) = (Some(self.candidate), At::Bake);
                Some(Change::Switch { at })
            }
            (Op::Forward, At::Bake | At::FirstGate) => {
                self.proven.insert(self.candidate);
                self.at = At::Rest;
                Some(Change::Finish { outcome: Outcome::Deployed, reason: String::new(), at })
            }
            (Op::Undo, At::FirstGate) => {
                self.at = At::Rest;
                Some(Change::Finish { outcome: Outcome::Failed, reason, at })
            }
            (Op::Undo, At::Gate | At::Bake) => {
                self.good.retain(|id| Some(*id) != self.previous);
                (self.live, self.at) = (self.previous, At::Rest);
                Some(Change::Undo { reason, at })
            }
            _ => None,
        }
    }
}

fn request(op: &Op) -> Option<Request> {
    let service = |name: &str| name.to_owned();
    Some(match *op {
        Op::Deploy { hash } => {
            let spec = v(hash, [app("web").replicas(WEB), shared("cache")]);
            Request::Deploy { spec, hash: hash.to_string(), recreate: BTreeSet::default() }
        }
        Op::Rollback { to } => Request::Rollback { to: to.map(ReleaseId) },
        Op::Stop(s) => Request::Stop { service: service(s) },
        Op::Start(s) => Request::Start { service: service(s) },
        Op::Restart(s) => Request::Restart { service: service(s) },
        Op::Scale(s, replicas) => Request::Scale { service: service(s), replicas },
        Op::Hold(s, on) => Request::Hold { services: s.map(service).into_iter().collect(), on },
        Op::Down => Request::Down,
        Op::Forward | Op::Undo | Op::Retire(_) => return None,
    })
}

fn any_op() -> impl Strategy<Value = Op> {
    let service = || prop::sample::select(vec!["web", "cache", "nope"]);
    prop_oneof![
        6 => (1_u32..5).prop_map(|hash| Op::Deploy { hash }),
        3 => prop::option::of(1_u32..6).prop_map(|to| Op::Rollback { to }),
        1 => service().prop_map(Op::Stop),
        1 => service().prop_map(Op::Start),
        1 => service().prop_map(Op::Restart),
        2 => (service(), prop::sample::select(vec![0, 1, 2, 3, REPLICAS_MAX, REPLICAS_MAX + 1]))
            .prop_map(|(service, n)| Op::Scale(service, n)),
        2 => (prop::option::of(service()), any::<bool>()).prop_map(|(service, on)| Op::Hold(service, on)),
        1 => prop::bool::weighted(0.1).prop_map(|down| if down { Op::Down } else { Op::Forward }),
        8 => Just(Op::Forward),
        2 => Just(Op::Undo),
        2 => (1_u32..6).prop_map(Op::Retire),
    ]
}

/// Applies a change, twice in a copy.
fn apply(desired: &mut Desired, change: &Change) {
    desired.apply(change);
    let mut twice = desired.clone();
    twice.apply(change);
    assert_eq!(twice, *desired, "{change:?} applied twice does more than once");
}

fn check_structure(desired: &Desired, model: &Model) {
    let with = |wanted: fn(ReleaseState) -> bool| -> Vec<u32> {
        desired.releases.iter().filter(|(_, r)| wanted(r.state)).map(|(id, _)| id.0).collect()
    };
    assert_eq!(with(|s| s == ReleaseState::Live), model.live.into_iter().collect::<Vec<_>>());
    assert_eq!(desired.live.map(|id| id.0), model.live);
    let candidate = (model.at == At::Gate).then_some(model.candidate);
    assert_eq!(with(|s| s == ReleaseState::Candidate), candidate.into_iter().collect::<Vec<_>>());
    let good = with(|s| matches!(s, ReleaseState::Warm { .. } | ReleaseState::Retired));
    assert_eq!(good, model.good.iter().copied().collect::<Vec<_>>());
    assert_eq!(desired.deployment.as_ref().map_or(0, |d| d.id), model.deployments);
    let at = match desired.running().map(|d| (&d.phase, d.kind)) {
        None => At::Rest,
        Some((Phase::Gate, Kind::First)) => At::FirstGate,
        Some((Phase::Gate | Phase::Exchange { .. } | Phase::Revert { .. }, _)) => At::Gate,
        Some((Phase::Bake { .. }, _)) => At::Bake,
        Some((Phase::Done { .. }, _)) => panic!("a running deployment is done"),
    };
    assert_eq!(at, model.at);
    assert_eq!(desired.wish("web").held.is_some(), model.is_held);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn requests_meet_the_verdict_of_the_model(ops in prop::collection::vec(any_op(), 1..60)) {
        let mut desired = Desired::default();
        let mut model = Model {
            hashes: vec![],
            live: None,
            good: BTreeSet::new(),
            proven: BTreeSet::new(),
            at: At::Rest,
            candidate: 0,
            previous: None,
            deployments: 0,
            stopped: BTreeSet::new(),
            scaled: BTreeMap::new(),
            is_held: false,
            down: false,
        };
        for (i, op) in ops.iter().enumerate() {
            let now = Timestamp(1000 * i as u64);
            if let Some(request) = request(op) {
                let before = desired.clone();
                let answer = admit(&desired, request, now);
                let (verdict, changes) = match answer {
                    Ok(Admission::Accepted { changes, .. }) => (Verdict::Accepted, changes),
                    Ok(Admission::AlreadySo(_)) => (Verdict::AlreadySo, vec![]),
                    Err(_) => (Verdict::Denied, vec![]),
                };
                prop_assert_eq!(verdict, model.verdict(op), "{:?} at {:?}", op, before);
                if verdict == Verdict::Accepted {
                    model.accepted(op);
                    changes.iter().for_each(|change| apply(&mut desired, change));
                }
            } else if let Op::Retire(id) = op {
                let is_warm = |r: &bulsa_core::decide::Release| matches!(r.state, ReleaseState::Warm { .. });
                let in_use = model.at != At::Rest && model.previous == Some(*id);
                if desired.releases.get(&ReleaseId(*id)).is_some_and(is_warm) && !in_use {
                    apply(&mut desired, &Change::Retire { release: ReleaseId(*id) });
                }
            } else if let Some(change) = model.step(op, now) {
                apply(&mut desired, &change);
            }
            check_structure(&desired, &model);
        }
    }
}

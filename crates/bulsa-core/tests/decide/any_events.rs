//! Whatever happens, in whatever order: `decide` doesn't panic, doesn't start a slot twice, doesn't stop what can
//! still be chosen, and doesn't want to be woken in the past.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bulsa_core::{
    decide::{
        Action, Change, Decision, Desired, Event, ExitStatus, Load, Observed, Origin, ReplicaPhase, Request,
        StartError,
        admit::{Admission, admit},
        decide,
    },
    health::{ProbeResult, Verdict},
    ids::{Generation, ReleaseId, ReplicaId, Slot},
    spec::{
        Condition::{Completed, Healthy, Started},
        Restart, Spec,
    },
    time::Timestamp,
};
use proptest::prelude::*;

use crate::build::{app, job, shared, v, worker};

#[derive(Clone, Debug)]
enum Op {
    Event(Kind, u32),
    Ask(u32),
    Pass(u64),
    /// The shell does what was decided.
    Shell,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Started,
    Adopted,
    StartFailed,
    Exited,
    Listening,
    Ready,
    Probed,
    HeartbeatMissed,
    Listed,
    TakenAway,
    Paused,
    EndSeen,
    StartedAgain,
    Kept,
    ProxyUp,
    ProxyDown,
    Report,
}

const KINDS: [Kind; 17] = [
    Kind::TakenAway,
    Kind::Paused,
    Kind::EndSeen,
    Kind::StartedAgain,
    Kind::Started,
    Kind::Adopted,
    Kind::StartFailed,
    Kind::Exited,
    Kind::Listening,
    Kind::Ready,
    Kind::Probed,
    Kind::HeartbeatMissed,
    Kind::Listed,
    Kind::Kept,
    Kind::ProxyUp,
    Kind::ProxyDown,
    Kind::Report,
];

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => (prop::sample::select(KINDS.to_vec()), any::<u32>()).prop_map(|(kind, n)| Op::Event(kind, n)),
        2 => any::<u32>().prop_map(Op::Ask),
        2 => prop_oneof![0_u64..20, 0_u64..20_000, 0_u64..1_000_000].prop_map(Op::Pass),
        6 => Just(Op::Shell),
    ]
}

fn spec(n: u32) -> Arc<Spec> {
    let web = app("web").replicas(1 + n % 3).needs("migrate", Completed).likes("cache", Healthy);
    let disk = app("disk").restart(Restart::OnFailure(Some(2)));
    let disk = if n & 8 == 0 { disk.stop_first() } else { disk };
    let queue = worker("queue").needs("web", Started).restart(if n & 16 == 0 {
        Restart::No
    } else {
        Restart::Always
    });
    let (cache, web) =
        if n & 32 == 0 { (shared("cache").docker(), web.docker()) } else { (shared("cache"), web) };
    v(n, [web, disk, queue, cache, job("migrate")])
}

struct Run {
    desired: Desired,
    observed: Observed,
    now: Timestamp,
    number: u64,
    started: BTreeSet<ReplicaId>,
}

impl Run {
    /// One of those that exist, or (one time in eight) one that doesn't.
    fn any_replica(&self, n: u32) -> ReplicaId {
        let living: Vec<&ReplicaId> = self.observed.replicas().map(|(id, _)| id).collect();
        if living.is_empty() || n.is_multiple_of(8) {
            let service = ["web", "disk", "queue", "cache", "migrate"][(n / 8 % 5) as usize].to_owned();
            return ReplicaId {
                release: ReleaseId(n / 40 % 4),
                service,
                ordinal: 1 + n / 160 % 3,
                attempt: 1 + n / 480 % 6,
            };
        }
        living[(n / 8) as usize % living.len()].clone()
    }

    fn event(&mut self, kind: Kind, n: u32) {
        let (id, now) = (self.any_replica(n), self.now);
        let generation = Generation(u64::from(n % 3));
        let probe = self.desired.service(id.release, &id.service).map(|service| service.probe.clone());
        let at = Timestamp(now.0.saturating_sub(u64::from(n % 5000)));
        let events = match kind {
            Kind::Started => vec![Event::Started { id, at, origin: Origin::Ours }],
            Kind::Adopted => {
                vec![Event::Started { id, at, origin: Origin::Adopted { routed: n.is_multiple_of(2) } }]
            }
            Kind::StartFailed => {
                let error = StartError { message: "no".to_owned(), permanent: n.is_multiple_of(2) };
                vec![Event::StartFailed { id, error }]
            }
            Kind::Exited => {
                let status =
                    [ExitStatus::Code(0), ExitStatus::Code(1), ExitStatus::Signal(9), ExitStatus::Unknown];
                vec![Event::Exited { id, status: status[(n / 7 % 4) as usize] }]
            }
            Kind::Listening => vec![Event::Listening { id, addr: n.is_multiple_of(3).then(addr) }],
            Kind::Ready | Kind::Probed => {
                let Some(probe) = probe else { return };
                let results = [ProbeResult::Pass, ProbeResult::BadAnswer, ProbeResult::NoAnswer];
                let (result, times) = if matches!(kind, Kind::Ready) {
                    (results[0], 2)
                } else {
                    (results[(n / 7 % 3) as usize], n / 21 % 4)
                };
                let listening = Event::Listening { id: id.clone(), addr: Some(addr()) };
                let probed = Event::Probed { id, result, probe };
                std::iter::once(listening).chain(std::iter::repeat_n(probed, times as usize)).collect()
            }
            Kind::HeartbeatMissed => vec![Event::HeartbeatMissed { id }],
            Kind::Listed => {
                let with = |i: usize| !(n >> (i % 16)).is_multiple_of(4);
                let all = self.observed.replicas().enumerate();
                let replicas =
                    all.filter(|(i, _)| with(*i)).map(|(_, (id, r))| (id.clone(), r.started)).collect();
                let creating = if n.is_multiple_of(3) { [id].into() } else { BTreeSet::new() };
                vec![Event::Listed { replicas, creating, as_of: at }]
            }
            Kind::TakenAway => vec![Event::TakenAway { id, status: ExitStatus::Code(0) }],
            Kind::EndSeen => vec![Event::EndSeen(id)],
            Kind::StartedAgain => vec![Event::StartedAgain { id, at }],
            Kind::Paused => vec![Event::Paused { id, paused: !n.is_multiple_of(3) }],
            Kind::Kept => vec![Event::Kept { number: self.number }],
            Kind::ProxyUp => vec![Event::ProxyUp(generation)],
            Kind::ProxyDown => vec![Event::ProxyDown(generation)],
            Kind::Report => {
                let work = Load {
                    in_flight: u64::from(n / 3 % 3),
                    tunnels: u64::from(n / 9 % 3),
                    ..Load::default()
                };
                let load = BTreeMap::from([(
                    id,
                    Load { requests: u64::from(n % 1000), errors: u64::from(n % 100), ..work },
                )]);
                vec![Event::ProxyReport {
                    generation,
                    table: self.number.saturating_sub(u64::from(n / 81 % 2)),
                    load,
                }]
            }
        };
        events.into_iter().for_each(|event| self.observed.apply(event, now));
    }

    fn ask(&mut self, n: u32) {
        let service = ["web", "disk", "queue", "cache"][(n / 16 % 4) as usize].to_owned();
        let request = match n % 16 {
            0 => Request::Rollback { to: None },
            1 => Request::Stop { service },
            2 | 3 => Request::Start { service },
            4 => Request::Restart { service },
            5 | 6 => Request::Scale { service, replicas: 1 + n / 64 % 3 },
            7 if n.is_multiple_of(5) => Request::Down,
            8 => {
                let services = (!n.is_multiple_of(5)).then_some(service).into_iter().collect();
                Request::Hold { services, on: n.is_multiple_of(3) }
            }
            _ => {
                let named: &[&str] = if n.is_multiple_of(3) { &["cache"] } else { &[] };
                let recreate = named.iter().map(|name| (*name).to_owned()).collect();
                Request::Deploy { spec: spec(n / 64), hash: (n / 64).to_string(), recreate }
            }
        };
        if let Ok(Admission::Accepted { changes, .. }) = admit(&self.desired, request, self.now) {
            self.commit(&changes);
        }
    }

    fn commit(&mut self, changes: &[Change]) {
        for change in changes {
            self.desired.apply(change);
            self.observed.committed(&self.desired, change);
        }
    }

    /// Decides, and checks what must hold of any decision.
    fn decide(&mut self) -> Decision {
        self.observed.settle(&self.desired, self.now);
        let decision = decide(&self.desired, &self.observed, self.now);
        assert_eq!(decision, decide(&self.desired, &self.observed, self.now), "not pure");
        self.check_held(&decision);
        assert!(decision.wake_at.is_none_or(|at| at > self.now), "woken in the past");
        for id in decision.table.targets() {
            let replica = self.observed.replica(id).expect("a target that is gone");
            assert_eq!(replica.phase, ReplicaPhase::Running, "{id}");
            assert!(!replica.paused, "{id} is frozen and routed");
            assert!(!matches!(replica.health.verdict(), Verdict::Unknown | Verdict::Failed { .. }), "{id}");
            assert_eq!(Some(id.release), self.desired.live, "{id} isn't of the live release");
        }
        for action in &decision.actions {
            match action {
                Action::Start { id, .. } => {
                    let others =
                        self.observed.replicas().filter(|(other, _)| other.slot() == id.slot()).count();
                    assert!(others < 2, "{id} would be the third in its slot");
                    assert!(!self.started.contains(id), "{id} was started before");
                    let is_empty =
                        self.observed.in_slot(&id.slot()).all(|(_, replica)| replica.is_stopping());
                    let is_away = self.desired.withheld.contains(&id.slot())
                        || self.observed.slot(&id.slot()).is_some_and(|history| history.taken_away);
                    assert!(!(is_empty && is_away), "{id} is started where a human emptied the slot");
                    let wished = self.desired.wish(&id.service).restart.is_some();
                    let frozen = self.observed.in_slot(&id.slot()).any(|(_, r)| r.paused && !r.is_stopping());
                    assert!(!frozen || wished, "{id} is started beside one that a human froze");
                }
                Action::Stop { id } => assert!(self.observed.is_unrouted(id), "{id} can still be chosen"),
                Action::Kill { id, cause } => {
                    let replica = self.observed.replica(id).expect("killed and gone");
                    let of_docker = self
                        .desired
                        .service(id.release, &id.service)
                        .is_some_and(bulsa_core::spec::Service::is_kept_by_docker);
                    let is_healing = *cause != bulsa_core::decide::KillCause::Grace;
                    assert!(!(is_healing && (replica.paused || of_docker)), "{id} is killed: {cause:?}");
                }
                Action::KillProxy { .. } => {}
            }
        }
        decision
    }

    /// A hold is a word in the table, and nothing else is decided for its sake.
    fn check_held(&self, decision: &Decision) {
        let mut free = self.desired.clone();
        free.wishes.values_mut().for_each(|wish| wish.held = None);
        let mut expected = decide(&free, &self.observed, self.now);
        for (name, route) in &mut expected.table.routes {
            route.held = self.desired.wish(name).held.is_some();
        }
        assert_eq!(*decision, expected);
    }

    /// Does all that was decided, as the shell does, and asks again: nothing is asked for twice.
    fn shell(&mut self) {
        let decision = self.decide();
        if !decision.commits.is_empty() {
            return self.commit(&decision.commits);
        }
        self.number += 1;
        let routed = decision.table.targets().cloned().collect();
        let closing = decision.table.close_tunnels.iter().map(|close| close.replica.clone()).collect();
        self.observed.apply(Event::Published { number: self.number, routed, closing }, self.now);
        let mut busy: BTreeSet<Slot> = BTreeSet::new();
        let mut asked: BTreeSet<ReplicaId> = BTreeSet::new();
        for action in decision.actions {
            let event = match action {
                Action::Start { id, .. } => {
                    assert!(busy.insert(id.slot()), "two starts for one slot");
                    self.started.insert(id.clone());
                    Event::StartSent(id)
                }
                Action::Stop { id } => {
                    asked.insert(id.clone());
                    Event::StopSent { id, kill: false }
                }
                Action::Kill { id, .. } => {
                    asked.insert(id.clone());
                    Event::StopSent { id, kill: true }
                }
                Action::KillProxy { generation } => Event::ProxyDown(generation),
            };
            self.observed.apply(event, self.now);
        }
        for action in self.decide().actions {
            match action {
                Action::Start { id, .. } => assert!(!busy.contains(&id.slot()), "{id} is started on top"),
                Action::Stop { id } | Action::Kill { id, .. } => {
                    assert!(!asked.contains(&id), "{id} is asked twice");
                }
                Action::KillProxy { .. } => {}
            }
        }
    }
}

fn addr() -> std::net::SocketAddr {
    ([127, 0, 0, 1], 20_000).into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn no_sequence_of_events_brings_decide_out_of_step(ops in prop::collection::vec(any_op(), 1..120)) {
        let mut run = Run {
            desired: Desired::default(),
            observed: Observed::new(0, 0),
            now: Timestamp(1_000_000),
            number: 0,
            started: BTreeSet::new(),
        };
        run.ask(15);
        for op in ops {
            match op {
                Op::Event(kind, n) => run.event(kind, n),
                Op::Ask(n) => run.ask(n),
                Op::Pass(ms) => run.now = run.now + Duration::from_millis(ms),
                Op::Shell => run.shell(),
            }
            run.decide();
        }
    }
}

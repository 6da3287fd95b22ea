//! When no proxy can choose a replica any more, against a model that remembers every table ever given out.

use std::collections::{BTreeMap, BTreeSet};

use bulsa_core::{
    decide::{Event, Observed, Origin},
    ids::{Generation, ReplicaId},
    time::Timestamp,
};
use proptest::prelude::*;

use crate::world::id;

const REPLICAS: [&str; 3] = ["web-r1-1.1", "web-r1-2.1", "web-r2-1.1"];

#[derive(Clone, Debug)]
enum Op {
    /// A table with these replicas.
    Publish([bool; 3]),
    /// The keeper has so much of what was given out, in eighths.
    Kept(u64),
    Up(u64),
    Down(u64),
    /// A proxy runs on so much of what was given out, in eighths.
    Report(u64, u64),
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => any::<[bool; 3]>().prop_map(Op::Publish),
        3 => (0_u64..=8).prop_map(Op::Kept),
        1 => (0_u64..4).prop_map(Op::Up),
        1 => (0_u64..4).prop_map(Op::Down),
        5 => ((0_u64..4), (0_u64..=8)).prop_map(|(generation, part)| Op::Report(generation, part)),
    ]
}

/// All tables ever given out by number, what the keeper has, and what each proxy acknowledged last.
struct Model {
    tables: Vec<BTreeSet<ReplicaId>>,
    kept: u64,
    proxies: BTreeMap<u64, u64>,
}

impl Model {
    /// A proxy may run on any table from the one that it acknowledged to the last; one that nobody knows of yet, on
    /// any from the one that the keeper has.
    fn can_be_chosen(&self, id: &ReplicaId) -> bool {
        let oldest = self.proxies.values().copied().chain([self.kept]).min().unwrap_or(0);
        self.tables.iter().skip(oldest as usize).any(|table| table.contains(id))
    }

    fn last(&self) -> u64 {
        self.tables.len() as u64 - 1
    }
}

fn take(op: &Op, model: &mut Model) -> Event {
    match *op {
        Op::Publish(which) => {
            let routed: BTreeSet<ReplicaId> =
                REPLICAS.iter().zip(which).filter(|(_, with)| *with).map(|(name, _)| id(name)).collect();
            model.tables.push(routed.clone());
            Event::Published { number: model.last(), routed, closing: BTreeSet::new() }
        }
        Op::Kept(part) => {
            let number = model.last() * part / 8;
            model.kept = model.kept.max(number);
            Event::Kept { number }
        }
        Op::Up(generation) => {
            model.proxies.entry(generation).or_insert(0);
            Event::ProxyUp(Generation(generation))
        }
        Op::Down(generation) => {
            model.proxies.remove(&generation);
            Event::ProxyDown(Generation(generation))
        }
        Op::Report(generation, part) => {
            let table = model.last() * part / 8;
            model.proxies.entry(generation).and_modify(|at| *at = table.max(*at));
            Event::ProxyReport { generation: Generation(generation), table, load: BTreeMap::new() }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_replica_is_unrouted_exactly_when_nobody_can_choose_it(ops in prop::collection::vec(any_op(), 1..80)) {
        let mut observed = Observed::new(0, 0);
        let mut model = Model { tables: vec![BTreeSet::new()], kept: 0, proxies: BTreeMap::new() };
        for name in REPLICAS {
            let started = Event::Started { id: id(name), at: Timestamp(0), origin: Origin::Ours };
            observed.apply(started, Timestamp(0));
        }
        let mut unrouted_at: BTreeMap<ReplicaId, Timestamp> = BTreeMap::new();
        for (i, op) in ops.iter().enumerate() {
            let now = Timestamp(i as u64);
            let event = take(op, &mut model);
            observed.apply(event, now);
            for id in REPLICAS.map(id) {
                let can_be_chosen = model.can_be_chosen(&id);
                prop_assert_eq!(observed.is_unrouted(&id), !can_be_chosen, "{} after {:?}", id, op);
                let was_ever = model.tables.iter().any(|table| table.contains(&id));
                prop_assert_eq!(observed.was_ever_routed(&id), was_ever);
                // Its drain begins when it first can't be chosen, and begins anew when it was routed meanwhile.
                if model.tables[model.last() as usize].contains(&id) {
                    unrouted_at.remove(&id);
                } else if was_ever && !can_be_chosen {
                    unrouted_at.entry(id.clone()).or_insert(now);
                }
                let since = observed.replica(&id).and_then(|replica| replica.unrouted_since);
                prop_assert_eq!(since, unrouted_at.get(&id).copied());
            }
        }
    }
}

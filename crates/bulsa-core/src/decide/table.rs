//! Routes: which replicas of the live release take requests.
//!
//! Owns: the content of the route table. Never: numbers it, knows a socket or a host name (the shell joins the live
//! release's ports to it), or waits for anybody.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use super::{
    desired::Desired,
    humans::is_all_away,
    observed::{Observed, Replica, ReplicaPhase},
    slots::{Leaving, Verdicts},
};
use crate::{
    health::{Health, Verdict},
    ids::{ReleaseId, ReplicaId},
};

/// How long after the end of the stagger window a tunnel may take to close before its replica is stopped anyway.
pub(super) const TUNNEL_CLOSE_MARGIN: Duration = Duration::from_secs(8);

/// The routes that should be in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The release that they lead to; `None` while the project has none, or is down.
    pub release: Option<ReleaseId>,
    /// By service.
    pub routes: BTreeMap<String, Route>,
    /// Tunnels to be closed.
    pub close_tunnels: Vec<CloseTunnels>,
    /// Replicas that answer nobody, beside others that do: what waits there for a first byte goes there, if it may be done
    /// twice.
    pub abandon: Vec<ReplicaId>,
}

impl Table {
    /// Every replica that can be chosen.
    pub fn targets(&self) -> impl Iterator<Item = &ReplicaId> {
        self.routes.values().flat_map(|route| route.targets.iter().map(|(id, _)| id))
    }
}

/// Where the requests for one service go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The replicas that can be chosen; requests are held while there is none.
    pub targets: Vec<(ReplicaId, SocketAddr)>,
    /// Whether a human stopped the service, or took all its replicas away: its requests are answered at once instead of held.
    pub stopped: bool,
    /// Whether a human wants its requests to wait, whoever could take them. One that is stopped answers all the same.
    pub held: bool,
}

/// The tunnels of a replica that leaves are to be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseTunnels {
    /// Whose.
    pub replica: ReplicaId,
    /// Spread over this time.
    pub within: Duration,
}

/// The routes that should be in force.
pub(super) fn table(desired: &Desired, observed: &Observed, verdicts: &Verdicts) -> Table {
    let mut table = Table::default();
    for (id, _) in observed.replicas().filter(|(id, _)| observed.load(id).tunnels > 0) {
        if verdicts.leaving.get(id) == Some(&Leaving::Gracefully) {
            let within = desired.service(id.release, &id.service).map_or(Duration::ZERO, |s| s.drain.stagger);
            table.close_tunnels.push(CloseTunnels { replica: id.clone(), within });
        }
    }
    let is_silent = |replica: &Replica| replica.health.is_silent() || replica.paused;
    let waited_for =
        observed.replicas().filter(|(id, one)| is_silent(one) && observed.load(id).in_flight > 0);
    table.abandon = waited_for.map(|(id, _)| id.clone()).collect();
    let Some((release, live)) = desired.live() else { return table };
    if desired.down {
        return table;
    }
    table.release = Some(release);
    for service in live.spec.services.values() {
        if desired.is_routed(service) {
            let wish = desired.wish(&service.name);
            let stopped = wish.stopped || is_all_away(desired, observed, release, service);
            // Of a rolling service both releases answer until the switch. Where only the candidate's anchor has its name,
            // nobody knows whether the live release's replicas listen where that leads.
            let has_live = service.is_routed() || desired.named_by(&service.name) == Some(release);
            let releases = [Some(release).filter(|_| has_live), desired.beside(&service.name)];
            let mut targets = targets(&releases, &service.name, observed, verdicts);
            if service.care.spare > 0 {
                targets.truncate(desired.replicas(service) as usize);
            }
            table.routes.insert(service.name.clone(), Route { targets, stopped, held: wish.held.is_some() });
        }
    }
    // One that is routed for want of a better one may answer yet.
    let routed: BTreeSet<ReplicaId> = table.targets().cloned().collect();
    // Where nobody else answers, what waits there has nowhere to go: it may be answered yet, or goes on when that one ends.
    // When all fall silent the first one to be found out would send what it has to those that are found out next, and a
    // request may be lost with two only.
    let answers = |(id, _): &(ReplicaId, SocketAddr)| !observed.load(id).stalled;
    let has_others =
        |id: &ReplicaId| table.routes.get(&id.service).is_some_and(|route| route.targets.iter().any(answers));
    table.abandon = std::mem::take(&mut table.abandon)
        .into_iter()
        .filter(|id| !routed.contains(id) && has_others(id))
        .collect();
    table
}

/// The ready replicas, in the order of their slots: spare ones come last. The suspect ones while there is no other (the last
/// target stays unless it is dead, failed, or answered nobody twice in a row: then requests wait).
fn targets(
    releases: &[Option<ReleaseId>],
    service: &str,
    observed: &Observed,
    verdicts: &Verdicts,
) -> Vec<(ReplicaId, SocketAddr)> {
    let with = |accept: fn(&Health) -> bool| {
        observed
            .replicas()
            .filter(|(id, replica)| {
                releases.contains(&Some(id.release))
                    && id.service == service
                    && replica.phase == ReplicaPhase::Running
                    && !replica.paused
                    && !replica.ended
                    && !verdicts.leaving.contains_key(id)
                    && accept(&replica.health)
            })
            .filter_map(|(id, replica)| Some((id.clone(), replica.addr?)))
            .collect::<Vec<_>>()
    };
    let ready = with(Health::is_ready);
    if ready.is_empty() {
        with(|health| health.verdict() == Verdict::Suspect && !health.is_mute())
    } else {
        ready
    }
}

//! Which requests are let in.
//!
//! Owns: the answer to every request for a project: accepted with the changes to commit, already so, or denied with
//! a typed reason. Never: commits anything; waits for anything.

mod hold;

use std::{collections::BTreeSet, sync::Arc};

use super::desired::{Change, Deployment, Desired, Kind, Outcome, Phase, Wish};
use crate::{
    ids::ReleaseId,
    spec::{Role, Spec},
    time::Timestamp,
};

/// At most this many replicas of one service: a typing mistake must not fork the machine to death.
pub const REPLICAS_MAX: u32 = 256;

/// What someone asks of a project.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Make this the live release.
    Deploy {
        /// The resolved file.
        spec: Arc<Spec>,
        /// Its content hash.
        hash: String,
        /// The `shared` services that are named and differ from what runs.
        recreate: BTreeSet<String>,
    },
    /// Make an earlier release the live one: the given one, or the last that was live before.
    Rollback {
        /// Which.
        to: Option<ReleaseId>,
    },
    /// Stop a service until `Start`.
    Stop {
        /// Which.
        service: String,
    },
    /// Run a stopped service again.
    Start {
        /// Which.
        service: String,
    },
    /// Replace the replicas of a service, one after another.
    Restart {
        /// Which.
        service: String,
    },
    /// Run so many replicas of a service.
    Scale {
        /// Which.
        service: String,
        /// How many.
        replicas: u32,
    },
    /// Let new requests wait in the proxy, or let those out that wait.
    Hold {
        /// Whose; of every service that the proxy serves where none is named.
        services: BTreeSet<String>,
        /// Whether they are to wait.
        on: bool,
    },
    /// Stop everything and forget the project.
    Down,
}

/// A request that is let in.
#[derive(Clone, Debug, PartialEq)]
pub enum Admission {
    /// These changes do it; `deployment` is the one that they begin, if any.
    Accepted {
        /// To commit, in this order.
        changes: Vec<Change>,
        /// Its id.
        deployment: Option<u32>,
    },
    /// It is so already; says what.
    AlreadySo(String),
}

/// Why a request is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// A deployment runs that hasn't switched yet.
    #[error("deployment {id} ({kind}) is running")]
    DeploymentRuns {
        /// Which.
        id: u32,
        /// What it is.
        kind: &'static str,
        /// Since when.
        since: Timestamp,
    },
    /// The project is being taken down.
    #[error("the project is going down")]
    GoingDown,
    /// There is no such service in the live release.
    #[error("there is no service `{name}`{}", nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    NoService {
        /// The name asked for.
        name: String,
        /// The closest name that exists.
        nearest: Option<String>,
    },
    /// The proxy never sees its requests.
    #[error("requests for `{0}` don't come through the proxy, so they can't be held")]
    NotRouted(String),
    /// The proxy sees no request of the project.
    #[error(
        "no service of the project has requests that come through the proxy, so there is nothing to hold"
    )]
    NothingRouted,
    /// Nothing runs.
    #[error("the project has no live release")]
    NoLiveRelease,
    /// There is nothing to go back to.
    #[error("{0}")]
    NoRollbackTarget(String),
    /// A number that can't be.
    #[error("`{service}` can't have {replicas} replicas: {reason}")]
    Replicas {
        /// Which service.
        service: String,
        /// How many were asked for.
        replicas: u32,
        /// What stands against it.
        reason: String,
    },
}

/// Answers a request.
///
/// # Errors
///
/// [`Denied`] says why it can't be done now; nothing has changed then.
pub fn admit(desired: &Desired, request: Request, now: Timestamp) -> Result<Admission, Denied> {
    if desired.down {
        return if request == Request::Down {
            Ok(Admission::AlreadySo("the project is going down already".to_owned()))
        } else {
            Err(Denied::GoingDown)
        };
    }
    match request {
        Request::Deploy { spec, hash, recreate } => deploy(desired, spec, hash, &recreate, now),
        Request::Rollback { to } => rollback(desired, to, now),
        Request::Stop { service } => stopped(desired, service, true),
        Request::Start { service } => stopped(desired, service, false),
        Request::Restart { service } => {
            let wish = Wish { restart: Some(now), ..existing_wish(desired, &service)? };
            if wish.stopped {
                return stopped(desired, service, false);
            }
            Ok(wished(desired, service, wish))
        }
        Request::Scale { service, replicas } => scale(desired, service, replicas),
        Request::Hold { services, on } => hold::hold(desired, services, on, now),
        Request::Down => Ok(Admission::Accepted { changes: vec![Change::Down], deployment: None }),
    }
}

fn deploy(
    desired: &Desired,
    spec: Arc<Spec>,
    hash: String,
    recreate: &BTreeSet<String>,
    now: Timestamp,
) -> Result<Admission, Denied> {
    no_gate_runs(desired)?;
    let recreates = recreated(desired, &spec, recreate);
    if let Some((id, live)) = desired.live()
        && live.hash == hash
        && recreates.is_empty()
    {
        // A first release that never passed its gate is tried again, its failed jobs included.
        if !live.proven && desired.running().is_none() {
            return Ok(begin(desired, Kind::First, id, None, BTreeSet::new(), now));
        }
        return Ok(Admission::AlreadySo(format!("release {id} is live already and nothing has changed")));
    }
    let candidate = ReleaseId(desired.releases.keys().next_back().map_or(1, |last| last.0 + 1));
    let kind = if desired.live.is_none() { Kind::First } else { Kind::Deploy };
    Ok(begin(desired, kind, candidate, Some((spec, hash)), recreates, now))
}

/// Those of `named` that a deploy of `spec` may recreate: containers that Docker keeps before and after it. One that a
/// human stopped stays as it is.
#[must_use]
pub fn recreated(desired: &Desired, spec: &Spec, named: &BTreeSet<String>) -> BTreeSet<String> {
    let Some((_, live)) = desired.live() else { return BTreeSet::new() };
    let is_kept = |of: &Spec, name: &str| {
        of.services
            .get(name)
            .is_some_and(|service| service.is_kept_by_docker() && desired.replicas(service) > 0)
    };
    named.iter().filter(|name| is_kept(&live.spec, name) && is_kept(spec, name)).cloned().collect()
}

fn rollback(desired: &Desired, to: Option<ReleaseId>, now: Timestamp) -> Result<Admission, Denied> {
    no_gate_runs(desired)?;
    let live = desired.live.ok_or(Denied::NoLiveRelease)?;
    let candidate = match to {
        Some(id) if id == live => {
            return Ok(Admission::AlreadySo(format!("release {id} is live already")));
        }
        Some(id) if desired.releases.contains_key(&id) => id,
        Some(id) => {
            let known: Vec<String> = desired.releases.keys().map(ToString::to_string).collect();
            let text = format!("there is no release {id}; known are {}", known.join(", "));
            return Err(Denied::NoRollbackTarget(text));
        }
        None => desired.rollback_target().ok_or_else(|| {
            Denied::NoRollbackTarget("there is no earlier release that was live".to_owned())
        })?,
    };
    Ok(begin(desired, Kind::Rollback, candidate, None, BTreeSet::new(), now))
}

fn no_gate_runs(desired: &Desired) -> Result<(), Denied> {
    match desired.running() {
        Some(running) if running.is_before_switch() => Err(Denied::DeploymentRuns {
            id: running.id,
            kind: match running.kind {
                Kind::First => "first release",
                Kind::Deploy => "deploy",
                Kind::Rollback => "rollback",
            },
            since: running.started,
        }),
        _ => Ok(()),
    }
}

/// Begins a deployment; one that is in its bake ends with it: a deploy says that the release is good enough, a
/// rollback that it isn't.
fn begin(
    desired: &Desired,
    kind: Kind,
    candidate: ReleaseId,
    release: Option<(Arc<Spec>, String)>,
    recreates: BTreeSet<String>,
    now: Timestamp,
) -> Admission {
    let mut changes = Vec::new();
    if desired.running().is_some() {
        let (outcome, reason) = if kind == Kind::Rollback {
            (Outcome::RolledBack, "a rollback was asked for".to_owned())
        } else {
            (Outcome::Deployed, String::new())
        };
        changes.push(Change::Finish { outcome, reason, at: now });
    }
    let id = desired.deployment.as_ref().map_or(1, |last| last.id + 1);
    let (previous, phase) = (desired.live.filter(|live| *live != candidate), Phase::Gate);
    let deployment = Deployment { id, kind, candidate, previous, recreates, started: now, phase };
    changes.push(Change::Begin { deployment, release });
    Admission::Accepted { changes, deployment: Some(id) }
}

fn existing_wish(desired: &Desired, name: &str) -> Result<Wish, Denied> {
    let (_, live) = desired.live().ok_or(Denied::NoLiveRelease)?;
    if live.spec.services.contains_key(name) {
        return Ok(desired.wish(name));
    }
    let close = |known: &&String| strsim::damerau_levenshtein(known, name) <= 2;
    let nearest =
        live.spec.services.keys().filter(close).min_by_key(|k| strsim::damerau_levenshtein(k, name));
    Err(Denied::NoService { name: name.to_owned(), nearest: nearest.cloned() })
}

/// The wish; and whoever wants a service to run wants the slots filled that humans emptied.
fn wished(desired: &Desired, service: String, wish: Wish) -> Admission {
    let mut changes = if wish.stopped { Vec::new() } else { reinstated(desired, &service) };
    if wish != desired.wish(&service) {
        changes.push(Change::Wish { service, wish });
    }
    Admission::Accepted { changes, deployment: None }
}

/// The changes that have those slots of the live release's `service` filled again that humans emptied.
#[must_use]
pub fn reinstated(desired: &Desired, service: &str) -> Vec<Change> {
    desired.withheld_of(service).map(|slot| Change::Reinstate { slot: slot.clone() }).collect()
}

fn stopped(desired: &Desired, service: String, stop: bool) -> Result<Admission, Denied> {
    let wish = existing_wish(desired, &service)?;
    let is_withheld = !stop && desired.withheld_of(&service).next().is_some();
    if wish.stopped == stop && !is_withheld {
        let state = if stop { "stopped" } else { "not stopped" };
        return Ok(Admission::AlreadySo(format!("`{service}` is {state} already")));
    }
    Ok(wished(desired, service, Wish { stopped: stop, ..wish }))
}

fn scale(desired: &Desired, service: String, replicas: u32) -> Result<Admission, Denied> {
    let wish = existing_wish(desired, &service)?;
    let Some((_, live)) = desired.live() else { return Err(Denied::NoLiveRelease) };
    let Some(of_file) = live.spec.services.get(&service) else { return Err(Denied::NoLiveRelease) };
    let reason = if replicas == 0 {
        Some("to stop it, use `bulsa stop`".to_owned())
    } else if replicas > REPLICAS_MAX {
        Some(format!("at most {REPLICAS_MAX} are allowed"))
    } else if replicas > 1 && matches!(of_file.app_port, crate::spec::AppPort::Fixed(_)) {
        Some("it listens on a fixed port, so only one can run at a time".to_owned())
    } else if replicas > 1 && matches!(of_file.role, Role::Shared | Role::Job) {
        Some("a shared service or a job runs once".to_owned())
    } else {
        None
    };
    if let Some(reason) = reason {
        return Err(Denied::Replicas { service, replicas, reason });
    }
    if desired.replicas(of_file) == replicas && desired.withheld_of(&service).next().is_none() {
        return Ok(Admission::AlreadySo(format!("`{service}` has {replicas} replicas already")));
    }
    let replicas = (replicas != of_file.replicas).then_some(replicas);
    Ok(wished(desired, service, Wish { replicas, stopped: false, ..wish }))
}

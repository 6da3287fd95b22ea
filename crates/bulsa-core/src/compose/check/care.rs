//! `x-bulsa.spare` and `x-bulsa.recycle` against the rest of their service.
//!
//! Owns: where they can't be, and what a share of memory is in bytes.

use crate::spec::{Handover, Role};

use super::super::{
    diagnostic::{Diagnostic, Diagnostics},
    model::{Project, Service},
    normalise,
};

/// `recycle.memory: 80%` in bytes, now that the limit is known.
pub(super) fn settle_memory(service: &mut Service, diags: &mut Diagnostics) {
    let Some((share, pos)) = service.bulsa.memory_share.take() else { return };
    let limit = match &service.docker {
        Some(docker) => docker.container.resources.memory.and_then(|limit| u64::try_from(limit).ok()),
        None => service.resources.memory,
    };
    if let Some(limit) = limit.filter(|limit| 0 < *limit) {
        service.bulsa.care.memory = Some((limit as f64 * share) as u64);
        return;
    }
    let path = format!("services.{}.x-bulsa.recycle.memory", service.name);
    let text = format!("{path} is a share of a memory limit, and the service has none");
    let hint =
        "give it one with `mem_limit` or `deploy.resources.limits.memory`, or say bytes: `memory: 400m`";
    diags.push(Diagnostic::error(&pos, text).hint(hint));
}

/// Names what has no use for either, or can't have it.
pub(super) fn check(service: &Service, project: &Project, diags: &mut Diagnostics) {
    let (role, _) = normalise::role(service, project);
    let bulsa = &service.bulsa;
    let mut wrong = |key: &str, why: &str, hint: &str| {
        if let Some(pos) = bulsa.at.get(key) {
            let text = format!("services.{}.x-bulsa.{key}: {why}", service.name);
            diags.push(Diagnostic::error(pos, text).hint(hint));
        }
    };
    let name = match role {
        Role::App => None,
        Role::Shared => Some("a `shared` service is left alone"),
        Role::Worker => Some("a `worker` gets no requests that another one could take over"),
        Role::Job => Some("a `job` ends by itself"),
    };
    if bulsa.care.spare > 0 {
        if let Some(why) = name {
            wrong("spare", why, "remove it, or raise `deploy.replicas`");
        } else if bulsa.handover.is_some_and(|handover| handover != Handover::Overlap) {
            wrong("spare", "it needs `handover: overlap`", "remove one of the two");
        } else if service.docker.as_ref().is_some_and(|docker| docker.update.is_some()) {
            wrong("spare", "it doesn't go with `deploy.update_config`", "remove one of the two");
        }
    }
    if let (true, Some(why)) = (bulsa.care.recycles(), name.filter(|_| role != Role::Worker)) {
        wrong("recycle", why, "remove it");
    }
    if bulsa.care.requests.is_some() && role == Role::Worker {
        wrong("recycle", "a `worker` gets no requests to count", "say `age` or `memory`");
    }
}

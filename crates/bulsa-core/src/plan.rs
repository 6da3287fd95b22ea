//! What a deploy would do, as a value: printed by `--plan`, and the first lines of every deploy.
//!
//! Owns: the comparison of a new spec with what is live, and its words. Never: does any of it, or looks at a machine.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    decide::Desired,
    ids::ReleaseId,
    spec::{AppPort, Check, Handover, Restart, Role, Service, Spec, container::Container},
};

/// What a deploy would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The release that it would make.
    pub release: ReleaseId,
    /// The release that is live now.
    pub live: Option<ReleaseId>,
    /// In order. Empty when nothing would change.
    pub steps: Vec<Step>,
    /// What people should know beforehand.
    pub notes: Vec<String>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// One word: `start`, `gate`, `switch`, …
    pub action: &'static str,
    /// The service, where it is about one.
    pub service: Option<String>,
    /// In words.
    pub text: String,
}

/// How the `shared` services that run differ from what is deployed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// In which parts, in words, by service.
    pub differs: BTreeMap<String, Vec<&'static str>>,
    /// Those of them that are named, and so recreated.
    pub recreate: BTreeSet<String>,
}

impl Drift {
    /// A sentence for each that is left as it is.
    pub fn left_alone(&self) -> impl Iterator<Item = String> {
        let left = self.differs.iter().filter(|(name, _)| !self.recreate.contains(*name));
        left.map(|(name, parts)| {
            format!(
                "`{name}` differs from what runs ({}) and is left as it is; `bulsa deploy {name}` recreates it, with its \
                 volumes",
                parts.join(", ")
            )
        })
    }

    fn recreated(&self, service: &Service) -> Option<String> {
        let parts = self.differs.get(&service.name).filter(|_| self.recreate.contains(&service.name))?;
        Some(format!(
            "it differs ({}): stop the one that runs and start a new one with its volumes, once everything else is \
             healthy; `{}` is away for its stop and start; if the new one isn't healthy within {:?} the old one comes back",
            parts.join(", "),
            service.name,
            service.gate_timeout
        ))
    }
}

/// Only the named services of `new`, with the networks and volumes that they use, the others as `live` has them. No
/// names: all of `new`.
///
/// # Errors
///
/// The names that `new` doesn't have, or that the named services wait for and `live` doesn't have.
pub fn restrict(new: Spec, services: &[String], live: Option<&Spec>) -> Result<Spec, Vec<String>> {
    let unknown: Vec<String> =
        services.iter().filter(|name| !new.services.contains_key(*name)).cloned().collect();
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let Some(live) = live.filter(|_| !services.is_empty()) else { return Ok(new) };
    let mut mixed = live.clone();
    for service in services.iter().filter_map(|name| new.services.get(name)) {
        for key in service.container.iter().flat_map(|container| container.networks.keys()) {
            mixed.networks.extend(new.networks.get(key).map(|network| (key.clone(), network.clone())));
        }
        for key in service.container.iter().flat_map(|container| container.named_volumes()) {
            mixed.volumes.extend(new.volumes.get(key).map(|volume| (key.to_owned(), volume.clone())));
        }
        mixed.services.insert(service.name.clone(), service.clone());
    }
    let needed = services.iter().filter_map(|name| mixed.services.get(name)).flat_map(|service| {
        let required = service.depends_on.iter().filter(|(_, dependency)| dependency.required);
        required.map(|(name, _)| name)
    });
    let missing: Vec<String> = needed.filter(|name| !mixed.services.contains_key(*name)).cloned().collect();
    if missing.is_empty() { Ok(mixed) } else { Err(missing) }
}

/// The spec as it can be run: a service that listens on a fixed port can't run twice on one machine, so it is handed
/// over `stop_first`. `fixed` names the services whose running replicas ignore `PORT` and listen on their target port.
#[must_use]
pub fn without_port_clashes(mut spec: Spec, fixed: &BTreeSet<String>) -> Spec {
    for service in spec.services.values_mut() {
        if fixed.contains(&service.name)
            && service.app_port == AppPort::Env
            && let Some(port) = service.ports.first()
        {
            service.app_port = AppPort::Fixed(port.target);
        }
        if matches!(service.app_port, AppPort::Fixed(_)) {
            service.handover = Handover::StopFirst;
        }
    }
    spec
}

/// What deploying `spec` (with this content hash) would do, where the `shared` services have this drift.
#[must_use]
pub fn plan(desired: &Desired, spec: &Spec, hash: &str, drift: &Drift) -> Plan {
    let next = ReleaseId(desired.releases.keys().next_back().map_or(1, |last| last.0 + 1));
    let live = desired.live();
    let mut plan = Plan { release: next, live: live.map(|(id, _)| id), ..Plan::default() };
    if live.is_some_and(|(_, live)| live.hash == hash) && drift.recreate.is_empty() {
        plan.notes.extend(drift.left_alone());
        return plan;
    }
    let live = live.map(|(_, release)| release.spec.as_ref());
    let mut say = |action, service: Option<&str>, text: String| {
        plan.steps.push(Step { action, service: service.map(str::to_owned), text });
    };
    for service in spec.services.values() {
        let (action, text) = match drift.recreated(service) {
            Some(text) => ("recreate", text),
            None => start_step(desired, service, live, next),
        };
        say(action, Some(&service.name), text);
    }
    for service in spec.services.values().filter(|s| matches!(s.role, Role::App | Role::Worker)) {
        say("gate", Some(&service.name), gate_text(service));
    }
    match plan.live {
        Some(old) => {
            let apps = spec.services.values().filter(|s| s.role == Role::App).count();
            say("switch", None, format!("move all traffic of {apps} services from {old} to {next} at once"));
            let drain = spec.services.values().map(|s| s.drain.requests).max().unwrap_or_default();
            say("drain", None, format!("let requests in flight finish on {old}, at most {drain:?}"));
            let bake = crate::decide::desired::bake_time(spec);
            say("bake", None, format!("watch {next} for {bake:?}; go back to {old} if it is bad"));
            say(
                "warm",
                None,
                format!("keep {old} running for {:?}, for an instant rollback", spec.keep.warm),
            );
        }
        None => say("route", None, "send traffic to each replica as it becomes healthy".to_owned()),
    }
    for service in live.into_iter().flat_map(|live| live.services.values()) {
        if spec.services.contains_key(&service.name) {
            continue;
        }
        let (action, text) = if service.is_kept_by_docker() {
            ("keep", "no longer in the file; shared: it runs on until the project goes down")
        } else {
            ("remove", "no longer in the file; stopped with the old release")
        };
        say(action, Some(&service.name), text.to_owned());
    }
    plan.notes = spec.services.values().flat_map(|service| notes(desired, service, live)).collect();
    plan.notes.extend(drift.left_alone());
    plan
}

fn start_step(
    desired: &Desired,
    service: &Service,
    live: Option<&Spec>,
    next: ReleaseId,
) -> (&'static str, String) {
    let replicas = desired.replicas(service);
    let noun = if replicas == 1 { "replica" } else { "replicas" };
    let exists = live.is_some_and(|live| live.services.contains_key(&service.name));
    match service.role {
        Role::Job => ("run", format!("once, before what waits for it ({})", service.role_reason)),
        Role::Shared if exists => ("keep", "shared: a deploy never touches it".to_owned()),
        Role::Shared => ("start", format!("{replicas} {noun}, shared by all releases")),
        Role::App | Role::Worker if exists && service.handover == Handover::StopFirst => (
            "exchange",
            format!("stop the old one, then start {replicas} {noun} of {next}; requests are held"),
        ),
        Role::App | Role::Worker if exists && matches!(service.handover, Handover::Rolling(_)) => {
            ("roll", roll_text(service.handover, replicas, next))
        }
        Role::App | Role::Worker if exists => {
            ("start", format!("{replicas} {noun} of {next} beside the running ones"))
        }
        Role::App | Role::Worker => ("start", format!("{replicas} {noun} of {next}")),
    }
}

fn roll_text(handover: Handover, replicas: u32, next: ReleaseId) -> String {
    let Handover::Rolling(how) = handover else { return String::new() };
    let (noun, many) = (if replicas == 1 { "replica" } else { "replicas" }, how.parallelism.min(replicas));
    let order = if how.stop_first { "the old ones stop first" } else { "the new ones start first" };
    let pause = if how.delay.is_zero() { String::new() } else { format!(", {:?} apart", how.delay) };
    format!("{replicas} {noun} of {next}, {many} at a time{pause}, {order}; both releases answer meanwhile")
}

fn gate_text(service: &Service) -> String {
    let probe = &service.probe;
    let what = match &probe.check {
        Check::Http { path, .. } => format!("GET {path} answers"),
        Check::Exec(argv) => format!("`{}` exits with 0", argv.join(" ")),
        Check::Up => "it stays up for a second".to_owned(),
    };
    let times =
        if probe.check == Check::Up { String::new() } else { format!(", {} times in a row", probe.rise) };
    format!("{what}{times}, within {:?}", service.gate_timeout)
}

fn notes(desired: &Desired, service: &Service, live: Option<&Spec>) -> Vec<String> {
    let name = &service.name;
    let mut notes = vec![format!("`{name}` is {}: {}", role_name(service.role), service.role_reason)];
    if let Some(container) = &service.container {
        notes.push(image_note(name, container));
        notes.extend(container.notes.iter().map(|note| format!("`{name}`: {note}")));
    }
    if !service.probe.declared && service.role == Role::App && service.probe.check == Check::Up {
        notes.push(format!(
            "`{name}` has no healthcheck: it passes its gate once it stayed up for a second, which is weak; add \
             `healthcheck`"
        ));
    } else if !service.probe.declared && service.role == Role::App {
        notes.push(format!(
            "`{name}` has no healthcheck: any HTTP answer below 500 passes its gate, which is weak; add \
             `healthcheck` or `x-bulsa: {{probe: {{path: …}}}}`"
        ));
    }
    if let AppPort::Fixed(port) = service.app_port {
        notes.push(format!(
            "`{name}` listens on its fixed port {port}, so its old and new replica can't run side by side: requests \
             are held during a deploy; let it read PORT, or use `--app-port` as root, and they can"
        ));
    }
    if service.restart == Restart::No && matches!(service.role, Role::App | Role::Worker) {
        notes.push(format!("`{name}` says `restart: no`: when it dies it is only reported"));
    }
    if desired.wish(name).stopped {
        notes.push(format!(
            "`{name}` was stopped by a human and stays stopped; `bulsa start {name}` ends that"
        ));
    }
    if desired.wish(name).held.is_some() {
        notes.push(format!(
            "requests for `{name}` are held, as a human asked, and stay so after the switch; `bulsa hold off {name}` \
             lets them out"
        ));
    }
    if let Some(replicas) = desired.wish(name).replicas {
        notes.push(format!(
            "`{name}` was scaled to {replicas} by a human; the file's {} doesn't count",
            service.replicas
        ));
    }
    if service.role == Role::Shared
        && !service.is_container()
        && live.and_then(|live| live.services.get(name)).is_some_and(|old| differs(old, service))
    {
        notes.push(format!(
            "`{name}` differs from what runs, and is left as it is: a deploy never touches it"
        ));
    }
    if service.role == Role::Job {
        notes.push(format!("what the job `{name}` changes outside Bulsa is not undone by a rollback"));
    }
    notes
}

/// Whether two forms of a process say something else to run; where they stand doesn't count.
fn differs(old: &Service, new: &Service) -> bool {
    let bare = |it: &Service| Service { position: String::new(), role_reason: String::new(), ..it.clone() };
    bare(old) != bare(new)
}

/// The digits of an image's id that people are shown, as `docker images` shows them.
const SHORT_ID: usize = 12;

fn image_note(name: &str, container: &Container) -> String {
    let built = if container.build.is_some() { ", built here" } else { "" };
    let Some(id) = &container.image_id else {
        return format!("`{name}` runs the image {}{built}", container.image);
    };
    let digits = id.split_once(':').map_or(id.as_str(), |(_, digits)| digits);
    let short: String = digits.chars().take(SHORT_ID).collect();
    format!("`{name}` runs the image {} ({short}){built}", container.image)
}

/// A role's word.
#[must_use]
pub const fn role_name(role: Role) -> &'static str {
    match role {
        Role::App => "app",
        Role::Shared => "shared",
        Role::Worker => "worker",
        Role::Job => "job",
    }
}

#[cfg(test)]
mod tests;

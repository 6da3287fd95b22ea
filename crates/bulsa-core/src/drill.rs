//! Drills: which injuries apply to a replica, what should come of them, and whether it did.
//!
//! Owns: the plan of a drill, when it is refused, and the verdict over what was seen. Never: hurts anything, or looks
//! anything up: what is known of the replica is an argument.
//!
//! A drill that finds nothing to hurt says why it does not apply; one of which nothing was seen within its limit has
//! failed. Both are results.

use std::time::Duration;

use crate::{
    spec::{Check, Probe, Restart, Role, Service},
    wire::api::DrillKind,
};

/// So many successors in a row are killed in a crash loop, the first victim included.
pub const CRASHES: u32 = 5;
/// So many runs of a probe that can't run are waited for.
pub const BROKEN_RUNS: u32 = 3;
/// How long after a drill nobody but whoever asked for it may begin the next one.
pub const SESSION_KEPT: Duration = Duration::from_secs(5);

/// A death is told at once; a busy host may take so long.
const NOTICED: Duration = Duration::from_secs(5);
/// A replacement may take as long as its gate, and no longer than this.
const START_MAX: Duration = Duration::from_secs(60);
/// For everything else that takes its time on the way back: tables, the Engine's work.
const SLACK: Duration = Duration::from_secs(10);
/// Until memory has run out.
const EATEN: Duration = Duration::from_secs(20);
/// The longest back-off that a crash loop of [`CRASHES`] may lead to.
const BACKED_OFF: Duration = Duration::from_secs(60);

/// What is known of the replica that is to be hurt.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'f> {
    /// Its service.
    pub service: &'f Service,
    /// Ready replicas of the service, this one included.
    pub ready: u32,
    /// How many programs below its main process serve, and the main process doesn't; `None` where that can't be seen.
    pub serving_children: Option<usize>,
    /// Whether it has a network namespace of its own, on the process engine.
    pub is_isolated: bool,
    /// Why memory can't be made scarce for it alone; `None` where it can.
    pub no_memory_limit: Option<&'f str>,
}

/// What would be done to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In words.
    pub injury: String,
    /// What should come of it.
    pub expected: String,
    /// Within how long.
    pub limit: Duration,
}

/// What would be done, or why it doesn't apply.
///
/// # Errors
/// Why it doesn't apply, as it stands behind `does not apply: `.
pub fn plan(kind: DrillKind, facts: &Facts<'_>) -> Result<Plan, String> {
    let service = facts.service;
    applies_at_all(kind, service)?;
    let back = service.gate_timeout.min(START_MAX) + SLACK;
    let (injury, limit) = match kind {
        DrillKind::Kill => ("SIGKILL to its main process".to_owned(), NOTICED + back),
        DrillKind::Hang => {
            needs_probe(service)?;
            ("SIGSTOP to all its processes".to_owned(), until_failed(&service.probe) + back)
        }
        DrillKind::AppDead => {
            needs_probe(service)?;
            let count = facts.serving_children.ok_or("it can't be seen which of its processes serves")?;
            if count == 0 {
                return Err("its main process is the one that serves; `kill` is the drill for it".to_owned());
            }
            let whom = if count == 1 {
                "the program that serves".to_owned()
            } else {
                format!("the {count} programs that serve")
            };
            (
                format!("SIGKILL to {whom}, below a main process that lives on"),
                until_failed(&service.probe) + back,
            )
        }
        DrillKind::Block => {
            needs_probe(service)?;
            let path = service
                .drill_block
                .as_deref()
                .ok_or("its file names no URL that blocks the app (`x-bulsa: {drill: {block: /path}}`)")?;
            (format!("GET {path}, which blocks the app"), until_failed(&service.probe) + back)
        }
        DrillKind::Cut => cut(facts, back)?,
        DrillKind::CrashLoop => (
            format!("SIGKILL to it and to its successors, {CRASHES} in all"),
            NOTICED * CRASHES + BACKED_OFF + back,
        ),
        DrillKind::Memory => {
            if let Some(why) = facts.no_memory_limit {
                return Err(why.to_owned());
            }
            (
                "it may use no more memory than now, and a program in its control group takes the rest"
                    .to_owned(),
                EATEN + back,
            )
        }
        DrillKind::Probe => match &service.probe.check {
            Check::Exec(argv) => {
                let program = argv.first().map_or("", String::as_str);
                let limit = (service.probe.interval + NOTICED) * BROKEN_RUNS;
                (format!("another name in its probe for `{program}`, which is not there"), limit)
            }
            Check::Http { .. } => {
                return Err("its probe is a request of Bulsa's own, and runs no program".to_owned());
            }
            Check::Up => return Err("it has no probe".to_owned()),
        },
    };
    Ok(Plan { injury, expected: expected(kind, service, facts.ready), limit })
}

/// Why a drill that applies is refused; `None` where it isn't.
#[must_use]
pub fn refusal(kind: DrillKind, facts: &Facts<'_>, replica: &str, last: bool) -> Option<String> {
    let serves = matches!(facts.service.role, Role::App | Role::Shared);
    let is_last = serves && facts.ready <= 1 && kind != DrillKind::Probe;
    (is_last && !last).then(|| format!("{replica} is the last healthy replica of `{}`", facts.service.name))
}

fn applies_at_all(kind: DrillKind, service: &Service) -> Result<(), String> {
    if service.role == Role::Job {
        return Err("a job runs once, and is over".to_owned());
    }
    let is_gentle = kind == DrillKind::Probe;
    if service.restart == Restart::No && !is_gentle {
        return Err("its file says `restart: no`: nothing would take its place".to_owned());
    }
    if service.is_kept_by_docker() && !matches!(kind, DrillKind::Kill | DrillKind::Probe) {
        return Err("Docker keeps its container: it starts one that died, and does no more".to_owned());
    }
    Ok(())
}

fn needs_probe(service: &Service) -> Result<(), String> {
    match service.probe.check {
        Check::Up => Err("it has no probe: nobody asks whether it answers".to_owned()),
        Check::Http { .. } | Check::Exec(_) => Ok(()),
    }
}

fn cut(facts: &Facts<'_>, back: Duration) -> Result<(String, Duration), String> {
    let service = facts.service;
    let injury = match &service.container {
        Some(container) if container.network_mode.is_some() => {
            return Err("its container has no network of its own".to_owned());
        }
        Some(_) => "its container leaves all its networks",
        None if facts.is_isolated => "the interface in its network namespace goes down",
        None => return Err("it shares the network of this host".to_owned()),
    };
    match service.probe.check {
        Check::Http { .. } => Ok((injury.to_owned(), until_failed(&service.probe) + back)),
        Check::Exec(_) => Err("its probe runs inside it, and needs no network".to_owned()),
        Check::Up => Err("it has no probe: nobody asks whether it answers".to_owned()),
    }
}

/// How long it takes at most until its probe has failed as often as it must.
fn until_failed(probe: &Probe) -> Duration {
    (probe.interval + probe.timeout) * probe.fall + NOTICED
}

fn expected(kind: DrillKind, service: &Service, ready: u32) -> String {
    let others = match service.role {
        Role::App if ready > 1 => ", the others serve",
        _ if service.is_routed() => ", requests wait",
        _ => "",
    };
    match kind {
        DrillKind::Probe => {
            "it is told that the probe can't run; nothing is un-routed or restarted".to_owned()
        }
        DrillKind::CrashLoop => {
            format!("each death is seen at once{others}; its place is filled again soon after the last")
        }
        DrillKind::Kill | DrillKind::Memory if service.is_kept_by_docker() => {
            "Docker starts it again".to_owned()
        }
        DrillKind::Kill | DrillKind::Memory => {
            format!("its death is seen at once{others}, and another one takes its place")
        }
        _ => format!("it is found out{others}, and another one takes its place"),
    }
}

/// What was seen of a drill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// From the injury until it was noticed.
    pub detected: Option<Duration>,
    /// Until no proxy could choose the replica.
    pub unrouted: Option<Duration>,
    /// Until its place served again; of a crash loop since the last death.
    pub recovered: Option<Duration>,
    /// Replicas that died.
    pub deaths: u32,
    /// Whether the proxy serves the service.
    pub is_routed: bool,
}

/// Whether it came as expected, and the same in a sentence.
#[must_use]
pub fn verdict(kind: DrillKind, seen: &Seen, limit: Duration) -> (bool, String) {
    let within = limit.as_secs();
    let after = |time: Duration| format!("after {} ms", time.as_millis());
    let Some(detected) = seen.detected else {
        return (false, format!("not seen within {within} s"));
    };
    if kind == DrillKind::Probe {
        return match (seen.deaths, seen.unrouted) {
            (0, None) => (true, format!("noticed {}; nothing was restarted", after(detected))),
            (0, Some(_)) => (false, "it was un-routed for a probe that could not run".to_owned()),
            (deaths, _) => (false, format!("{deaths} died for a probe that could not run")),
        };
    }
    let unrouted = match seen.unrouted {
        Some(time) => format!(", un-routed {}", after(time)),
        None if seen.is_routed => {
            return (false, format!("noticed {}, and not un-routed within {within} s", after(detected)));
        }
        None => String::new(),
    };
    match seen.recovered {
        Some(time) if kind == DrillKind::CrashLoop => (
            true,
            format!(
                "noticed {}{unrouted}; {} died, its place served again {} the last",
                after(detected),
                seen.deaths,
                after(time)
            ),
        ),
        Some(time) => {
            (true, format!("noticed {}{unrouted}, its place served again {}", after(detected), after(time)))
        }
        None => (
            false,
            format!(
                "noticed {}{unrouted}, and its place does not serve again within {within} s",
                after(detected)
            ),
        ),
    }
}

#[cfg(test)]
mod tests;

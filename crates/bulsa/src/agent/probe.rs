//! Probes: one run of a check, and the loops that keep running them.
//!
//! Owns: finding out from this host whether a replica answers ([`run`]) and doing so again and again for every replica
//! that the plan names ([`Prober`]). Never: counts passes and failures or decides what they mean; that is the core's
//! health. Never restarts, un-routes or blames anything.
//!
//! A run has three outcomes, and the third is the point: a check that could not be run (no file descriptors left here,
//! no such program) says nothing of the service and must never cost it its life. A connection that was accepted is no
//! outcome at all: a stopped process's kernel still accepts. Only an answer counts.
//!
//! ```text
//!  plan ──▶ Prober ──▶ one loop per replica ──▶ run ──▶ report (bounded queue) ──▶ driver
//!             probe_now ──▶ ┘   at most PROBES_AT_ONCE runs together
//! ```

use std::{collections::BTreeMap, future::Future, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bulsa_core::{spec::Check, triage};
use tokio::time::Instant;

use super::{
    docker::{Docker, ExecOutcome},
    process::user::Account,
};

mod exec;
mod http;
mod prober;
mod schedule;

pub use self::prober::{PROBES_AT_ONCE, Prober, REPORTS_MAX, Report};
pub use self::schedule::{MIN_GAP, QUICK_RETRIES_MAX, RETRY_AFTER};

/// Evidence is cut to this many bytes.
pub const EVIDENCE_BYTES_MAX: usize = 512;

/// A run that ends this much later than its timeout wasn't watched: this process itself stood still (it was stopped,
/// the machine was suspended or starved), so the run says nothing.
const STALL: Duration = Duration::from_millis(500);

/// A second look at a service, after its check has used up its time, may take so long.
const CONNECT_MIN: Duration = Duration::from_millis(200);

/// What is probed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Where the replica listens, for checks over HTTP; `None` while it isn't known.
    pub addr: Option<SocketAddr>,
    /// How a program is run for it, for checks by exec.
    pub exec: Option<Arc<ExecContext>>,
    /// The container in which a program is run instead, for a replica on the docker engine.
    pub container: Option<InContainer>,
}

/// A container of the docker engine.
#[derive(Clone)]
pub struct InContainer {
    /// The Engine that has it.
    pub engine: Docker,
    /// Its id.
    pub id: String,
}

impl std::fmt::Debug for InContainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("InContainer").field(&self.id).finish()
    }
}

/// There is one Engine, so the id says it all.
impl PartialEq for InContainer {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for InContainer {}

/// How the program of a check is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecContext {
    /// Its whole environment: the replica's.
    pub environment: BTreeMap<String, String>,
    /// Its working directory, absolute.
    pub working_dir: PathBuf,
    /// Whom it runs as; `None` for the agent's own account. It gets the account's user and group, and none of its
    /// supplementary groups.
    pub account: Option<Account>,
    /// The network namespace of an isolated replica (`/run/netns/…`).
    pub namespace: Option<PathBuf>,
}

/// What one run found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// The replica answered as it should.
    Pass {
        /// How long the run took.
        took: Duration,
    },
    /// It didn't.
    Fail {
        /// What it did instead, at most [`EVIDENCE_BYTES_MAX`] bytes.
        evidence: String,
        /// Whether it answered not at all within the time limit: the sign of a hang. A refused or broken connection
        /// is an answer in this sense.
        no_answer: bool,
    },
    /// The check couldn't be run. This says nothing of the replica.
    CouldNotRun {
        /// Why, at most [`EVIDENCE_BYTES_MAX`] bytes.
        reason: String,
    },
}

impl ProbeResult {
    fn fail(evidence: impl AsRef<str>) -> Self {
        Self::Fail { evidence: bounded(evidence.as_ref()), no_answer: false }
    }

    fn no_answer(evidence: impl AsRef<str>) -> Self {
        Self::Fail { evidence: bounded(evidence.as_ref()), no_answer: true }
    }

    fn could_not_run(reason: impl AsRef<str>) -> Self {
        Self::CouldNotRun { reason: bounded(reason.as_ref()) }
    }
}

/// What a loop does over and over; replaced in tests by something without sockets.
pub trait ProbeRunner: Send + Sync + 'static {
    /// Runs `check` once. Dropping the future ends the run and everything it started.
    fn run(&self, plan: Arc<ProbePlan>) -> impl Future<Output = ProbeResult> + Send;
}

/// Runs checks for real: [`run`].
#[derive(Clone, Copy, Debug, Default)]
pub struct RealRunner;

impl ProbeRunner for RealRunner {
    async fn run(&self, plan: Arc<ProbePlan>) -> ProbeResult {
        run(&plan.check, &plan.target, plan.timeout).await
    }
}

/// How one replica is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePlan {
    /// What one run does. A replica with [`Check::Up`] gets no loop: there is nothing to run.
    pub check: Check,
    /// What is probed. When this or `check` changes, a run under way is abandoned and the next comes at once.
    pub target: ProbeTarget,
    /// From the start of one run to the start of the next, at least [`MIN_GAP`].
    pub interval: Duration,
    /// A run that takes longer has failed.
    pub timeout: Duration,
    /// How long the first run waits, so that replicas started together aren't probed together.
    pub offset: Duration,
    /// Before the first verdict: a failed run is no news, so the next comes after `interval` too. Otherwise it comes
    /// after [`RETRY_AFTER`], so that a verdict is reached soon.
    pub fast: bool,
}

impl ProbePlan {
    /// The same with this program in its own one's place, where it runs one: a drill breaks a probe so.
    #[must_use]
    pub fn broken_by(mut self, program: Option<&str>) -> Self {
        if let (Check::Exec(argv), Some(program)) = (&mut self.check, program) {
            *argv = vec![program.to_owned()];
        }
        self
    }

    /// Whether both run the same check on the same target, whatever their timing.
    fn probes_the_same(&self, other: &Self) -> bool {
        self.check == other.check && self.target == other.target
    }
}

/// Runs a check once.
///
/// Takes at most `timeout`, and for a program that can't be killed about a second more. Dropping the future ends the
/// run: connections are closed, and a program is killed with its process group.
pub async fn run(check: &Check, target: &ProbeTarget, timeout: Duration) -> ProbeResult {
    let started = Instant::now();
    let result = match (check, target.addr, &target.exec) {
        (Check::Http { port, path, host, accept }, Some(address), _) => {
            let address = SocketAddr::new(address.ip(), port.unwrap_or(address.port()));
            let request = http::Get { address, path, host: host.as_deref(), accept: *accept };
            http::run(&request, started, timeout).await
        }
        (Check::Exec(argv), _, _) if target.container.is_some() => {
            in_container(target, argv, started, timeout).await
        }
        (Check::Exec(argv), _, Some(context)) => exec::run(argv, context, started, timeout).await,
        (Check::Http { .. }, None, _) => ProbeResult::could_not_run("the replica's address isn't known"),
        (Check::Exec(_), _, None) => {
            ProbeResult::could_not_run("it isn't known how to run a program for the replica")
        }
        (Check::Up, ..) => {
            ProbeResult::could_not_run("there is nothing to run: being up is all that is asked")
        }
    };
    let took = started.elapsed();
    match result {
        ProbeResult::Fail { evidence, .. } if took > timeout + exec::KILL_WAIT + STALL => {
            ProbeResult::could_not_run(format!(
                "Bulsa itself stood still: the run of at most {timeout:?} ended after {took:?} ({evidence})"
            ))
        }
        other => other,
    }
}

/// Runs a check's program in a replica's container.
async fn in_container(
    target: &ProbeTarget,
    argv: &[String],
    started: Instant,
    timeout: Duration,
) -> ProbeResult {
    let address = target.addr;
    let Some(container) = &target.container else {
        return ProbeResult::could_not_run("the replica's container isn't known");
    };
    match container.engine.exec(&container.id, argv, timeout).await {
        ExecOutcome::Exited { code: 0, .. } => ProbeResult::Pass { took: started.elapsed() },
        ExecOutcome::Exited { code, output } => {
            let said = format!("exit {code}: {output}");
            judge(said, triage::broken(code, &output, argv), address, started + timeout).await
        }
        ExecOutcome::TimedOut { output } => {
            ProbeResult::no_answer(format!("it took longer than {timeout:?}: {output}"))
        }
        ExecOutcome::CouldNotRun { reason } => ProbeResult::could_not_run(reason),
    }
}

/// A check that failed, or one that is broken itself. Whether nothing but the wrong `localhost` is the matter is seen by asking
/// at the replica's address: something listens there. That is no sign of life; a service that hangs fails otherwise, too.
async fn judge(
    said: String,
    broken: Option<triage::Broken>,
    address: Option<SocketAddr>,
    until: Instant,
) -> ProbeResult {
    match broken {
        None => ProbeResult::fail(said),
        Some(broken @ triage::Broken::Ipv6Localhost) => {
            let Some(address) = address.filter(|address| address.is_ipv4() && address.port() > 0) else {
                return ProbeResult::fail(said);
            };
            let until = until.max(Instant::now() + CONNECT_MIN);
            let connected = tokio::time::timeout_at(until, tokio::net::TcpStream::connect(address)).await;
            if matches!(connected, Ok(Ok(_))) {
                return ProbeResult::could_not_run(format!("{broken} ({said})"));
            }
            ProbeResult::fail(said)
        }
        Some(broken) => ProbeResult::could_not_run(format!("{broken} ({said})")),
    }
}

/// `text` as one line of at most [`EVIDENCE_BYTES_MAX`] bytes.
fn bounded(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(EVIDENCE_BYTES_MAX));
    for c in text.trim().chars() {
        let c = if c.is_control() { ' ' } else { c };
        if line.len() + c.len_utf8() > EVIDENCE_BYTES_MAX {
            break;
        }
        line.push(c);
    }
    line.truncate(line.trim_end().len());
    line
}

/// Whether an error is this host's or this process's trouble and not the replica's doing.
fn is_ours(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    // No file descriptors, memory, processes or local ports left; or a local rule forbids it.
    const OURS: [Errno; 9] = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::AGAIN,
        Errno::ADDRNOTAVAIL,
        Errno::PERM,
        Errno::ACCESS,
        Errno::NETDOWN,
    ];
    Errno::from_io_error(error).is_some_and(|errno| OURS.contains(&errno))
}

#[cfg(test)]
mod tests;

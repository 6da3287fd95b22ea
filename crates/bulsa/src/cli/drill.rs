//! `bulsa drill`: hurts replicas on purpose, and shows how they come back.
//!
//! Owns: consent, the order of the drills, and the load that counts failed requests meanwhile. Never: hurts anything, or
//! takes a time: the daemon does both, and tells what came of a drill in one event. So a command that is killed leaves
//! nothing hurt; the drills that it had not begun are not done.

mod show;
mod traffic;

use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bulsa_core::wire::api::{
    Answer, Detail, DrillKind, DrillPlan, DrillReport, DrillStep, Request, Snapshot,
};
use clap::Args;
use serde::Serialize;

use self::traffic::{Requests, Traffic};
use super::{
    context::{Context, accepted},
    follow,
    which::Purpose,
};
use crate::{
    agent::injure::memory,
    client::{Client, EventsQuery},
    report::{CommandError, ErrorKind, ExitCode},
};

/// How much longer than its limit a drill's end is waited for.
const END_SLACK: Duration = Duration::from_secs(60);
/// How long the project may take to be well again before the next drill.
const WELL_MAX: Duration = Duration::from_secs(60);

/// Hurt replicas on purpose, and measure how they come back
#[derive(Debug, Args)]
pub(super) struct DrillArgs {
    /// The services, or single replicas of them (`web.2`) [default: the first replica of each app and worker]
    #[arg(value_name = "SERVICE[.N]")]
    services: Vec<String>,
    /// Only these: kill, hang, app-dead, block, cut, crash-loop, memory, probe [default: all that apply]
    #[arg(long, value_name = "KIND,…", value_delimiter = ',')]
    only: Vec<DrillKind>,
    /// Don't ask
    #[arg(short, long)]
    yes: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Also where the last healthy replica of a service may be lost
    #[arg(long)]
    last: bool,
    /// Where requests go meanwhile, on this host [default: each service's published HTTP port, and the path of its probe]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Requests a second; 0: none
    #[arg(long, value_name = "R", default_value_t = 20)]
    rate: u32,
}

/// One drill, done.
#[derive(Debug, Serialize)]
struct Done {
    #[serde(flatten)]
    report: DrillReport,
    /// The requests that were sent meanwhile; `None` where none were.
    requests: Option<Requests>,
}

/// Everything that came of the command, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Outcome {
    project: String,
    /// Whether all drills came as expected.
    passed: bool,
    drills: Vec<Done>,
    /// Those that don't apply, with the reason.
    not: Vec<DrillStep>,
    /// Those that were not begun, because of what came of one before them.
    left_out: Vec<DrillStep>,
    /// Why the first of those was not begun, where it was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

/// The helper of a memory drill, which the daemon starts.
pub(super) fn take_memory(pid: Option<&OsString>) -> Result<ExitCode, CommandError> {
    let pid = pid.and_then(|pid| pid.to_str()?.parse().ok());
    let pid = pid.ok_or_else(|| CommandError::bug("the helper of a drill takes a process's number"))?;
    memory::helper(pid).map_err(|error| CommandError::bug("the helper of a drill failed").cause(error))?;
    Ok(ExitCode::Done)
}

pub(super) async fn run(args: DrillArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    let traffic = Traffic::of(args.url.as_deref(), args.rate)?;
    let client = context.client().await?;
    let project = context.which_project(&client.snapshot().await?, Purpose::Change)?;
    let plan = planned(&client, &project, &args).await?;
    if args.dry_run {
        context.printer.data(&plan, |_| show::plan(&plan))?;
        return Ok(ExitCode::Done);
    }
    if let Some(reason) = &plan.denied {
        return Err(unexpected(Answer::Denied { reason: reason.clone(), who: None, since_ms: None }));
    }
    if let Some(first) = plan.refusals.first() {
        let error = CommandError::user(first.clone());
        let error = plan.refusals.iter().skip(1).fold(error, |error, more| error.cause(more));
        return Err(error.hint(
            "`--last` hurts the last healthy replica of a service, too; `--dry-run` shows what would be done",
        ));
    }
    if plan.steps.iter().all(|step| step.not.is_some()) {
        let error = CommandError::user("none of these drills applies: nothing was hurt");
        let reasons = plan.steps.iter().map(|step| {
            format!("{} {}: {}", step.kind, step.replica, step.not.as_deref().unwrap_or_default())
        });
        return Err(reasons.fold(error, CommandError::cause));
    }
    consent(&args, &plan, context)?;
    let outcome = drill_all(&client, plan, &args, &traffic, context).await?;
    let code = if outcome.passed { ExitCode::Done } else { ExitCode::UserError };
    context.printer.data(&outcome, |_| show::outcome(&outcome))?;
    Ok(code)
}

async fn planned(client: &Client, project: &str, args: &DrillArgs) -> Result<DrillPlan, CommandError> {
    let request = Request::DrillPlan {
        project: project.to_owned(),
        services: args.services.clone(),
        only: args.only.clone(),
        last: args.last,
    };
    match client.request(&request).await? {
        Answer::Drills(plan) => Ok(plan),
        other => Err(unexpected(other)),
    }
}

/// Somebody at a terminal says yes, or the command line did.
fn consent(args: &DrillArgs, plan: &DrillPlan, context: &mut Context<'_>) -> Result<(), CommandError> {
    if args.yes {
        return Ok(());
    }
    let needs_yes = || {
        CommandError::user("a drill hurts running replicas on purpose: nothing was done without a yes")
            .hint("`--yes` says so; `--dry-run` shows what would be done")
    };
    if !io::stdin().is_terminal() || context.printer.json() {
        return Err(needs_yes());
    }
    context.printer.insist(&show::plan(plan))?;
    context.printer.insist(&format!("Hurt these replicas of `{}` now? [y/N] ", plan.project))?;
    let mut said = String::new();
    io::stdin().read_line(&mut said)?;
    if matches!(said.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(needs_yes()) }
}

async fn drill_all(
    client: &Client,
    plan: DrillPlan,
    args: &DrillArgs,
    traffic: &Traffic,
    context: &mut Context<'_>,
) -> Result<Outcome, CommandError> {
    let (steps, not): (Vec<DrillStep>, Vec<DrillStep>) =
        plan.steps.into_iter().partition(|step| step.not.is_none());
    let project = plan.project;
    let mut outcome =
        Outcome { project, passed: true, drills: Vec::new(), not, left_out: Vec::new(), trouble: None };
    let session = session();
    let mut steps = steps.into_iter().peekable();
    while let Some(step) = steps.next() {
        let more = steps.peek().is_some();
        if !outcome.passed {
            outcome.left_out.push(step);
            continue;
        }
        if !outcome.drills.is_empty() && !well(client, &outcome.project).await? {
            outcome.passed = false;
            outcome.trouble = Some("the project is not well again: no further drill is begun".to_owned());
            outcome.left_out.push(step);
            continue;
        }
        context.printer.remark(&format!("{} {}: {}", step.kind, step.replica, step.injury))?;
        let load = traffic.start(&step).await?;
        let report = match drill_one(client, &outcome.project, &step, args.last, (session, more)).await {
            Ok(report) => report,
            // What came of those before it is worth more than why this one was not begun.
            Err(error) if !outcome.drills.is_empty() && error.kind == ErrorKind::User => {
                outcome.trouble = Some(error.message);
                outcome.passed = false;
                outcome.left_out.push(step);
                continue;
            }
            Err(error) => return Err(error),
        };
        let requests = match load {
            Some(load) => Some(load.finish().await),
            None => None,
        };
        context.printer.remark(&format!("  {}", report.text))?;
        outcome.passed &= report.passed;
        outcome.drills.push(Done { report, requests });
    }
    Ok(outcome)
}

/// One drill, from the request to the event that says what came of it.
async fn drill_one(
    client: &Client,
    project: &str,
    step: &DrillStep,
    last: bool,
    (session, more): (u64, bool),
) -> Result<DrillReport, CommandError> {
    let request = Request::Drill {
        project: project.to_owned(),
        service: step.service.clone(),
        ordinal: step.ordinal,
        kind: step.kind,
        last,
        session,
        more,
    };
    let id = match client.request(&request).await? {
        Answer::Drilling { id } => id,
        other => return Err(unexpected(other)),
    };
    let query = EventsQuery { project: Some(project.to_owned()), after: Some(id), last: None, follow: true };
    let waiting = async {
        let mut events = client.events(&query).await?;
        while let Some(event) = events.next().await? {
            if let Some(Detail::Drill { report }) = event.detail
                && report.id == id
            {
                return Ok(Some(*report));
            }
        }
        Ok::<_, CommandError>(None)
    };
    let limit = Duration::from_millis(step.limit_ms) + END_SLACK;
    match tokio::time::timeout(limit, waiting).await {
        Ok(Ok(Some(report))) => Ok(report),
        Ok(Err(error)) => Err(error.hint(UNDONE)),
        Ok(Ok(None)) => {
            Err(CommandError::new(ErrorKind::Unreachable, "the agent ended while a drill ran").hint(UNDONE))
        }
        Err(_) => {
            let text = format!("the daemon did not say within {} s what came of the drill", limit.as_secs());
            Err(CommandError::new(ErrorKind::Unreachable, text).hint(UNDONE))
        }
    }
}

const UNDONE: &str = "what the drill did is taken back by the daemon, also by an agent that is started anew: see `bulsa events`";

/// An answer that isn't what was asked for.
fn unexpected(answer: Answer) -> CommandError {
    match answer {
        Answer::Denied { reason, .. } => CommandError::new(ErrorKind::Denied, reason)
            .hint("nothing was hurt; try again when that is over: `bulsa status`"),
        other => match accepted(other) {
            Err(error) => error,
            Ok(_) => CommandError::bug("the daemon accepted something else than a drill"),
        },
    }
}

/// Waits until every service of the project is as it should be; whether that came.
async fn well(client: &Client, project: &str) -> Result<bool, CommandError> {
    let holds = |snapshot: &Snapshot| {
        let project = snapshot.project(project)?;
        (!project.degraded()
            && project
                .services
                .iter()
                .all(|service| service.ready >= service.desired || service.role == "job"))
        .then_some(())
    };
    Ok(follow::until(client, WELL_MAX, holds).await?.is_some())
}

/// A number that nobody else has.
fn session() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(std::process::id()) << 32 | u64::from(since.subsec_nanos())
}

//! `bulsa up`: a deploy that starts the daemon where none runs, and stays to watch.

use std::{cell::Cell, collections::BTreeMap, convert::Infallible, os::fd::OwnedFd, time::Duration};

use bulsa_core::{
    compose::develop::watch_rules,
    wire::api::{ProjectView, Request, ServiceState, Snapshot},
};
use clap::Args;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    args::FileArgs,
    attend::{Changes, attend, last_words},
    context::{Accepted, Context, accepted},
    daemon::{self, Reached},
    deploy::{self, Wanted},
    develop::Develop,
    follow, project,
    reload::{Follows, Reload},
    supply::{self, Building},
    watch::Watch,
};
use crate::{
    client::Client,
    report::{CommandError, ErrorKind, ExitCode},
};

/// The longest that one look at a daemon that goes down waits for something new.
const SHUTDOWN_POLL: Duration = Duration::from_secs(20);

/// The longest that the workers' output is waited for before they are stopped.
const OPEN_MAX: Duration = Duration::from_secs(2);

/// The longest that the keeper may take to end after its agent: above the graces that it gives to the others.
const KEEPER_END_MAX: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// For a program that finds the port taken that it insists on, very likely by us.
const PORT_HINT: &str = "hint: if the program listens on a port of its own whatever $PORT says, give bulsa another one and \
                         name the program's, as in `--port 8080 --app-port 3000`";

/// Run a compose project; on a running one, deploy it
#[derive(Debug, Args)]
pub(super) struct UpArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Only these services take what the file says, the others stay as they are
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Return once the project runs
    #[arg(short, long)]
    pub(super) detach: bool,
    /// Use the images that are here
    #[arg(long)]
    no_pull: bool,
    /// Build all services with `build` [default: in a new project, where an image is missing, and with
    /// `pull_policy: build`]
    #[arg(long, conflicts_with = "no_build")]
    build: bool,
    /// Build nothing
    #[arg(long)]
    no_build: bool,
    /// Do what `develop.watch` says when files change: `sync` in its forms, `restart`, `rebuild`
    #[arg(long, conflicts_with = "detach")]
    watch: bool,
}

pub(super) async fn run(args: UpArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    let files = args.files.over(&context.files);
    let project = project::load(&files, &args.services, context)?;
    // Before anything is built or started, so that no change is missed, and no mistake found late.
    let reload = if args.watch { Some(develop(&project, files, context)?) } else { None };
    let mut wanted = Wanted {
        spec: project.spec,
        sources: project.sources,
        services: args.services,
        up: true,
        no_pull: args.no_pull,
        credentials: BTreeMap::new(),
    };
    let building = match (args.build, args.no_build) {
        (true, _) => Building::All,
        (_, true) => Building::Never,
        _ => Building::Missing,
    };
    // Before any daemon is started, so that none is left by a build that fails. One that can't be used is told of then.
    let snapshot = match context.client().await {
        Ok(client) => client.snapshot().await.unwrap_or_default(),
        Err(_) => Snapshot::default(),
    };
    let project = snapshot.project(&wanted.spec.project).cloned();
    supply::supply(&mut wanted, building, project.as_ref(), context).await?;
    bring_up(wanted, Stay { detached: args.detach, patient: false }, reload, context).await
}

/// What the project's files say is done when others change.
fn develop(
    project: &project::Project,
    files: FileArgs,
    context: &mut Context<'_>,
) -> Result<Reload, CommandError> {
    let tree = project.loaded.tree.as_ref();
    let watched = tree.map(|tree| watch_rules(tree, &project.spec)).transpose().map_err(|mistakes| {
        CommandError::user("not everything in `develop.watch` can be followed; nothing was started")
            .cause(mistakes)
    })?;
    let watched = watched.unwrap_or_default();
    for (_, note) in &watched.notes {
        context.printer.warning(&format!("{}: {}", note.pos, note.message))?;
    }
    let develop = Develop::new(watched, &project.spec, files, context.paths.state_dir.clone())?;
    let (watch, note) = Watch::new(&develop.roots(), &context.directory, &context.paths.state_dir)?;
    note.map(|note| context.printer.warning(&note)).transpose()?;
    Ok(Reload { watch, directory: context.directory.clone(), follows: Follows::Develop(Box::new(develop)) })
}

/// What a command does once what it brought up runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stay {
    /// It returns.
    pub(super) detached: bool,
    /// It stays also with programs that die before they are ready, as long as they are tried again.
    pub(super) patient: bool,
}

/// Starts a daemon where none runs, deploys, and stays with the logs unless detached.
pub(super) async fn bring_up(
    wanted: Wanted,
    stay: Stay,
    reload: Option<Reload>,
    context: &mut Context<'_>,
) -> Result<ExitCode, CommandError> {
    let reached = daemon::reach_or_start(context).await?;
    let name = wanted.spec.project.clone();
    let has_begun = Cell::new(false);
    if reached.init {
        return bring_up_in_container(wanted, stay, reload, &reached, context).await;
    }
    match follow::unless_interrupted(deploy_and_stay(wanted, (stay, reload), &reached, &has_begun, context))
        .await
    {
        Some(result) => result,
        None => interrupted(&reached, &name, has_begun.get(), context).await,
    }
}

/// The same as the child of the daemon that is a container's first process. It ends everything itself, and tells us when
/// it has, so that what was written last is shown.
async fn bring_up_in_container(
    wanted: Wanted,
    stay: Stay,
    reload: Option<Reload>,
    reached: &Reached,
    context: &mut Context<'_>,
) -> Result<ExitCode, CommandError> {
    let ending = follow::told_to_end();
    // Heard from the beginning: by default it would end us.
    let hangups = signal(SignalKind::hangup())
        .map_err(|error| CommandError::user("SIGHUP can't be caught").cause(error))?;
    let name = wanted.spec.project.clone();
    let has_begun = Cell::new(false);
    let deployed = tokio::select! {
        biased;
        () = ending.cancelled() => return Ok(ExitCode::Done),
        deployed = deploy(wanted, stay, reached, &has_begun, context) => deployed?,
    };
    match deployed {
        Some(code) => Ok(code),
        None => {
            let what = "the end of this container stops everything";
            show(name, what, reached, &ending, Changes { hangups: Some(hangups), reload }, context).await
        }
    }
}

async fn deploy_and_stay(
    wanted: Wanted,
    (stay, reload): (Stay, Option<Reload>),
    reached: &Reached,
    has_begun: &Cell<bool>,
    context: &mut Context<'_>,
) -> Result<ExitCode, CommandError> {
    let name = wanted.spec.project.clone();
    if let Some(code) = deploy(wanted, stay, reached, has_begun, context).await? {
        return Ok(code);
    }
    let what = if reached.started { "Ctrl-C stops everything" } else { "Ctrl-C leaves it running" };
    show(name, what, reached, &CancellationToken::new(), Changes { hangups: None, reload }, context).await
}

/// Deploys; the exit code, unless there is something to stay with.
async fn deploy(
    wanted: Wanted,
    stay: Stay,
    reached: &Reached,
    has_begun: &Cell<bool>,
    context: &mut Context<'_>,
) -> Result<Option<ExitCode>, CommandError> {
    let client = &reached.client;
    let name = wanted.spec.project.clone();
    let sent = match deploy::send(client, wanted, context.printer).await {
        Ok(sent) => sent,
        Err(error) => return Err(leave_nothing(reached, error).await),
    };
    has_begun.set(true);
    match sent {
        Accepted::Begun { deploy: Some(id), text, notes } => {
            context.printer.remark(&text)?;
            let ended = follow::deployment(client, context.printer, &name, id).await;
            deploy::warn_of(context.printer, &notes)?;
            let code = ended?;
            if code != ExitCode::Done && !goes_on(client, stay, &name, context).await? {
                if !stay.detached && reached.started {
                    end_unless_serving(reached, &name, context).await?;
                }
                return Ok(Some(code));
            }
        }
        other => deploy::said(context, &other)?,
    }
    Ok(stay.detached.then_some(ExitCode::Done))
}

async fn show(
    name: String,
    what: &str,
    reached: &Reached,
    ending: &CancellationToken,
    changes: Changes,
    context: &mut Context<'_>,
) -> Result<ExitCode, CommandError> {
    context.printer.remark(&format!("showing logs; {what}"))?;
    // From here on it only shows: a reader that goes away has seen enough. Of a container it is the daemon's child, and
    // without a reader it would be started again and again.
    context.printer.persevere(reached.init);
    attend(&reached.client, context.printer, name, ending, changes).await
}

/// Whether to stay with a project whose deploy failed: its programs die, and are tried again.
async fn goes_on(
    client: &Client,
    stay: Stay,
    name: &str,
    context: &mut Context<'_>,
) -> Result<bool, CommandError> {
    let snapshot = client.snapshot().await?;
    if stay.patient && is_port_taken(&snapshot, name) {
        context.printer.remark(PORT_HINT)?;
    }
    let goes_on = stay.patient && !stay.detached && is_crash_looping(&snapshot, name);
    if goes_on {
        let text =
            format!("`{name}` is crash-looping: it is tried again more and more slowly, until it runs");
        context.printer.warning(&text)?;
    }
    Ok(goes_on)
}

/// Whether the last deploy's lines show that the program found its port taken.
fn is_port_taken(snapshot: &Snapshot, project: &str) -> bool {
    let last = snapshot.project(project).and_then(|project| project.deployments.last());
    let mut lines = last.into_iter().flat_map(|deployment| &deployment.progress);
    lines.any(|line| line.text.contains("EADDRINUSE") || line.text.contains("ddress already in use"))
}

fn is_crash_looping(snapshot: &Snapshot, project: &str) -> bool {
    let services = snapshot.project(project).into_iter().flat_map(|project| &project.services);
    services.into_iter().any(|service| service.state == ServiceState::CrashLooping)
}

/// After a deploy of `name` that failed: the daemon that was started for it ends, unless it has something to keep alive.
async fn end_unless_serving(
    reached: &Reached,
    name: &str,
    context: &mut Context<'_>,
) -> Result<(), CommandError> {
    let snapshot = reached.client.snapshot().await?;
    let serving = serving(&snapshot, name);
    if serving.is_empty() {
        context.printer.remark("stopping the daemon that this command started")?;
        return stop_all(reached).await;
    }
    let text = format!(
        "the daemon that this command started goes on with {}: `bulsa down -p NAME` stops a project, `kill {}` the daemon",
        serving.join(", "),
        snapshot.keeper_pid
    );
    context.printer.remark(&text)
}

/// The projects that are to be kept alive after a deploy of `name` that failed: those that came back with the daemon. A
/// first release that failed stays as the live one, and has never served anybody.
fn serving(snapshot: &Snapshot, name: &str) -> Vec<String> {
    let is_first =
        |project: &ProjectView| project.deployments.last().is_some_and(|last| last.previous.is_none());
    let kept = snapshot.projects.iter().filter(|project| project.live.is_some());
    let kept = kept.filter(|project| project.name != name || !is_first(project));
    kept.map(|project| format!("`{}`", project.name)).collect()
}

/// A deploy that was not begun: a daemon that was started for it alone ends again.
async fn leave_nothing(reached: &Reached, error: CommandError) -> CommandError {
    let is_idle = async { Ok::<_, CommandError>(reached.client.snapshot().await?.projects.is_empty()) };
    let stopped = match is_idle.await {
        Ok(true) if reached.started => stop_all(reached).await,
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    match stopped {
        Ok(()) => error,
        Err(trouble) => error.cause(format!("the daemon that was started goes on: {}", trouble.message)),
    }
}

/// Ctrl-C: what this command brought up goes down with it; what ran before stays. A deploy that had not begun doesn't
/// begin any more, since nobody waits for its answer.
async fn interrupted(
    reached: &Reached,
    name: &str,
    has_begun: bool,
    context: &mut Context<'_>,
) -> Result<ExitCode, CommandError> {
    // Whoever reads the output got the same Ctrl-C, and may be gone.
    context.printer.persevere(true);
    let has_begun = has_begun || is_deploying(&reached.client, name).await;
    let ending = if has_begun {
        Ok(ExitCode::Done)
    } else {
        Err(CommandError::user(format!(
            "interrupted before the deploy of `{name}` began: nothing was changed"
        )))
    };
    if !reached.started {
        if has_begun {
            let text = format!("detached; `{name}` goes on, and `bulsa down -p {name}` stops it");
            context.printer.remark(&text)?;
        }
        return ending;
    }
    context.printer.remark("stopping everything; Ctrl-C again leaves that to the daemon")?;
    // What workers say at their end is shown, too.
    let stopping = async {
        let (opened, is_open) = oneshot::channel();
        let shown = async {
            last_words(&reached.client, context.printer, name.to_owned(), opened).await;
            std::future::pending::<Infallible>().await
        };
        let stopped = async {
            // Whether it is open, failed or takes too long: everything is stopped.
            timeout(OPEN_MAX, is_open).await.ok();
            stop_all(reached).await
        };
        tokio::select! {
            biased;
            never = shown => match never {},
            stopped = stopped => stopped,
        }
    };
    match follow::unless_interrupted(stopping).await {
        Some(Err(error)) => Err(error),
        Some(Ok(())) | None => ending,
    }
}

/// Whether a deploy runs. It may have begun just when its answer wasn't waited for any more.
async fn is_deploying(client: &Client, name: &str) -> bool {
    let looked = follow::unless_interrupted(client.snapshot()).await;
    let snapshot = looked.and_then(Result::ok).unwrap_or_default();
    snapshot.project(name).is_some_and(|project| project.deploying().is_some())
}

/// Ends the daemon, and returns when it is gone. The daemon itself bounds how long its replicas may take.
async fn stop_all(reached: &Reached) -> Result<(), CommandError> {
    let keeper = keeper_of(&reached.client.snapshot().await?);
    accepted(reached.client.request(&Request::Shutdown).await?)?;
    let mut number = 0;
    while let Ok(snapshot) = reached.client.snapshot_after(number, SHUTDOWN_POLL).await {
        number = snapshot.number;
    }
    // The agent is gone. The keeper ends last, after the proxies; whoever runs us next finds their ports free.
    let Some(keeper) = keeper else { return Ok(()) };
    let waited = tokio::task::spawn_blocking(move || {
        poll(&mut [PollFd::new(&keeper, PollFlags::IN)], Some(&KEEPER_END_MAX)).is_ok_and(|ready| ready > 0)
    });
    if waited.await.unwrap_or_default() {
        return Ok(());
    }
    let text = format!("the daemon did not end within {} s", KEEPER_END_MAX.tv_sec);
    Err(CommandError::new(ErrorKind::Unreachable, text).hint("its log, `daemon.log`, says what it waits for"))
}

/// A handle to the keeper's process; `None` when it is gone.
fn keeper_of(snapshot: &Snapshot) -> Option<OwnedFd> {
    let pid = i32::try_from(snapshot.keeper_pid).ok().and_then(Pid::from_raw)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

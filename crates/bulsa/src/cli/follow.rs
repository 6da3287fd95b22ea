//! Following what was asked until it is done.
//!
//! Owns: a deployment's progress across losses of the connection (the agent may be replaced meanwhile, the deployment
//! goes on), and waiting for a snapshot in which something holds. Never: gives up before a named limit.

use std::{future::Future, time::Duration};

use bulsa_core::wire::api::{ProgressKind, Snapshot};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Client, ClientError},
    output::{Printer, Progress},
    report::{CommandError, ErrorKind, ExitCode},
};

/// How long the daemon may be away before a command that follows something gives up.
const AWAY_MAX: Duration = Duration::from_secs(30);
/// How often a daemon that is away is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The longest that a snapshot is waited for at a time.
const POLL: Duration = Duration::from_secs(20);

/// Shows a deployment's progress to its end; the exit code that it gives.
pub(super) async fn deployment(
    client: &Client,
    printer: &mut Printer,
    project: &str,
    id: u32,
) -> Result<ExitCode, CommandError> {
    let mut progress = printer.progress();
    let mut shown = 0;
    loop {
        let error = match follow_once(client, &mut progress, project, id, &mut shown).await? {
            Ended::Done(code) => return Ok(code),
            Ended::Lost(error) if error.may_pass() => error,
            Ended::Lost(error) => return Err(error.into()),
            Ended::Cut => {
                let text = format!("the daemon no longer knows deploy {id} of `{project}`");
                return Err(CommandError::user(text).hint("`bulsa events` says what became of it"));
            }
        };
        progress.remark(&format!("{error}; the deploy goes on, waiting for the daemon"))?;
        back(client).await?;
    }
}

enum Ended {
    Done(ExitCode),
    Lost(ClientError),
    /// The stream ended in order, without a last line.
    Cut,
}

async fn follow_once(
    client: &Client,
    progress: &mut Progress<'_>,
    project: &str,
    id: u32,
    shown: &mut u32,
) -> Result<Ended, CommandError> {
    let before = *shown;
    let mut stream = match client.progress(project, id, *shown).await {
        Ok(stream) => stream,
        Err(error) => return Ok(Ended::Lost(error)),
    };
    loop {
        match stream.next().await {
            Ok(Some(line)) => {
                *shown = line.n;
                progress.line(&line)?;
                if line.kind == ProgressKind::Done {
                    return Ok(Ended::Done(ExitCode::of_deploy(line.exit_code.unwrap_or(0))));
                }
            }
            // An agent that goes down in order ends its streams in order too: then the next one knows more.
            Ok(None) if *shown > before || client.snapshot().await.is_err() => {
                return Ok(Ended::Lost(ClientError::Lost {
                    socket: client.socket().to_path_buf(),
                    detail: "the stream ended early".to_owned(),
                }));
            }
            Ok(None) => return Ok(Ended::Cut),
            Err(error) => return Ok(Ended::Lost(error)),
        }
    }
}

/// Waits until the daemon answers again.
pub(super) async fn back(client: &Client) -> Result<Snapshot, CommandError> {
    let deadline = Instant::now() + AWAY_MAX;
    loop {
        match timeout_at(deadline, client.snapshot()).await {
            Ok(Ok(snapshot)) => return Ok(snapshot),
            Ok(Err(error)) if !error.may_pass() || Instant::now() >= deadline => return Err(error.into()),
            Ok(Err(_)) => sleep(LOOK_EVERY).await,
            Err(_) => {
                let text = format!("the daemon was away for {} s", AWAY_MAX.as_secs());
                return Err(CommandError::new(ErrorKind::Unreachable, text)
                    .hint("replicas and traffic don't depend on it; see its log, `daemon.log` in the state directory"));
            }
        }
    }
}

/// Waits for a snapshot in which `holds` gives something, at most for `limit`; `None` when that is over.
pub(super) async fn until<T>(
    client: &Client,
    limit: Duration,
    mut holds: impl FnMut(&Snapshot) -> Option<T>,
) -> Result<Option<T>, CommandError> {
    let deadline = Instant::now() + limit;
    let mut snapshot = client.snapshot().await?;
    loop {
        if let Some(found) = holds(&snapshot) {
            return Ok(Some(found));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        snapshot = match client.snapshot_after(snapshot.number, left.min(POLL)).await {
            Ok(next) => next,
            Err(error) if error.may_pass() => back(client).await?,
            Err(error) => return Err(error.into()),
        };
    }
}

/// Runs `work` until it ends or the user presses Ctrl-C, or whoever runs us tells us to end; `None` then.
pub(super) async fn unless_interrupted<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        result = work => Some(result),
        () = interrupted() => None,
    }
}

/// Ends at SIGINT or SIGTERM. A handler that can't be set up leaves the default: the process ends at once, which also
/// detaches.
async fn interrupted() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => drop(pressed),
        _ = terminate.recv() => {}
    }
}

/// Cancelled once we are told to end. Whoever holds it ends well.
pub(super) fn told_to_end() -> CancellationToken {
    let token = CancellationToken::new();
    let told = token.clone();
    tokio::spawn(async move {
        interrupted().await;
        told.cancel();
    });
    token
}

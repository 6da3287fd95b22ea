//! Staying with a project that was brought up: what its replicas write, and what happens to them.
//!
//! Owns: `up` and `run` once everything runs. Never: changes anything; a reader that goes away is missed by nobody.

use std::convert::Infallible;

use bulsa_core::wire::api::{Event, LogLine, Request};
use tokio::{
    signal::unix::Signal,
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

use super::{
    context::{Accepted, accepted},
    follow, logs,
    reload::Reload,
};
use crate::{
    client::{Client, ClientError, EventsQuery, LogsQuery},
    output::{Printer, Tone},
    report::{CommandError, ExitCode},
};

/// At most this many lines wait to be shown.
const WAITING_MAX: usize = 256;
/// Events of these kinds are worth a line between the replicas' own.
const SHOWN: &[&str] =
    &["replica.died", "replica.killed", "replica.start_failed", "replica.suspect", "replica.ready"];

/// What is shown.
pub(super) enum Said {
    Line(LogLine),
    Event(Event),
    Remark(String),
}

/// Shows what comes, across the agent's deaths, until the project is gone. When `ending` is cancelled, the daemon has
/// ended or does: what it still says is shown, and then there is nothing to wait for. `changes` replace the
/// workers meanwhile.
pub(super) async fn attend(
    client: &Client,
    printer: &mut Printer,
    project: String,
    ending: &CancellationToken,
    changes: Changes,
) -> Result<ExitCode, CommandError> {
    follow_all(client, printer, project, (ending, Begin::default()), changes).await
}

/// Shows what is still said from now on, while the daemon ends. `opened` is told when nothing is missed any more.
pub(super) async fn last_words(
    client: &Client,
    printer: &mut Printer,
    project: String,
    opened: oneshot::Sender<()>,
) {
    let ending = CancellationToken::new();
    ending.cancel();
    let changes = Changes { hangups: None, reload: None };
    // Whoever reads it may be gone, and the daemon ends all the same.
    let begin = Begin { tail: Some(0), opened: Some(opened) };
    follow_all(client, printer, project, (&ending, begin), changes).await.ok();
}

/// Where the workers' output is begun.
#[derive(Default)]
struct Begin {
    /// So many lines of each that were written before are shown.
    tail: Option<u32>,
    /// Told when the daemon has opened it.
    opened: Option<oneshot::Sender<()>>,
}

async fn follow_all(
    client: &Client,
    printer: &mut Printer,
    project: String,
    (ending, begin): (&CancellationToken, Begin),
    changes: Changes,
) -> Result<ExitCode, CommandError> {
    let (say, mut said) = mpsc::channel(WAITING_MAX);
    let mut heard = std::pin::pin!(async {
        let back = async || {
            tokio::select! {
                biased;
                () = ending.cancelled() => Ok(None),
                back = follow::back(client) => back.map(|snapshot| snapshot.project(&project).map(drop)),
            }
        };
        let told = say.clone();
        let both =
            (lines(client, (&project, begin), say.clone(), &back), happenings(client, &project, say, &back));
        let both = async { tokio::try_join!(both.0, both.1).map(drop) };
        tokio::select! {
            ended = both => ended,
            failed = changes.follow(client, &project, &told) => failed.map(drop),
        }
    });
    let ended = loop {
        tokio::select! {
            biased;
            Some(said) = said.recv() => show(&said, printer)?,
            ended = &mut heard => break ended,
        }
    };
    while let Ok(said) = said.try_recv() {
        show(&said, printer)?;
    }
    if ending.is_cancelled() { Ok(ExitCode::Done) } else { ended.map(|()| ExitCode::Done) }
}

/// What replaces workers while one attends.
pub(super) struct Changes {
    /// Each SIGHUP does.
    pub(super) hangups: Option<Signal>,
    /// Changed files do.
    pub(super) reload: Option<Reload>,
}

impl Changes {
    /// Never ends, but when the files can't be looked at any more.
    async fn follow(
        self,
        client: &Client,
        project: &str,
        say: &mpsc::Sender<Said>,
    ) -> Result<Infallible, CommandError> {
        let reload = async {
            match self.reload {
                Some(reload) => reload.run(client, project, say).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            failed = reload => failed,
            never = hang_up(client, project, self.hangups, say) => match never {},
        }
    }
}

/// At each SIGHUP replaces the workers, one after another: what the signal means to those who fork workers.
async fn hang_up(
    client: &Client,
    project: &str,
    hangups: Option<Signal>,
    say: &mpsc::Sender<Said>,
) -> Infallible {
    let Some(mut hangups) = hangups else { return std::future::pending().await };
    while hangups.recv().await.is_some() {
        let text = restart_all(client, project).await.unwrap_or_else(|error| error.message);
        drop(say.send(Said::Remark(format!("SIGHUP: {text}"))).await);
    }
    std::future::pending().await
}

async fn restart_all(client: &Client, project: &str) -> Result<String, CommandError> {
    let snapshot = client.snapshot().await?;
    let services = snapshot.project(project).into_iter().flat_map(|project| &project.services);
    let mut texts = Vec::new();
    for service in services {
        let request = Request::Restart { project: project.to_owned(), service: service.name.clone() };
        let (Accepted::Begun { text, .. } | Accepted::Already { text, .. }) =
            accepted(client.request(&request).await?)?;
        texts.push(text);
    }
    Ok(texts.join("; "))
}

fn show(said: &Said, printer: &mut Printer) -> Result<(), CommandError> {
    match said {
        Said::Line(line) => logs::show(line, printer),
        Said::Remark(text) => printer.remark(text),
        Said::Event(event) => {
            let tone = if event.kind == "replica.ready" { Tone::Good } else { Tone::Bad };
            printer.remark(&tone.paint(&event.text))
        }
    }
}

/// `back` waits for the daemon that was lost; `None` when there is nothing to come back to.
async fn lines(
    client: &Client,
    (project, begin): (&str, Begin),
    say: mpsc::Sender<Said>,
    back: &impl AsyncFn() -> Result<Option<()>, CommandError>,
) -> Result<(), CommandError> {
    let Begin { tail, mut opened } = begin;
    let mut query = LogsQuery { project: project.to_owned(), follow: true, tail, ..LogsQuery::default() };
    loop {
        let mut stream = match client.logs(&query).await {
            Ok(stream) => stream,
            // The agent may die while it is asked.
            Err(error) if error.may_pass() => {
                if back().await?.is_none() {
                    return Ok(());
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        // Who waits for it may have given up.
        opened.take().map(|opened| opened.send(())).transpose().ok();
        let ended = loop {
            match stream.next().await {
                // Whoever shows them ends together with this.
                Ok(Some(line)) => drop(say.send(Said::Line(line)).await),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        if let Some(error) = ended.filter(|error| !error.may_pass()) {
            return Err(error.into());
        }
        if back().await?.is_none() {
            return Ok(());
        }
        // What was written while nobody looked is not told apart from what was shown: a few lines are better missing.
        query.tail = Some(0);
    }
}

async fn happenings(
    client: &Client,
    project: &str,
    say: mpsc::Sender<Said>,
    back: &impl AsyncFn() -> Result<Option<()>, CommandError>,
) -> Result<(), CommandError> {
    let mut after = loop {
        match newest_event(client).await {
            Ok(after) => break after,
            Err(error) if error.may_pass() => {
                if back().await?.is_none() {
                    return Ok(());
                }
            }
            Err(error) => return Err(error.into()),
        }
    };
    loop {
        let query =
            EventsQuery { project: Some(project.to_owned()), after: Some(after), follow: true, last: None };
        let mut stream = match client.events(&query).await {
            Ok(stream) => stream,
            Err(error) if error.may_pass() => {
                if back().await?.is_none() {
                    return Ok(());
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let ended = loop {
            match stream.next().await {
                Ok(Some(event)) => {
                    after = event.id;
                    if SHOWN.contains(&event.kind.as_str()) {
                        drop(say.send(Said::Event(event)).await);
                    }
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        if let Some(error) = ended.filter(|error| !error.may_pass()) {
            return Err(error.into());
        }
        if back().await?.is_none() {
            return Ok(());
        }
    }
}

/// The last event's number: what happened up to now was told with the deploy.
async fn newest_event(client: &Client) -> Result<u64, ClientError> {
    let mut newest = client.events(&EventsQuery { last: Some(1), ..EventsQuery::default() }).await?;
    let mut after = 0;
    while let Some(event) = newest.next().await? {
        after = event.id;
    }
    Ok(after)
}

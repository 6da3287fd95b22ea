//! Staying with a project that was brought up: what its replicas write, and what happens to them.
//!
//! Owns: `up` and `run` once everything runs. Never: changes anything; a reader that goes away is missed by nobody.

use bulsa_core::wire::api::{Event, LogLine};
use tokio::sync::mpsc;

use super::{follow, logs};
use crate::{
    client::{Client, EventsQuery, LogsQuery},
    output::{Printer, Tone},
    report::{CommandError, ExitCode},
};

/// At most this many lines wait to be shown.
const WAITING_MAX: usize = 256;
/// Events of these kinds are worth a line between the replicas' own.
const SHOWN: &[&str] =
    &["replica.died", "replica.killed", "replica.start_failed", "replica.suspect", "replica.ready"];

enum Said {
    Line(LogLine),
    Event(Event),
}

/// Shows what comes, across the agent's deaths, until the project is gone.
pub(super) async fn attend(
    client: &Client,
    printer: &mut Printer,
    project: String,
) -> Result<ExitCode, CommandError> {
    let (say, mut said) = mpsc::channel(WAITING_MAX);
    let mut heard = std::pin::pin!(async {
        let both = (lines(client, &project, say.clone()), happenings(client, &project, say));
        tokio::try_join!(both.0, both.1).map(drop)
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
    ended.map(|()| ExitCode::Done)
}

fn show(said: &Said, printer: &mut Printer) -> Result<(), CommandError> {
    match said {
        Said::Line(line) => logs::show(line, printer),
        Said::Event(event) => {
            let tone = if event.kind == "replica.ready" { Tone::Good } else { Tone::Bad };
            printer.remark(&tone.paint(&event.text))
        }
    }
}

async fn lines(client: &Client, project: &str, say: mpsc::Sender<Said>) -> Result<(), CommandError> {
    let mut query = LogsQuery { project: project.to_owned(), follow: true, ..LogsQuery::default() };
    loop {
        let mut stream = client.logs(&query).await?;
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
        if follow::back(client).await?.project(project).is_none() {
            return Ok(());
        }
        // What was written while nobody looked is not told apart from what was shown: a few lines are better missing.
        query.tail = Some(0);
    }
}

async fn happenings(client: &Client, project: &str, say: mpsc::Sender<Said>) -> Result<(), CommandError> {
    // What happened up to now was told with the deploy.
    let newest = EventsQuery { last: Some(1), ..EventsQuery::default() };
    let mut newest = client.events(&newest).await?;
    let mut after = 0;
    while let Some(event) = newest.next().await? {
        after = event.id;
    }
    loop {
        let query =
            EventsQuery { project: Some(project.to_owned()), after: Some(after), follow: true, last: None };
        let mut stream = client.events(&query).await?;
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
        if follow::back(client).await?.project(project).is_none() {
            return Ok(());
        }
    }
}

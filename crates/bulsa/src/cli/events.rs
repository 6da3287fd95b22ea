//! `bulsa events`

use bulsa_core::wire::api::Event;
use clap::Args;

use super::{context::Context, follow};
use crate::{
    client::EventsQuery,
    output::{Clock, Tone},
    report::{CommandError, ExitCode},
};

/// Show what happened
#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Go on with what happens
    #[arg(long)]
    follow: bool,
    /// The last so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    last: u64,
    /// Those after this event's number, instead of the last ones
    #[arg(long, value_name = "ID", conflicts_with = "last")]
    after: Option<u64>,
}

pub(super) async fn run(args: &EventsArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    let client = context.client().await?;
    let project = context.project.clone();
    let last = args.after.is_none().then_some(args.last);
    let mut query = EventsQuery { project, after: args.after, last, follow: args.follow };
    loop {
        let mut stream = match client.events(&query).await {
            Ok(stream) => stream,
            // The agent may be replaced right after it answered.
            Err(error) if error.may_pass() => {
                follow::back(&client).await?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let ended = loop {
            match stream.next().await {
                Ok(Some(event)) => {
                    query.after = Some(event.id);
                    context.printer.data(&event, |clock| event_text(&event, clock))?;
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        match ended {
            None if !args.follow => return Ok(ExitCode::Done),
            Some(error) if !args.follow || !error.may_pass() => return Err(error.into()),
            // The agent is being replaced; its successor knows what happened meanwhile.
            _ => drop(follow::back(&client).await?),
        }
    }
}

fn event_text(event: &Event, clock: &Clock) -> String {
    let tone =
        if event.kind.ends_with("died") || event.kind.ends_with("failed") { Tone::Bad } else { Tone::Strong };
    let time = Tone::Dim.paint(&clock.local_time(event.at_ms));
    let scope = match (&event.replica, &event.service) {
        (Some(replica), _) => format!(" {replica}"),
        (None, Some(service)) => format!(" {service}"),
        (None, None) => String::new(),
    };
    let project = if event.project.is_empty() { String::new() } else { format!(" {}", event.project) };
    format!("{time}{project}{scope} {} {}", tone.paint(&event.kind), event.text)
}

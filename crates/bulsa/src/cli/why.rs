//! `bulsa why`: why a service is as it is, with the evidence.

use bulsa_core::wire::api::{Evidence, Incident, Why};
use clap::Args;

use super::{context::Context, which::Purpose};
use crate::{
    output::{Clock, Tone},
    report::{CommandError, ExitCode},
};

/// So many last lines of output are shown; all that are kept are in the JSON.
const LINES_SHOWN: usize = 20;

/// Say why a service is as it is, with the evidence
#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    /// The service
    service: String,
    /// The last so many incidents
    #[arg(short = 'n', long, value_name = "N", default_value_t = 5)]
    last: u64,
}

pub(super) async fn run(args: &WhyArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    let client = context.client().await?;
    let project = context.which_project(&client.snapshot().await?, Purpose::Look)?;
    let why = client.why(&project, &args.service, args.last).await?;
    context.printer.data(&why, |clock| why_text(&why, clock))?;
    Ok(ExitCode::Done)
}

/// The answer for people: the sentence, the newest incident with its evidence, the others in a line each, the advice.
pub(super) fn why_text(why: &Why, clock: &Clock) -> String {
    let mut text = format!("{}\n", Tone::Strong.paint(&why.verdict));
    for (index, incident) in why.incidents.iter().enumerate() {
        if index < 2 {
            text.push('\n');
        }
        text += &incident_text(incident, clock);
        if index == 0 {
            text += &evidence_text(&incident.evidence, clock);
            if let Some(again) = &incident.again {
                let how = &again.evidence.exit;
                text += &format!(
                    "{} more died in its place, the last was {}: {how}\n",
                    again.deaths, again.replica
                );
                text += &evidence_text(&again.evidence, clock);
            }
        }
    }
    if !why.advice.is_empty() {
        text += "\nwhat to look at:\n";
        for advice in &why.advice {
            text += &format!("  - {advice}\n");
        }
    }
    text
}

fn incident_text(incident: &Incident, clock: &Clock) -> String {
    let end = match incident.lasted_ms() {
        Some(lasted) => {
            format!("its place served again after {lasted} ms, {} requests lost", incident.requests_lost)
        }
        None if incident.given_up_at_ms.is_some() => "its place was given up".to_owned(),
        None => "its place does not serve yet".to_owned(),
    };
    let (at, exit) = (clock.local_time(incident.detected_at_ms), &incident.evidence.exit);
    format!("{at}  {}  {}, {exit}; {end}\n", incident.replica, incident.cause)
}

fn evidence_text(evidence: &Evidence, clock: &Clock) -> String {
    let mut text = String::new();
    for probe in &evidence.probes {
        let at = clock.local_time(probe.at_ms);
        let times = if probe.times == 1 { String::new() } else { format!(", {} times", probe.times) };
        text += &format!("  probe   {at}{times}: {}\n", probe.text);
    }
    if let Some(asked_by) = &evidence.asked_by {
        text += &format!("  wanted  by {asked_by}\n");
    }
    if let Some(memory) = &evidence.out_of_memory {
        text += &format!("  memory  {memory}\n");
    }
    if let Some(peak) = evidence.memory_peak {
        text += &format!("  memory  at most {} MiB\n", peak.div_ceil(1 << 20));
    }
    if let Some(request) = &evidence.suspect_request {
        text += &format!("  suspect {request}\n");
    }
    let hidden = evidence.last_lines.len().saturating_sub(LINES_SHOWN);
    for line in evidence.last_lines.iter().skip(hidden) {
        text += &format!("  output  {line}\n");
    }
    text
}

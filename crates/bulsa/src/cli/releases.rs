//! `bulsa releases`

use bulsa_core::wire::api::{ReleaseState, ReleaseView};
use clap::Args;

use super::{context::Context, which::Purpose};
use crate::{
    output::{Cell, Clock, Table, Tone},
    report::{CommandError, ExitCode},
};

/// How much of a content hash is shown, in characters.
const HASH_SHOWN: usize = 12;

/// Show a project's releases
#[derive(Debug, Args)]
pub(super) struct ReleasesArgs {}

pub(super) async fn run(_: &ReleasesArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    let client = context.client().await?;
    let snapshot = client.snapshot().await?;
    let name = context.which_project(&snapshot, Purpose::Look)?;
    let releases = snapshot.project(&name).map(|project| project.releases.as_slice()).unwrap_or_default();
    context.printer.data(&releases, |clock| releases_text(releases, clock))?;
    Ok(ExitCode::Done)
}

/// The releases for people, newest first.
pub(super) fn releases_text(releases: &[ReleaseView], clock: &Clock) -> String {
    let mut table = Table::new(&["RELEASE", "STATE", "COLOR", "MADE", "CONTENT"]);
    for release in releases.iter().rev() {
        let tone = match release.state {
            ReleaseState::Live => Tone::Good,
            ReleaseState::Starting | ReleaseState::Draining | ReleaseState::Warm => Tone::Warn,
            ReleaseState::Retired => Tone::Dim,
            ReleaseState::Failed => Tone::Bad,
        };
        table.row([
            Cell::from(format!("r{}", release.id)),
            Cell::toned(release.state.to_string(), tone),
            Cell::from(&release.color),
            Cell::from(clock.local_time(release.created_at_ms)),
            Cell::from(release.hash.chars().take(HASH_SHOWN).collect::<String>()),
        ]);
    }
    table.render()
}

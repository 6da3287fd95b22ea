//! `bulsa check`: what in the project's files will break, with the line, the evidence and the patch.

use bulsa_core::compose::doctor::{self, Finding, Level};
use clap::Args;
use serde::Serialize;

use super::{args::FileArgs, context::Context, project};
use crate::{
    output::Tone,
    report::{CommandError, ExitCode},
};

/// Say what in the compose file will break, with the line and the patch
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Fail on warnings too
    #[arg(long)]
    strict: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    /// Whether the command fails with these findings.
    fails: bool,
    findings: &'a [Finding],
}

pub(super) fn run(args: CheckArgs, context: &mut Context<'_>) -> Result<ExitCode, CommandError> {
    let files = args.files.over(&context.files);
    // What the loader refuses is printed as it prints it for every command; the exit code is the same.
    let project = project::load(&files, &[], context)?;
    let findings = doctor::findings(&project.loaded);
    let fails = doctor::fails(&findings, args.strict);
    let report = Report { fails, findings: &findings };
    context.printer.data(&report, |_| text(&findings))?;
    Ok(if fails { ExitCode::UserError } else { ExitCode::Done })
}

/// The worst first; within a level in the order of the services.
fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut counts = [0_usize; 3];
    for (level, count) in [Level::Breaks, Level::Warning, Level::Note].into_iter().zip(&mut counts) {
        for finding in findings.iter().filter(|finding| finding.level == level) {
            *count += 1;
            // The loader's own warnings have been printed while it read.
            if finding.service.is_some() {
                text.push_str(&one(finding));
            }
        }
    }
    let [breaks, warnings, notes] = counts;
    text + &format!("{breaks} will break, {warnings} may go wrong, {notes} to know\n")
}

fn one(finding: &Finding) -> String {
    let tone = match finding.level {
        Level::Breaks => Tone::Bad,
        Level::Warning => Tone::Warn,
        Level::Note => Tone::Dim,
    };
    let mut text = format!("{}: {}: {}\n", finding.position, tone.paint(finding.level.word()), finding.what);
    if let Some(evidence) = &finding.evidence {
        text.push_str(&format!("  {evidence}\n"));
    }
    if let Some(patch) = &finding.patch {
        text.push_str(&format!("  {} {patch}\n", Tone::Good.paint("instead:")));
    }
    text
}

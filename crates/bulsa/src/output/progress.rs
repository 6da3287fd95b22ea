//! The progress of a deployment while it runs.

use std::time::Duration;

use bulsa_core::wire::api::{Outcome, ProgressKind, ProgressV1};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Printer, Tone};
use crate::report::CommandError;

/// From one picture of the spinner to the next.
const SPIN_EVERY: Duration = Duration::from_millis(120);

/// Shows lines as they come; dropped, it leaves only what is true in the end.
pub struct Progress<'a> {
    printer: &'a mut Printer,
    /// On a terminal: the step that is going on.
    spinner: Option<ProgressBar>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(printer: &'a mut Printer) -> Self {
        let spinner = printer.live.then(|| {
            let bar = ProgressBar::new_spinner();
            // The template is a constant of ours; were it wrong, the plain spinner would do.
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed:>4}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(SPIN_EVERY);
            bar
        });
        Self { printer, spinner }
    }

    /// Shows one line.
    ///
    /// # Errors
    /// When the stream can't be written.
    pub fn line(&mut self, line: &ProgressV1) -> Result<(), CommandError> {
        if self.printer.json() {
            return self.printer.object(line);
        }
        let text = match line.kind {
            ProgressKind::Step => line.text.clone(),
            ProgressKind::Line => Tone::Dim.paint(&format!("  {}", line.text)),
            ProgressKind::Done => ending_tone(line.outcome).paint(&line.text),
        };
        let failed = line.kind == ProgressKind::Done && line.exit_code.is_some_and(|code| code != 0);
        let Some(spinner) = &self.spinner else {
            return if failed { self.printer.insist(&text) } else { self.printer.remark(&text) };
        };
        match line.kind {
            ProgressKind::Step => {
                // The step before it is over: it stays as a line, and the new one spins.
                let before = spinner.message();
                if !before.is_empty() {
                    spinner.println(format!("{} {before}", Tone::Good.paint("✓")));
                }
                spinner.set_message(text);
                spinner.reset_elapsed();
            }
            ProgressKind::Line => spinner.println(text),
            ProgressKind::Done => {
                let step = spinner.message();
                spinner.finish_and_clear();
                if !step.is_empty() && line.outcome == Some(Outcome::Deployed) {
                    self.printer.remark(&format!("{} {step}", Tone::Good.paint("✓")))?;
                }
                self.printer.remark(&text)?;
            }
        }
        Ok(())
    }

    /// Something that isn't from the daemon: the connection is being made again.
    ///
    /// # Errors
    /// When the stream can't be written.
    pub fn remark(&mut self, text: &str) -> Result<(), CommandError> {
        match &self.spinner {
            Some(spinner) => {
                spinner.println(Tone::Dim.paint(text));
                Ok(())
            }
            None => self.printer.remark(text),
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

fn ending_tone(outcome: Option<Outcome>) -> Tone {
    match outcome {
        Some(Outcome::Deployed) => Tone::Good,
        Some(Outcome::RolledBack) => Tone::Warn,
        Some(Outcome::Failed | Outcome::Refused) | None => Tone::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Manner, captured::printer};

    fn lines() -> [ProgressV1; 3] {
        let line = |n, kind, text: &str| ProgressV1 {
            n,
            at_ms: 1_767_259_800_000,
            kind,
            text: text.to_owned(),
            outcome: None,
            exit_code: None,
        };
        let done = line(3, ProgressKind::Done, "deploy 4 rolled back: 5xx at 40 %");
        [
            line(1, ProgressKind::Step, "starting 2 replicas of web (r4) beside r3"),
            line(2, ProgressKind::Line, "web-r4-1: GET /health 503"),
            ProgressV1 { outcome: Some(Outcome::RolledBack), exit_code: Some(3), ..done },
        ]
    }

    #[test]
    fn in_a_pipe_progress_is_plain_lines_on_stderr() {
        let (mut printer, out, err) = printer(Manner::default());
        let mut progress = printer.progress();
        for line in lines() {
            progress.line(&line).unwrap();
        }
        drop(progress);
        assert_eq!(out.text(), "");
        insta::assert_snapshot!(err.text(), @r"
        starting 2 replicas of web (r4) beside r3
          web-r4-1: GET /health 503
        deploy 4 rolled back: 5xx at 40 %
        ");
    }

    #[test]
    fn quietly_a_deploy_that_failed_still_says_how_it_ended() {
        let (mut printer, _, err) = printer(Manner { quiet: true, ..Manner::default() });
        for line in lines() {
            printer.progress().line(&line).unwrap();
        }
        assert_eq!(err.text(), "deploy 4 rolled back: 5xx at 40 %\n");
    }

    #[test]
    fn with_json_progress_is_one_object_a_line_on_stdout() {
        let (mut printer, out, _) = printer(Manner { json: true, ..Manner::default() });
        for line in lines() {
            printer.progress().line(&line).unwrap();
        }
        let last: serde_json::Value = serde_json::from_str(out.text().lines().last().unwrap()).unwrap();
        assert_eq!((out.text().lines().count(), &last["exit_code"]), (3, &3.into()));
    }
}

//! How drills are shown: what would be done, and what came of it.

use bulsa_core::wire::api::{DrillPlan, DrillStep};

use super::{Done, Outcome};
use crate::output::{Cell, Table, Tone};

/// What would be done, replica by replica.
pub(super) fn plan(plan: &DrillPlan) -> String {
    let mut table = Table::new(&["DRILL", "REPLICA", "WHAT IS DONE", "WHAT SHOULD COME OF IT", "WITHIN"]);
    for step in &plan.steps {
        match &step.not {
            Some(why) => table.row([
                Cell::toned(step.kind.to_string(), Tone::Dim),
                Cell::from(&step.replica),
                Cell::toned(format!("does not apply: {why}"), Tone::Dim),
                Cell::from(""),
                Cell::from(""),
            ]),
            None => table.row([
                Cell::from(step.kind),
                Cell::from(&step.replica),
                Cell::from(&step.injury),
                Cell::from(&step.expected),
                Cell::from(format!("{} s", step.limit_ms.div_ceil(1000))),
            ]),
        }
    }
    let mut text = table.render();
    for why in plan.denied.iter().chain(&plan.refusals) {
        text += &format!("{} {why}\n", Tone::Warn.paint("it would be refused:"));
    }
    text
}

/// What came of it: a line for each drill.
pub(super) fn outcome(outcome: &Outcome) -> String {
    let mut table =
        Table::new(&["DRILL", "REPLICA", "DETECTED", "UN-ROUTED", "RECOVERED", "REQUESTS FAILED", "RESULT"]);
    for done in &outcome.drills {
        table.row(row(done));
    }
    for (steps, why) in [(&outcome.not, None), (&outcome.left_out, Some("not begun"))] {
        for step in steps {
            table.row(undone(step, why));
        }
    }
    let mut text = table.render();
    if let Some(trouble) = &outcome.trouble {
        text += &format!("{} {trouble}\n", Tone::Bad.paint("not begun:"));
    }
    text
}

fn row(done: &Done) -> [Cell; 7] {
    let report = &done.report;
    let name = report.replica.rsplit_once('.').map_or(report.replica.as_str(), |(name, _)| name);
    let (word, tone) =
        if report.passed { ("as expected", Tone::Good) } else { (report.text.as_str(), Tone::Bad) };
    [
        Cell::from(report.kind),
        Cell::from(name),
        after(report.detected_ms),
        after(report.unrouted_ms),
        after(report.recovered_ms),
        Cell::from(done.requests.as_ref().map(|requests| requests.told()).unwrap_or_default()),
        Cell::toned(word, tone),
    ]
}

fn undone(step: &DrillStep, why: Option<&str>) -> [Cell; 7] {
    let why = why.map_or_else(
        || format!("does not apply: {}", step.not.as_deref().unwrap_or_default()),
        str::to_owned,
    );
    let empty = || Cell::from("");
    let kind = Cell::toned(step.kind.to_string(), Tone::Dim);
    [kind, Cell::from(&step.replica), empty(), empty(), empty(), empty(), Cell::toned(why, Tone::Dim)]
}

/// Milliseconds below ten seconds, seconds beyond.
fn after(ms: Option<u64>) -> Cell {
    Cell::from(match ms {
        None => String::new(),
        Some(ms) if ms < 10_000 => format!("{ms} ms"),
        Some(ms) => format!("{:.1} s", ms as f64 / 1000.0),
    })
}

//! What the tests of injuries print, for the tables of `docs/healing.md`.

use std::time::Duration;

use bulsa::load::Report;

/// `0.17 / 0.15 / 0.21 s (n = 5)`: the median, the least and the most.
pub(crate) fn spread(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let s = |time: Duration| format!("{:.2}", time.as_secs_f64());
    let (least, most) = (sorted[0], sorted[sorted.len() - 1]);
    format!("{} / {} / {} s (n = {})", s(sorted[sorted.len() / 2]), s(least), s(most), sorted.len())
}

/// `0 of 512 failed, the longest wait 0.24 s`
pub(crate) fn figures(report: &Report) -> String {
    let kinds: Vec<String> =
        report.failed_by_kind.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let kinds = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
    let wait = report.max.as_secs_f64();
    format!("{} of {} failed{kinds}, the longest wait {wait:.2} s", report.failed, report.requests)
}

//! The demo's table: text for people, from the figures.

use std::{fmt::Write as _, time::Duration};

use super::{
    by_hand,
    figures::{Figures, Step},
};

/// The widest that a line of prose gets, in characters.
const WIDTH: usize = 100;
/// What stands before the home-made way's figures.
const BY_HAND: &str = "    by hand: ";
const HEAD: [&str; 7] = ["step", "requests", "failed", "cut", "longest gap", "recovery", "WebSockets kept"];

impl Figures {
    /// The table with its footnotes and the verdict, several lines.
    #[must_use]
    pub fn table(&self) -> String {
        let rows: Vec<_> = self.steps.iter().map(row).collect();
        let widths: Vec<_> = (0..HEAD.len())
            .map(|n| {
                let cells = rows.iter().map(|row| row[n].chars().count());
                cells.chain([HEAD[n].chars().count()]).max().unwrap_or(0)
            })
            .collect();
        let mut text = line(&HEAD.map(str::to_owned), &widths);
        for (step, row) in self.steps.iter().zip(&rows) {
            text += &line(row, &widths);
            text += &wrapped(BY_HAND, step.by_hand);
        }
        text.push('\n');
        self.notes(&mut text);
        text
    }

    fn notes(&self, text: &mut String) {
        let notes = [
            format!(
                "{} requests/s that wait for nobody (72 % quick GETs, 8 % slow, 20 % POSTs; a fifth on connections of \
                 their own) and {} WebSockets, a message a second each; {} cores.",
                self.rate, self.sockets, self.cores
            ),
            "cut: under way on the process that was killed; a POST on a worker (trying it again could do it twice), \
             anything on the proxy."
                .to_owned(),
            format!(
                "recovery of a worker: from the signal to its replacement's verdict, the app's own start of {} in it.",
                milliseconds(self.app_start)
            ),
            by_hand::NOTE.to_owned(),
        ];
        for note in notes {
            *text += &wrapped("", &note);
        }
        if let Some(rss) = self.daemon_rss_kib {
            // Writing to a String can't fail.
            writeln!(text, "memory of the daemon's three processes under this load: {} MiB.", rss / 1024)
                .ok();
        }
        text.push('\n');
        let broken: Vec<_> = self.broken().collect();
        match broken.len() {
            0 => writeln!(text, "All {} promises kept, in {:.0} s.", self.promised(), self.seconds).ok(),
            count => writeln!(text, "{count} of {} promises BROKEN:", self.promised()).ok(),
        };
        for (step, promise) in broken {
            *text += &wrapped("  - ", &format!("{step}: {}: {}", promise.text, promise.found));
        }
    }
}

fn row(step: &Step) -> [String; 7] {
    let sockets = &step.load.sockets;
    [
        step.title.clone(),
        step.load.requests.to_string(),
        step.failed.to_string(),
        step.cut.to_string(),
        milliseconds(step.load.longest_gap),
        step.recovery.map_or_else(|| "-".to_owned(), |recovery| milliseconds(recovery.time)),
        format!("{} of {}", sockets.kept, sockets.at_start),
    ]
}

/// The first cell to the left, the others to the right.
fn line(cells: &[String; 7], widths: &[usize]) -> String {
    let mut text = String::new();
    for (n, (cell, width)) in cells.iter().zip(widths).enumerate() {
        match n {
            0 => write!(text, "{cell:<width$}").ok(),
            _ => write!(text, "  {cell:>width$}").ok(),
        };
    }
    text.push('\n');
    text
}

/// Breaks `text` at spaces behind `first`, and indents what follows by as much.
fn wrapped(first: &str, text: &str) -> String {
    let indent = first.chars().count();
    let mut out = first.to_owned();
    let mut column = indent;
    for (n, word) in text.split_whitespace().enumerate() {
        let length = word.chars().count();
        if n > 0 && column + 1 + length > WIDTH {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if n > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
    out
}

/// `12 ms`, `3.4 s`.
pub(crate) fn milliseconds(time: Duration) -> String {
    match time.as_millis() {
        ms @ 0..10_000 => format!("{ms} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        demo::figures::{Cut, Promise, Recovery},
        load::{Report, SocketReport},
    };

    fn figures() -> Figures {
        let load = |requests, gap| Report {
            requests,
            longest_gap: Duration::from_millis(gap),
            sockets: SocketReport { at_start: 20, kept: 20, ..SocketReport::default() },
            ..Report::default()
        };
        let mut deploy = Step::new("deploy", "deploy v2", load(1034, 12), &Cut::Nothing);
        deploy.promise_no_failure();
        let mut kill = Step::new("kill-worker", "kill -9 a worker", load(600, 31), &Cut::Nothing);
        kill.recovery = Some(Recovery { time: Duration::from_millis(187), cure: "ready" });
        Figures {
            version: "0.1.0",
            cores: 2,
            load_average: [None, None],
            rate: 200,
            sockets: 20,
            app_start: Duration::from_millis(158),
            daemon_rss_kib: Some(20_480),
            steps: vec![deploy, kill],
            promises: vec![],
            seconds: 58.2,
        }
    }

    #[test]
    fn the_table_lines_up_and_has_the_home_made_way_under_each_step() {
        insta::assert_snapshot!(figures().table(), @r"
        step              requests  failed  cut  longest gap  recovery  WebSockets kept
        deploy v2             1034       0    0        12 ms         -         20 of 20
            by hand: at 50 req/s: 0 to 16 failed in 54 to 66 s (nginx reload), 15 in 6 s (Caddy reload), 222
                     in 10 s (Caddy restart); 20 of 20 WebSockets dropped each time
        kill -9 a worker       600       0    0        31 ms    187 ms         20 of 20
            by hand: at 50 req/s: node cluster 8 failed, back in 0.20 s; restart: always 37 failed, back in
                     1.1 s

        200 requests/s that wait for nobody (72 % quick GETs, 8 % slow, 20 % POSTs; a fifth on connections
        of their own) and 20 WebSockets, a message a second each; 2 cores.
        cut: under way on the process that was killed; a POST on a worker (trying it again could do it
        twice), anything on the proxy.
        recovery of a worker: from the signal to its replacement's verdict, the app's own start of 158 ms in
        it.
        by hand: four published set-ups (Compose with restart: always and autoheal; a node cluster;
        blue/green scripts with nginx and with Caddy), run for real and measured earlier on a busy 2-core
        machine; medians, at the rate given. Their slow requests took 3 s in the deploys, ours take 0.3 s.
        memory of the daemon's three processes under this load: 20 MiB.

        All 1 promises kept, in 58 s.
        ");
    }

    #[test]
    fn broken_promises_are_named_under_the_table() {
        let mut figures = figures();
        figures.promises.push(Promise::new("nothing is left over", false, "process 17 still ran"));
        let table = figures.table();
        assert!(
            table.contains("1 of 2 promises BROKEN:\n  - the whole show: nothing is left over: process 17")
        );
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        assert!(figures().table().lines().all(|line| line.chars().count() <= WIDTH), "{}", figures().table());
    }
}

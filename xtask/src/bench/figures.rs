//! From samples to figures: ratios, medians, the tables and the lines of JSON.
//!
//! Owns: what is compared with whom. Never: compares across rounds: a ratio is of two candidates in the same round,
//! which had the same neighbours on the machine.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Map, Value, json};

use super::{
    plan::{Candidate, Series},
    samples::Sample,
};

/// What was measured in one round.
pub(super) type Round = BTreeMap<Candidate, Sample>;

/// The peers that the ratio is taken to: the better of the two.
const BEST_OF: [Candidate; 2] = [Candidate::Nginx, Candidate::Haproxy];

/// One measure of a candidate in a round.
type Measure = fn(&Round, &Sample) -> Option<f64>;

/// Their names in the JSON.
const MEASURES: [(&str, Measure); 11] = [
    ("cpu_us_per_request", |_, sample| sample.cpu),
    ("user_us_per_request", |_, sample| sample.user),
    ("ratio_to_best_peer", |round, sample| ratio(sample, best_peer(round))),
    ("ratio_to_nginx_64k", |round, sample| ratio(sample, cpu_of(round, Candidate::Nginx64k))),
    ("requests_per_s", |_, sample| sample.per_second),
    ("p50_us", |_, sample| sample.p50),
    ("p99_us", |_, sample| sample.p99),
    ("client_late_p99_us", |_, sample| sample.late),
    ("rss_per_connection_bytes", |_, sample| sample.rss),
    ("pss_per_connection_bytes", |_, sample| sample.pss),
    ("pss_at_rest_bytes", |_, sample| sample.at_rest),
];

fn cpu_of(round: &Round, candidate: Candidate) -> Option<f64> {
    round.get(&candidate)?.cpu
}

/// The lower CPU of the two.
fn best_peer(round: &Round) -> Option<f64> {
    BEST_OF.into_iter().filter_map(|peer| cpu_of(round, peer)).min_by(f64::total_cmp)
}

fn ratio(sample: &Sample, to: Option<f64>) -> Option<f64> {
    Some(sample.cpu? / to.filter(|to| *to > 0.0)?)
}

/// The middle of several rounds, and how far apart they are.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// Nothing where there are no values.
    fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted.get((sorted.len() - 1) / 2)?, sorted.get(sorted.len() / 2)?);
        Some(Self { median: f64::midpoint(*low, *high), min, max })
    }
}

/// A candidate's figures in a series.
#[derive(Clone, Debug)]
pub(super) struct Row {
    series: Series,
    candidate: Candidate,
    /// Rounds in which it was measured.
    rounds: usize,
    requests: u64,
    failed: u64,
    measures: BTreeMap<&'static str, Spread>,
}

/// The figures of a series, a row for each candidate that has any.
pub(super) fn rows(series: Series, candidates: &[Candidate], rounds: &[Round]) -> Vec<Row> {
    let row = |candidate: &Candidate| {
        let samples: Vec<(&Round, &Sample)> =
            rounds.iter().filter_map(|round| Some((round, round.get(candidate)?))).collect();
        let spread = |measure: Measure| {
            Spread::of(samples.iter().filter_map(|(round, sample)| measure(round, sample)))
        };
        let measures = MEASURES.into_iter().filter_map(|(name, measure)| Some((name, spread(measure)?)));
        Row {
            series,
            candidate: *candidate,
            rounds: samples.len(),
            requests: samples.iter().map(|(_, sample)| sample.requests).sum(),
            failed: samples.iter().map(|(_, sample)| sample.failed).sum(),
            measures: measures.collect(),
        }
    };
    candidates.iter().map(row).filter(|row| row.rounds > 0).collect()
}

impl Row {
    /// One object; what isn't measured in this series is null.
    pub(super) fn json(&self) -> Value {
        let mut object = Map::new();
        object.insert("series".to_owned(), json!(self.series.name()));
        object.insert("candidate".to_owned(), json!(self.candidate));
        object.insert("rounds".to_owned(), json!(self.rounds));
        object.insert("requests".to_owned(), json!(self.requests));
        object.insert("failed".to_owned(), json!(self.failed));
        for (name, _) in MEASURES {
            let spread = self.measures.get(name);
            object.insert(name.to_owned(), json!(spread.map(|spread| rounded(spread.median))));
            object.insert(format!("{name}_min"), json!(spread.map(|spread| rounded(spread.min))));
            object.insert(format!("{name}_max"), json!(spread.map(|spread| rounded(spread.max))));
        }
        Value::Object(object)
    }

    /// A measure's cell: the median, then the least and the most.
    fn cell(&self, name: &str, digits: usize) -> String {
        let Some(Spread { median, min, max }) = self.measures.get(name) else { return "–".to_owned() };
        match self.rounds {
            1 => format!("{median:.digits$}"),
            _ => format!("{median:.digits$} ({min:.digits$}–{max:.digits$})"),
        }
    }
}

/// Thousandths are more than can be known.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// A column: its heading, its measure, its digits after the point.
type Column = (&'static str, &'static str, usize);

const CPU: &[Column] = &[
    ("CPU µs/request", "cpu_us_per_request", 1),
    ("of it user", "user_us_per_request", 1),
    ("× best peer", "ratio_to_best_peer", 2),
];
const LARGE: &[Column] = &[("× nginx-64k", "ratio_to_nginx_64k", 2)];
const RATE: &[Column] =
    &[("p50 µs", "p50_us", 0), ("p99 µs", "p99_us", 0), ("client late, p99 µs", "client_late_p99_us", 0)];
const THROUGHPUT: &[Column] = &[("requests/s", "requests_per_s", 0)];
const MEMORY: &[Column] = &[
    ("RSS bytes/connection", "rss_per_connection_bytes", 0),
    ("PSS bytes/connection", "pss_per_connection_bytes", 0),
    ("PSS bytes at rest", "pss_at_rest_bytes", 0),
];

/// The figures of a series for people.
pub(super) fn table(series: Series, rows: &[Row]) -> String {
    let columns = match series {
        Series::Keepalive64k => [CPU, LARGE, THROUGHPUT].concat(),
        Series::Keepalive1k | Series::Close1k => [CPU, THROUGHPUT].concat(),
        Series::Rate3000 => [CPU, RATE].concat(),
        Series::IdleConnections | Series::Websockets => MEMORY.to_vec(),
    };
    let count = rows.iter().map(|row| row.rounds).max().unwrap_or_default();
    let of = if count == 1 { "1 round".to_owned() } else { format!("{count} rounds: median (least–most)") };
    let mut text = format!("{}, {of}\n\n{:10}", series.name(), "");
    // Writing to a String can't fail.
    for (heading, ..) in &columns {
        write!(text, " {heading:>24}").ok();
    }
    writeln!(text, " {:>10} {:>7}", "requests", "failed").ok();
    for row in rows {
        write!(text, "{:10}", row.candidate.name()).ok();
        for (_, measure, digits) in &columns {
            write!(text, " {:>24}", row.cell(measure, *digits)).ok();
        }
        writeln!(text, " {:>10} {:>7}", row.requests, row.failed).ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(cpus: &[(Candidate, f64)]) -> Round {
        let sample = |cpu| Sample { requests: 100, failed: 1, cpu: Some(cpu), ..Sample::default() };
        cpus.iter().map(|(candidate, cpu)| (*candidate, sample(*cpu))).collect()
    }

    #[test]
    fn a_ratio_is_to_the_better_peer_of_the_same_round() {
        use Candidate::{Bulsa, Haproxy, Nginx, Nginx64k};
        let rounds = [
            round(&[(Bulsa, 30.0), (Nginx, 20.0), (Haproxy, 15.0), (Nginx64k, 10.0)]),
            round(&[(Bulsa, 80.0), (Nginx, 20.0), (Haproxy, 40.0), (Nginx64k, 40.0)]),
            round(&[(Bulsa, 30.0), (Haproxy, 10.0)]),
        ];
        let rows = rows(Series::Keepalive64k, &[Bulsa, Nginx], &rounds);
        let bulsa = rows[0].measures["ratio_to_best_peer"];
        assert_eq!(bulsa, Spread { median: 3.0, min: 2.0, max: 4.0 });
        assert_eq!(rows[0].measures["ratio_to_nginx_64k"], Spread { median: 2.5, min: 2.0, max: 3.0 });
        assert_eq!((rows[0].rounds, rows[1].rounds, rows[0].requests, rows[0].failed), (3, 2, 300, 3));
        assert_eq!(rows[1].measures["ratio_to_best_peer"].min, 1.0);
    }

    #[test]
    fn without_a_peer_there_is_no_ratio_and_without_a_sample_no_row() {
        let rows = rows(
            Series::Keepalive1k,
            &[Candidate::Bulsa, Candidate::Caddy],
            &[round(&[(Candidate::Bulsa, 30.0)])],
        );
        assert_eq!(rows.len(), 1);
        let json = rows[0].json();
        assert_eq!(json["candidate"], "bulsa");
        assert_eq!(json["cpu_us_per_request_max"], 30.0);
        assert!(json["ratio_to_best_peer"].is_null() && json["p99_us"].is_null());
        assert!(table(Series::Keepalive1k, &rows).contains("30.0"));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(Spread::of([4.0, 1.0, 3.0, 2.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of([]), None);
    }
}

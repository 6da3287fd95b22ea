//! `cargo xtask bench proxy`: Bulsa's proxy beside other proxies, on the same work and the same backend.
//!
//! Owns: the order of a run: programs, daemon, peers, rounds, figures. Never: judges, or leaves a process or a file
//! behind but for the programs that it got, in the build's directory. The method is in docs/benchmarks.md.
//!
//! CPU is compared and not throughput: on a small machine client, proxy and backend share the cores, and what one saves
//! another uses. Every series runs all candidates once in each round, and ratios are taken within a round: what else
//! the machine does then weighs on all of them.

pub(crate) mod backend;
mod candidates;
mod figures;
mod group;
mod http;
mod limits;
mod open_loop;
mod peers;
mod place;
mod plan;
mod programs;
mod samples;
mod stage;
mod stop;
mod wrk;

use std::io::{self, Write};

use clap::{Args, Parser, Subcommand};

use self::{
    candidates::{Running, start_all},
    figures::{Round, rows, table},
    place::Place,
    plan::{Candidate, Plan, Series, order},
    programs::Programs,
    samples::Sample,
    stage::Stage,
    stop::Stop,
};
use crate::{
    measure::{self, Error, processes::load},
    run::say,
};

/// Rounds at most: more say nothing new.
const ROUNDS_MAX: u64 = 100;

/// `cargo xtask bench`
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
pub(crate) struct BenchLine {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// CPU, latency and memory of Bulsa's proxy and of others
    Proxy(ProxyArgs),
}

#[derive(Debug, Args)]
struct ProxyArgs {
    /// Fewer and shorter rounds, and fewer WebSockets
    #[arg(long)]
    quick: bool,
    /// Print JSON, an object a line, instead of tables
    #[arg(long)]
    json: bool,
    /// How many rounds of load [default: 7, or 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=ROUNDS_MAX))]
    rounds: Option<u64>,
    /// Only these candidates
    #[arg(long, value_name = "CANDIDATES", value_delimiter = ',')]
    only: Vec<Candidate>,
    /// Only these series
    #[arg(long, value_name = "SERIES", value_delimiter = ',')]
    series: Vec<Series>,
}

/// Everything that a run has.
struct Bench {
    plan: Plan,
    place: Place,
    programs: Programs,
    stop: Stop,
    json: bool,
}

pub(crate) fn run(line: &BenchLine) -> Result<(), Error> {
    let What::Proxy(args) = &line.what;
    let rounds = args.rounds.and_then(|rounds| usize::try_from(rounds).ok());
    let mut plan = Plan::new(args.quick, rounds, &args.only, &args.series);
    let bulsa = measure::build()?;
    let place = Place::new(&bulsa)?;
    let files = limits::raise_files();
    if plan.websockets > limits::connections(files) {
        plan.websockets = limits::connections(files);
        say(&format!("only {} WebSockets: this user may open {files} files at once", plan.websockets));
    }
    let programs = Programs::get(&plan.candidates)?;
    // From here on a run is ended in order; before, nothing runs that Ctrl-C doesn't end.
    let stop = Stop::on_signals()?;
    Bench { plan, place, programs, stop, json: args.json }.run()
}

impl Bench {
    fn run(&self) -> Result<(), Error> {
        say(&format!("the machine's load is {:.1}", load()));
        let (memory, loads): (Vec<Series>, Vec<Series>) =
            self.plan.series.iter().copied().partition(|series| series.is_of_memory());
        if !loads.is_empty() {
            let stage = Stage::start(&self.place, &self.programs.nginx)?;
            let running = start_all(&self.candidates(), &stage, &self.programs, &self.place, &self.stop)?;
            for series in loads {
                let rounds = (0..self.plan.rounds)
                    .map(|round| self.round_of_load(series, round, &running))
                    .collect::<Result<Vec<_>, _>>()?;
                self.show(series, &rounds)?;
            }
        }
        for series in memory {
            let rounds = (0..self.plan.rounds_of_memory)
                .map(|round| self.round_of_memory(series, round))
                .collect::<Result<Vec<_>, _>>()?;
            self.show(series, &rounds)?;
        }
        Ok(())
    }

    /// Those whose program is there.
    fn candidates(&self) -> Vec<Candidate> {
        let is_there =
            |candidate: &Candidate| *candidate == Candidate::Bulsa || self.programs.of(*candidate).is_some();
        self.plan.candidates.iter().copied().filter(is_there).collect()
    }

    fn round_of_load(&self, series: Series, number: usize, running: &[Running]) -> Result<Round, Error> {
        let mut round = Round::new();
        let turn: Vec<&Running> = order(&running.iter().collect::<Vec<_>>(), number);
        for one in turn {
            let sample = samples::of_load(one, series, &self.plan, &self.programs.wrk, &self.stop);
            self.note(&mut round, series, one.candidate, sample)?;
        }
        self.progress(series, number, &round, |sample| sample.cpu);
        Ok(round)
    }

    /// Every process is new: memory that was used once is not given back, and the next connections would cost nothing.
    fn round_of_memory(&self, series: Series, number: usize) -> Result<Round, Error> {
        let stage = Stage::start(&self.place, &self.programs.nginx)?;
        let mut round = Round::new();
        for candidate in order(&self.candidates(), number) {
            let sample = Running::start(candidate, &stage, &self.programs, &self.place, &self.stop)
                .and_then(|running| samples::of_memory(&running, series, &self.plan, &self.stop));
            self.note(&mut round, series, candidate, sample)?;
        }
        self.progress(series, number, &round, |sample| sample.rss);
        Ok(round)
    }

    /// One that fails is said and has no figure in this round; the others go on.
    fn note(
        &self,
        round: &mut Round,
        series: Series,
        candidate: Candidate,
        sample: Result<Sample, Error>,
    ) -> Result<(), Error> {
        match sample {
            Ok(sample) => drop(round.insert(candidate, sample)),
            Err(error) => {
                self.stop.check()?;
                say(&format!("warning: {}, {}: {error}", series.name(), candidate.name()));
            }
        }
        Ok(())
    }

    fn progress(&self, series: Series, number: usize, round: &Round, of: impl Fn(&Sample) -> Option<f64>) {
        let figures = round.iter().filter_map(|(candidate, sample)| Some((candidate, of(sample)?)));
        let words: Vec<String> =
            figures.map(|(candidate, figure)| format!("{} {figure:.1}", candidate.name())).collect();
        let count = self.plan.rounds_of(series);
        say(&format!("{} {}/{count}: {}", series.name(), number + 1, words.join(", ")));
    }

    fn show(&self, series: Series, rounds: &[Round]) -> Result<(), Error> {
        let rows = rows(series, &self.plan.candidates, rounds);
        let text = match self.json {
            true => rows.iter().map(|row| format!("{}\n", row.json())).collect(),
            false => table(series, &rows) + "\n",
        };
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }
}

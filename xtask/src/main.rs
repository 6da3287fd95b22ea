//! The project's chores: `cargo xtask COMMAND`.
//!
//! Owns: the test run with what it needs on this machine, style as a test, generated documentation, the long runs.
//! Never: is part of the product, or changes a file outside of this repository (but for the packages that
//! `cargo xtask test` installs, and says so).

mod bench;
mod docs;
mod engine;
mod fuzz;
mod measure;
mod parts;
mod run;
mod soak;
mod switch;
mod test;
mod tidy;

use std::process::ExitCode;

use run::{Trouble, say};

const HELP: &str = "\
Usage: cargo xtask COMMAND

  test [ARG]...     install what the tests need, then run all of them; ARGs go to nextest
  parts             get the real programs that the tests on Docker use (`test` does it too)
  tidy              style as a test: file lengths, module docs, the changelog, generated files
  docs [--check]    write docs/cli.md, docs/exit-codes.md and docs/compose-support.md, or compare them
  fuzz [--seconds N]
                    the compose loader against inputs that nobody thought of, for a minute
  soak [--minutes N] [--seed S]
                    load against a real daemon with random kills and deploys, and what became of it
  soak proxy [--minutes N] [--seed S]
                    the same with the proxy alone: faults of backends, changes of tables, and what is left over
  measure idle|kills|throws [--json]
                    what the idle daemon costs, how long a killed worker is away, what a crash loop costs
  bench proxy [--quick] [--json] [--rounds N] [--only CANDIDATES] [--series SERIES]
                    CPU, latency and memory of the proxy beside nginx, HAProxy, Caddy, Traefik and Envoy
  bench switch [--json]
                    what switching a large table often costs those whose service stays
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["test", rest @ ..] => test::run_all(rest),
        ["parts"] => parts::get(),
        ["tidy"] => tidy::run(),
        ["docs"] => docs::write(),
        ["docs", "--check"] => docs::check(),
        ["fuzz", rest @ ..] => fuzz::run_all(rest),
        ["soak", rest @ ..] => soak::run(rest),
        ["measure", rest @ ..] => measure(rest),
        ["bench", "switch", rest @ ..] => switch::run(rest),
        ["bench", rest @ ..] => bench(rest),
        // What the benchmark's backend is started by.
        ["bench-backend"] => bench::backend::serve().map_err(|error| Trouble::Other(error.to_string())),
        ["help" | "--help" | "-h"] => {
            say(HELP);
            Ok(())
        }
        _ => Err(Trouble::Usage(HELP.to_owned())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            // A command that failed has said why itself.
            if !matches!(trouble, Trouble::Exit(_)) {
                say(&format!("error: {trouble}"));
            }
            trouble.exit_code()
        }
    }
}

/// `measure` has options enough for a parser of its own.
fn measure(rest: &[&str]) -> Result<(), Trouble> {
    use clap::Parser;
    let words = std::iter::once("cargo xtask measure").chain(rest.iter().copied());
    let args =
        measure::MeasureLine::try_parse_from(words).map_err(|error| Trouble::Other(error.to_string()))?;
    measure::run(&args.args).map_err(|error| Trouble::Other(error.to_string()))
}

/// So has `bench`.
fn bench(rest: &[&str]) -> Result<(), Trouble> {
    use clap::Parser;
    let words = std::iter::once("cargo xtask bench").chain(rest.iter().copied());
    match bench::BenchLine::try_parse_from(words) {
        Ok(line) => bench::run(&line).map_err(|error| Trouble::Other(error.to_string())),
        Err(words) => {
            say(&words.to_string());
            if words.use_stderr() { Err(Trouble::Exit(2)) } else { Ok(()) }
        }
    }
}

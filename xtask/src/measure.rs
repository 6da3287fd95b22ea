//! `cargo xtask measure`: figures of the real program on this machine.
//!
//! Owns: starting a daemon of its own in a temporary state directory, the load, and the figures. Never: touches a
//! daemon that it didn't start, or judges: a machine that is busy otherwise gives other figures, and they are printed
//! with its load.
//!
//! - `idle`: memory and CPU of the three processes while two replicas are under watch and nobody asks for anything.
//! - `kills`: from `kill -9` of a worker to its replacement, beside the program's own start under the same load.
//! - `throws`: the CPU that a program costs which dies at its start.

pub(crate) mod daemon;
mod idle;
mod kills;
pub(crate) mod processes;
mod throws;

use std::{
    env,
    io::{self, Write},
    path::PathBuf,
    process::Command,
};

use clap::{Args, Parser, Subcommand};
use serde::Serialize;

/// Any failure of a measurement, as a sentence.
pub(crate) type Error = Box<dyn std::error::Error>;

/// `cargo xtask measure`
#[derive(Debug, Parser)]
#[command(name = "cargo xtask measure", bin_name = "cargo xtask measure")]
pub(crate) struct MeasureLine {
    #[command(flatten)]
    pub(crate) args: MeasureArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MeasureArgs {
    #[command(subcommand)]
    what: What,
    /// Print one JSON object instead of a table
    #[arg(long, global = true)]
    json: bool,
    /// The program to measure [default: a release build of this tree]
    #[arg(long, global = true, value_name = "PATH")]
    bulsa: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Memory and CPU of a daemon that watches two replicas
    Idle(idle::IdleArgs),
    /// How long a killed worker takes to come back
    Kills(kills::KillsArgs),
    /// What a program costs that throws at its start
    Throws(throws::ThrowsArgs),
}

pub(crate) fn run(args: &MeasureArgs) -> Result<(), Error> {
    let bulsa = match &args.bulsa {
        Some(path) => path.canonicalize()?,
        None => build()?,
    };
    match &args.what {
        What::Idle(what) => show(args, &idle::measure(&bulsa, what)?),
        What::Kills(what) => show(args, &kills::measure(&bulsa, what)?),
        What::Throws(what) => show(args, &throws::measure(&bulsa, what)?),
    }
}

/// Figures that can be printed for people too.
trait Figures: Serialize {
    fn table(&self) -> String;
}

fn show(args: &MeasureArgs, figures: &impl Figures) -> Result<(), Error> {
    let text = if args.json { serde_json::to_string(figures)? + "\n" } else { figures.table() };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// A release build of this tree.
pub(crate) fn build() -> Result<PathBuf, Error> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(&cargo).args(["build", "--release", "--package", "bulsa"]).status()?;
    if !built.success() {
        return Err("the release build failed".into());
    }
    let metadata = Command::new(&cargo).args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout)?;
    let target = metadata["target_directory"].as_str().ok_or("cargo names no target directory")?;
    Ok(PathBuf::from(target).join("release").join("bulsa"))
}

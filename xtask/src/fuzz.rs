//! `cargo xtask fuzz`: what reads other people's bytes, against inputs that nobody thought of, for a bounded time: the
//! compose loader, the proxy's reading of requests, and its following of WebSocket frames.
//!
//! Owns: how the fuzzer is got and called. Never: runs without an end, or keeps what it found anywhere but under `fuzz/`.

use std::{fs, path::Path, time::Duration};

use crate::run::{Trouble, cargo, is_program, root, run, say, succeeds};

/// How long it runs if nothing is said, in seconds: what the checks can afford.
const SECONDS: u64 = 60;
/// Longer inputs find nothing that shorter ones don't, in bytes.
const INPUT_MAX: u32 = 16 << 10;
/// An input that takes longer is a finding, in seconds.
const HANG: u64 = 10;
/// More memory for one input is a finding, in MiB.
const MEMORY_MAX: u32 = 1024;

/// The targets, each with its share of the time in percent, and where its first inputs are.
const TARGETS: [(&str, u64, &[&str]); 3] = [
    ("compose", 50, &["crates/bulsa/tests/fixtures/compose", "examples", "fuzz/seeds/compose"]),
    ("head", 30, &["fuzz/seeds/head"]),
    ("tunnel", 20, &[]),
];

/// Runs every target for its share of `--seconds N`. A finding is kept under `fuzz/artifacts`, and ends it with an error.
pub(crate) fn run_all(args: &[&str]) -> Result<(), Trouble> {
    let seconds = match args {
        [] => SECONDS,
        ["--seconds", number] => {
            number.parse().map_err(|_| Trouble::Other(format!("`{number}` is no number of seconds")))?
        }
        _ => return Err(Trouble::Other("usage: cargo xtask fuzz [--seconds N]".to_owned())),
    };
    if !is_program("c++") {
        return Err(Trouble::Other(
            "the fuzzer is built by a C++ compiler: `apt-get install g++`".to_owned(),
        ));
    }
    if !succeeds(cargo().args(["fuzz", "--version"])) {
        run(cargo().args(["install", "--locked", "cargo-fuzz"]))?;
    }
    let root = root();
    TARGETS
        .iter()
        .try_for_each(|(target, share, seeds)| fuzz(&root, target, seeds, (seconds * share).div_ceil(100)))
}

fn fuzz(root: &Path, target: &str, seeds: &[&str], seconds: u64) -> Result<(), Trouble> {
    // What it learns stays beside the build.
    let learnt = root.join("target/fuzz/corpus").join(target);
    fs::create_dir_all(&learnt).map_err(Trouble::io(format!("making {}", learnt.display())))?;
    say(&format!("fuzzing `{target}` for {:?}", Duration::from_secs(seconds)));
    let mut fuzz = cargo();
    fuzz.current_dir(root.join("fuzz")).args(["fuzz", "run"]);
    // Without a sanitizer no other toolchain is needed: what is looked for is a panic, a hang, or memory without end.
    fuzz.args(["--sanitizer", "none", "--target-dir"]).arg(root.join("target/fuzz")).arg(target);
    fuzz.arg(&learnt);
    fuzz.args(seeds.iter().map(|directory| root.join(directory)));
    fuzz.arg("--").args([
        format!("-max_total_time={seconds}"),
        format!("-max_len={INPUT_MAX}"),
        format!("-timeout={HANG}"),
        format!("-rss_limit_mb={MEMORY_MAX}"),
        "-print_final_stats=1".to_owned(),
        "-verbosity=0".to_owned(),
    ]);
    run(&mut fuzz)
}

//! Where other people's programs are found, and how long they live.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::support::patient;

/// The build's directory, where `cargo xtask parts` leaves what it fetches.
fn parts() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("parts")
}

/// Where a file of a Debian package is: unpacked beside the build, or installed.
pub(crate) fn debian(path: &str) -> Option<PathBuf> {
    let roots = [parts().join("debian"), PathBuf::from("/")];
    roots.iter().map(|root| root.join(path)).find(|found| found.exists())
}

/// The same, and says that something is skipped if it isn't there.
pub(crate) fn debian_or_skip(path: &str) -> Option<PathBuf> {
    or_skip(debian(path), path)
}

/// What `cargo xtask parts` has built of a crate.
pub(crate) fn built_or_skip(name: &str) -> Option<PathBuf> {
    let found = parts().join(name).join("bin").join(name);
    or_skip(Some(found).filter(|path| path.exists()), name)
}

fn or_skip(found: Option<PathBuf>, what: &str) -> Option<PathBuf> {
    if found.is_none() {
        eprintln!("skipped: {what} is missing (`cargo xtask parts` gets it)");
    }
    found
}

/// A command for a program of an unpacked package, which finds its libraries and modules.
pub(crate) fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    let tree = parts().join("debian");
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let libraries = ["usr/lib", "lib"].map(|lib| tree.join(lib).join(&triple).display().to_string());
    command.env("LD_LIBRARY_PATH", libraries.join(":"));
    command.env("PYTHONPATH", tree.join("usr/lib/python3/dist-packages"));
    command.env(
        "NODE_PATH",
        [tree.join("usr/share/nodejs").display().to_string(), "/usr/share/nodejs".to_owned()].join(":"),
    );
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A program that says things, a line each.
pub(crate) struct Talking {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Talking {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    pub(crate) async fn line(&mut self) -> String {
        patient(self.lines.next_line()).await.unwrap().expect("a line before its end")
    }

    /// Its other lines, and whether it ended well.
    pub(crate) async fn end(mut self) -> (String, bool) {
        let mut rest = String::new();
        while let Some(line) = patient(self.lines.next_line()).await.unwrap() {
            rest += &line;
            rest.push('\n');
        }
        (rest, patient(self.child.wait()).await.unwrap().success())
    }
}

/// Whether the long forms are asked for.
pub(crate) fn is_long() -> bool {
    std::env::var_os("BULSA_LONG").is_some_and(|long| long == "1")
}

/// How many seconds something takes, in the short and the long form.
pub(crate) fn seconds(short: u64, long: u64) -> Duration {
    Duration::from_secs(if is_long() { long } else { short })
}

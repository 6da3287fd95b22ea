//! The daemon that the demo plays with: the real one, in a temporary directory, driven by the real command line.
//!
//! Owns: the daemon's process, its directory, and every call of the command line. Never: looks into the daemon by any
//! way that a user doesn't have, or signals a process that isn't the demo's own.

use std::{
    collections::VecDeque,
    fs,
    io::{self, Read as _, Seek as _, SeekFrom},
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use bulsa_core::wire::api::{ProgressV1, Snapshot};
use rustix::process::{Pid, Signal};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use super::{DemoError, project::Version};

/// How long the daemon may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(15);
/// How long a look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// How long a deploy may take, its gate and bake included.
const DEPLOY_LIMIT: Duration = Duration::from_secs(90);
/// How long `down` may take.
const DOWN_LIMIT: Duration = Duration::from_secs(20);
/// How long the daemon may take to end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(15);
/// From one look to the next while something is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// Lines of a command's output that are kept, the last ones.
const LINES_MAX: usize = 500;
/// Bytes of a command's error output, and of the daemon's log, that are kept.
const ERRORS_MAX: u64 = 16 * 1024;

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Its exit code; `None` where a signal ended it.
    pub(crate) exit_code: Option<i32>,
    /// Its last lines, one JSON object each.
    pub(crate) lines: Vec<String>,
    /// What it wrote to its standard error.
    pub(crate) errors: String,
}

impl Outcome {
    /// The error that it is where it must not fail.
    pub(crate) fn error(&self, what: &str) -> DemoError {
        let said = if self.errors.trim().is_empty() { self.lines.join("\n") } else { self.errors.clone() };
        DemoError::Command { what: what.to_owned(), exit_code: self.exit_code, said: said.trim().to_owned() }
    }
}

/// The daemon under the demo.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// This program.
    exe: PathBuf,
    directory: PathBuf,
    port: u16,
    keeper: Child,
}

impl Daemon {
    /// Starts the daemon on `directory`, which must exist. It answers once [`Daemon::answers`] is done.
    pub(crate) fn spawn(directory: &Path, port: u16) -> Result<Self, DemoError> {
        let exe =
            std::env::current_exe().map_err(|error| DemoError::io("find this program's file", error))?;
        let log = fs::File::create(directory.join("daemon.log"))
            .map_err(|error| DemoError::io("create the daemon's log", error))?;
        let errors = log.try_clone().map_err(|error| DemoError::io("open the daemon's log", error))?;
        let mut command = std::process::Command::new(&exe);
        // A group of its own: Ctrl-C is for the demo, which then ends the daemon in order.
        command.process_group(0).stdin(Stdio::null()).stdout(log).stderr(errors);
        command.args(["serve", "--state-dir"]).arg(directory).arg("--socket").arg(directory.join("api.sock"));
        command.env_remove("BULSA_SOCKET");
        let keeper =
            Command::from(command).spawn().map_err(|error| DemoError::io("start `bulsa serve`", error))?;
        Ok(Self { exe, directory: directory.to_owned(), port, keeper })
    }

    /// Waits until the daemon answers.
    pub(crate) async fn answers(&mut self) -> Result<(), DemoError> {
        let end = Instant::now() + START_LIMIT;
        loop {
            let looked = self.snapshot().await;
            let ended = self.keeper.try_wait().map_err(|error| DemoError::io("watch the daemon", error))?;
            match looked {
                Ok(_) => return Ok(()),
                Err(_) if ended.is_none() && Instant::now() < end => sleep(LOOK_EVERY).await,
                Err(error) => {
                    return Err(DemoError::NoDaemon { why: error.to_string(), log: self.log_tail() });
                }
            }
        }
    }

    /// This program's file.
    pub(crate) fn exe(&self) -> &Path {
        &self.exe
    }

    /// Where the web app is published.
    pub(crate) fn target(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The end of the daemon's log.
    pub(crate) fn log_tail(&self) -> String {
        tail(&self.directory.join("daemon.log")).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// Deploys `version`, passing on what the command says while it runs.
    pub(crate) async fn deploy(
        &self,
        version: &Version,
        mut line: impl FnMut(&str),
    ) -> Result<Outcome, DemoError> {
        let file = self.write(version)?;
        let tell = |json: &str| {
            if let Ok(progress) = serde_json::from_str::<ProgressV1>(json) {
                line(&progress.text);
            }
        };
        self.run(&["deploy", "--json", "-f", &file], DEPLOY_LIMIT, tell).await
    }

    /// Writes the compose file of `version`; its path.
    pub(crate) fn write(&self, version: &Version) -> Result<String, DemoError> {
        let file = self.directory.join("compose.yaml");
        fs::write(&file, version.compose(&self.exe, self.port))
            .map_err(|error| DemoError::io("write the demo's compose file", error))?;
        Ok(file.to_string_lossy().into_owned())
    }

    /// What `bulsa status` sees now.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, DemoError> {
        let outcome = self.run(&["status", "--json"], LOOK_LIMIT, |_| {}).await?;
        serde_json::from_str(&outcome.lines.join("\n")).map_err(|_| outcome.error("bulsa status"))
    }

    /// Looks until `good` finds what it waits for. A look that fails is repeated: the agent may be on its way up.
    pub(crate) async fn wait_until<T>(
        &self,
        what: &str,
        limit: Duration,
        good: impl Fn(&Snapshot) -> Option<T>,
    ) -> Result<T, DemoError> {
        let end = Instant::now() + limit;
        loop {
            let last = match self.snapshot().await {
                Ok(snapshot) => match good(&snapshot) {
                    Some(found) => return Ok(found),
                    None => "it isn't so".to_owned(),
                },
                Err(error) => error.to_string(),
            };
            if Instant::now() >= end {
                return Err(DemoError::Waited { what: what.to_owned(), limit, last });
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// `bulsa down`, then the daemon's own end. Returns what didn't go as it should.
    pub(crate) async fn stop(&mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        match self.run(&["down", "--json", "-p", super::project::NAME], DOWN_LIMIT, |_| {}).await {
            Ok(Outcome { exit_code: Some(0), .. }) => {}
            Ok(outcome) => complaints.push(outcome.error("bulsa down").to_string()),
            Err(error) => complaints.push(error.to_string()),
        }
        if let Some(pid) = self.keeper_pid() {
            // An error says that it is gone already.
            rustix::process::kill_process(pid, Signal::TERM).ok();
        }
        if timeout(END_LIMIT, self.keeper.wait()).await.is_err() {
            complaints.push(format!("the daemon did not end within {END_LIMIT:?} of SIGTERM and was killed"));
            self.kill().await;
        }
        complaints
    }

    /// Ends the keeper at once. What it leaves behind is for [`super::leftovers`].
    pub(crate) async fn kill(&mut self) {
        // An error says that it is gone already.
        drop(self.keeper.kill().await);
    }

    /// Lets go of the daemon: from here on it is the user's.
    pub(crate) fn leave_running(self) {
        // Dropping the handle of a process ends nothing.
        drop(self.keeper);
    }

    /// The keeper's process, while it lives.
    pub(crate) fn keeper_pid(&self) -> Option<Pid> {
        self.keeper.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw)
    }

    /// Runs this program with the demo's directory and `arguments`.
    async fn run(
        &self,
        arguments: &[&str],
        limit: Duration,
        line: impl FnMut(&str),
    ) -> Result<Outcome, DemoError> {
        let mut command = Command::new(&self.exe);
        command.arg("--state-dir").arg(&self.directory).arg("--socket").arg(self.directory.join("api.sock"));
        command.args(arguments).current_dir(&self.directory).env_remove("BULSA_SOCKET");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let what = format!("bulsa {}", arguments.join(" "));
        match timeout(limit, collect(command, line)).await {
            Ok(outcome) => outcome.map_err(|error| DemoError::io(&format!("run `{what}`"), error)),
            Err(_) => Err(DemoError::Waited { what, limit, last: "it goes on running".to_owned() }),
        }
    }
}

/// Runs a command to its end and keeps the last of what it says.
async fn collect(mut command: Command, mut line: impl FnMut(&str)) -> io::Result<Outcome> {
    let mut child = command.spawn()?;
    let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("its output cannot be read"));
    };
    let lines = async {
        let mut reader = BufReader::new(out).lines();
        let mut kept = VecDeque::new();
        while let Some(text) = reader.next_line().await? {
            line(&text);
            if kept.len() == LINES_MAX {
                kept.pop_front();
            }
            kept.push_back(text);
        }
        Ok::<_, io::Error>(Vec::from(kept))
    };
    let errors = async {
        let (mut kept, mut rest) = (Vec::new(), tokio::io::sink());
        let mut err = err.take(ERRORS_MAX);
        err.read_to_end(&mut kept).await?;
        // What is beyond the limit is read as well, so that the command never waits for us.
        tokio::io::copy(&mut err.into_inner(), &mut rest).await?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&kept).into_owned())
    };
    let (lines, errors) = tokio::try_join!(lines, errors)?;
    let exit_code = child.wait().await?.code();
    Ok(Outcome { exit_code, lines, errors })
}

/// The last [`ERRORS_MAX`] bytes of a file, from a line's start.
fn tail(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(ERRORS_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(ERRORS_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(match (from, text.split_once('\n')) {
        (1.., Some((_, rest))) => rest.to_owned(),
        _ => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    #[tokio::test]
    async fn a_commands_lines_are_passed_on_and_its_exit_code_is_kept() {
        let mut seen = Vec::new();
        let outcome =
            collect(shell("echo a; echo b; echo c >&2; exit 3"), |line| seen.push(line.to_owned())).await;
        let outcome = outcome.unwrap();
        assert_eq!((outcome.exit_code, seen), (Some(3), vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(outcome.error("it").to_string(), "`it` failed with exit code 3: c");
    }

    #[tokio::test]
    async fn a_command_that_says_too_much_is_cut_and_not_blocked() {
        let script =
            "i=0; while [ $i -lt 3000 ]; do echo line $i; echo error error error $i >&2; i=$((i+1)); done";
        let outcome = collect(shell(script), |_| {}).await.unwrap();
        assert_eq!(outcome.lines.len(), LINES_MAX);
        assert_eq!(outcome.lines.last().map(String::as_str), Some("line 2999"));
        assert_eq!(outcome.errors.len() as u64, ERRORS_MAX);
    }

    #[test]
    fn the_tail_of_a_long_log_begins_with_a_whole_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, (0..10_000).map(|n| format!("line {n}\n")).collect::<String>()).unwrap();
        let tail = tail(&path).unwrap();
        assert!(tail.starts_with("line ") && tail.ends_with("line 9999\n"));
        assert!(tail.len() as u64 <= ERRORS_MAX);
    }
}

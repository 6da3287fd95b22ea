//! A daemon of the measurement's own.

use std::{
    io::{BufRead, BufReader, Lines},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::Error;

/// How long the daemon may take for anything.
const LIMIT: Duration = Duration::from_secs(60);
/// How often it is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// `bulsa run` or `bulsa up` in a state directory of its own; dropped, the daemon is stopped with everything it started.
pub(crate) struct Daemon {
    bulsa: PathBuf,
    dir: TempDir,
    /// What the command said.
    said: String,
    keeper: Option<Pid>,
    followers: Vec<Child>,
}

impl Daemon {
    /// Starts `bulsa run` with these arguments. That the program fails is no error here.
    pub(crate) fn run(bulsa: &Path, args: &[String]) -> Result<Self, Error> {
        Ok(Self::start(bulsa, "run", args)?.0)
    }

    /// Starts the project of a compose file with `bulsa up`, which returns when everything is healthy.
    pub(crate) fn up(bulsa: &Path, file: &Path) -> Result<Self, Error> {
        let args = ["--file".to_owned(), file.to_string_lossy().into_owned()];
        let (daemon, ended_well) = Self::start(bulsa, "up", &args)?;
        match ended_well {
            true => Ok(daemon),
            false => Err(format!("`bulsa up` failed:\n{}", daemon.said).into()),
        }
    }

    /// Also says whether the command ended well.
    fn start(bulsa: &Path, command: &str, args: &[String]) -> Result<(Self, bool), Error> {
        let dir = tempfile::Builder::new().prefix("bulsa-measure-").tempdir()?;
        let mut daemon =
            Self { bulsa: bulsa.to_owned(), dir, said: String::new(), keeper: None, followers: Vec::new() };
        let output = Command::new(bulsa)
            .args([command, "--detach", "--state-dir"])
            .arg(daemon.dir.path().join("state"))
            .arg("--socket")
            .arg(daemon.dir.path().join("api.sock"))
            .args(args)
            .stdin(Stdio::null())
            .output()?;
        daemon.said = String::from_utf8_lossy(&output.stderr).into_owned();
        let keeper = daemon.status().and_then(|status| status["keeper_pid"].as_i64());
        daemon.keeper = keeper.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        Ok((daemon, output.status.success()))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.bulsa);
        command.arg("--socket").arg(self.dir.path().join("api.sock"));
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// What the daemon publishes; nothing while it doesn't answer.
    pub(crate) fn status(&self) -> Option<Value> {
        let output = self.command().args(["status", "--json"]).output().ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Waits until the only service is in this state; the status then.
    pub(crate) fn wait_for(&self, state: &str) -> Result<Value, Error> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let status = self.status();
            if let Some(status) = status.filter(|s| s["projects"][0]["services"][0]["state"] == state) {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(format!("the service did not become {state}:\n{}", self.said).into());
            }
            thread::sleep(ASK_EVERY);
        }
    }

    /// The daemon's events from now on, one JSON object a line.
    pub(crate) fn events(&mut self) -> Result<Lines<BufReader<ChildStdout>>, Error> {
        let mut child = self
            .command()
            .args(["events", "--json", "--follow", "--last", "1"])
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("no pipe")?;
        self.followers.push(child);
        let mut lines = BufReader::new(out).lines();
        // The newest that there is: whatever comes after it happens from now on.
        lines.next().ok_or("the events ended")??;
        Ok(lines)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for follower in &mut self.followers {
            // It may be gone by itself.
            follower.kill().ok();
            follower.wait().ok();
        }
        let Some(keeper) = self.keeper else { return };
        let lives = |pid: Pid| Path::new("/proc").join(pid.as_raw_nonzero().to_string()).exists();
        let deadline = Instant::now() + LIMIT;
        // It stops what it has started, then itself.
        if kill_process(keeper, Signal::TERM).is_ok() {
            while lives(keeper) && Instant::now() < deadline {
                thread::sleep(ASK_EVERY);
            }
        }
    }
}

/// The three processes of a status: keeper, agent, proxy.
pub(crate) fn processes(status: &Value) -> Result<[(&'static str, u32); 3], Error> {
    let pid = |value: &Value| -> Result<u32, Error> {
        Ok(u32::try_from(value.as_u64().ok_or("the status names no process")?)?)
    };
    Ok([
        ("keeper", pid(&status["keeper_pid"])?),
        ("agent", pid(&status["agent"]["pid"])?),
        ("proxy", pid(&status["proxies"][0]["pid"])?),
    ])
}

/// A port that nobody has now.
pub(crate) fn free_port() -> Result<u16, Error> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

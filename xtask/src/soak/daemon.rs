//! The daemon under the soak: the real one, in a directory of its own.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use bulsa::client::Client;
use bulsa_core::wire::api::{ServiceState, Snapshot};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::injury::Version;
use crate::run::Trouble;

/// The project's name.
const PROJECT: &str = "soak";
/// Replicas of the one service.
pub(super) const REPLICAS: u32 = 3;
/// How long one run of the command line may take.
const COMMAND_MAX: Duration = Duration::from_secs(90);
/// How long the daemon may take to end.
const END_MAX: Duration = Duration::from_secs(30);
/// How long a look at the daemon may take.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// From one look to the next.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Bytes of the log that are shown when something went wrong.
const LOG_TAIL_BYTES: usize = 4096;

/// A running daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    exe: PathBuf,
    directory: PathBuf,
    port: u16,
    keeper: Child,
    deploys: u32,
}

impl Daemon {
    /// Starts it in `directory`.
    pub(super) async fn start(exe: &Path, directory: &Path) -> Result<Self, Trouble> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
        let port = free.map_err(Trouble::io("no port can be had"))?.port();
        let log = fs::File::create(directory.join("daemon.log")).map_err(Trouble::io("can't make a log"))?;
        let mut command = std::process::Command::new(exe);
        // A group of its own: Ctrl-C is for this program.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.arg("serve").args(places(directory)).env_remove("BULSA_SOCKET");
        let mut command = Command::from(command);
        let keeper = command.spawn().map_err(Trouble::io("can't start the daemon"))?;
        let daemon = Self { exe: exe.to_owned(), directory: directory.to_owned(), port, keeper, deploys: 0 };
        let end = Instant::now() + super::CURE_MAX;
        while daemon.look().await.is_none() {
            if Instant::now() > end {
                return Err(Trouble::Other(format!("the daemon does not answer:\n{}", daemon.log_tail())));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(daemon)
    }

    /// Where the service is published.
    pub(super) fn target(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Deploys a new version; fails where the exit code isn't the one that such a version must have.
    pub(super) async fn deploy(&mut self, version: Version) -> Result<(), Trouble> {
        self.deploys += 1;
        let file = self.directory.join("compose.yaml");
        fs::write(&file, version.compose(&self.exe, self.port, self.deploys))
            .map_err(Trouble::io("can't write the compose file"))?;
        let expected = version.exit_code();
        self.bulsa(&["deploy", "--file", &file.to_string_lossy()], expected).await
    }

    /// `bulsa restart` of the service.
    pub(super) async fn restart(&self) -> Result<(), Trouble> {
        self.bulsa(&["restart", "web"], 0).await
    }

    async fn bulsa(&self, args: &[&str], expected: i32) -> Result<(), Trouble> {
        let mut command = Command::new(&self.exe);
        command.args(args).args(["--project", PROJECT]).args(places(&self.directory));
        command.stdin(Stdio::null()).env_remove("BULSA_SOCKET").kill_on_drop(true);
        let said = args.first().copied().unwrap_or_default();
        let output = timeout(COMMAND_MAX, command.output())
            .await
            .map_err(|_| Trouble::Other(format!("`bulsa {said}` took longer than {COMMAND_MAX:?}")))?
            .map_err(Trouble::io(format!("can't run `bulsa {said}`")))?;
        if output.status.code() == Some(expected) {
            return Ok(());
        }
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let status = output.status;
        Err(Trouble::Other(format!("`bulsa {said}`: {status}, and not {expected}\n{out}{err}")))
    }

    /// What the daemon publishes, if it answers.
    pub(super) async fn look(&self) -> Option<Snapshot> {
        let client = timeout(LOOK_MAX, Client::find(&[self.directory.join("api.sock")])).await.ok()?.ok()?;
        timeout(LOOK_MAX, client.snapshot()).await.ok()?.ok()
    }

    /// Waits until everything is as it should be.
    pub(super) async fn well(&self, limit: Duration) -> Result<(), Trouble> {
        let end = Instant::now() + limit;
        loop {
            let seen = self.look().await;
            if seen.as_ref().is_some_and(is_well) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(Trouble::Other(format!("not well again after {limit:?}: {seen:#?}")));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Ends it, and everything that it started.
    pub(super) async fn end(&mut self) -> Result<(), Trouble> {
        self.signal(Signal::TERM);
        match timeout(END_MAX, self.keeper.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(Trouble::Other(format!("the daemon ended badly: {status}"))),
            Ok(Err(error)) => {
                Err(Trouble::Io { what: "can't wait for the daemon".to_owned(), source: error })
            }
            Err(_) => Err(Trouble::Other(format!("the daemon did not end within {END_MAX:?}"))),
        }
    }

    /// The last lines of the daemon's log.
    pub(super) fn log_tail(&self) -> String {
        let text = fs::read(self.directory.join("daemon.log")).unwrap_or_default();
        let tail = text.len().saturating_sub(LOG_TAIL_BYTES);
        String::from_utf8_lossy(text.get(tail..).unwrap_or_default()).into_owned()
    }

    fn signal(&self, signal: Signal) {
        let pid = self.keeper.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It is our child and not waited for yet, so the number is still its own; that it may be dead is no news.
            kill_process(pid, signal).ok();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
    }
}

fn is_well(snapshot: &Snapshot) -> bool {
    let Some(project) = snapshot.project(PROJECT) else { return false };
    let at_rest = project.deployments.iter().all(|deployment| deployment.finished.is_some());
    let mut services = project.services.iter();
    let healthy = |state| matches!(state, ServiceState::Healthy);
    at_rest && !snapshot.proxies.is_empty() && services.all(|s| healthy(s.state) && s.ready == REPLICAS)
}

fn places(directory: &Path) -> [std::ffi::OsString; 4] {
    let socket = directory.join("api.sock").into_os_string();
    ["--state-dir".into(), directory.as_os_str().to_owned(), "--socket".into(), socket]
}

//! A state directory, the daemon on it, and the command line that talks to it.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use bulsa::client::Client;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// The longest that anything may take; only a broken daemon needs so long.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);
/// How often a daemon that is away is looked for: its socket has no better signal than letting us in.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The program under test.
pub(crate) const BULSA: &str = env!("CARGO_BIN_EXE_bulsa");

/// One state directory and what runs on it.
pub(crate) struct World {
    dir: TempDir,
    /// The keeper, where it is our own child.
    serve: Option<Child>,
    /// What the compose file is filled in with.
    variables: BTreeMap<&'static str, String>,
    fixture: &'static str,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    what: String,
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A command that runs.
pub(crate) struct Running {
    what: String,
    child: Child,
}

impl World {
    /// A directory without a daemon; commands read the given compose file of the fixtures.
    pub(crate) fn new(fixture: &'static str) -> Self {
        let port = free_port().to_string();
        let variables = BTreeMap::from([("BULSA", BULSA.to_owned()), ("PORT", port)]);
        let dir = tempfile::tempdir().unwrap();
        Self { dir, serve: None, variables, fixture }
    }

    /// The demo's app as one service, brought up with [`World::up`].
    pub(crate) async fn web(variables: &[(&'static str, &str)]) -> Self {
        let mut world = Self::new("web.yaml");
        for (name, value) in variables {
            world.set(name, *value);
        }
        world.up().await;
        world
    }

    /// A variable of the compose file, from here on.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.variables.insert(name, value.into());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    fn socket(&self) -> PathBuf {
        self.state_dir().join("api.sock")
    }

    /// Where the service with the variable `PORT` is published.
    pub(crate) fn target(&self) -> SocketAddr {
        self.target_of("PORT")
    }

    pub(crate) fn target_of(&self, variable: &str) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.variables[variable].parse::<u16>().unwrap()))
    }

    /// A command of the program with this world's directory, environment and compose file.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BULSA);
        command.arg("--state-dir").arg(self.state_dir());
        command.arg("-f").arg(fixture(self.fixture)).args(arguments);
        command.env_clear().envs(&self.variables).env("PATH", search_path());
        command.current_dir(self.dir.path()).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Starts a command.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running { what: format!("bulsa {}", arguments.join(" ")), child }
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        self.start(arguments).end().await
    }

    /// Starts the daemon in the background and brings the project up.
    pub(crate) async fn up(&self) {
        self.run(&["up", "-d"]).await.exits(0);
        self.answers().await;
    }

    /// Starts the daemon as our own child, and waits until it answers.
    pub(crate) async fn serve(&mut self) {
        fs::create_dir_all(self.state_dir()).unwrap();
        let log = fs::File::options().create(true).append(true).open(self.path("serve.log")).unwrap();
        let mut command = self.command(&["serve"]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.serve = Some(command.spawn().unwrap());
        self.answers().await;
    }

    /// The daemon's client; waits until there is one.
    pub(crate) async fn client(&self) -> Client {
        let end = Instant::now() + LIMIT;
        loop {
            match Client::find(&[self.socket()]).await {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < end, "no daemon: {error}\n{}", self.daemon_log()),
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// The keeper's own exit, where it is our child.
    pub(crate) async fn served(&mut self) -> Option<i32> {
        let mut child = self.serve.take().expect("the daemon is our own child");
        timeout(LIMIT, child.wait()).await.expect("the daemon ends").unwrap().code()
    }

    /// By what this daemon's processes are known, whoever of them lives: as the keeper makes it.
    fn marker(&self) -> Option<String> {
        let path = fs::canonicalize(self.state_dir()).ok()?;
        let uid = rustix::process::geteuid().as_raw();
        let digest = Sha256::new().chain_update(path.as_os_str().as_bytes()).chain_update(uid.to_le_bytes());
        Some(digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }

    /// Waits until the daemon answers, and makes sure that its processes are known by their mark: what is left over would
    /// not be found otherwise.
    async fn answers(&self) {
        let agent = pid(self.snapshot().await.agent.pid);
        assert_eq!(variable(agent, "BULSA_KEEPER"), self.marker(), "the mark of the agent");
    }

    /// All living processes of this daemon but the keeper.
    pub(crate) fn processes(&self) -> Vec<i32> {
        self.marker().map_or_else(Vec::new, |marker| holding("BULSA_KEEPER", &marker))
    }

    /// What of them are replicas, or their children.
    pub(crate) fn replica_processes(&self) -> Vec<i32> {
        let mut all = self.processes();
        all.retain(|pid| variable(*pid, "BULSA_TASK").is_some());
        all
    }

    /// What the daemon wrote.
    pub(crate) fn daemon_log(&self) -> String {
        [self.state_dir().join("daemon.log"), self.path("serve.log")]
            .iter()
            .filter_map(|path| fs::read_to_string(path).ok())
            .collect()
    }

    fn keeper(&self) -> Option<i32> {
        let lock = fs::read_to_string(self.state_dir().join("keeper.lock")).ok()?;
        let pid = lock.split_whitespace().next()?.parse().ok()?;
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        line.contains(self.dir.path().to_str()?).then_some(pid)
    }
}

impl Drop for World {
    /// Whatever became of the test: nothing of its daemon lives on. The keeper first, since it starts the others anew.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon wrote:\n{}", self.daemon_log());
        }
        if let Some(keeper) = self.keeper() {
            end_now(keeper);
        }
        for _ in 0..20 {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            left.into_iter().for_each(end_now);
        }
    }
}

impl Running {
    /// SIGKILL; waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn end(self) -> Ran {
        let Self { what, child } = self;
        let ended = timeout(LIMIT, child.wait_with_output()).await;
        let output = ended.unwrap_or_else(|_| panic!("`{what}` goes on and on")).unwrap();
        Ran {
            what,
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// Fails the test where the exit code is another one.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "`{}` said:\n{}{}", self.what, self.out, self.err);
        self
    }

    /// Fails the test where one of the texts isn't in what the command wrote to standard error.
    #[track_caller]
    pub(crate) fn complains(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.err.contains(text), "`{}` does not say `{text}`:\n{}", self.what, self.err);
        }
        self
    }

    /// Standard output as one JSON value.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("`{}` is no JSON: {error}:\n{}", self.what, self.out))
    }

    /// Standard output as one JSON value a line; there is at least one.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<serde_json::Value> {
        assert!(!self.out.trim().is_empty(), "`{}` says nothing", self.what);
        let lines = self.out.lines();
        lines
            .map(|line| {
                serde_json::from_str(line)
                    .unwrap_or_else(|error| panic!("`{}` is no JSON: {error}: {line}", self.what))
            })
            .collect()
    }
}

/// A compose file of the fixtures.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Where programs are looked for: the system's own ones first, before anybody's wrappers of them.
fn search_path() -> String {
    format!("/usr/bin:/bin:{}", std::env::var("PATH").unwrap_or_default())
}

/// Whether a program is installed; says that something is skipped where it isn't.
pub(crate) fn has(program: &str) -> bool {
    let found = search_path().split(':').any(|dir| Path::new(dir).join(program).is_file());
    if !found {
        eprintln!("skipped: `{program}` is not installed");
    }
    found
}

/// A port where nothing listens, below those that replicas and outgoing connections get.
pub(crate) fn free_port() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    // Tests run as processes side by side: each begins at another place.
    let start = std::process::id().wrapping_mul(37);
    loop {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + u16::try_from((start + u32::from(tried)) % 9_900).unwrap();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Whether nobody listens there.
pub(crate) fn is_closed(target: SocketAddr) -> bool {
    TcpStream::connect(target).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

pub(crate) fn pid(number: u32) -> i32 {
    i32::try_from(number).unwrap()
}

/// Sends a signal to a process that must be there.
pub(crate) fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// SIGKILL, for a process that may be gone; waits for its end.
fn end_now(pid: i32) {
    let Some(fd) = hold(pid) else { return };
    if rustix::process::pidfd_send_signal(&fd, Signal::KILL).is_ok() {
        // One that does not die is looked for again.
        is_over(&fd, Duration::from_secs(5));
    }
}

/// Waits for the end of any process.
pub(crate) async fn ended(pid: i32) {
    let Some(fd) = hold(pid) else { return };
    let over = tokio::task::spawn_blocking(move || is_over(&fd, LIMIT)).await.unwrap();
    assert!(over, "process {pid} does not end");
}

/// A process, held so that no other takes its number; `None` where it is gone.
fn hold(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

/// Waits for a process's end; false where that takes too long.
fn is_over(process: &OwnedFd, limit: Duration) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    let limit = Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap(), tv_nsec: 0 };
    poll(&mut fds, Some(&limit)).is_ok_and(|ready| ready > 0)
}

/// A variable that a process was started with.
pub(crate) fn variable(pid: i32, name: &str) -> Option<String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let text = String::from_utf8_lossy(&environ).into_owned();
    text.split('\0').find_map(|entry| Some(entry.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// All processes that were started with this variable.
fn holding(name: &str, value: &str) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| variable(*pid, name).as_deref() == Some(value)).collect()
}

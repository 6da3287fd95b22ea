//! One `bulsa run` with a daemon of its own, and means to look at it.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use bulsa::client::{Client, EventsQuery};
use bulsa_core::wire::api::{Event, ProjectView, ServiceView};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use tempfile::TempDir;
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use crate::node;

/// How long anything but a crash loop's end may take on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// How long a process that was killed may take to be gone.
const DYING_MAX: Duration = Duration::from_secs(10);
/// Every process of a test has this variable, with the test's directory.
const MARK: &str = "BULSA_RUNS_TEST";

/// `bulsa run` and what it said.
pub(crate) struct Run {
    dir: TempDir,
    child: Option<Child>,
    pub(crate) port: u16,
    said: watch::Receiver<Vec<String>>,
}

impl Run {
    /// Starts `bulsa run --port P` with these further words, and these variables.
    pub(crate) fn start(words: &[&str], env: &[(&str, &str)]) -> Self {
        Self::with_files(&[], words, env)
    }

    /// The same, with these files in the working directory.
    pub(crate) fn with_files(files: &[(&str, &str)], words: &[&str], env: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let port = free_port();
        let mut command = Self::command_in(dir.path());
        command.args(["run", "--state-dir"]).arg(dir.path().join("state"));
        if !words.contains(&"--no-port") && !words.contains(&"--port") {
            command.args(["--port", &port.to_string()]);
        }
        command.args(words).envs(env.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, said) = watch::channel(Vec::new());
        let sender = Arc::new(Mutex::new(sender));
        listen(child.stdout.take().unwrap(), Arc::clone(&sender));
        listen(child.stderr.take().unwrap(), sender);
        Self { dir, child: Some(child), port, said }
    }

    fn command_in(dir: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulsa"));
        command
            .arg("--socket")
            .arg(dir.join("api.sock"))
            .env(MARK, dir)
            .env("NODE_PATH", node::module_path());
        command.stdin(Stdio::null()).current_dir(dir);
        command
    }

    /// Another command to the same daemon.
    pub(crate) fn bulsa(&self, words: &[&str]) -> Output {
        Self::command_in(self.dir.path()).args(words).output().unwrap()
    }

    /// Where the test may keep files; the programs' working directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    /// Everything said so far, on both streams.
    pub(crate) fn said(&self) -> String {
        self.said.borrow().join("\n")
    }

    /// Waits until a line with `text` was said.
    pub(crate) async fn says(&mut self, text: &str) -> String {
        let has = |lines: &Vec<String>| lines.iter().any(|line| line.contains(text));
        let mut said = self.said.clone();
        let Ok(Ok(lines)) = timeout(LIMIT, said.wait_for(has)).await else {
            panic!("nobody said `{text}`:\n{}", self.said());
        };
        lines.iter().find(|line| line.contains(text)).cloned().unwrap()
    }

    /// The daemon's client. Waits until there is one: where an agent was killed the next one may not listen yet.
    pub(crate) async fn client(&mut self) -> Client {
        self.says("started the daemon").await;
        let deadline = Instant::now() + LIMIT;
        loop {
            match Client::find(&[self.socket()]).await {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < deadline, "no daemon: {error}\n{}", self.said()),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the only service is so that `holds` gives something.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        mut holds: impl FnMut(&ServiceView) -> Option<T>,
    ) -> T {
        self.until_project(what, |project| holds(project.services.first()?)).await
    }

    pub(crate) async fn until_project<T>(
        &mut self,
        what: &str,
        mut holds: impl FnMut(&ProjectView) -> Option<T>,
    ) -> T {
        let client = self.client().await;
        let deadline = Instant::now() + LIMIT * 2;
        let mut number = 0;
        loop {
            let snapshot = timeout_at(deadline, client.snapshot_after(number, Duration::from_secs(10))).await;
            let Ok(snapshot) = snapshot else { panic!("{what}: never so\n{}", self.said()) };
            let snapshot = snapshot.unwrap_or_else(|error| panic!("{what}: {error}\n{}", self.said()));
            number = snapshot.number;
            if let Some(found) = snapshot.projects.first().and_then(&mut holds) {
                return found;
            }
            assert!(Instant::now() < deadline, "{what}: never so: {snapshot:#?}\n{}", self.said());
        }
    }

    /// Waits until every worker is ready; the service then.
    pub(crate) async fn healthy(&mut self) -> ServiceView {
        self.until("every worker is ready", |service| {
            let is_ready = service.ready == service.desired && service.desired > 0;
            (is_ready && service.replicas.iter().all(|r| r.state == "ready")).then(|| service.clone())
        })
        .await
    }

    /// All events so far.
    pub(crate) async fn events(&mut self) -> Vec<Event> {
        let client = self.client().await;
        let query = EventsQuery { last: Some(1000), ..EventsQuery::default() };
        let mut stream = client.events(&query).await.unwrap();
        let mut events = Vec::new();
        while let Some(event) = stream.next().await.unwrap() {
            events.push(event);
        }
        events
    }

    /// Presses Ctrl-C.
    pub(crate) fn interrupt(&self) {
        self.interrupt_by(Signal::INT);
    }

    pub(crate) fn interrupt_by(&self, how: Signal) {
        let pid = self.child.as_ref().map(Child::id).unwrap();
        signal(pid, how);
    }

    /// Waits for `bulsa run` to end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let ended = tokio::task::spawn_blocking(move || child.wait().unwrap());
        let ended = timeout(LIMIT, ended).await;
        let status = ended.unwrap_or_else(|_| panic!("it does not end:\n{}", self.said())).unwrap();
        // Its last words may still be in the pipes.
        let mut said = self.said.clone();
        let heard = async { while said.changed().await.is_ok() {} };
        timeout(LIMIT, heard).await.unwrap_or_else(|_| panic!("its output stays open:\n{}", self.said()));
        status
    }

    /// The processes that this test has started and that are still there.
    pub(crate) fn marked(&self) -> BTreeMap<u32, String> {
        marked(self.dir.path())
    }

    /// The same, once those that are dying are dead.
    pub(crate) async fn leftovers(&self) -> BTreeMap<u32, String> {
        for pid in self.marked().into_keys() {
            dead_within(pid, DYING_MAX).await;
        }
        self.marked()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Nobody is asked: a test that failed leaves nothing either. A process that is just becoming another program
        // shows no environment for a moment, so one look that finds nothing is not enough.
        let mut empty = 0;
        while empty < 3 {
            let left = family(self.dir.path());
            empty = if left.is_empty() { empty + 1 } else { 0 };
            left.keys().for_each(|pid| signal(*pid, Signal::KILL));
            if let Some(child) = self.child.as_mut().filter(|_| empty == 0) {
                child.wait().ok();
            }
        }
    }
}

/// Whether a process ends within a time.
pub(crate) async fn dead_within(pid: u32, limit: Duration) -> bool {
    let Some(pid) = Pid::from_raw(i32::try_from(pid).unwrap()) else { return true };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let limit = limit.try_into().unwrap();
    let waited = tokio::task::spawn_blocking(move || {
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).unwrap() > 0
    });
    waited.await.unwrap()
}

/// Gathers the lines of a stream.
fn listen(stream: impl Read + Send + 'static, said: Arc<Mutex<watch::Sender<Vec<String>>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            said.lock().unwrap().send_modify(|lines| lines.push(line));
        }
    });
}

/// Sends a signal to a process, which may be gone.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("{pid:?} can't be sent {signal:?}: {error}"),
    }
}

/// The marked processes and their children: a proxy has no environment of ours.
fn family(dir: &Path) -> BTreeMap<u32, String> {
    let mut all = marked(dir);
    for entry in fs::read_dir("/proc").unwrap() {
        let Ok(pid) = entry.unwrap().file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<u32>().ok());
        if parent.is_some_and(|parent| all.contains_key(&parent)) && !all.contains_key(&pid) {
            all.insert(pid, "a child".to_owned());
        }
    }
    all
}

fn marked(dir: &Path) -> BTreeMap<u32, String> {
    let wanted = format!("{MARK}={}", dir.display());
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let is_marked = environment(pid).is_some_and(|all| all.contains(&wanted));
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        (is_marked && pid != std::process::id())
            .then(|| (pid, String::from_utf8_lossy(&line).replace('\0', " ")))
    });
    processes.collect()
}

/// A process's environment as it was started, as `NAME=VALUE`; none of a process that is gone.
pub(crate) fn environment(pid: u32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    Some(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

/// One variable of a process.
pub(crate) fn variable(pid: u32, name: &str) -> Option<String> {
    environment(pid)?.iter().find_map(|word| Some(word.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// A port that nobody has now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// The body of an answer to `GET path` at a port of this host.
pub(crate) fn get(port: u16, path: &str) -> String {
    let answer = ask(port, path, LIMIT);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// What comes back for `GET path` within a time, if anything does.
pub(crate) fn ask(port: u16, path: &str, limit: Duration) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(limit)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // What came before a break or the time limit is what came back.
    stream.read_to_end(&mut answer).ok();
    String::from_utf8_lossy(&answer).into_owned()
}

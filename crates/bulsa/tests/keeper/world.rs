//! A keeper of the test's own, what it started, and means to look at processes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bulsa::agent::keeper_client::{KeeperClient, KeeperEvent, ProxyHandle, Welcome};
use bulsa::link::listeners::{ListenAddr, open_listeners};
use bulsa::link::messages::{ExitRecord, SpawnSpec};
use bulsa::link::{Link, memfd};
use bulsa_proxy::{ListenerRoutes, Route, Service, Table, Target};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tempfile::TempDir;
use tokio::net::UnixListener;

/// How long one test may take.
pub(crate) const TEST_LIMIT: Duration = Duration::from_secs(60);

/// One state directory, its keeper, and everything marked as that keeper's.
pub(crate) struct World {
    dir: TempDir,
    agents: UnixListener,
    keeper: Option<Child>,
    marker: Option<String>,
}

/// An agent: a process that does nothing, and the test that speaks for it.
pub(crate) struct Agent {
    pub(crate) pid: i32,
    pub(crate) client: KeeperClient,
    _process: OwnedFd,
}

impl World {
    /// A state directory without a keeper.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        bind(&socket, &SocketAddrUnix::new(dir.path().join("test.sock")).unwrap()).unwrap();
        listen(&socket, 16).unwrap();
        let agents = UnixListener::from_std(StdListener::from(socket)).unwrap();
        Self { dir, agents, keeper: None, marker: None }
    }

    /// A keeper whose agent is welcomed.
    pub(crate) async fn start() -> (Self, Agent, Welcome) {
        let mut world = Self::new();
        world.start_keeper();
        let (agent, welcome) = world.agent().await;
        (world, agent, welcome)
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn keeper_command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("__keeper").arg(self.state_dir()).arg(self.dir.path().join("test.sock"));
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn start_keeper(&mut self) {
        self.keeper = Some(self.keeper_command().spawn().unwrap());
    }

    /// Starts a keeper through a shell script, which gets its command as arguments.
    pub(crate) fn start_keeper_by(&mut self, script: &str) {
        let command = self.keeper_command();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", script, "sh"])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null());
        self.keeper = Some(shell.spawn().unwrap());
    }

    pub(crate) fn keeper_pid(&self) -> i32 {
        i32::try_from(self.keeper.as_ref().unwrap().id()).unwrap()
    }

    /// Kills the keeper and waits for its end.
    pub(crate) fn kill_keeper(&mut self) {
        let mut keeper = self.keeper.take().unwrap();
        keeper.kill().unwrap();
        keeper.wait().unwrap();
    }

    /// Waits for the keeper to end by itself; its exit code.
    pub(crate) async fn keeper_ended(&mut self) -> Option<i32> {
        let mut keeper = self.keeper.take().unwrap();
        ended(i32::try_from(keeper.id()).unwrap()).await;
        keeper.wait().unwrap().code()
    }

    /// Waits for the next agent process.
    pub(crate) async fn agent_link(&mut self) -> (i32, Link, OwnedFd) {
        let (stream, _) = self.agents.accept().await.unwrap();
        let process = OwnedFd::from(stream.into_std().unwrap());
        let link = bulsa::link::async_link::AsyncLink::from_fd(process.try_clone().unwrap()).unwrap();
        let message = link.recv::<i32>().await.unwrap();
        self.marker = variable(message.body, "BULSA_KEEPER");
        let fd = message.fds.into_iter().next().unwrap();
        (message.body, Link::new(fd).unwrap(), process)
    }

    /// Waits for the next agent process and speaks for it.
    pub(crate) async fn agent(&mut self) -> (Agent, Welcome) {
        let (pid, link, process) = self.agent_link().await;
        let (client, welcome) = KeeperClient::connect(link).await.unwrap();
        (Agent { pid, client, _process: process }, welcome)
    }

    pub(crate) fn log(&self, name: &str) -> File {
        File::options().create(true).append(true).open(self.dir.path().join(name)).unwrap()
    }

    pub(crate) fn log_text(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.kill().unwrap();
            keeper.wait().unwrap();
        }
        let Some(marker) = &self.marker else { return };
        // A process inside `execve` shows no environment for a moment, so one look that finds nothing is not enough.
        let mut empty = 0;
        while empty < 3 {
            let left: Vec<i32> = marked(marker).into_iter().filter(|pid| is_alive(*pid)).collect();
            empty = if left.is_empty() { empty + 1 } else { 0 };
            for pid in left {
                // It may have ended by now.
                let _gone = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
            std::thread::yield_now();
        }
    }
}

impl Agent {
    /// Starts a shell script as a replica and waits for it.
    pub(crate) async fn spawn(&self, world: &World, id: &str, script: &str) -> i32 {
        self.ask_spawn(world, id, script).await;
        match self.client.next_event().await.unwrap() {
            KeeperEvent::Spawned { id: of, pid, .. } if of == id => pid,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn ask_spawn(&self, world: &World, id: &str, script: &str) {
        let spec = SpawnSpec {
            argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec![("PATH".to_owned(), std::env::var("PATH").unwrap())],
            note: format!("note of {id}"),
            ..SpawnSpec::default()
        };
        let log = world.log(id);
        self.client.spawn(id, &spec, log.as_fd(), None).await.unwrap();
    }

    /// The next event, which must be an exit.
    pub(crate) async fn exit(&self) -> ExitRecord {
        match self.client.next_event().await.unwrap() {
            KeeperEvent::Exited(record) => record,
            other => panic!("{other:?}"),
        }
    }

    /// The next event, which must be a new proxy.
    pub(crate) async fn proxy_up(&self) -> ProxyHandle {
        match self.client.next_event().await.unwrap() {
            KeeperEvent::ProxyUp(handle) => handle,
            other => panic!("{other:?}"),
        }
    }

    /// Publishes a service that answers `hello`, and waits until the keeper has its sockets and table; its address.
    pub(crate) async fn publish(&self, number: u64) -> SocketAddr {
        let sockets = open_listeners(loopback(), 2).unwrap();
        let addr = sockets[0].local_addr().unwrap();
        self.client.keep_sockets("web", &sockets).await.unwrap();
        let table = table(number, backend());
        self.client.set_table(number, table.as_fd()).await.unwrap();
        match self.client.next_event().await.unwrap() {
            KeeperEvent::TableKept { number: kept } if kept == number => addr,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn kill(&self) {
        kill(self.pid, Signal::KILL);
    }
}

pub(crate) fn loopback() -> ListenAddr {
    ListenAddr { host: Some(Ipv4Addr::LOCALHOST.into()), port: 0 }
}

/// An HTTP server on a thread of the test, which answers each connection once.
pub(crate) fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            if stream.read(&mut request).is_ok_and(|count| count > 0) {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
                // A client that was killed does not read it.
                let _gone = stream.write_all(answer);
            }
        }
    });
    addr
}

/// A table that sends everything on `web` to one target.
pub(crate) fn table(number: u64, target: SocketAddr) -> OwnedFd {
    let target = Target::new("t1", target);
    let mut table = Table::empty(number);
    table.services.push(Service::new("web", vec![target]));
    table.listeners.push(ListenerRoutes::http("web", vec![Route::to(0)]));
    memfd::sealed("table", &serde_json::to_vec(&table).unwrap()).unwrap()
}

/// One request on a connection of its own. A refused connection fails the test; a broken one is `None`.
pub(crate) fn request(addr: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(addr).expect("no connection is refused");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Asks until the answer is `hello`, each time on a fresh connection.
pub(crate) async fn served(addr: SocketAddr) {
    let asked = tokio::task::spawn_blocking(move || {
        while !request(addr).is_some_and(|answer| answer.ends_with("hello")) {
            std::thread::yield_now();
        }
    });
    asked.await.unwrap();
}

pub(crate) fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Waits for the end of any process.
pub(crate) async fn ended(pid: i32) {
    let Ok(pidfd) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) else { return };
    let wait = move || {
        let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        while rustix::event::poll(&mut fds, None).is_err() {}
    };
    tokio::task::spawn_blocking(wait).await.unwrap();
}

pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

pub(crate) fn variable(pid: i32, name: &str) -> Option<String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let text = String::from_utf8_lossy(&environ).into_owned();
    text.split('\0').find_map(|entry| Some(entry.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// All processes with this marker.
pub(crate) fn marked(marker: &str) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| variable(*pid, "BULSA_KEEPER").as_deref() == Some(marker)).collect()
}

/// The number that a script wrote into a file, once it is there. The script writes it under another name first.
pub(crate) async fn number_in(path: &Path) -> i32 {
    loop {
        if let Ok(text) = fs::read_to_string(path) {
            return text.trim().parse().unwrap();
        }
        tokio::task::yield_now().await;
    }
}

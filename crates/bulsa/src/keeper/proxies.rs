//! Starting proxies, and telling them what to serve.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, pidfd_send_signal};

use super::Keeper;
use super::backoff::Backoff;
use super::log::log;
use super::marker::{GENERATION_ENV, KEEPER_ENV, ROLE_ENV};
use super::peer::Peer;
use super::procfs;
use super::spawn::identify;
use super::takeover;
use super::unsafe_exec::{ChildSetup, prepare};
use crate::link::messages::{ExitStatus, FromKeeper, PROTOCOL, ToProxy};
use crate::link::{LINK_FD_ENV, Link};

/// The user and group of the proxy when the keeper is root and there is no user [`PROXY_USER`].
const NOBODY: (u32, u32) = (65534, 65534);
/// The user that the proxy runs as when the keeper is root, if it exists.
const PROXY_USER: &str = "bulsa";
/// What the proxy may see of the keeper's environment.
const PASSED_ENV: [&str; 4] = ["RUST_LOG", "RUST_BACKTRACE", "TZ", "PATH"];
/// Between two tries when a proxy cannot even be started.
const RETRY_START: Duration = Duration::from_millis(500);

/// A living proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) generation: u64,
    pub(crate) pid: i32,
    pub(crate) peer: Peer,
    /// Of one taken over. A child of ours needs none.
    pub(crate) pidfd: Option<OwnedFd>,
    since: Instant,
    killed: bool,
}

impl Proxy {
    /// One that outlived its keeper.
    pub(crate) fn adopted(generation: u64, identity: (i32, u64), pidfd: OwnedFd, peer: Peer) -> Self {
        let (pid, _start_time) = identity;
        Self { generation, pid, peer, pidfd: Some(pidfd), since: Instant::now(), killed: false }
    }

    /// Kills it; its end is seen as any other.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.killed = true;
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let result = match (&self.pidfd, Pid::from_raw(self.pid)) {
            (Some(pidfd), _) => pidfd_send_signal(pidfd, signal),
            (None, Some(pid)) => kill_process(pid, signal),
            (None, None) => Ok(()),
        };
        match result {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => log!("{signal:?} cannot be sent to proxy {}: {error}", self.generation),
        }
    }
}

/// All living proxies, and when the next one starts.
#[derive(Debug)]
pub(crate) struct Proxies {
    living: Vec<Proxy>,
    last_generation: u64,
    backoff: Backoff,
    pub(crate) start_at: Option<Instant>,
}

impl Proxies {
    /// What was taken over.
    pub(crate) fn new(living: Vec<Proxy>, last_generation: u64) -> Self {
        Self { living, last_generation, backoff: Backoff::new(Instant::now()), start_at: None }
    }

    /// Whether none lives.
    pub(crate) fn is_empty(&self) -> bool {
        self.living.is_empty()
    }

    /// All, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Proxy> {
        self.living.iter()
    }

    /// All, oldest first.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Proxy> {
        self.living.iter_mut()
    }

    /// One of them.
    pub(crate) fn get_mut(&mut self, generation: u64) -> Option<&mut Proxy> {
        self.living.iter_mut().find(|proxy| proxy.generation == generation)
    }

    /// The generation of a child of ours.
    pub(crate) fn child_generation(&self, pid: i32) -> Option<u64> {
        let mut found = self.living.iter().filter(|proxy| proxy.pid == pid && proxy.pidfd.is_none());
        found.next().map(|proxy| proxy.generation)
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let alive = self.living.iter().filter(|proxy| !proxy.killed);
        alive.filter_map(|proxy| proxy.peer.kill_at()).chain(self.start_at).min()
    }

    /// Tells all of them.
    pub(crate) fn send(&mut self, message: &ToProxy, fds: &[Rc<OwnedFd>]) {
        for proxy in &mut self.living {
            proxy.peer.send(message, fds.to_vec());
        }
    }
}

impl Keeper {
    /// Starts the next proxy and tells it everything. Schedules another try when it cannot be started.
    pub(crate) fn start_proxy(&mut self) {
        self.proxies.start_at = None;
        let generation = self.proxies.last_generation + 1;
        match self.spawn_proxy(generation) {
            Ok(proxy) => {
                self.proxies.last_generation = generation;
                self.proxies.living.push(proxy);
                self.link_agent_to(generation, false);
            }
            Err(error) => {
                log!("the proxy cannot be started, next try in {RETRY_START:?}: {error}");
                takeover::remove_socket(&self.run_dir, generation);
                self.proxies.start_at = Some(Instant::now() + RETRY_START);
            }
        }
    }

    fn spawn_proxy(&self, generation: u64) -> Result<Proxy, String> {
        let text = |error: std::io::Error| error.to_string();
        let successor = takeover::listener(&self.run_dir, generation).map_err(text)?;
        let (link, theirs) = Link::pair().map_err(text)?;
        let (program, arguments) = self.config.proxy.split_first().ok_or("no program is given")?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear();
        command.envs(PASSED_ENV.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.env(KEEPER_ENV, self.marker.value()).env(ROLE_ENV, "proxy").env(LINK_FD_ENV, "0");
        command.env(GENERATION_ENV, generation.to_string());
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).process_group(0).current_dir("/");
        if let Some((_, err)) = self.part_log() {
            command.stderr(err);
        }
        prepare(&mut command, unprivileged());
        let child = command.spawn().map_err(text)?;
        let started = identify(child.id())?;
        let mut peer = Peer::new(link);
        let owner = rustix::process::geteuid().as_raw();
        peer.send(&ToProxy::Start { protocol: PROTOCOL, generation, owner }, vec![Rc::new(successor)]);
        // The table first: a socket that is served before it would refuse every request.
        if let Some((number, table)) = &self.table {
            peer.send(&ToProxy::Table { number: *number }, vec![Rc::clone(table)]);
        }
        for (name, set) in &self.sockets {
            peer.send_set(set, |more| ToProxy::Socket { name: name.clone(), more });
        }
        let since = Instant::now();
        Ok(Proxy { generation, pid: started.pid, peer, pidfd: None, since, killed: false })
    }

    /// Makes a fresh link between the agent, if there is one that said hello, and a proxy.
    pub(crate) fn link_agent_to(&mut self, generation: u64, welcome: bool) {
        let Some(agent) = self.agents.greeted() else { return };
        let Some(proxy) = self.proxies.get_mut(generation) else { return };
        let (ours, theirs) = match socket_pair() {
            Ok(pair) => pair,
            Err(error) => {
                // Without this link the agent is blind; a new agent asks for all links again.
                agent.peer.fail(&format!("there is no link for it to proxy {generation}: {error}"));
                return;
            }
        };
        proxy.peer.send(&ToProxy::AgentLink { agent: agent.number }, vec![theirs]);
        let pid = proxy.pid;
        let message = if welcome {
            FromKeeper::Proxy { generation, pid }
        } else {
            FromKeeper::ProxyUp { generation, pid }
        };
        agent.peer.send(&message, vec![ours]);
    }

    /// Deals with a readable or writable proxy link.
    pub(crate) fn proxy_ready(&mut self, generation: u64, ready: PollFlags) {
        let Some(proxy) = self.proxies.get_mut(generation) else { return };
        if ready.contains(PollFlags::OUT) {
            proxy.peer.flush();
        }
        // A proxy says nothing on this link after a takeover; this only finds its end.
        if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
            && proxy.peer.recv::<serde::de::IgnoredAny>().is_some()
        {
            proxy.peer.fail("it talks out of turn");
        }
    }

    /// Kills proxies whose link is of no use: the next one gets a good link.
    pub(crate) fn kill_broken_proxies(&mut self) {
        for proxy in self.proxies.iter_mut().filter(|proxy| !proxy.killed) {
            if let (Some(why), Some(at)) = (proxy.peer.broken(), proxy.peer.kill_at())
                && Instant::now() >= at
            {
                log!("proxy {} is killed: {why}", proxy.generation);
                proxy.kill();
            }
        }
    }

    /// A proxy has ended, and is reaped.
    pub(crate) fn proxy_down(&mut self, generation: u64, status: ExitStatus) {
        let Some(index) = self.proxies.living.iter().position(|proxy| proxy.generation == generation) else {
            return;
        };
        let gone = self.proxies.living.remove(index);
        let now = Instant::now();
        if self.ending.is_none() && self.proxies.is_empty() {
            let wait = self.proxies.backoff.died(now - gone.since, now);
            log!("proxy {generation} ended ({status:?}); the next one starts in {wait:?}");
            if wait.is_zero() {
                self.start_proxy();
            } else {
                self.proxies.start_at = Some(now + wait);
            }
        }
        takeover::remove_socket(&self.run_dir, generation);
        self.tell_agent(&FromKeeper::ProxyDown { generation, status });
    }
}

fn socket_pair() -> std::io::Result<(Rc<OwnedFd>, Rc<OwnedFd>)> {
    let (ours, theirs) = Link::pair()?;
    Ok((Rc::new(ours.as_fd().try_clone_to_owned()?), Rc::new(theirs)))
}

/// What faces the network has no rights.
fn unprivileged() -> ChildSetup {
    let limit = getrlimit(Resource::Nofile);
    let open_files = Some(Rlimit { current: limit.maximum, maximum: limit.maximum });
    let mut setup = ChildSetup { open_files, no_new_privs: true, ..ChildSetup::default() };
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = procfs::passwd_ids(Path::new("/etc/passwd"), PROXY_USER).unwrap_or(NOBODY);
        (setup.uid, setup.gid, setup.groups) = (Some(uid), Some(gid), Some(Vec::new()));
    }
    setup
}

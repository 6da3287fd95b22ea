//! The proxy process: the data plane of `bulsa-proxy`, told what to serve by keeper and agent.
//!
//! ```text
//!  keeper ── sockets, tables, agent links ──▶ ┌─────────┐ ◀── tables, pings ── agent
//!  successor of the keeper ── take over ────▶ │ control │ ──── reports ─────▶ (one task per link)
//!                                             └────┬────┘
//!                                    Proxy::apply, add_listener, report
//! ```
//!
//! The control side runs on one thread of its own beside the workers. It owns the copies of sockets and table that
//! a successor of the keeper will ask for. When the agent is gone it goes on serving; when the keeper is gone it
//! goes on serving and waits for a successor, who must be the keeper's user or root.
//!
//! It never: opens a socket for the network, reads a file, or waits for an agent that does not read.

use std::cell::RefCell;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use bulsa_proxy::{Options, Proxy, Table};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, LocalSet};

use crate::link::async_link::AsyncLink;
use crate::link::messages::{PROTOCOL, ToProxy};
use crate::link::{Link, LinkError, Message};

mod agent_side;
mod served;

use served::Served;

/// How long a successor of the keeper may take to read a handover.
const HANDOVER_LIMIT: Duration = Duration::from_secs(3);
/// After a failed accept on the successor's socket.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the last lines of the access log may take to be written.
const LAST_LINES_LIMIT: Duration = Duration::from_secs(1);
/// Worker threads, whatever the number of cores.
const MAX_WORKERS: usize = 32;

/// Why a proxy cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ProxyProcessError {
    /// It was not started by a keeper of this version.
    #[error("the keeper did not begin as expected: {0}")]
    Keeper(#[from] LinkError),
    /// The system refused something.
    #[error("the proxy cannot {doing}: {error}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        error: io::Error,
    },
}

/// Runs a proxy whose standard input is its link to the keeper, until the keeper tells it to stop.
///
/// # Errors
/// When it was not started by a keeper, or the system has no threads or memory for it.
pub fn run() -> Result<ExitCode, ProxyProcessError> {
    let system = |doing| move |error| ProxyProcessError::System { doing, error };
    let link = Link::from_stdin().map_err(LinkError::from)?;
    // Without this the process would be called after the link that it was started through.
    rustix::thread::set_name(c"bulsa-proxy").map_err(io::Error::from).map_err(system("name itself"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(system("start its runtime"))?;
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
    let proxy = Proxy::start(Options { workers }, &Table::empty(0)).map_err(system("start its workers"))?;
    let served = Rc::new(RefCell::new(Served::new(Rc::new(proxy))));
    runtime.block_on(LocalSet::new().run_until(async move {
        let link = AsyncLink::new(link).map_err(system("use its link"))?;
        Control::start(link, served).await?.run().await;
        Ok(ExitCode::SUCCESS)
    }))
}

/// The control side.
#[derive(Debug)]
struct Control {
    generation: u64,
    /// The only user but root that may take this proxy over.
    owner: u32,
    served: Rc<RefCell<Served>>,
    keeper: Option<AsyncLink>,
    /// Where a successor of the keeper connects.
    successors: UnixListener,
    /// One that has connected and not yet spoken.
    successor: Option<AsyncLink>,
    agent: Option<JoinHandle<()>>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.drop_agent();
    }
}

impl Control {
    async fn start(keeper: AsyncLink, served: Rc<RefCell<Served>>) -> Result<Self, ProxyProcessError> {
        let Message { body, fds } = keeper.recv().await?;
        let ToProxy::Start { protocol: PROTOCOL, generation, owner } = body else {
            return Err(LinkError::Protocol("no start of this version came first").into());
        };
        let listener = std::os::unix::net::UnixListener::from(Message::<()>::one_fd(fds)?);
        let successors = listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener));
        let successors =
            successors.map_err(|error| ProxyProcessError::System { doing: "wait for keepers", error })?;
        Ok(Self { generation, owner, served, keeper: Some(keeper), successors, successor: None, agent: None })
    }

    /// Goes on until told to stop, and then until nothing is in flight.
    async fn run(mut self) {
        loop {
            tokio::select! {
                message = recv(self.keeper.as_ref()) => match message {
                    Ok(message) => {
                        if let Some(grace) = self.obey(message) {
                            return self.stop(grace).await;
                        }
                    }
                    Err(error) => {
                        tracing::warn!("the keeper is gone ({error}); serving goes on");
                        self.keeper = None;
                    }
                },
                accepted = self.successors.accept() => match accepted {
                    Ok((stream, _)) => self.successor = self.check(stream),
                    Err(error) => {
                        tracing::warn!("a successor of the keeper cannot connect: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                message = recv(self.successor.as_ref()) => self.successor_spoke(message).await,
            }
        }
    }

    /// Does what the keeper says; the grace if that is to stop.
    fn obey(&mut self, message: Message<ToProxy>) -> Option<Duration> {
        let Message { body, fds } = message;
        let result = match body {
            ToProxy::Socket { name, more } => self.served.borrow_mut().add_sockets(name, fds, more),
            ToProxy::DropSocket { name } => {
                self.served.borrow_mut().drop_sockets(&name);
                Ok(())
            }
            ToProxy::Table { number } => {
                let table = Message::<()>::one_fd(fds);
                table
                    .map_err(|error| error.to_string())
                    .and_then(|table| self.served.borrow_mut().apply(number, table))
            }
            ToProxy::AgentLink { agent } => self.link_agent(agent, fds),
            ToProxy::Stop { grace_ms } => return Some(Duration::from_millis(grace_ms)),
            ToProxy::Start { .. } | ToProxy::TakeOver { .. } => Err("it began twice".to_owned()),
        };
        if let Err(error) = result {
            tracing::error!("what the keeper said cannot be done: {error}");
        }
        None
    }

    fn link_agent(&mut self, agent: u64, fds: Vec<std::os::fd::OwnedFd>) -> Result<(), String> {
        let fd = Message::<()>::one_fd(fds).map_err(|error| error.to_string())?;
        let link = AsyncLink::from_fd(fd).map_err(|error| error.to_string())?;
        self.drop_agent();
        let task = agent_side::serve(link, self.generation, Rc::clone(&self.served));
        self.agent = Some(tokio::task::spawn_local(async move {
            let error = task.await;
            tracing::info!("agent {agent} is gone ({error}); serving goes on");
        }));
        Ok(())
    }

    fn drop_agent(&mut self) {
        if let Some(task) = self.agent.take() {
            task.abort();
        }
    }

    /// Only the keeper's user and root may take a proxy over.
    fn check(&self, stream: UnixStream) -> Option<AsyncLink> {
        let uid = stream.peer_cred().map(|cred| cred.uid());
        match uid {
            Ok(uid) if uid == 0 || uid == self.owner => {}
            uid => {
                tracing::warn!("somebody else ({uid:?}) wants to take this proxy over: refused");
                return None;
            }
        }
        let link = stream.into_std().and_then(|stream| AsyncLink::from_fd(stream.into()));
        link.inspect_err(|error| tracing::warn!("the link of a new keeper cannot be used: {error}")).ok()
    }

    async fn successor_spoke(&mut self, message: Result<Message<ToProxy>, LinkError>) {
        let Some(link) = self.successor.take() else { return };
        match message {
            Ok(Message { body: ToProxy::TakeOver { protocol: PROTOCOL }, .. }) => {}
            Ok(_) => return tracing::warn!("a new keeper did not begin with a takeover of this version"),
            Err(error) => return tracing::warn!("a new keeper is gone: {error}"),
        }
        let handover = self.served.borrow().handover();
        let sent = tokio::time::timeout(HANDOVER_LIMIT, handover.send(&link, self.generation)).await;
        match sent {
            Ok(Ok(())) => {
                tracing::info!("a new keeper has taken this proxy over");
                self.keeper = Some(link);
            }
            Ok(Err(error)) => tracing::warn!("a new keeper was lost in the handover: {error}"),
            Err(_) => tracing::warn!("a new keeper does not read the handover"),
        }
    }

    async fn stop(mut self, grace: Duration) {
        tracing::info!("stopping: what is in flight has {grace:?}");
        let proxy = self.served.borrow().proxy();
        proxy.shutdown(grace);
        // Reports go on meanwhile; they tell the agent what is still in flight.
        proxy.ended().await;
        if tokio::time::timeout(LAST_LINES_LIMIT, proxy.access_log_written()).await.is_err() {
            tracing::warn!("the last lines of the access log are lost: its disk takes nothing");
        }
        self.drop_agent();
    }
}

/// The next message of a link that may not be there.
async fn recv(link: Option<&AsyncLink>) -> Result<Message<ToProxy>, LinkError> {
    match link {
        Some(link) => link.recv().await,
        None => std::future::pending().await,
    }
}

//! The agent's side of its link to the keeper.
//!
//! On connecting, the keeper tells everything that it keeps ([`Welcome`]); then it tells what happens. Every request
//! may be repeated: the keeper never starts two processes for one id, and forgets nothing that was not
//! acknowledged. Requests are not answered one by one; what they lead to comes as an event.

use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::process::Signal;

use crate::link::async_link::AsyncLink;
use crate::link::memfd;
use crate::link::messages::{ExitRecord, ExitStatus, FromKeeper, PROTOCOL, ReplicaInfo, SpawnSpec, ToKeeper};
use crate::link::{Link, LinkError, MAX_MESSAGE_FDS, Message};

/// Everything that the keeper keeps.
#[derive(Debug, Default)]
pub struct Welcome {
    /// Counts the agents since the first.
    pub agent_number: u64,
    /// How the agent before this one ended, if this keeper saw one end.
    pub previous_agent: Option<ExitStatus>,
    /// Exit records that were dropped because too many waited.
    pub exits_dropped: u64,
    /// The kept listening sockets, by name.
    pub sockets: Vec<(String, Vec<TcpListener>)>,
    /// The kept route table: its number and its sealed memfd.
    pub table: Option<(u64, OwnedFd)>,
    /// The replicas that run.
    pub replicas: Vec<ReplicaInfo>,
    /// Exits that no agent has acknowledged, oldest first.
    pub exits: Vec<ExitRecord>,
    /// The proxies that live, oldest first.
    pub proxies: Vec<ProxyHandle>,
}

/// A living proxy and the link to it; give the link to [`super::proxy_link::ProxyLink::new`].
#[derive(Debug)]
pub struct ProxyHandle {
    /// Its generation.
    pub generation: u64,
    /// Its pid.
    pub pid: i32,
    /// The link.
    pub link: OwnedFd,
}

/// What happens.
#[derive(Debug)]
pub enum KeeperEvent {
    /// A replica runs.
    Spawned {
        /// Its id.
        id: String,
        /// Its pid, also its process group.
        pid: i32,
        /// Its kernel start time, in clock ticks since boot.
        start_time: u64,
    },
    /// A replica could not be started; nothing of it is left.
    SpawnFailed {
        /// Its id.
        id: String,
        /// Why, for people.
        error: String,
    },
    /// A replica ended. To be acknowledged with [`KeeperClient::ack_exit`].
    Exited(ExitRecord),
    /// The keeper has a route table: every proxy that runs and that no event told of yet begins, or began, with it
    /// or a later one.
    TableKept {
        /// Its number.
        number: u64,
    },
    /// A proxy was started.
    ProxyUp(ProxyHandle),
    /// A proxy ended.
    ProxyDown {
        /// Its generation.
        generation: u64,
        /// How.
        status: ExitStatus,
    },
    /// The daemon is asked to end: stop the replicas, then call [`KeeperClient::shutdown`].
    ShuttingDown {
        /// When the keeper stops waiting, from now.
        limit: Duration,
    },
}

/// A link to the keeper. Its methods take `&self`: one task may wait for events while another asks.
#[derive(Debug)]
pub struct KeeperClient {
    link: AsyncLink,
}

impl KeeperClient {
    /// Connects over the link that the keeper gave this process as its standard input.
    ///
    /// # Errors
    /// When this process was not started by a keeper, or by one of another version.
    pub async fn connect_from_env() -> Result<(Self, Welcome), LinkError> {
        Self::connect(Link::from_stdin()?).await
    }

    /// Connects over a link.
    ///
    /// # Errors
    /// As [`KeeperClient::connect_from_env`].
    pub async fn connect(link: Link) -> Result<(Self, Welcome), LinkError> {
        let client = Self { link: AsyncLink::new(link)? };
        client.send(&ToKeeper::Hello { protocol: PROTOCOL }, &[]).await?;
        let mut welcome = Welcome::default();
        let mut greeted = false;
        loop {
            let Message { body, fds } = client.link.recv().await?;
            match body {
                FromKeeper::Welcome { protocol: PROTOCOL, agent_number, previous_agent, exits_dropped } => {
                    greeted = true;
                    (welcome.agent_number, welcome.previous_agent) = (agent_number, previous_agent);
                    welcome.exits_dropped = exits_dropped;
                }
                _ if !greeted => return Err(LinkError::Protocol("no welcome of this version came first")),
                FromKeeper::Ready => return Ok((client, welcome)),
                body => welcome.take(body, fds)?,
            }
        }
    }

    /// Has sockets kept and given to every proxy. A name in use is replaced.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub async fn keep_sockets(&self, name: &str, sockets: &[TcpListener]) -> Result<(), LinkError> {
        let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
        let mut chunks = fds.chunks(MAX_MESSAGE_FDS).peekable();
        while let Some(chunk) = chunks.next() {
            let message = ToKeeper::KeepSocket { name: name.to_owned(), more: chunks.peek().is_some() };
            self.send(&message, chunk).await?;
        }
        Ok(())
    }

    /// Has sockets closed, by the keeper and every proxy.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub async fn drop_sockets(&self, name: &str) -> Result<(), LinkError> {
        self.send(&ToKeeper::DropSocket { name: name.to_owned() }, &[]).await
    }

    /// Has a route table (a sealed memfd) kept and given to every proxy. A proxy ignores a number that is not
    /// above the one that it has.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub async fn set_table(&self, number: u64, table: BorrowedFd<'_>) -> Result<(), LinkError> {
        self.send(&ToKeeper::SetTable { number }, &[table]).await
    }

    /// Starts a replica under a fresh id. Its output goes to `log`, which should be open for appending; with
    /// `netns` it runs in that network namespace. Leads to `Spawned` or `SpawnFailed`; to `Spawned` or
    /// `Exited` again when the id was used before.
    ///
    /// # Errors
    /// When the keeper is gone, or memory ran out.
    pub async fn spawn(
        &self,
        id: &str,
        spec: &SpawnSpec,
        log: BorrowedFd<'_>,
        netns: Option<BorrowedFd<'_>>,
    ) -> Result<(), LinkError> {
        let spec = memfd::sealed("bulsa-spawn", &serde_json::to_vec(spec)?)?;
        let fds: Vec<BorrowedFd<'_>> = [spec.as_fd(), log].into_iter().chain(netns).collect();
        self.send(&ToKeeper::Spawn { id: id.to_owned() }, &fds).await
    }

    /// Sends a signal to a replica's leader, or to its whole group. One that has ended already gets none.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub async fn signal(&self, id: &str, signal: Signal, group: bool) -> Result<(), LinkError> {
        self.send(&ToKeeper::Signal { id: id.to_owned(), signal: signal.as_raw(), group }, &[]).await
    }

    /// Lets the keeper forget an exit. Its id may then be used again.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub async fn ack_exit(&self, id: &str) -> Result<(), LinkError> {
        self.send(&ToKeeper::AckExit { id: id.to_owned() }, &[]).await
    }

    /// Has a silent proxy killed. Leads to `ProxyDown`, and to `ProxyUp` of the next.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub async fn kill_proxy(&self, generation: u64) -> Result<(), LinkError> {
        self.send(&ToKeeper::KillProxy { generation }, &[]).await
    }

    /// Ends the daemon. With `stop_replicas` the keeper kills what still runs and ends the proxies; without, both go
    /// on for a successor. This process gets SIGTERM.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub async fn shutdown(&self, stop_replicas: bool) -> Result<(), LinkError> {
        self.send(&ToKeeper::Shutdown { stop_replicas }, &[]).await
    }

    /// The next event. Cancelling it loses nothing.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the keeper is gone: replicas and proxies go on, and the agent should, too, until
    /// the next keeper ends it.
    pub async fn next_event(&self) -> Result<KeeperEvent, LinkError> {
        let Message { body, fds } = self.link.recv().await?;
        Ok(match body {
            FromKeeper::Spawned { id, pid, start_time } => KeeperEvent::Spawned { id, pid, start_time },
            FromKeeper::SpawnFailed { id, error } => KeeperEvent::SpawnFailed { id, error },
            FromKeeper::Exited(record) => KeeperEvent::Exited(record),
            FromKeeper::ProxyUp { generation, pid } => {
                KeeperEvent::ProxyUp(ProxyHandle { generation, pid, link: Message::<()>::one_fd(fds)? })
            }
            FromKeeper::ProxyDown { generation, status } => KeeperEvent::ProxyDown { generation, status },
            FromKeeper::TableKept { number } => KeeperEvent::TableKept { number },
            FromKeeper::ShuttingDown { limit_ms } => {
                KeeperEvent::ShuttingDown { limit: Duration::from_millis(limit_ms) }
            }
            FromKeeper::Welcome { .. }
            | FromKeeper::Socket { .. }
            | FromKeeper::Table { .. }
            | FromKeeper::Replica(_)
            | FromKeeper::Proxy { .. }
            | FromKeeper::Ready => return Err(LinkError::Protocol("a second welcome")),
        })
    }

    async fn send(&self, message: &ToKeeper, fds: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        self.link.send(message, fds).await
    }
}

impl Welcome {
    fn take(&mut self, body: FromKeeper, fds: Vec<OwnedFd>) -> Result<(), LinkError> {
        match body {
            FromKeeper::Socket { name, .. } => {
                let sockets = fds.into_iter().map(TcpListener::from);
                match self.sockets.last_mut().filter(|(last, _)| *last == name) {
                    Some((_, set)) => set.extend(sockets),
                    None => self.sockets.push((name, sockets.collect())),
                }
            }
            FromKeeper::Table { number } => self.table = Some((number, Message::<()>::one_fd(fds)?)),
            FromKeeper::Replica(info) => self.replicas.push(info),
            FromKeeper::Exited(record) => self.exits.push(record),
            FromKeeper::Proxy { generation, pid } => {
                self.proxies.push(ProxyHandle { generation, pid, link: Message::<()>::one_fd(fds)? });
            }
            _ => return Err(LinkError::Protocol("an event came inside the welcome")),
        }
        Ok(())
    }
}

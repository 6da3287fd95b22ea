//! Starting agents, one at a time, and welcoming them.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::process::{Pid, Signal, kill_process};

use super::Keeper;
use super::backoff::Backoff;
use super::log::log;
use super::marker::{GENERATION_ENV, KEEPER_ENV, NOTE_ENV, ROLE_ENV, STATE_DIR_ENV, TASK_ENV};
use super::peer::{PartialSet, Peer};
use super::unsafe_exec::{ChildSetup, prepare};
use crate::link::messages::{ExitStatus, FromKeeper, PROTOCOL};
use crate::link::{LINK_FD_ENV, Link};

/// An agent that has not said hello by then is killed.
const HELLO_LIMIT: Duration = Duration::from_secs(30);
/// Between two tries when an agent cannot even be started.
const RETRY_START: Duration = Duration::from_millis(500);
/// The most messages of the agent that are worked off before everything else gets its turn.
const MAX_MESSAGES_PER_TURN: usize = 64;

/// The living agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) pid: i32,
    pub(crate) number: u64,
    pub(crate) peer: Peer,
    pub(crate) greeted: bool,
    pub(crate) partial: PartialSet,
    since: Instant,
    killed: bool,
}

impl Agent {
    /// Sends it a signal. It is a child of ours and not reaped, so its pid is its own.
    pub(crate) fn signal(&self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => log!("{signal:?} cannot be sent to the agent: {error}"),
        }
    }
}

/// The agent, or when the next one starts.
#[derive(Debug)]
pub(crate) struct Agents {
    pub(crate) living: Option<Agent>,
    pub(crate) start_at: Option<Instant>,
    last_number: u64,
    previous: Option<ExitStatus>,
    backoff: Backoff,
}

impl Agents {
    /// None lives yet.
    pub(crate) fn new(last_number: u64) -> Self {
        let backoff = Backoff::new(Instant::now());
        Self { living: None, start_at: None, last_number, previous: None, backoff }
    }

    /// The agent, if it has said hello.
    pub(crate) fn greeted(&mut self) -> Option<&mut Agent> {
        self.living.as_mut().filter(|agent| agent.greeted)
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let agent = self.living.as_ref().filter(|agent| !agent.killed);
        let hello = agent.filter(|agent| !agent.greeted).map(|agent| agent.since + HELLO_LIMIT);
        let broken = agent.and_then(|agent| agent.peer.kill_at());
        [self.start_at, hello, broken].into_iter().flatten().min()
    }
}

impl Keeper {
    /// Starts the next agent. Schedules another try when it cannot be started.
    pub(crate) fn start_agent(&mut self) {
        self.agents.start_at = None;
        let number = self.agents.last_number + 1;
        match self.spawn_agent(number) {
            Ok(agent) => {
                self.agents.last_number = number;
                self.agents.living = Some(agent);
            }
            Err(error) => {
                log!("the agent cannot be started, next try in {RETRY_START:?}: {error}");
                self.agents.start_at = Some(Instant::now() + RETRY_START);
            }
        }
    }

    fn spawn_agent(&self, number: u64) -> io::Result<Agent> {
        let (link, theirs) = Link::pair()?;
        let (program, arguments) =
            self.config.agent.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut command = Command::new(program);
        command.args(arguments).env_remove(TASK_ENV).env_remove(NOTE_ENV);
        command.env(KEEPER_ENV, self.marker.value()).env(ROLE_ENV, "agent").env(LINK_FD_ENV, "0");
        command.env(GENERATION_ENV, number.to_string()).env(STATE_DIR_ENV, &self.config.state_dir);
        command.stdin(Stdio::from(theirs)).process_group(0);
        if let Some((out, err)) = self.part_log() {
            command.stdout(out).stderr(err);
        }
        prepare(&mut command, ChildSetup::default());
        let pid = i32::try_from(command.spawn()?.id()).map_err(io::Error::other)?;
        Ok(Agent {
            pid,
            number,
            peer: Peer::new(link),
            greeted: false,
            partial: PartialSet::default(),
            since: Instant::now(),
            killed: false,
        })
    }

    /// Answers an agent's hello with all that is kept.
    pub(crate) fn welcome(&mut self) {
        let (previous, dropped) = (self.agents.previous, self.replicas.dropped());
        let Some(agent) = &mut self.agents.living else { return };
        agent.greeted = true;
        let peer = &mut agent.peer;
        let welcome = FromKeeper::Welcome {
            protocol: PROTOCOL,
            agent_number: agent.number,
            previous_agent: previous,
            exits_dropped: dropped,
        };
        peer.send(&welcome, Vec::new());
        for (name, set) in &self.sockets {
            peer.send_set(set, |more| FromKeeper::Socket { name: name.clone(), more });
        }
        if let Some((number, table)) = &self.table {
            peer.send(&FromKeeper::Table { number: *number }, vec![Rc::clone(table)]);
        }
        for info in self.replicas.infos() {
            peer.send(&FromKeeper::Replica(info), Vec::new());
        }
        for record in self.replicas.exits() {
            peer.send(&FromKeeper::Exited(record.clone()), Vec::new());
        }
        let generations: Vec<u64> = self.proxies.iter().map(|proxy| proxy.generation).collect();
        for generation in generations {
            self.link_agent_to(generation, true);
        }
        self.tell_agent(&FromKeeper::Ready);
    }

    /// Tells the agent, if there is one that said hello; the next one is told all anyway.
    pub(crate) fn tell_agent(&mut self, message: &FromKeeper) {
        if let Some(agent) = self.agents.greeted() {
            agent.peer.send(message, Vec::new());
        }
    }

    /// Deals with a readable or writable agent link.
    pub(crate) fn agent_ready(&mut self, ready: PollFlags) {
        if ready.contains(PollFlags::OUT)
            && let Some(agent) = &mut self.agents.living
        {
            agent.peer.flush();
        }
        if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.read_agent(MAX_MESSAGES_PER_TURN);
        }
    }

    /// Works off messages of the agent, at most `limit`; says whether there may be more.
    pub(crate) fn read_agent(&mut self, limit: usize) -> bool {
        for _ in 0..limit {
            let Some(agent) = &mut self.agents.living else { return false };
            let Some(message) = agent.peer.recv() else { return false };
            if let Err(error) = self.handle_request(message)
                && let Some(agent) = &mut self.agents.living
            {
                agent.peer.fail(&error.to_string());
                return false;
            }
        }
        true
    }

    /// Kills an agent whose link is of no use, or that never said hello.
    pub(crate) fn kill_broken_agent(&mut self) {
        let Some(agent) = self.agents.living.as_mut().filter(|agent| !agent.killed) else { return };
        let now = Instant::now();
        if !agent.greeted && now >= agent.since + HELLO_LIMIT {
            agent.peer.fail("it did not say hello in time");
        }
        if let (Some(why), Some(at)) = (agent.peer.broken(), agent.peer.kill_at())
            && now >= at
        {
            log!("agent {} is killed: {why}", agent.number);
            agent.signal(Signal::KILL);
            agent.killed = true;
        }
    }

    /// The agent has ended, is reaped, and all that it had sent is worked off.
    pub(crate) fn agent_down(&mut self, status: ExitStatus) {
        let Some(gone) = self.agents.living.take() else { return };
        self.agents.previous = Some(status);
        if self.ending.is_some() {
            return;
        }
        let now = Instant::now();
        let wait = self.agents.backoff.died(now - gone.since, now);
        log!("agent {} ended ({status:?}); the next one starts in {wait:?}", gone.number);
        if self.stop_by.is_some() {
            // It was asked to stop everything and died over it.
            self.stop_by = Some(now);
        } else if wait.is_zero() {
            self.start_agent();
        } else {
            self.agents.start_at = Some(now + wait);
        }
    }
}

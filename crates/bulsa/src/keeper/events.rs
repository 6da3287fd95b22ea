//! One turn of the keeper's loop: wait for something, then deal with all that is ready.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::attendant::Attendant;
use super::log::log;
use super::signals;
use super::{Ending, Keeper};
use crate::link::messages::{ExitStatus, FromKeeper};

/// How long the agent may take to stop everything when the daemon is told to end.
const AGENT_STOP_LIMIT: Duration = Duration::from_secs(75);
/// The pause when waiting itself fails: the kernel has no memory, and a loop would not help it.
const POLL_FAILED_PAUSE: Duration = Duration::from_millis(100);

/// Something that is ready.
#[derive(Debug)]
enum Source {
    Stop,
    Child,
    Hangup,
    PassOn(Signal),
    Agent(PollFlags),
    Proxy(u64, PollFlags),
    ProxyEnd(u64),
    AdoptedEnd(String),
}

impl Keeper {
    /// One turn, of at most until `limit`.
    pub(crate) fn turn(&mut self, limit: Option<Instant>) {
        for source in self.wait(limit) {
            self.handle(source);
        }
        self.kill_broken_agent();
        self.kill_broken_proxies();
        self.start_what_is_due();
    }

    fn handle(&mut self, source: Source) {
        match source {
            Source::Child => {
                signals::take(&self.signals.child);
                self.reap_children();
            }
            Source::ProxyEnd(generation) => self.proxy_down(generation, ExitStatus::Unknown),
            Source::AdoptedEnd(id) => self.adopted_ended(&id),
            Source::Proxy(generation, ready) => self.proxy_ready(generation, ready),
            Source::Agent(ready) => self.agent_ready(ready),
            Source::Stop => {
                for _ in 0..signals::take(&self.signals.stop) {
                    self.asked_to_stop();
                }
            }
            Source::Hangup => {
                signals::take(&self.signals.hangup);
                self.hung_up();
            }
            Source::PassOn(signal) => {
                let sent = self.signals.passed_on.iter().find(|(known, _)| *known == signal);
                if sent.is_some_and(|(_, stream)| signals::take(stream) > 0) {
                    self.pass_on(signal);
                }
            }
        }
    }

    /// The first time the agent may do it; the second time, or without an agent, we do.
    pub(crate) fn asked_to_stop(&mut self) {
        let ending = Ending { stop_replicas: true, agent_did: false };
        if self.stop_by.is_some() || self.agents.greeted().is_none() {
            log!("ending");
            // Told again while it ends: no more grace.
            self.ending =
                Some(if self.ending.is_some() { Ending { agent_did: true, ..ending } } else { ending });
            return;
        }
        let limit = self.attendant.as_ref().map_or(AGENT_STOP_LIMIT, Attendant::stop_limit);
        log!("ending when the agent has stopped the replicas, at the latest in {limit:?}");
        self.stop_by = Some(Instant::now() + limit);
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.tell_agent(&FromKeeper::ShuttingDown { limit_ms });
    }

    fn start_what_is_due(&mut self) {
        if self.ending.is_some() {
            return;
        }
        let now = Instant::now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.proxies.start_at) {
            self.start_proxy();
        }
        if due(self.agents.start_at) {
            self.start_agent();
        }
        if due(self.attendant.as_ref().and_then(Attendant::deadline)) {
            self.start_attendant();
        }
        if due(self.stop_by) {
            self.ending = Some(Ending { stop_replicas: true, agent_did: false });
        }
    }

    fn timeout(&self, limit: Option<Instant>) -> Option<Timespec> {
        let stop_by = self.stop_by.filter(|_| self.ending.is_none());
        let attendant =
            self.attendant.as_ref().and_then(Attendant::deadline).filter(|_| self.ending.is_none());
        let due = [self.proxies.deadline(), self.agents.deadline(), attendant, stop_by];
        let next = due.into_iter().flatten().chain(limit).min()?;
        let left = next.saturating_duration_since(Instant::now());
        // A due date too far away for the kernel's type is none.
        left.try_into().ok()
    }

    /// Waits until something is ready or due. Dead children come first: a dead proxy is what users feel.
    fn wait(&self, limit: Option<Instant>) -> Vec<Source> {
        let mut watched = Watched::default();
        watched.add(&self.signals.child, PollFlags::IN, Source::Child);
        watched.add(&self.signals.stop, PollFlags::IN, Source::Stop);
        watched.add(&self.signals.hangup, PollFlags::IN, Source::Hangup);
        for (signal, stream) in &self.signals.passed_on {
            watched.add(stream, PollFlags::IN, Source::PassOn(*signal));
        }
        for proxy in self.proxies.iter() {
            if let Some(pidfd) = &proxy.pidfd {
                watched.add(pidfd, PollFlags::IN, Source::ProxyEnd(proxy.generation));
            }
            if let Some(interest) = proxy.peer.interest() {
                watched.add(&proxy.peer, interest, Source::Proxy(proxy.generation, interest));
            }
        }
        if let Some(agent) = &self.agents.living
            && let Some(interest) = agent.peer.interest()
        {
            watched.add(&agent.peer, interest, Source::Agent(interest));
        }
        for (id, pidfd) in self.replicas.adopted() {
            watched.add(pidfd, PollFlags::IN, Source::AdoptedEnd(id.to_owned()));
        }
        watched.wait(self.timeout(limit).as_ref())
    }
}

/// What one turn waits for.
#[derive(Debug, Default)]
struct Watched<'a> {
    fds: Vec<PollFd<'a>>,
    sources: Vec<Source>,
}

impl<'a> Watched<'a> {
    fn add(&mut self, fd: &'a impl AsFd, interest: PollFlags, source: Source) {
        self.fds.push(PollFd::new(fd, interest));
        self.sources.push(source);
    }

    fn wait(mut self, timeout: Option<&Timespec>) -> Vec<Source> {
        match poll(&mut self.fds, timeout) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Vec::new(),
            Err(error) => {
                log!("waiting failed: {error}");
                std::thread::sleep(POLL_FAILED_PAUSE);
                return Vec::new();
            }
        }
        let ready = self.fds.iter().map(PollFd::revents).zip(self.sources);
        let seen = ready.filter(|(flags, _)| !flags.is_empty()).map(|(flags, source)| match source {
            Source::Agent(_) => Source::Agent(flags),
            Source::Proxy(generation, _) => Source::Proxy(generation, flags),
            other => other,
        });
        seen.collect()
    }
}

//! The end of the daemon.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::log::log;
use super::{Ending, Keeper};
use crate::link::messages::ToProxy;

/// What replicas get between SIGTERM and SIGKILL when the agent could not stop them properly.
const REPLICA_GRACE: Duration = Duration::from_secs(10);
/// What a proxy gets to finish what is in flight.
const PROXY_GRACE: Duration = Duration::from_secs(5);
/// What the agent gets to end by itself.
const AGENT_GRACE: Duration = Duration::from_secs(5);
/// How long to wait for the end of what got SIGKILL.
const KILL_WAIT: Duration = Duration::from_secs(2);

impl Keeper {
    /// Ends everything that is to end. Bounded in time, whatever the others do.
    pub(crate) fn finish(&mut self) {
        let Some(ending) = self.ending else { return };
        self.agents.start_at = None;
        self.proxies.start_at = None;
        self.end_agent();
        if !ending.stop_replicas {
            log!("ended; replicas and proxies go on");
            return;
        }
        // Proxies stop accepting before replicas hear of it.
        let grace_ms = u64::try_from(PROXY_GRACE.as_millis()).unwrap_or(u64::MAX);
        self.proxies.send(&ToProxy::Stop { grace_ms }, &[]);
        self.end_replicas(ending);
        self.wait_until(PROXY_GRACE, |keeper| keeper.proxies.is_empty());
        for proxy in self.proxies.iter_mut() {
            proxy.kill();
        }
        self.wait_until(KILL_WAIT, |keeper| keeper.proxies.is_empty());
        self.end_attendant();
        log!("ended");
    }

    fn end_agent(&mut self) {
        for (signal, grace) in [(Signal::TERM, AGENT_GRACE), (Signal::KILL, KILL_WAIT)] {
            if let Some(agent) = &self.agents.living {
                agent.signal(signal);
            }
            self.wait_until(grace, |keeper| keeper.agents.living.is_none());
        }
    }

    fn end_replicas(&mut self, ending: Ending) {
        if !ending.agent_did && !self.replicas.is_empty() {
            // Nobody stopped them in order; at least each gets its signal and a moment.
            self.signal_replicas(Signal::TERM);
            self.wait_until(REPLICA_GRACE, |keeper| {
                keeper.replicas.is_empty() || keeper.ending.is_some_and(|ending| ending.agent_did)
            });
        }
        self.signal_replicas(Signal::KILL);
        self.wait_until(KILL_WAIT, |keeper| keeper.replicas.is_empty());
    }

    fn signal_replicas(&self, signal: Signal) {
        for id in self.replicas.ids() {
            self.replicas.signal(id, signal, true);
        }
    }

    pub(crate) fn wait_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + limit;
        while !done(self) && Instant::now() < deadline {
            self.turn(Some(deadline));
        }
    }
}

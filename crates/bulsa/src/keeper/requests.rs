//! What the agent may ask for.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::process::Signal;

use super::log::log;
use super::spawn::{self, SpawnFds};
use super::{Ending, Keeper};
use crate::link::messages::{FromKeeper, MAX_NAME_BYTES, PROTOCOL, ToKeeper, ToProxy};
use crate::link::{LinkError, Message};

/// The most names of sets of sockets.
const MAX_SOCKET_SETS: usize = 1024;

impl Keeper {
    /// Does what the agent asks.
    ///
    /// # Errors
    /// When the agent broke the protocol; it is killed for that, and the next one told all.
    pub(crate) fn handle_request(&mut self, message: Message<ToKeeper>) -> Result<(), LinkError> {
        let Message { body, fds } = message;
        match body {
            ToKeeper::Hello { protocol: PROTOCOL } => self.welcome(),
            ToKeeper::Hello { .. } => return Err(LinkError::Protocol("it speaks another version")),
            ToKeeper::KeepSocket { name, more } => self.keep_socket(name, more, fds)?,
            ToKeeper::DropSocket { name } => self.drop_socket(name),
            ToKeeper::SetTable { number } => {
                self.set_table(number, Message::<()>::one_fd(fds)?);
                self.tell_agent(&FromKeeper::TableKept { number });
            }
            ToKeeper::Spawn { id } => {
                let fds = SpawnFds::take(fds);
                self.spawn_replica(id, fds.ok_or(LinkError::Protocol("a spawn needs a spec and a log"))?);
            }
            ToKeeper::Signal { id, signal, group } => {
                let signal =
                    Signal::from_named_raw(signal).ok_or(LinkError::Protocol("there is no such signal"))?;
                self.replicas.signal(&id, signal, group);
            }
            ToKeeper::AckExit { id } => self.replicas.acknowledge(&id),
            ToKeeper::KillProxy { generation } => self.kill_proxy(generation),
            ToKeeper::Shutdown { stop_replicas } => {
                self.ending = Some(Ending { stop_replicas, agent_did: true });
            }
        }
        Ok(())
    }

    fn keep_socket(&mut self, name: String, more: bool, fds: Vec<OwnedFd>) -> Result<(), LinkError> {
        let is_new = !self.sockets.contains_key(&name);
        if name.len() > MAX_NAME_BYTES || (is_new && self.sockets.len() >= MAX_SOCKET_SETS) {
            return Err(LinkError::Protocol("a name of sockets is too long, or there are too many"));
        }
        let Some(agent) = &mut self.agents.living else { return Ok(()) };
        let Some(set) = agent.partial.add(&name, fds, more)? else { return Ok(()) };
        for proxy in self.proxies.iter_mut() {
            proxy.peer.send_set(&set, |more| ToProxy::Socket { name: name.clone(), more });
        }
        self.sockets.insert(name, set);
        Ok(())
    }

    fn drop_socket(&mut self, name: String) {
        if self.sockets.remove(&name).is_some() {
            self.proxies.send(&ToProxy::DropSocket { name }, &[]);
        }
    }

    fn set_table(&mut self, number: u64, table: OwnedFd) {
        let table = Rc::new(table);
        self.proxies.send(&ToProxy::Table { number }, &[Rc::clone(&table)]);
        self.table = Some((number, table));
    }

    fn spawn_replica(&mut self, id: String, fds: SpawnFds) {
        if let Some(replica) = self.replicas.get(&id) {
            let (pid, start_time) = (replica.pid, replica.start_time);
            return self.tell_agent(&FromKeeper::Spawned { id, pid, start_time });
        }
        if let Some(record) = self.replicas.exit_of(&id) {
            let record = record.clone();
            return self.tell_agent(&FromKeeper::Exited(record));
        }
        if !self.replicas.has_room() {
            let error = "there are too many replicas on this machine".to_owned();
            return self.tell_agent(&FromKeeper::SpawnFailed { id, error });
        }
        match spawn::replica(&self.marker, &id, fds, self.open_files) {
            Ok((started, note)) => {
                self.replicas.insert(&id, started, note);
                let (pid, start_time) = (started.pid, started.start_time);
                self.tell_agent(&FromKeeper::Spawned { id, pid, start_time });
            }
            Err(error) => {
                log!("replica {id} cannot be started: {error}");
                self.tell_agent(&FromKeeper::SpawnFailed { id, error });
            }
        }
    }

    fn kill_proxy(&mut self, generation: u64) {
        if let Some(proxy) = self.proxies.get_mut(generation) {
            log!("proxy {generation} is killed: the agent says that it went silent");
            proxy.kill();
        }
    }
}

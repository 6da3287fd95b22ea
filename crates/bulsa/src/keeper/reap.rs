//! The end of children: of those we started, and of orphans that came to us.
//!
//! A dead child is looked at without being reaped. As long as it is not, its pid belongs to nobody else, and
//! neither does the group of that number: so its group can be killed without hitting a stranger. Then it is reaped.

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};

use super::Keeper;
use super::adopt;
use super::log::log;
use super::marker::Role;
use super::procfs;
use super::unsafe_exec::peek_dead_child;
use crate::link::messages::{ExitStatus, FromKeeper};

impl Keeper {
    /// Deals with all dead children.
    pub(crate) fn reap_children(&mut self) {
        let mut sweep = false;
        loop {
            match peek_dead_child() {
                Ok(Some(pid)) => sweep |= self.child_died(pid),
                Ok(None) => break,
                Err(error) => {
                    log!("waiting for children failed: {error}");
                    break;
                }
            }
        }
        if sweep {
            self.kill_stray_children();
        }
    }

    /// Deals with one dead child; says whether it may have left processes outside its group.
    fn child_died(&mut self, pid: Pid) -> bool {
        let number = pid.as_raw_pid();
        if let Some(generation) = self.proxies.child_generation(number) {
            kill_group(pid);
            self.proxy_down(generation, reap(pid));
            return false;
        }
        if let Some(id) = self.replicas.child_id(number) {
            kill_group(pid);
            let status = reap(pid);
            self.replica_ended(&id, status);
            return true;
        }
        if self.is_attendant(number) {
            kill_group(pid);
            self.attendant_down(reap(pid));
            return true;
        }
        if self.agents.living.as_ref().is_some_and(|agent| agent.pid == number) {
            // It is dead, so what it has sent is all that it will ever have sent.
            while self.read_agent(usize::MAX) {}
            kill_group(pid);
            self.agent_down(reap(pid));
            return true;
        }
        reap(pid);
        true
    }

    /// A replica has ended, and nothing of its group is left.
    pub(crate) fn replica_ended(&mut self, id: &str, status: ExitStatus) {
        if (self.stop_by.is_some() || self.ending.is_some())
            && let Some(attendant) = &mut self.attendant
        {
            attendant.replica_ended(status);
        }
        if let Some(record) = self.replicas.ended(id, status) {
            self.tell_agent(&FromKeeper::Exited(record));
        }
    }

    /// The leader of an adopted replica has ended.
    pub(crate) fn adopted_ended(&mut self, id: &str) {
        adopt::kill_marked(&self.marker, id);
        self.replica_ended(id, ExitStatus::Unknown);
    }

    /// Kills orphans of ours whose replica, agent or proxy is gone.
    fn kill_stray_children(&self) {
        let children = match procfs::children() {
            Ok(children) => children,
            Err(error) => return log!("the list of children cannot be read: {error}"),
        };
        for child in children {
            // A child that is not reaped yet keeps its pid, so there is no mistaking it.
            if let Some(pid) = Pid::from_raw(child).filter(|_| self.is_stray(child)) {
                log!("process {child} outlived what it belonged to: killed");
                if let Err(error) = kill_process(pid, Signal::KILL) {
                    log!("process {child} cannot be killed: {error}");
                }
            }
        }
    }

    fn is_stray(&self, child: i32) -> bool {
        match self.marker.role(child) {
            Some(Role::Task { id, .. }) => self.replicas.get(&id).is_none(),
            Some(Role::Agent { number }) => {
                self.agents.living.as_ref().is_none_or(|agent| agent.number != number)
            }
            Some(Role::Proxy { generation }) => {
                !self.proxies.iter().any(|proxy| proxy.generation == generation)
            }
            None => false,
        }
    }
}

fn kill_group(leader: Pid) {
    match kill_process_group(leader, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        // Only zombies that cannot be signalled are left, or programs that changed their user away from ours.
        Err(error) => log!("the group of process {leader:?} cannot be killed: {error}"),
    }
}

/// Reaps a child that is known to be dead.
fn reap(pid: Pid) -> ExitStatus {
    match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ExitStatus::Code(code),
            (_, Some(signal)) => ExitStatus::Signal(signal),
            (None, None) => ExitStatus::Unknown,
        },
        Ok(None) => ExitStatus::Unknown,
        Err(error) => {
            log!("process {pid:?} cannot be reaped: {error}");
            ExitStatus::Unknown
        }
    }
}

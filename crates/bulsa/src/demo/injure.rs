//! Injuries: signals to exactly one process, and the moment of its death.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tokio::time::{sleep, timeout};

/// How long the kernel may take to end a killed process.
const DEATH_LIMIT: Duration = Duration::from_secs(10);
/// From one look at a dying process to the next: its death is known to about two of these.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A moment on both clocks: the load counts on the steady one, the daemon's snapshots on the wall's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// For the load.
    pub(crate) instant: Instant,
    /// Milliseconds since the Unix epoch.
    pub(crate) epoch_ms: u64,
}

impl Moment {
    /// Now.
    pub(crate) fn now() -> Self {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), epoch_ms: u64::try_from(epoch.as_millis()).unwrap_or(u64::MAX) }
    }
}

/// A process, held so that no other can take its number meanwhile.
#[derive(Debug)]
pub(crate) struct Victim {
    fd: OwnedFd,
}

impl Victim {
    /// Takes hold of the process `pid`.
    pub(crate) fn hold(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { fd: pidfd_open(pid, PidfdFlags::empty())? })
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.fd, signal)?)
    }

    /// Waits until it is dead: its sockets are closed then.
    pub(crate) async fn death(&self) -> Moment {
        while !self.is_dead() {
            sleep(LOOK_EVERY).await;
        }
        Moment::now()
    }

    /// Whether it is dead.
    pub(crate) fn is_dead(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// SIGKILL; from its sending to the death.
    pub(crate) async fn kill(&self) -> io::Result<(Moment, Moment)> {
        let sent = Moment::now();
        self.signal(Signal::KILL)?;
        let died = timeout(DEATH_LIMIT, self.death()).await.map_err(|_| io::ErrorKind::TimedOut)?;
        Ok((sent, died))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kill_is_over_when_the_process_is_dead() {
        let mut child = tokio::process::Command::new("sleep").arg("600").spawn().unwrap();
        let victim = Victim::hold(child.id().unwrap()).unwrap();
        assert!(!victim.is_dead());
        let (sent, died) = victim.kill().await.unwrap();
        assert!(sent.instant <= died.instant && sent.epoch_ms <= died.epoch_ms);
        assert!(victim.is_dead());
        let status = child.wait().await.unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }

    #[tokio::test]
    async fn a_process_that_is_gone_cannot_be_held() {
        let mut child = tokio::process::Command::new("true").spawn().unwrap();
        let pid = child.id().unwrap();
        child.wait().await.unwrap();
        assert!(Victim::hold(pid).is_err());
        assert!(Victim::hold(0).is_err());
    }
}

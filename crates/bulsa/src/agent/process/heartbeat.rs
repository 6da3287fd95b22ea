//! The socket that replicas send their heartbeats to.
//!
//! Owns: the socket, who sent what, and the words of systemd's protocol (sd_notify(3)). Never: judges. Who sent is the
//! kernel's word, not the message's: one replica can't speak for another.
//!
//! The agent owns the socket, so between two agents a send fails at once (`ECONNREFUSED`), which those who send take for
//! no harm. Kept open by somebody who doesn't read it would fill, and then the send would wait.

use std::{
    fs::{self, Permissions},
    io::{self, IoSliceMut},
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg},
};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with, sockopt::set_socket_passcred,
};
use tokio::{io::Interest, net::UnixDatagram};

use super::memory;

/// The socket's name beside the API's.
const NAME: &str = "notify.sock";
/// At most this many messages are taken in at a time; more wait in the socket.
const MESSAGES_MAX: usize = 1024;
/// A longer message is cut, in bytes. systemd's own are shorter.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Where replicas find the socket.
pub(crate) const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";
/// How often they have to send, in microseconds.
pub(crate) const PERIOD_VARIABLE: &str = "WATCHDOG_USEC";

/// The socket.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Heartbeats {
    /// Makes it beside the API's socket. Everybody who gets to it may send: replicas may run as other users.
    ///
    /// # Errors
    /// When the path can't be bound, or there is no runtime.
    pub(crate) fn beside(api: &Path) -> io::Result<Self> {
        let path = api.with_file_name(NAME);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        set_socket_passcred(&socket, true)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        bind(&socket, &SocketAddrUnix::new(&path)?)?;
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        let socket = UnixDatagram::from_std(socket.into())?;
        Ok(Self { socket, path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until something was sent.
    pub(crate) async fn readable(&self) {
        if self.socket.readable().await.is_err() {
            // The runtime goes down; nothing is sent any more that anybody could hear.
            std::future::pending::<()>().await;
        }
    }

    /// The processes that have sent a heartbeat since the last look. The kernel is asked, whatever the runtime knows.
    pub(crate) fn take(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        for _ in 0..MESSAGES_MAX {
            match receive(&self.socket) {
                Ok(sender) => pids.extend(sender),
                Err(nix::Error::EINTR) => {}
                // There is nothing more, which the runtime has to learn; or nothing that can be had.
                Err(_) => match self.socket.try_io(Interest::READABLE, || Ok(receive(&self.socket)?)) {
                    Ok(sender) => pids.extend(sender),
                    Err(_) => break,
                },
            }
        }
        pids
    }
}

/// One message: who sent it, if it is a heartbeat. Nobody, where the sender can't be seen from here (pid 0: it is in another
/// PID namespace).
fn receive(socket: &UnixDatagram) -> nix::Result<Option<i32>> {
    let mut bytes = [0; MESSAGE_BYTES_MAX];
    // There is no room for descriptors: the kernel closes those that came with it.
    let mut space = cmsg_space!(UnixCredentials);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let sender = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::ScmCredentials(credentials) => Some(credentials.pid()),
        _ => None,
    });
    let length = message.bytes;
    let is_beat = is_heartbeat(bytes.get(..length).unwrap_or_default());
    Ok(sender.filter(|pid| is_beat && *pid > 0))
}

/// A message is lines of `NAME=VALUE`.
fn is_heartbeat(message: &[u8]) -> bool {
    message.split(|byte| *byte == b'\n').any(|line| line == b"WATCHDOG=1")
}

/// The leader of the session that a process is in: a replica's first process leads one. `None` where it is gone, or its
/// leader can't be seen from here.
pub(crate) fn session_of(pid: i32) -> Option<i32> {
    let leader = memory::session(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    i32::try_from(leader).ok().filter(|leader| *leader > 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[tokio::test]
    async fn a_heartbeat_is_known_by_who_sent_it_and_other_words_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let beats = Heartbeats::beside(&dir.path().join("api.sock")).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        for message in
            ["READY=1", "WATCHDOG=1", "STATUS=well\nWATCHDOG=1\n", "WATCHDOG=10", "", "XWATCHDOG=1"]
        {
            sender.send_to(message.as_bytes(), beats.path()).unwrap();
        }
        beats.readable().await;
        let own = std::process::id().cast_signed();
        assert_eq!(beats.take(), [own, own]);
        assert_eq!(beats.take(), [0; 0], "nothing is left");
    }

    #[test]
    fn a_session_is_known_by_its_leader_unless_that_is_nowhere_to_be_seen() {
        // In a container of its own, this process may be in a session that was begun outside.
        assert_ne!(session_of(std::process::id().cast_signed()), Some(0));
        assert_eq!(session_of(i32::MAX), None);
        let mut leader = std::process::Command::new("setsid")
            .args(["sh", "-c", "sleep 60 & echo $!; read line"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut child = String::new();
        let mut lines = std::io::BufReader::new(leader.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut lines, &mut child).unwrap();
        let child: i32 = child.trim().parse().unwrap();
        let sessions = [session_of(child), session_of(leader.id().cast_signed())];
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(child).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        leader.kill().unwrap();
        leader.wait().unwrap();
        assert_eq!(sessions, [Some(leader.id().cast_signed()); 2]);
    }

    #[tokio::test]
    async fn the_next_agent_takes_the_place_and_between_two_a_send_fails_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let api = dir.path().join("api.sock");
        let first = Heartbeats::beside(&api).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        let path = first.path().to_owned();
        drop(first);
        let error = sender.send_to(b"WATCHDOG=1", &path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let second = Heartbeats::beside(&api).unwrap();
        sender.send_to(b"WATCHDOG=1", &path).unwrap();
        second.readable().await;
        assert_eq!(second.take().len(), 1);
    }
}

//! What a drill does to a replica, on this host.
//!
//! Owns: signals to exactly the processes that are meant, a request that blocks an app, a network that goes away, and
//! memory that runs out ([`memory`]). Never: decides who is hurt, measures anything, or takes back what it did: that is
//! the driver's, which knows when a drill is over.
//!
//! A number in `/proc` may be another process's a moment later. So processes are held first, looked for once more, and
//! only those that are still meant are signalled.

pub mod memory;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::SocketAddr,
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// A container that starts processes faster than they can be stopped is given up after so many looks.
const ROUNDS_MAX: u32 = 10;
/// A blocked app may take no connection at all.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Sends a signal to all processes that `find` finds, twice in a row; how many there were.
///
/// # Errors
/// If they can't be found, or one of them can't be signalled. One that is gone meanwhile needs no signal.
pub fn signal(find: impl Fn() -> io::Result<BTreeSet<u32>>, signal: Signal) -> io::Result<usize> {
    let held: BTreeMap<u32, OwnedFd> =
        find()?.into_iter().filter_map(|pid| Some((pid, hold(pid)?))).collect();
    let (still, mut count) = (find()?, 0);
    for (_, process) in held.iter().filter(|(pid, _)| still.contains(pid)) {
        match pidfd_send_signal(process, signal) {
            Ok(()) => count += 1,
            Err(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(count)
}

/// SIGSTOP for every process of a container, those included that are started meanwhile; how many there are.
///
/// # Errors
/// As [`signal`]; or if there are ever more.
pub fn stop_container(container: &str) -> io::Result<usize> {
    let mut before = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        let now = of_container(container)?;
        if now == before {
            return Ok(now.len());
        }
        signal(|| of_container(container), Signal::STOP)?;
        before = now;
    }
    Err(io::Error::other("it starts processes faster than they are stopped"))
}

/// The processes of a container: those in its control group. `container` is the full id.
///
/// # Errors
/// If `/proc` can't be read.
pub fn of_container(container: &str) -> io::Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if is_of_container(pid, container) {
            found.insert(pid);
        }
    }
    Ok(found)
}

/// Whether a process is in a container's control group.
#[must_use]
pub fn is_of_container(pid: u32, container: &str) -> bool {
    // One that is gone is in none.
    !container.is_empty()
        && fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(container))
}

fn hold(pid: u32) -> Option<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Sends the request that blocks an app, and keeps its connection open until the app ends it or `patience` is over: an
/// app may take back what it began for somebody who is gone.
///
/// # Errors
/// If it can't be sent. That nothing comes back is what is wanted; what came is given otherwise.
pub async fn block(address: SocketAddr, path: &str) -> io::Result<TcpStream> {
    let mut stream =
        timeout(CONNECT_MAX, TcpStream::connect(address)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

/// Waits until a connection is closed by its other end.
pub async fn until_closed(mut stream: TcpStream) {
    let mut buffer = [0_u8; 1024];
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn only_who_is_found_twice_is_signalled() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let looks = std::cell::Cell::new(0);
        let once = || {
            looks.set(looks.get() + 1);
            Ok(if looks.get() == 1 { BTreeSet::from([child.id()]) } else { BTreeSet::new() })
        };
        assert_eq!(signal(once, Signal::KILL).unwrap(), 0);
        let pid = child.id();
        assert_eq!(signal(|| Ok(BTreeSet::from([pid])), Signal::KILL).unwrap(), 1);
        assert!(!child.wait().unwrap().success());
        assert_eq!(signal(|| Ok(BTreeSet::from([pid])), Signal::KILL).unwrap(), 0, "it is gone");
    }

    #[test]
    fn this_test_is_in_no_container_of_that_name() {
        assert!(!is_of_container(std::process::id(), "0123456789abcdef-no-such-container"));
        assert!(!is_of_container(std::process::id(), ""));
        assert!(of_container("0123456789abcdef-no-such-container").unwrap().is_empty());
    }
}

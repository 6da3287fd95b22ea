//! Taking connections from a listening socket.
//!
//! Owns: the accept loop, its pauses, and the limit on connections. Where that is reached, the connection that has been
//! idle for longest makes room; if none is idle, new ones wait in the kernel's queue.
//! Never: gives up. Whatever accept says, the loop goes on; a lack of file descriptors makes it pause and count.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::TcpListener;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

use crate::arrive::Arrival;
use crate::report::count;
use crate::worker::Worker;

/// Client connections of one worker, at most.
pub(crate) const CONNECTIONS_MAX: usize = 16 * 1024;
/// The first pause after a failure that is not one connection's own.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long a connection that was told to end may take before another one is told.
const EVICTION_TIME_MAX: Duration = Duration::from_secs(1);

/// How long after one has fallen idle it is looked whether one can make room.
const AGAIN_TIME: Duration = Duration::from_millis(50);

/// Leave for one client connection; it is counted as open until the permit is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    worker: Rc<Worker>,
    _slot: OwnedSemaphorePermit,
}

impl Permit {
    fn new(worker: &Rc<Worker>, slot: OwnedSemaphorePermit) -> Self {
        worker.stats().connections.fetch_add(1, Ordering::Relaxed);
        Self { worker: Rc::clone(worker), _slot: slot }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.worker.stats().connections.fetch_sub(1, Ordering::Relaxed);
        self.worker.connection_ended();
    }
}

/// Accepts connections until the task is aborted.
pub(crate) async fn accept_forever(worker: Rc<Worker>, name: Rc<str>, listener: TcpListener) {
    let mut pause = PAUSE_MIN;
    loop {
        let Some(slot) = find_slot(&worker).await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                pause = PAUSE_MIN;
                count(&worker.stats().accepted);
                let (listener, permit) = (Rc::clone(&name), Permit::new(&worker, slot));
                let arrival = Arrival { worker: Rc::clone(&worker), listener, stream, from, permit };
                drop(tokio::task::spawn_local(arrival.welcome()));
            }
            Err(error) => {
                count(&worker.stats().accept_errors);
                if !concerns_one_connection(&error) {
                    tracing::warn!(%error, listener = &*name, "cannot accept connections; trying again");
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }
}

/// Waits until one more connection can be taken, and sees to it that one can.
async fn find_slot(worker: &Worker) -> Option<OwnedSemaphorePermit> {
    loop {
        if let Ok(slot) = Arc::clone(worker.slots()).try_acquire_owned() {
            return Some(slot);
        }
        let evicted = worker.lives().end_oldest_idle(Instant::now());
        if evicted {
            count(&worker.stats().evicted);
        }
        let again = async {
            if evicted {
                sleep(EVICTION_TIME_MAX).await;
            } else {
                // One may have fallen idle just now, or do so at any time.
                worker.lives().fell_idle().await;
                sleep(AGAIN_TIME).await;
            }
        };
        tokio::select! {
            biased;
            // The semaphore is never closed.
            slot = Arc::clone(worker.slots()).acquire_owned() => return slot.ok(),
            () = again => {}
        }
    }
}

/// Whether the next connection may well be accepted at once.
fn concerns_one_connection(error: &io::Error) -> bool {
    let Some(errno) = Errno::from_io_error(error) else { return false };
    // accept(2) on Linux also reports errors that the network has for the new connection.
    let its_own = [
        Errno::CONNABORTED,
        Errno::CONNRESET,
        Errno::INTR,
        Errno::PERM,
        Errno::PROTO,
        Errno::NETDOWN,
        Errno::NOPROTOOPT,
        Errno::HOSTDOWN,
        Errno::NONET,
        Errno::HOSTUNREACH,
        Errno::OPNOTSUPP,
        Errno::NETUNREACH,
    ];
    its_own.contains(&errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lack_of_resources_makes_the_loop_pause() {
        let error = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        assert!(concerns_one_connection(&error(Errno::CONNABORTED)));
        assert!(!concerns_one_connection(&error(Errno::MFILE)));
        assert!(!concerns_one_connection(&error(Errno::NFILE)));
        assert!(!concerns_one_connection(&io::Error::other("?")));
    }
}

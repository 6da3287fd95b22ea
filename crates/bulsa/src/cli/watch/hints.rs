//! When to look: the kernel's events (inotify(7)), or a steady pace.

use std::{io, time::Duration};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe::Receiver;

use super::tree::Tree;

/// Events are read into so much at a time, in bytes: some hundred. What they say isn't looked at.
const EVENT_BYTES: usize = 8 << 10;
/// At most so often are they read in a row, so that a storm of them ends.
const READS_MAX: usize = 64;

/// When to look.
pub(super) enum Hints {
    Events(Events),
    Every(Duration),
}

/// Watches of directories.
pub(super) struct Events {
    queue: Receiver,
}

impl Hints {
    /// By events of all directories of the tree.
    ///
    /// # Errors
    /// When the kernel has none for us.
    pub(super) fn of(tree: &Tree) -> io::Result<Self> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // Bytes that are read are all that it has in common with a pipe, and all that is needed of one.
        let queue = Receiver::from_owned_fd_unchecked(queue)?;
        let events = Events { queue };
        events.watch(tree)?;
        Ok(Self::Events(events))
    }

    /// Waits until it is time to look.
    pub(super) async fn next(&self) {
        match self {
            Self::Events(events) => events.next().await,
            Self::Every(pace) => tokio::time::sleep(*pace).await,
        }
    }
}

impl Events {
    /// Watches the tree's directories. A directory that was made anew under its old name has lost its watch
    /// with the old one, so all are asked for: for one that has a watch that changes nothing.
    ///
    /// # Errors
    /// When the kernel gives no more.
    pub(super) fn watch(&self, tree: &Tree) -> io::Result<()> {
        let flags = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        for directory in &tree.directories {
            match inotify::add_watch(&self.queue, directory, flags) {
                // It went just now.
                Ok(_) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for events, and forgets them.
    pub(super) async fn next(&self) {
        if self.queue.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
        let mut forgotten = [0; EVENT_BYTES];
        for _ in 0..READS_MAX {
            // It would block, so there are no more; what else there may be is seen by the next look at the tree.
            if self.queue.try_read(&mut forgotten).is_err() {
                break;
            }
        }
    }
}

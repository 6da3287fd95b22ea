//! Ends of replicas that the keeper may forget.
//!
//! Owns: that an end is forgotten only once the ledger has it: an agent that is killed right after it heard of a death leaves
//! the keeper's record of it to its successor. Never: lets a disk hold up healing; after [`WRITTEN_MAX`] an end is forgotten
//! all the same.

use std::time::Duration;

use super::{Driver, Input};

/// A disk that is stuck is waited for so long.
pub(super) const WRITTEN_MAX: Duration = Duration::from_secs(5);

/// Ends that the keeper may forget, by the names under which it knows the replicas.
#[derive(Debug, Default)]
pub(super) struct Acks {
    /// Those that aren't known to be in the ledger yet.
    pub(super) waiting: Vec<String>,
    /// Whether the store is asked about earlier ones.
    asking: bool,
}

impl Driver {
    /// Lets the keeper forget what it need not keep any more, once that is on the disk.
    pub(super) fn send_acks(&mut self) {
        if self.acks.asking || self.acks.waiting.is_empty() {
            return;
        }
        self.acks.asking = true;
        let tasks = std::mem::take(&mut self.acks.waiting);
        let (store, inbox) = (self.store.clone(), self.inbox.clone());
        self.tasks.spawn(async move {
            store.flush_within(WRITTEN_MAX).await;
            inbox.send(Input::Recorded(tasks)).await.ok();
        });
    }

    /// What was known of these ends is on the disk.
    pub(super) async fn recorded(&mut self, tasks: Vec<String>) {
        self.acks.asking = false;
        for task in tasks {
            if let Err(error) = self.keeper.ack_exit(&task).await {
                self.lose_keeper(&error);
            }
        }
    }
}

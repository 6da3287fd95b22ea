//! The one thread that touches the database.
//!
//! Owns: the connection, the order of writes, the grouping of notes. Never: runs on a thread that anyone else waits on.
//!
//! Commits and reads go before notes. Notes gather until the first of them is [`super::GROUP_WITHIN`] old, or a read,
//! a full group or the end comes. While the disk refuses them, a group is kept and tried again every
//! [`super::GROUP_WITHIN`], the queue behind it fills, and what finds no room there is dropped and counted.

use std::{
    io,
    sync::{Arc, PoisonError, atomic::Ordering},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, ErrorCode};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    Change, Command, EVENTS_KEPT_MAX, GROUP_WITHIN, INCIDENTS_KEPT_MAX, KEPT_FOR, LEDGER_KEPT_MAX, Record,
    SERVED_KEPT_FOR, SERVICE_CHANGES_KEPT_MAX, Shared, StoreError, WATCHES_KEPT_MAX, change::ms,
};

/// At most this many notes are written in one transaction.
const GROUP_MAX: usize = 1024;
/// Old rows are looked for after this many new ones.
const PRUNE_EVERY: usize = 256;

/// Starts the thread. It ends when both queues are closed, or at [`Command::Close`].
///
/// # Errors
/// When the system gives no thread.
pub(super) fn start(
    connection: Connection,
    commits: mpsc::Receiver<Command>,
    notes: mpsc::Receiver<Record>,
    shared: Arc<Shared>,
) -> io::Result<()> {
    // The runtime is only the clock and the select of this thread; blocking it for the disk is what it is for.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let mut worker =
        Worker { connection, notes, shared, group: Vec::new(), due: None, since_prune: PRUNE_EVERY };
    let run = move || runtime.block_on(worker.run(commits));
    thread::Builder::new().name("bulsa-store".to_owned()).spawn(run)?;
    Ok(())
}

struct Worker {
    connection: Connection,
    notes: mpsc::Receiver<Record>,
    shared: Arc<Shared>,
    /// Notes taken from the queue and not yet written.
    group: Vec<Record>,
    /// When the group is written.
    due: Option<Instant>,
    /// Rows written since old ones were looked for.
    since_prune: usize,
}

impl Worker {
    async fn run(&mut self, mut commits: mpsc::Receiver<Command>) {
        loop {
            let due = self.due;
            let timer = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let room = self.group.len() < GROUP_MAX;
            tokio::select! {
                biased;
                command = commits.recv() => match command {
                    Some(Command::Commit(changes, answer)) => drop(answer.send(self.commit(&changes))),
                    Some(Command::Read(ask)) => {
                        // Notes that can't be written are kept or counted; what is on the disk can still be read.
                        drop(self.write_waiting());
                        ask(&self.connection);
                    }
                    Some(Command::Close(answer)) => {
                        drop(answer.send(self.write_waiting()));
                        return;
                    }
                    None => {
                        // Nobody is left to hear of a failure.
                        drop(self.write_waiting());
                        return;
                    }
                },
                () = timer => drop(self.write_group()),
                note = self.notes.recv(), if room => match note {
                    Some(note) => self.gather(note),
                    // Every handle is gone; the closed commit queue ends the loop in the next turn.
                    None => continue,
                },
            }
        }
    }

    fn gather(&mut self, note: Record) {
        self.group.push(note);
        self.due.get_or_insert_with(|| Instant::now() + GROUP_WITHIN);
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        for change in changes {
            change.apply(&transaction)?;
        }
        Ok(transaction.commit()?)
    }

    /// Writes the group and everything in the queue behind it; stops at the first group that can't be written.
    fn write_waiting(&mut self) -> Result<(), StoreError> {
        loop {
            while self.group.len() < GROUP_MAX
                && let Ok(note) = self.notes.try_recv()
            {
                self.group.push(note);
            }
            if self.group.is_empty() {
                return Ok(());
            }
            self.write_group()?;
        }
    }

    /// Writes the group in one transaction. A group that the disk refused stays for another try; one that SQLite finds
    /// wrong would never pass, and is dropped.
    fn write_group(&mut self) -> Result<(), StoreError> {
        self.due = None;
        let result = self.try_write_group();
        let mut trouble = self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(()) => {
                self.since_prune += self.group.len();
                self.group.clear();
                *trouble = None;
                Ok(())
            }
            Err(error) => {
                if may_pass_later(&error) {
                    self.due = Some(Instant::now() + GROUP_WITHIN);
                } else {
                    self.shared.dropped.fetch_add(self.group.len() as u64, Ordering::Relaxed);
                    self.group.clear();
                }
                *trouble = Some(error.to_string());
                Err(error.into())
            }
        }
    }

    fn try_write_group(&mut self) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        for record in &self.group {
            record.apply(&transaction)?;
        }
        if self.since_prune >= PRUNE_EVERY {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            prune(&transaction, now)?;
            self.since_prune = 0;
        }
        transaction.commit()
    }
}

/// Removes rows beyond what is kept, and those that are too old. A clock that is wrong takes nothing away that was
/// written under a right one: a row is as old as the newest in its table says, or as the clock says, whichever is less.
pub(super) fn prune(on: &Connection, now: Duration) -> rusqlite::Result<()> {
    let kept = [
        ("events", "at_ms", EVENTS_KEPT_MAX, KEPT_FOR),
        ("ledger", "at_ms", LEDGER_KEPT_MAX, KEPT_FOR),
        ("incidents", "detected_at_ms", INCIDENTS_KEPT_MAX, KEPT_FOR),
        ("watches", "until_ms", WATCHES_KEPT_MAX, SERVED_KEPT_FOR),
    ];
    for (table, time, max, age) in kept {
        let sql = format!(
            "DELETE FROM {table} WHERE id <= (SELECT id FROM {table} ORDER BY id DESC LIMIT 1 OFFSET ?1)
               OR {time} < min(?2, (SELECT max({time}) FROM {table})) - ?3"
        );
        on.execute(&sql, [ms(max), whole_ms(now), whole_ms(age)])?;
    }
    // What a service was at the oldest time that is kept is what its last change before that says.
    on.execute(
        "DELETE FROM service_changes WHERE watch NOT IN (SELECT id FROM watches)
           OR id <= (SELECT id FROM service_changes ORDER BY id DESC LIMIT 1 OFFSET ?1)
           AND id NOT IN (SELECT max(id) FROM service_changes
                          WHERE id <= (SELECT id FROM service_changes ORDER BY id DESC LIMIT 1 OFFSET ?1)
                          GROUP BY project, service)",
        [ms(SERVICE_CHANGES_KEPT_MAX)],
    )?;
    Ok(())
}

fn whole_ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Whether the fault lies with the disk or a lock, and not with what was to be written.
fn may_pass_later(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
        )
    )
}

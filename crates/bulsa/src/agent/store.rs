//! The store: what must outlive every crash, in one SQLite file of the state directory.
//!
//! Owns: `bulsa.db`, its schema, and the one thread that touches it. Never: decides what is worth keeping, or makes
//! anyone who heals wait for a disk.
//!
//! ```text
//!  driver ── commit(Change) ──▶ [bounded queue] ─┐
//!                 ◀── synced, or why not ──────  ├─▶ store thread ─▶ bulsa.db (WAL, synchronous=FULL)
//!  anyone ── note(Record) ────▶ [bounded queue] ─┘        ▲
//!  API ───── events(…), …  ───▶ (as commits) ─────────────┘
//! ```
//!
//! Two kinds of writes. What can't be observed again (releases, switch and retire decisions, human wishes) is
//! *committed*: [`Store::commit`] returns when the disk has it, so that the caller may act on it. What is only worth
//! knowing later (deaths, incidents, events) is *noted*: [`Store::note`] returns at once, and the thread writes what
//! gathered within [`GROUP_WITHIN`] in one transaction. A note that finds no room is dropped and counted. So a disk
//! that is full or stuck makes deploys fail with a sentence, and restarts go on as if nothing was.
//!
//! Everything is read back once, at the start ([`Store::open`] returns [`Stored`]); what is asked for later is history
//! for people. A read first writes the notes that wait, so that it never misses what was said before it.

mod change;
mod read;
mod schema;
mod served;
mod worker;

use std::{
    fs::{DirBuilder, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bulsa_core::wire::api::{DeploymentRow, Event};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

pub use self::{
    change::{Change, IncidentRow, LedgerRow, Record, ReleaseRow, SlotRow, WishRow},
    read::{ProjectRow, Stored},
    served::{ServedRows, ServiceRow, WatchRow},
};

/// The file's name in the state directory.
pub const FILE_NAME: &str = "bulsa.db";
/// How long a note may wait for others to be written with it.
pub const GROUP_WITHIN: Duration = Duration::from_secs(1);
/// At most this many notes wait in the queue; further ones are dropped and counted.
pub const NOTE_QUEUE_MAX: usize = 4096;
/// Ids that an agent may have given away and not have written when it was killed: those in the queue, and those in hand.
const IDS_UNSEEN_MAX: u64 = 2 * NOTE_QUEUE_MAX as u64;
/// At most this many commits and reads wait in the queue; whoever brings a further one waits for room.
pub const COMMIT_QUEUE_MAX: usize = 64;
/// How long a statement waits for another process's lock on the file (a person with `sqlite3`).
pub const LOCK_WAIT: Duration = Duration::from_secs(2);
/// The newest this many events are kept.
pub const EVENTS_KEPT_MAX: u64 = 10_000;
/// The newest this many lines of the restart ledger are kept.
pub const LEDGER_KEPT_MAX: u64 = 10_000;
/// The newest this many incidents are kept.
pub const INCIDENTS_KEPT_MAX: u64 = 1_000;
/// Events, lines of the ledger and incidents that are older than this go, how few there may be.
pub const KEPT_FOR: Duration = Duration::from_secs(90 * 24 * 3600);
/// The newest this many lives of agents are kept.
pub const WATCHES_KEPT_MAX: u64 = 10_000;
/// The newest this many changes of services are kept, and of each service the last one before them.
pub const SERVICE_CHANGES_KEPT_MAX: u64 = 50_000;
/// What says when services were served goes when it is older than this: a year can be looked back on.
pub const SERVED_KEPT_FOR: Duration = Duration::from_secs(400 * 24 * 3600);
/// The newest this many deployments of a project are kept.
pub const DEPLOYMENTS_KEPT_MAX: u64 = 100;
/// The newest this many releases of a project are kept, beside the live one and the last rollback target.
pub const RELEASES_KEPT_MAX: u64 = 50;
/// At most this many rows come back from one question.
pub const ROWS_READ_MAX: u64 = 1_000;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The state directory or the file can't be made or opened.
    #[error("can't open the store at {}: {source}", path.display())]
    Open {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file was written by a newer Bulsa.
    #[error(
        "the store was written by a newer Bulsa (schema {found}, this one knows {known}): it was left untouched; run the newer one"
    )]
    TooNew {
        /// The file's version.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// The file is there, and SQLite can't use it.
    #[error("can't use the store at {}: {source}; replicas and traffic go on without it, deploys don't", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// SQLite failed: a full disk, a broken file.
    #[error("the store failed: {0}; what was stored before is intact")]
    Sqlite(#[from] rusqlite::Error),
    /// The store's thread has ended.
    #[error("the store is closed")]
    Closed,
}

/// The handle to the store; clones share one thread, which ends when the last is dropped.
#[derive(Clone, Debug)]
pub struct Store {
    commits: mpsc::Sender<Command>,
    notes: mpsc::Sender<Record>,
    shared: Arc<Shared>,
}

/// What the handles and the thread both see.
#[derive(Debug, Default)]
struct Shared {
    /// The id that the next record gets.
    next_id: AtomicU64,
    /// Notes that were lost.
    dropped: AtomicU64,
    /// Why the last group of notes could not be written; cleared by one that could.
    trouble: Mutex<Option<String>>,
}

/// A job for the thread.
enum Command {
    /// Run these in one transaction, sync, answer.
    Commit(Vec<Change>, oneshot::Sender<Result<(), StoreError>>),
    /// Write the waiting notes, then ask this.
    Read(Box<dyn FnOnce(&Connection) + Send>),
    /// Write the waiting notes, close the file, answer, end.
    Close(oneshot::Sender<Result<(), StoreError>>),
}

impl Store {
    /// Opens, or makes, the store in `state_dir` (mode 0700; the file 0600), brings its schema up to date, and reads
    /// everything that the driver needs to go on. Blocks for the disk: meant for the start.
    ///
    /// # Errors
    /// When the directory or file can't be made or opened, is no database, or was written by a newer Bulsa.
    pub fn open(state_dir: &Path) -> Result<(Self, Stored), StoreError> {
        let opened = open_connection(state_dir).and_then(|connection| {
            let stored = read::load(&connection)?;
            Ok((connection, stored))
        });
        let (connection, stored) = opened.map_err(|error| match error {
            StoreError::Sqlite(source) => StoreError::Unusable { path: state_dir.join(FILE_NAME), source },
            other => other,
        })?;
        // An agent that was killed had told of more than it had written: none of those ids is given again. A store without
        // any value was never used.
        let unseen = if stored.values.is_empty() { 0 } else { IDS_UNSEEN_MAX };
        let next_id = AtomicU64::new(stored.next_id + unseen);
        let shared = Arc::new(Shared { next_id, ..Shared::default() });
        let (commits, commits_rx) = mpsc::channel(COMMIT_QUEUE_MAX);
        let (notes, notes_rx) = mpsc::channel(NOTE_QUEUE_MAX);
        worker::start(connection, commits_rx, notes_rx, Arc::clone(&shared))
            .map_err(|source| StoreError::Open { path: state_dir.join(FILE_NAME), source })?;
        Ok((Self { commits, notes, shared }, stored))
    }

    /// Stores one change; on return the disk has it.
    ///
    /// # Errors
    /// When it could not be stored: then nothing of it was, and the caller must not act on it.
    pub async fn commit(&self, change: Change) -> Result<(), StoreError> {
        self.commit_all(vec![change]).await
    }

    /// Stores all of these changes or none; on return the disk has them.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn commit_all(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.commits.send(Command::Commit(changes, answer)).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Keeps a record, soon, if there is room. Never waits.
    pub fn note(&self, record: Record) {
        if self.notes.try_send(record).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until every note so far was written, or dropped; at most for `limit`.
    pub async fn flush_within(&self, limit: Duration) {
        // Whether they found room is counted elsewhere.
        if let Ok(Err(error)) = tokio::time::timeout(limit, self.flush()).await {
            tracing::debug!(%error, "notes may not be written");
        }
    }

    /// A fresh id for a record: higher than every one before it, also after a restart.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.shared.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// How many notes were lost since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Why notes can't be written at the moment; `None` while they can.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The events after the id `after`, oldest first, at most `limit` (and [`ROWS_READ_MAX`]) of them; of one project
    /// where one is named.
    ///
    /// # Errors
    /// When the file can't be read.
    pub async fn events(
        &self,
        project: Option<String>,
        after: u64,
        limit: u64,
    ) -> Result<Vec<Event>, StoreError> {
        self.read(move |on| read::events(on, project.as_deref(), after, limit)).await
    }

    /// The newest `limit` events (at most [`ROWS_READ_MAX`]), oldest first; of one project where one is named.
    ///
    /// # Errors
    /// When the file can't be read.
    pub async fn last_events(&self, project: Option<String>, limit: u64) -> Result<Vec<Event>, StoreError> {
        self.read(move |on| read::last_events(on, project.as_deref(), limit)).await
    }

    /// A project's releases without their specs, oldest first.
    ///
    /// # Errors
    /// When the file can't be read.
    pub async fn releases(&self, project: String) -> Result<Vec<ReleaseRow>, StoreError> {
        self.read(move |on| read::releases(on, Some(&project), read::Specs::Without)).await
    }

    /// The files that a release was read from, as JSON, if it is still known.
    ///
    /// # Errors
    /// When the file can't be read.
    pub async fn sources(&self, project: String, release: u32) -> Result<Option<String>, StoreError> {
        self.read(move |on| read::sources(on, &project, release)).await
    }

    /// One deployment, if it is still known.
    ///
    /// # Errors
    /// When the file can't be read.
    pub async fn deployment(&self, project: String, id: u32) -> Result<Option<DeploymentRow>, StoreError> {
        self.read(move |on| read::deployment(on, &project, id)).await
    }

    /// The newest `limit` lines (at most [`ROWS_READ_MAX`]) of a project's restart ledger, oldest first.
    ///
    /// # Errors
    /// When the file can't be read.
    pub async fn ledger(&self, project: String, limit: u64) -> Result<Vec<LedgerRow>, StoreError> {
        self.read(move |on| read::ledger(on, Some(&project), limit)).await
    }

    /// The newest `limit` incidents (at most [`ROWS_READ_MAX`]) of a project, or of one of its services, oldest first.
    ///
    /// # Errors
    /// When the file can't be read.
    pub async fn incidents(
        &self,
        project: String,
        service: Option<String>,
        limit: u64,
    ) -> Result<Vec<IncidentRow>, StoreError> {
        self.read(move |on| read::incidents(on, &project, service.as_deref(), limit)).await
    }

    /// These incidents, as far as they are still known.
    ///
    /// # Errors
    /// When the file can't be read.
    pub async fn incidents_by_id(&self, ids: Vec<u64>) -> Result<Vec<IncidentRow>, StoreError> {
        self.read(move |on| read::incidents_by_id(on, &ids)).await
    }

    /// What says when a project's services were served since a time, and what its incidents cost since then.
    ///
    /// # Errors
    /// When the file can't be read.
    pub async fn served(&self, project: String, from_ms: u64) -> Result<ServedRows, StoreError> {
        self.read(move |on| served::served(on, &project, from_ms)).await
    }

    /// Writes the notes that wait, soon, instead of after [`GROUP_WITHIN`].
    ///
    /// # Errors
    /// When the store is closed. Notes that can't be written stay or are counted, as ever.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.read(|_| Ok(())).await
    }

    /// Writes what waits and closes the file; every handle then answers [`StoreError::Closed`].
    ///
    /// # Errors
    /// When what waited could not be written.
    pub async fn close(&self) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.commits.send(Command::Close(answer)).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let ask = move |on: &Connection| {
            // Whoever asked may have gone; then nobody misses the answer.
            drop(answer.send(question(on)));
        };
        self.commits.send(Command::Read(Box::new(ask))).await.map_err(|_| StoreError::Closed)?;
        Ok(answered.await.map_err(|_| StoreError::Closed)??)
    }
}

/// Makes the directory and the file with their modes, and sets the connection up.
fn open_connection(state_dir: &Path) -> Result<Connection, StoreError> {
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |source| StoreError::Open { path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(at(state_dir))?;
    let file = state_dir.join(FILE_NAME);
    // SQLite gives its -wal and -shm files the mode of the database, so the file is made before SQLite sees it.
    let made = OpenOptions::new().create(true).append(true).mode(0o600).open(&file).map_err(at(&file))?;
    made.set_permissions(Permissions::from_mode(0o600)).map_err(at(&file))?;
    drop(made);
    let mut connection = Connection::open(&file)?;
    connection.busy_timeout(LOCK_WAIT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", 16 * 1024 * 1024)?;
    schema::migrate(&mut connection, schema::MIGRATIONS)?;
    Ok(connection)
}

#[cfg(test)]
mod tests;

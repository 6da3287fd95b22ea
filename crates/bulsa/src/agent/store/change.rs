//! What the store is told: changes that must be on the disk before anyone acts on them, and records that need not.
//!
//! Owns: [`Change`] and [`Record`], in plain data, and how each becomes SQL. Never: knows a type of the core's insides,
//! so that those can change without a migration.

use bulsa_core::wire::api::{Again, DeploymentRow, Event, Evidence, Incident};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::{DEPLOYMENTS_KEPT_MAX, RELEASES_KEPT_MAX, ServiceRow, WatchRow};

/// Something that can't be observed again after a crash: synced to the disk before it is acted on.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A project exists; nothing happens when it already does.
    SaveProject {
        /// Its name.
        project: String,
    },
    /// A project is gone, with its releases, deployments, wishes and settings. Its events and its ledger stay.
    DeleteProject {
        /// Its name.
        project: String,
    },
    /// A release was made, or its row changes as a whole.
    SaveRelease(ReleaseRow),
    /// A release is somewhere else in its life.
    SetReleaseState {
        /// The project's name.
        project: String,
        /// The release.
        release: u32,
        /// The core's word for where it is.
        state: String,
    },
    /// The files that a release is read from look otherwise now, and mean the same.
    SetSources {
        /// The project's name.
        project: String,
        /// The release.
        release: u32,
        /// As in [`ReleaseRow::sources`].
        sources: String,
    },
    /// A release is forgotten.
    DeleteRelease {
        /// The project's name.
        project: String,
        /// The release.
        release: u32,
    },
    /// Users see another release, or none.
    SetLive {
        /// The project's name.
        project: String,
        /// The release.
        release: Option<u32>,
    },
    /// A line of the deploy journal, whole: inserted or replaced.
    SaveDeployment(DeploymentRow),
    /// A human wants something of a service.
    SetWish(WishRow),
    /// A human takes a wish back; nothing happens when there is none.
    ClearWish {
        /// The project's name.
        project: String,
        /// The service's name.
        service: String,
        /// The wish's kind.
        kind: String,
    },
    /// A human took the replica in this slot away: it stays empty.
    Withhold {
        /// The project's name.
        project: String,
        /// Which.
        slot: SlotRow,
    },
    /// The slot is filled again; nothing happens when it wasn't withheld.
    Reinstate {
        /// The project's name.
        project: String,
        /// Which.
        slot: SlotRow,
    },
    /// A value that has no table of its own.
    SetValue {
        /// The project's name; empty for the daemon.
        project: String,
        /// The key.
        key: String,
        /// The value; `None` removes it.
        value: Option<String>,
    },
}

/// One release.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReleaseRow {
    /// The project's name.
    pub project: String,
    /// Counted from 1 within the project.
    pub id: u32,
    /// The spec as JSON ([`bulsa_core::wire::spec::SpecV1`]).
    pub spec: String,
    /// The spec's content hash.
    pub content_hash: String,
    /// The files that the spec was read from, as JSON; for people.
    pub sources: String,
    /// When it was made.
    pub created_at_ms: u64,
    /// The core's word for where in its life it is.
    pub state: String,
}

/// What a human wants of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WishRow {
    /// The project's name.
    pub project: String,
    /// The service's name.
    pub service: String,
    /// `stopped`, `scale`, `restart` or `held`; one wish of each kind at most.
    pub kind: String,
    /// With `scale` the number, with `restart` a token, with `held` since when, else empty.
    pub value: String,
    /// When it was wished.
    pub at_ms: u64,
}

/// A place for a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotRow {
    /// The release; 0 for a `shared` service.
    pub release: u32,
    /// The service's name.
    pub service: String,
    /// Which copy, from 1.
    pub ordinal: u32,
}

/// Something worth keeping that nothing waits for: written in groups, dropped and counted when there is no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Something happened. Its id comes from [`super::Store::next_id`].
    Event(Event),
    /// A death and its reason.
    Death(LedgerRow),
    /// An incident, whole: inserted when it is detected, replaced when it is over.
    Incident(IncidentRow),
    /// An agent lives: inserted when it begins, replaced with each sign of life.
    Watch(WatchRow),
    /// A service is served from now on, or isn't.
    Service(ServiceRow),
}

/// One line of the restart ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerRow {
    /// From [`super::Store::next_id`].
    pub id: u64,
    /// When it died.
    pub at_ms: u64,
    /// The project's name.
    pub project: String,
    /// The service's name.
    pub service: String,
    /// The slot's release.
    pub release: u32,
    /// The slot's ordinal.
    pub ordinal: u32,
    /// Which start in the slot it was.
    pub attempt: u32,
    /// Why it died: `exited`, `killed`, `hung`, `oom`.
    pub cause: String,
    /// Its exit status, in words; `None` where nobody saw it.
    pub exit: Option<String>,
    /// The same for the program: `code 3`, `signal 9`; `None` where nobody saw it, or an older version wrote the line.
    pub status: Option<String>,
    /// How long it had been ready; `None` when it never was.
    pub ready_for_ms: Option<u64>,
}

/// One death or hang with its evidence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IncidentRow {
    /// From [`super::Store::next_id`].
    pub id: u64,
    /// The project's name.
    pub project: String,
    /// The service's name.
    pub service: String,
    /// The replica: `web-r3-1.5`.
    pub replica: String,
    /// Why, one word.
    pub cause: String,
    /// What was known, as JSON: an [`Evidence`], with an [`Again`] where more died, and when the place was given up.
    pub evidence: String,
    /// When it was seen.
    pub detected_at_ms: u64,
    /// When its place served again.
    pub recovered_at_ms: Option<u64>,
    /// Requests that failed because of it.
    pub requests_lost: u64,
}

/// How the evidence of an incident is kept.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    #[serde(flatten)]
    first: Evidence,
    #[serde(skip_serializing_if = "Option::is_none")]
    again: Option<Again>,
    #[serde(skip_serializing_if = "Option::is_none")]
    given_up_at_ms: Option<u64>,
}

impl IncidentRow {
    /// An incident of a project's service, to be kept.
    #[must_use]
    pub fn of(project: &str, service: &str, incident: &Incident) -> Self {
        let Incident { evidence, again, given_up_at_ms, .. } = incident.clone();
        let kept = Kept { first: evidence, again, given_up_at_ms };
        Self {
            id: incident.id,
            project: project.to_owned(),
            service: service.to_owned(),
            replica: incident.replica.clone(),
            cause: incident.cause.clone(),
            // Texts and numbers always have a form in JSON.
            evidence: serde_json::to_string(&kept).unwrap_or_default(),
            detected_at_ms: incident.detected_at_ms,
            recovered_at_ms: incident.recovered_at_ms,
            requests_lost: incident.requests_lost,
        }
    }
}

impl From<&IncidentRow> for Incident {
    /// Evidence that can't be read was written by something else: nothing is known then.
    fn from(row: &IncidentRow) -> Self {
        let Kept { first, again, given_up_at_ms } = serde_json::from_str(&row.evidence).unwrap_or_default();
        Self {
            id: row.id,
            replica: row.replica.clone(),
            cause: row.cause.clone(),
            detected_at_ms: row.detected_at_ms,
            recovered_at_ms: row.recovered_at_ms,
            requests_lost: row.requests_lost,
            evidence: first,
            again,
            given_up_at_ms,
        }
    }
}

impl Change {
    /// Runs it inside the caller's transaction.
    pub(super) fn apply(&self, on: &Connection) -> rusqlite::Result<()> {
        match self {
            Self::SaveProject { project } => ensure_project(on, project),
            Self::DeleteProject { project } => delete_project(on, project),
            Self::SaveRelease(row) => save_release(on, row),
            Self::SetReleaseState { project, release, state } => {
                let sql = "UPDATE releases SET state = ?3 WHERE project = ?1 AND id = ?2";
                on.execute(sql, params![project, release, state]).map(drop)
            }
            Self::SetSources { project, release, sources } => {
                let sql = "UPDATE releases SET sources = ?3 WHERE project = ?1 AND id = ?2";
                on.execute(sql, params![project, release, sources]).map(drop)
            }
            Self::DeleteRelease { project, release } => {
                let sql = "DELETE FROM releases WHERE project = ?1 AND id = ?2";
                on.execute(sql, params![project, release]).map(drop)
            }
            Self::SetLive { project, release } => {
                ensure_project(on, project)?;
                let sql = "UPDATE projects SET live_release = ?2 WHERE name = ?1";
                on.execute(sql, params![project, release]).map(drop)
            }
            Self::SaveDeployment(row) => save_deployment(on, row),
            Self::SetWish(row) => {
                let sql =
                    "REPLACE INTO wishes (project, service, kind, value, at_ms) VALUES (?1, ?2, ?3, ?4, ?5)";
                on.execute(sql, params![row.project, row.service, row.kind, row.value, ms(row.at_ms)])
                    .map(drop)
            }
            Self::ClearWish { project, service, kind } => {
                let sql = "DELETE FROM wishes WHERE project = ?1 AND service = ?2 AND kind = ?3";
                on.execute(sql, params![project, service, kind]).map(drop)
            }
            Self::Withhold { project, slot } => {
                let sql =
                    "REPLACE INTO withheld (project, release, service, ordinal) VALUES (?1, ?2, ?3, ?4)";
                on.execute(sql, params![project, slot.release, slot.service, slot.ordinal]).map(drop)
            }
            Self::Reinstate { project, slot } => {
                let sql = "DELETE FROM withheld
                           WHERE project = ?1 AND release = ?2 AND service = ?3 AND ordinal = ?4";
                on.execute(sql, params![project, slot.release, slot.service, slot.ordinal]).map(drop)
            }
            Self::SetValue { project, key, value: Some(value) } => {
                let sql = "REPLACE INTO kv (project, key, value) VALUES (?1, ?2, ?3)";
                on.execute(sql, params![project, key, value]).map(drop)
            }
            Self::SetValue { project, key, value: None } => {
                on.execute("DELETE FROM kv WHERE project = ?1 AND key = ?2", params![project, key]).map(drop)
            }
        }
    }
}

fn ensure_project(on: &Connection, project: &str) -> rusqlite::Result<()> {
    on.execute("INSERT OR IGNORE INTO projects (name) VALUES (?1)", [project]).map(drop)
}

fn delete_project(on: &Connection, project: &str) -> rusqlite::Result<()> {
    on.execute("DELETE FROM projects WHERE name = ?1", [project])?;
    for table in ["releases", "deployments", "wishes", "withheld", "kv"] {
        on.execute(&format!("DELETE FROM {table} WHERE project = ?1"), [project])?;
    }
    Ok(())
}

/// Also forgets releases beyond [`RELEASES_KEPT_MAX`], but never the live one nor one that a kept deployment came from
/// last: those two are the running release and the rollback target.
fn save_release(on: &Connection, row: &ReleaseRow) -> rusqlite::Result<()> {
    ensure_project(on, &row.project)?;
    on.execute(
        "REPLACE INTO releases (project, id, spec, content_hash, sources, created_at_ms, state)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            row.project,
            row.id,
            row.spec,
            row.content_hash,
            row.sources,
            ms(row.created_at_ms),
            row.state
        ],
    )?;
    on.execute(
        "DELETE FROM releases WHERE project = ?1
           AND id NOT IN (SELECT id FROM releases WHERE project = ?1 ORDER BY id DESC LIMIT ?2)
           AND id IS NOT (SELECT live_release FROM projects WHERE name = ?1)
           AND id IS NOT (SELECT previous FROM deployments WHERE project = ?1 ORDER BY id DESC LIMIT 1)
           AND id IS NOT (SELECT candidate FROM deployments WHERE project = ?1 ORDER BY id DESC LIMIT 1)",
        params![row.project, ms(RELEASES_KEPT_MAX)],
    )
    .map(drop)
}

fn save_deployment(on: &Connection, row: &DeploymentRow) -> rusqlite::Result<()> {
    ensure_project(on, &row.project)?;
    on.execute(
        "REPLACE INTO deployments (project, id, kind, candidate, previous, phase, started_at_ms, switched_at_ms,
                                   finished_at_ms, outcome, exit_code, reason)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        params![
            row.project,
            row.id,
            row.kind,
            row.candidate,
            row.previous,
            row.phase,
            ms(row.started_at_ms),
            row.switched_at_ms.map(ms),
            row.finished_at_ms.map(ms),
            row.outcome,
            row.exit_code,
            row.reason
        ],
    )?;
    on.execute(
        "DELETE FROM deployments WHERE project = ?1
           AND id NOT IN (SELECT id FROM deployments WHERE project = ?1 ORDER BY id DESC LIMIT ?2)",
        params![row.project, ms(DEPLOYMENTS_KEPT_MAX)],
    )
    .map(drop)
}

impl Record {
    /// Runs it inside the caller's transaction.
    pub(super) fn apply(&self, on: &Connection) -> rusqlite::Result<()> {
        match self {
            Self::Event(event) => on
                .prepare_cached(
                    "REPLACE INTO events (id, at_ms, project, kind, service, replica, text, json)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )?
                .execute(params![
                    ms(event.id),
                    ms(event.at_ms),
                    event.project,
                    event.kind,
                    event.service,
                    event.replica,
                    event.text,
                    // Numbers and texts always have a form in JSON.
                    event.detail.as_ref().and_then(|detail| serde_json::to_string(detail).ok())
                ])
                .map(drop),
            Self::Death(row) => save_death(on, row),
            Self::Incident(row) => save_incident(on, row),
            Self::Watch(row) => row.save(on),
            Self::Service(row) => row.save(on),
        }
    }
}

fn save_death(on: &Connection, row: &LedgerRow) -> rusqlite::Result<()> {
    on.prepare_cached(
        "REPLACE INTO ledger (id, at_ms, project, service, release, ordinal, attempt, cause, exit, ready_for_ms, status)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        ms(row.id),
        ms(row.at_ms),
        row.project,
        row.service,
        row.release,
        row.ordinal,
        row.attempt,
        row.cause,
        row.exit,
        row.ready_for_ms.map(ms),
        row.status
    ])
    .map(drop)
}

fn save_incident(on: &Connection, row: &IncidentRow) -> rusqlite::Result<()> {
    on.prepare_cached(
        "REPLACE INTO incidents (id, project, service, replica, cause, evidence, detected_at_ms, recovered_at_ms,
                                 requests_lost)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        ms(row.id),
        row.project,
        row.service,
        row.replica,
        row.cause,
        row.evidence,
        ms(row.detected_at_ms),
        row.recovered_at_ms.map(ms),
        ms(row.requests_lost)
    ])
    .map(drop)
}

/// SQLite's integers are signed; no time or counter of ours reaches the upper half.
pub(super) fn ms(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

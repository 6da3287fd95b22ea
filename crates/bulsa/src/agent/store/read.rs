//! Reading the store back: everything the driver needs at its start, and history for people.
//!
//! Owns: every `SELECT`. Never: writes.

use bulsa_core::wire::api::{DeploymentRow, Event};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{IncidentRow, LedgerRow, ROWS_READ_MAX, ReleaseRow, SlotRow, WishRow, change::ms};

/// Everything that a new agent goes on from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Every project, by name.
    pub projects: Vec<ProjectRow>,
    /// Values of the daemon itself (project ""), by key.
    pub values: Vec<(String, String)>,
    /// The newest lines of the restart ledger over all projects, oldest first, at most [`ROWS_READ_MAX`].
    pub ledger: Vec<LedgerRow>,
    /// The newest incidents that aren't over, oldest first, at most [`ROWS_READ_MAX`].
    pub open_incidents: Vec<IncidentRow>,
    /// The id that the next record gets.
    pub next_id: u64,
}

/// One project as it was left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProjectRow {
    /// Its name.
    pub name: String,
    /// The release that users saw.
    pub live: Option<u32>,
    /// Its releases, oldest first.
    pub releases: Vec<ReleaseRow>,
    /// Its deployments, oldest first; the last is the one to finish or undo when it has no outcome.
    pub deployments: Vec<DeploymentRow>,
    /// What humans want.
    pub wishes: Vec<WishRow>,
    /// The slots that humans emptied.
    pub withheld: Vec<SlotRow>,
    /// Its values, by key.
    pub values: Vec<(String, String)>,
}

/// Whether rows carry their big texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Specs {
    With,
    Without,
}

/// Reads everything that the driver goes on from.
pub(super) fn load(on: &Connection) -> rusqlite::Result<Stored> {
    let names = rows(on, "SELECT name, live_release FROM projects ORDER BY name", [], |row| {
        Ok((row.get::<_, String>(0)?, row.get(1)?))
    })?;
    let mut projects = Vec::with_capacity(names.len());
    for (name, live) in names {
        projects.push(ProjectRow {
            live,
            releases: releases(on, Some(&name), Specs::With)?,
            deployments: deployments(on, &name)?,
            wishes: wishes(on, &name)?,
            withheld: withheld(on, &name)?,
            values: values(on, &name)?,
            name,
        });
    }
    Ok(Stored {
        projects,
        values: values(on, "")?,
        ledger: ledger(on, None, ROWS_READ_MAX)?,
        open_incidents: open_incidents(on)?,
        next_id: next_id(on)?,
    })
}

/// One more than the highest id that was ever given, pruned rows included.
fn next_id(on: &Connection) -> rusqlite::Result<u64> {
    let highest: i64 =
        on.query_row("SELECT coalesce(max(seq), 0) FROM sqlite_sequence", [], |row| row.get(0))?;
    Ok(count(highest).saturating_add(1))
}

pub(super) fn releases(
    on: &Connection,
    project: Option<&str>,
    specs: Specs,
) -> rusqlite::Result<Vec<ReleaseRow>> {
    let texts = match specs {
        Specs::With => "spec, sources",
        Specs::Without => "'', ''",
    };
    let sql = format!(
        "SELECT project, id, content_hash, created_at_ms, state, {texts} FROM releases
         WHERE project = coalesce(?1, project) ORDER BY project, id"
    );
    rows(on, &sql, [project], |row| {
        Ok(ReleaseRow {
            project: row.get(0)?,
            id: row.get(1)?,
            content_hash: row.get(2)?,
            created_at_ms: count(row.get(3)?),
            state: row.get(4)?,
            spec: row.get(5)?,
            sources: row.get(6)?,
        })
    })
}

pub(super) fn sources(on: &Connection, project: &str, release: u32) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT sources FROM releases WHERE project = ?1 AND id = ?2";
    on.query_row(sql, params![project, release], |row| row.get(0)).optional()
}

const DEPLOYMENT: &str =
    "SELECT project, id, kind, candidate, previous, phase, started_at_ms, switched_at_ms,
    finished_at_ms, outcome, exit_code, reason FROM deployments WHERE project = ?1";

fn deployment_row(row: &Row<'_>) -> rusqlite::Result<DeploymentRow> {
    Ok(DeploymentRow {
        project: row.get(0)?,
        id: row.get(1)?,
        kind: row.get(2)?,
        candidate: row.get(3)?,
        previous: row.get(4)?,
        phase: row.get(5)?,
        started_at_ms: count(row.get(6)?),
        switched_at_ms: row.get::<_, Option<i64>>(7)?.map(count),
        finished_at_ms: row.get::<_, Option<i64>>(8)?.map(count),
        outcome: row.get(9)?,
        exit_code: row.get(10)?,
        reason: row.get(11)?,
    })
}

fn deployments(on: &Connection, project: &str) -> rusqlite::Result<Vec<DeploymentRow>> {
    rows(on, &format!("{DEPLOYMENT} ORDER BY id"), [project], deployment_row)
}

pub(super) fn deployment(on: &Connection, project: &str, id: u32) -> rusqlite::Result<Option<DeploymentRow>> {
    on.query_row(&format!("{DEPLOYMENT} AND id = ?2"), params![project, id], deployment_row).optional()
}

fn wishes(on: &Connection, project: &str) -> rusqlite::Result<Vec<WishRow>> {
    let sql =
        "SELECT project, service, kind, value, at_ms FROM wishes WHERE project = ?1 ORDER BY service, kind";
    rows(on, sql, [project], |row| {
        Ok(WishRow {
            project: row.get(0)?,
            service: row.get(1)?,
            kind: row.get(2)?,
            value: row.get(3)?,
            at_ms: count(row.get(4)?),
        })
    })
}

fn withheld(on: &Connection, project: &str) -> rusqlite::Result<Vec<SlotRow>> {
    let sql = "SELECT release, service, ordinal FROM withheld WHERE project = ?1
               ORDER BY release, service, ordinal";
    rows(on, sql, [project], |row| {
        Ok(SlotRow { release: row.get(0)?, service: row.get(1)?, ordinal: row.get(2)? })
    })
}

fn values(on: &Connection, project: &str) -> rusqlite::Result<Vec<(String, String)>> {
    let sql = "SELECT key, value FROM kv WHERE project = ?1 ORDER BY key";
    rows(on, sql, [project], |row| Ok((row.get(0)?, row.get(1)?)))
}

const EVENT: &str = "SELECT id, at_ms, project, kind, service, replica, text, json FROM events
    WHERE (?1 IS NULL OR project = ?1)";

fn event_row(row: &Row<'_>) -> rusqlite::Result<Event> {
    Ok(Event {
        id: count(row.get(0)?),
        at_ms: count(row.get(1)?),
        project: row.get(2)?,
        kind: row.get(3)?,
        service: row.get(4)?,
        replica: row.get(5)?,
        text: row.get(6)?,
        // What a later version wrote in another form is known by its sentence only.
        detail: row.get::<_, Option<String>>(7)?.and_then(|text| serde_json::from_str(&text).ok()),
    })
}

pub(super) fn events(
    on: &Connection,
    project: Option<&str>,
    after: u64,
    limit: u64,
) -> rusqlite::Result<Vec<Event>> {
    let sql = format!("{EVENT} AND id > ?2 ORDER BY id LIMIT ?3");
    rows(on, &sql, params![project, ms(after), bounded(limit)], event_row)
}

pub(super) fn last_events(
    on: &Connection,
    project: Option<&str>,
    limit: u64,
) -> rusqlite::Result<Vec<Event>> {
    let sql = format!("{EVENT} ORDER BY id DESC LIMIT ?2");
    oldest_first(rows(on, &sql, params![project, bounded(limit)], event_row))
}

pub(super) fn ledger(on: &Connection, project: Option<&str>, limit: u64) -> rusqlite::Result<Vec<LedgerRow>> {
    let sql =
        "SELECT id, at_ms, project, service, release, ordinal, attempt, cause, exit, ready_for_ms, status FROM ledger
               WHERE (?1 IS NULL OR project = ?1) ORDER BY id DESC LIMIT ?2";
    oldest_first(rows(on, sql, params![project, bounded(limit)], |row| {
        Ok(LedgerRow {
            id: count(row.get(0)?),
            at_ms: count(row.get(1)?),
            project: row.get(2)?,
            service: row.get(3)?,
            release: row.get(4)?,
            ordinal: row.get(5)?,
            attempt: row.get(6)?,
            cause: row.get(7)?,
            exit: row.get(8)?,
            ready_for_ms: row.get::<_, Option<i64>>(9)?.map(count),
            status: row.get(10)?,
        })
    }))
}

const INCIDENT_COLUMNS: &str =
    "id, project, service, replica, cause, evidence, detected_at_ms, recovered_at_ms, requests_lost";

fn incident_row(row: &Row<'_>) -> rusqlite::Result<IncidentRow> {
    Ok(IncidentRow {
        id: count(row.get(0)?),
        project: row.get(1)?,
        service: row.get(2)?,
        replica: row.get(3)?,
        cause: row.get(4)?,
        evidence: row.get(5)?,
        detected_at_ms: count(row.get(6)?),
        recovered_at_ms: row.get::<_, Option<i64>>(7)?.map(count),
        requests_lost: count(row.get(8)?),
    })
}

/// The newest incidents of a project, or of one of its services, oldest first.
pub(super) fn incidents(
    on: &Connection,
    project: &str,
    service: Option<&str>,
    limit: u64,
) -> rusqlite::Result<Vec<IncidentRow>> {
    let sql = format!(
        "SELECT {INCIDENT_COLUMNS} FROM incidents WHERE project = ?1 AND (?2 IS NULL OR service = ?2)
         ORDER BY id DESC LIMIT ?3"
    );
    oldest_first(rows(on, &sql, params![project, service, bounded(limit)], incident_row))
}

/// These incidents, of those that are still known, in the order of their ids.
pub(super) fn incidents_by_id(on: &Connection, ids: &[u64]) -> rusqlite::Result<Vec<IncidentRow>> {
    let sql = format!("SELECT {INCIDENT_COLUMNS} FROM incidents WHERE id = ?1");
    let mut found = Vec::new();
    for id in ids {
        found.extend(on.query_row(&sql, [ms(*id)], incident_row).optional()?);
    }
    Ok(found)
}

/// The newest incidents of all projects that aren't over, oldest first.
fn open_incidents(on: &Connection) -> rusqlite::Result<Vec<IncidentRow>> {
    let sql = format!(
        "SELECT {INCIDENT_COLUMNS} FROM incidents WHERE recovered_at_ms IS NULL ORDER BY id DESC LIMIT ?1"
    );
    oldest_first(rows(on, &sql, [bounded(ROWS_READ_MAX)], incident_row))
}

pub(super) fn rows<T>(
    on: &Connection,
    sql: &str,
    with: impl rusqlite::Params,
    make: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    on.prepare(sql)?.query_map(with, make)?.collect()
}

fn oldest_first<T>(newest_first: rusqlite::Result<Vec<T>>) -> rusqlite::Result<Vec<T>> {
    newest_first.map(|mut rows| {
        rows.reverse();
        rows
    })
}

fn bounded(limit: u64) -> i64 {
    ms(limit.min(ROWS_READ_MAX))
}

/// What was written as a `u64` comes back as one; nothing negative was ever written.
pub(super) fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

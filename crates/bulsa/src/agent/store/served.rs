//! The record of when agents lived and when services were served: its rows, in and out.
//!
//! Owns: the two tables of it. Never: what they mean; that is `bulsa_core::availability`.

use rusqlite::{Connection, params};

use super::{
    SERVICE_CHANGES_KEPT_MAX, WATCHES_KEPT_MAX,
    change::ms,
    read::{count, rows},
};

/// One life of an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchRow {
    /// From [`super::Store::next_id`].
    pub id: u64,
    /// When it began.
    pub from_ms: u64,
    /// Its last sign of life.
    pub until_ms: u64,
}

/// A service's state from some time on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRow {
    /// From [`super::Store::next_id`].
    pub id: u64,
    /// The [`WatchRow`] of the agent that saw it.
    pub watch: u64,
    /// Since when.
    pub at_ms: u64,
    /// The project's name.
    pub project: String,
    /// The service's name.
    pub service: String,
    /// A word of [`bulsa_core::availability::Service`].
    pub state: String,
}

/// What says when a project's services were served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServedRows {
    /// The agents that lived in that time, oldest first; the last is the living one.
    pub watches: Vec<WatchRow>,
    /// What those saw of the project's services, oldest first.
    pub changes: Vec<ServiceRow>,
    /// By service: how many incidents began in that time, and how many requests were lost in them.
    pub incidents: Vec<(String, u64, u64)>,
    /// By service: when the oldest record of it is from.
    pub recorded_since_ms: Vec<(String, u64)>,
}

impl WatchRow {
    pub(super) fn save(&self, on: &Connection) -> rusqlite::Result<()> {
        on.prepare_cached("REPLACE INTO watches (id, from_ms, until_ms) VALUES (?1, ?2, ?3)")?
            .execute(params![ms(self.id), ms(self.from_ms), ms(self.until_ms)])
            .map(drop)
    }
}

impl ServiceRow {
    pub(super) fn save(&self, on: &Connection) -> rusqlite::Result<()> {
        on.prepare_cached(
            "REPLACE INTO service_changes (id, watch, at_ms, project, service, state)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![ms(self.id), ms(self.watch), ms(self.at_ms), self.project, self.service, self.state])
        .map(drop)
    }
}

/// What is known of a project since a time.
pub(super) fn served(on: &Connection, project: &str, from_ms: u64) -> rusqlite::Result<ServedRows> {
    // The living agent's last sign of life may be older than the time that is asked for.
    const LIVED: &str = "(until_ms >= ?1 OR id = (SELECT max(id) FROM watches))";
    let sql = format!("SELECT id, from_ms, until_ms FROM watches WHERE {LIVED} ORDER BY id LIMIT ?2");
    let watches = rows(on, &sql, params![ms(from_ms), ms(WATCHES_KEPT_MAX * 2)], |row| {
        Ok(WatchRow { id: count(row.get(0)?), from_ms: count(row.get(1)?), until_ms: count(row.get(2)?) })
    })?;
    let sql = format!(
        "SELECT id, watch, at_ms, project, service, state FROM service_changes
         WHERE project = ?3 AND watch IN (SELECT id FROM watches WHERE {LIVED}) ORDER BY id LIMIT ?2"
    );
    let changes = rows(on, &sql, params![ms(from_ms), ms(SERVICE_CHANGES_KEPT_MAX * 2), project], |row| {
        Ok(ServiceRow {
            id: count(row.get(0)?),
            watch: count(row.get(1)?),
            at_ms: count(row.get(2)?),
            project: row.get(3)?,
            service: row.get(4)?,
            state: row.get(5)?,
        })
    })?;
    let sql = "SELECT service, count(*), coalesce(sum(requests_lost), 0) FROM incidents
               WHERE project = ?1 AND detected_at_ms >= ?2 GROUP BY service ORDER BY service";
    let incidents = rows(on, sql, params![project, ms(from_ms)], |row| {
        Ok((row.get(0)?, count(row.get(1)?), count(row.get(2)?)))
    })?;
    let sql = "SELECT service, min(at_ms) FROM service_changes WHERE project = ?1 GROUP BY service ORDER BY service";
    let recorded_since_ms = rows(on, sql, [project], |row| Ok((row.get(0)?, count(row.get(1)?))))?;
    Ok(ServedRows { watches, changes, incidents, recorded_since_ms })
}

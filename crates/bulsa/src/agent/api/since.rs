//! `GET /v1/since`: how much of the last time a project's services were served.
//!
//! Owns: putting the store's rows and the snapshot's services together. Never: judges; that is
//! `bulsa_core::availability`.

use std::time::Duration;

use axum::{
    Json,
    extract::{Query, State},
};
use bulsa_core::{
    availability::{Change, Service, Watch, availability},
    time::Timestamp,
    wire::api::{ServiceSince, SinceView},
};
use serde::Deserialize;

use super::{Failure, Server, store_failed};
use crate::agent::store::{SERVED_KEPT_FOR, ServedRows};

#[derive(Deserialize)]
pub(super) struct SinceQuery {
    project: String,
    ms: u64,
}

pub(super) async fn since(
    State(server): State<Server>,
    Query(query): Query<SinceQuery>,
) -> Result<Json<SinceView>, Failure> {
    let snapshot = std::sync::Arc::clone(&server.driver.snapshot.borrow());
    let project = snapshot.project(&query.project).ok_or_else(|| Failure::no_project(&query.project))?;
    let now = server.driver.clock.now();
    let window = Duration::from_millis(query.ms).min(SERVED_KEPT_FOR);
    let from = Timestamp(now.0.saturating_sub(u64::try_from(window.as_millis()).unwrap_or(u64::MAX)));
    let rows = server.driver.store.served(query.project.clone(), from.0).await.map_err(store_failed)?;
    let services = project.services.iter().filter(|service| service.role != "job");
    let services = services.map(|service| of_service(&service.name, &rows, from, now)).collect();
    Ok(Json(SinceView { project: query.project, from_ms: from.0, now_ms: now.0, services }))
}

fn of_service(name: &str, rows: &ServedRows, from: Timestamp, now: Timestamp) -> ServiceSince {
    let watches: Vec<Watch> = rows
        .watches
        .iter()
        .map(|row| Watch { id: row.id, from: Timestamp(row.from_ms), until: Timestamp(row.until_ms) })
        .collect();
    let changes = rows.changes.iter().filter(|row| row.service == name).map(|row| {
        // What a later version means by another word isn't known here: it doesn't count as served.
        let state = Service::from_word(&row.state).unwrap_or(Service::Unserved);
        Change { watch: row.watch, at: Timestamp(row.at_ms), state }
    });
    let time = availability(&watches, &changes.collect::<Vec<_>>(), from, now);
    let incidents = rows.incidents.iter().find(|(service, ..)| service == name);
    let recorded = rows.recorded_since_ms.iter().find(|(service, _)| service == name);
    ServiceSince {
        service: name.to_owned(),
        served_share: time.share(),
        time,
        incidents: incidents.map_or(0, |(_, count, _)| *count),
        requests_lost: incidents.map_or(0, |(_, _, lost)| *lost),
        recorded_since_ms: recorded.map(|(_, at)| *at),
    }
}

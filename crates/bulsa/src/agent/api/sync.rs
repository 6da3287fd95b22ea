//! `/v1/sync`: files of services, on their way from whoever watches them into containers.
//!
//! Owns: that only containers of the named project are touched, and passing on what comes. Never: holds an archive; its
//! pieces go to the Engine as they arrive.

use std::{collections::BTreeSet, io};

use axum::{
    Json,
    extract::{Query, Request as HttpRequest, State},
    http::StatusCode,
    response::Response,
};
use bulsa_core::{
    spec::container::Hook,
    wire::api::{SyncNews, SyncOwner, SyncRan, SyncRun},
};
use futures_util::TryStreamExt as _;
use serde::Deserialize;

use super::{
    Failure, Server,
    streams::{self, Lines},
};
use crate::agent::{
    docker::{Docker, DockerError, ExecOutcome},
    watchers::{WATCHERS_MAX, Watching},
};

#[derive(Deserialize)]
pub(super) struct NewsQuery {
    project: String,
    /// With commas between them.
    services: String,
}

/// Its lines are the news; the watcher is one as long as it listens.
pub(super) async fn news(
    State(server): State<Server>,
    Query(query): Query<NewsQuery>,
) -> Result<Response, Failure> {
    let snapshot = std::sync::Arc::clone(&server.driver.snapshot.borrow());
    snapshot.project(&query.project).ok_or_else(|| Failure::no_project(&query.project))?;
    // One that the project doesn't have yet may come with a deploy.
    let services: BTreeSet<String> = query.services.split(',').map(str::to_owned).collect();
    let watching = server.driver.watchers.watch(&query.project, services).ok_or_else(|| {
        let text = format!("{WATCHERS_MAX} others watch files already");
        Failure::new(StatusCode::CONFLICT, text, Some("end one of their `bulsa up --watch`"))
    })?;
    Ok(streams::ndjson(NewsStream(watching), server.stopping))
}

struct NewsStream(Watching);

impl Lines for NewsStream {
    type Item = SyncNews;

    async fn next(&mut self) -> Option<Vec<SyncNews>> {
        self.0.next().await.map(|news| vec![news])
    }
}

#[derive(Deserialize)]
pub(super) struct FilledQuery {
    ticket: u64,
}

/// The files that a start waits for are in.
pub(super) async fn filled(State(server): State<Server>, Query(query): Query<FilledQuery>) -> Json<()> {
    server.driver.watchers.filled(query.ticket);
    Json(())
}

#[derive(Deserialize)]
pub(super) struct PlaceQuery {
    project: String,
    container: String,
    path: String,
}

/// Unpacks the body, a tar, at a path of a container.
pub(super) async fn files(
    State(server): State<Server>,
    Query(query): Query<PlaceQuery>,
    request: HttpRequest,
) -> Result<Json<()>, Failure> {
    let engine = engine_of(&server, &query.project, &query.container).await?;
    let tar = request.into_body().into_data_stream().map_err(io::Error::other);
    engine.put(&query.container, &query.path, tar).await.map_err(|error| failed(&error))?;
    Ok(Json(()))
}

/// Whose a path of a container is.
pub(super) async fn owner(
    State(server): State<Server>,
    Query(query): Query<PlaceQuery>,
) -> Result<Json<SyncOwner>, Failure> {
    let engine = engine_of(&server, &query.project, &query.container).await?;
    engine.owner_of(&query.container, &query.path).await.map(Json).map_err(|error| failed(&error))
}

/// Runs a command in a container.
pub(super) async fn run(
    State(server): State<Server>,
    Json(run): Json<SyncRun>,
) -> Result<Json<SyncRan>, Failure> {
    let engine = engine_of(&server, &run.project, &run.container).await?;
    let hook = Hook {
        command: run.command,
        user: run.user,
        privileged: run.privileged,
        working_dir: run.working_dir,
        environment: run.environment,
    };
    Ok(Json(match engine.run_hook(&run.container, &hook).await {
        ExecOutcome::Exited { code, output } => SyncRan::Ended { code, output },
        ExecOutcome::TimedOut { output } => SyncRan::TooLong { output },
        ExecOutcome::CouldNotRun { reason } => SyncRan::Not { reason },
    }))
}

/// The Engine, where it has such a container of the project, ours or one that Compose made.
async fn engine_of(server: &Server, project: &str, container: &str) -> Result<Docker, Failure> {
    let engine = server.driver.watchers.engine().await.ok_or_else(|| {
        let text = "the Docker Engine was not reached yet";
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, text, None)
    })?;
    let found = engine.inspect(container).await.map_err(|error| failed(&error))?;
    // One of another project, or that another daemon made, is none of those who ask here.
    let is_known = |id: &str| {
        let snapshot = server.driver.snapshot.borrow();
        let services = snapshot.project(project).into_iter().flat_map(|project| &project.services);
        let mut replicas = services.flat_map(|service| &service.replicas);
        replicas.any(|replica| replica.container.as_deref() == Some(id))
    };
    match found {
        Some(found) if found.project == project && (found.ours || is_known(&found.id)) => Ok(engine),
        _ => Err(Failure::new(StatusCode::NOT_FOUND, "there is no such container any more", None)),
    }
}

fn failed(error: &DockerError) -> Failure {
    let status = match error.status() {
        Some(404) => StatusCode::NOT_FOUND,
        Some(_) => StatusCode::CONFLICT,
        // An Engine that is away may be back in a moment.
        None => StatusCode::SERVICE_UNAVAILABLE,
    };
    Failure::new(status, error.to_string(), None)
}

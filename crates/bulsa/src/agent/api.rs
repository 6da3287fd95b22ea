//! The local API: HTTP/1.1 over a Unix socket, for the command line, the dashboard and scripts.
//!
//! Owns: the paths under `/v1`, who may connect, and how streams follow what is published. Never: changes anything
//! itself, or reads the driver's state; it passes requests on through a [`DriverHandle`] and shows what the driver
//! published, so that no number of readers slows the driver down.
//!
//! ```text
//!  POST /v1/request                         a Request, one Answer
//!  GET  /v1/snapshot?after=N&wait_ms=M      the Snapshot; waits for one with a higher number than N
//!  GET  /v1/deploys/{project}/{id}/progress?after=N   ProgressV1 a line: what was said, then what is said
//!  GET  /v1/events?project=&after=N&last=N&follow=    Event a line: from the store, then live
//!  GET  /v1/releases?project=               ReleaseView list
//!  GET  /v1/sources?project=&release=N      SourceFile list: what the release was read from
//!  GET  /v1/why?project=&service=&last=N    Why: a service's last incidents, and what is made of them
//!  GET  /v1/logs?project=&service=&tail=N&follow=     LogLine a line
//!  GET  /v1/since?project=&ms=N              SinceView: how much of the last N ms the project's services were served
//!  POST /v1/notify/test                     a NotifyTest; NotifyTested list: what came of a try of each URL
//!  GET  /v1/sync/news?project=&services=A,B  SyncNews a line: containers that start, and wait for the listener's files
//!  POST /v1/sync/filled?ticket=N             such a container has its files
//!  POST /v1/sync/files?project=&container=&path=   a tar; it is unpacked at the path
//!  GET  /v1/sync/owner?project=&container=&path=   SyncOwner: whose the path is
//!  POST /v1/sync/run                         a SyncRun; SyncRan: what came of it
//! ```
//!
//! Every driver answer is HTTP 200; another status carries an [`ApiError`]. The socket's mode and the peer's user id
//! keep everyone out but the daemon's own user and root. Connections, bodies, waits and streams have limits, below.

mod door;
mod logs;
mod since;
mod streams;
mod sync;

use std::{future::Future, os::unix::net::UnixListener, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{ConnectInfo, DefaultBodyLimit, Path, Query, Request as HttpRequest, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bulsa_core::wire::api::{
    Answer, ApiError, Event, Incident, NotifyTest, NotifyTested, PREPARE_SECS_MAX, ReleaseView, Request,
    Snapshot, SourceFile, Why,
};
use serde::Deserialize;
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use self::{
    door::{Door, Peer},
    streams::{EventStream, ProgressStream},
};
use super::{driver::Clock, notify::Tester, store::Store, watchers::Watchers};

/// At most this many connections at once; further ones wait in the listen queue.
pub const CONNECTIONS_MAX: usize = 128;
/// A request's body is at most this long, in bytes: a spec with its source files.
pub const BODY_MAX_BYTES: usize = 16 * 1024 * 1024;
/// How long a request may wait for room in the driver's queue.
pub const QUEUE_WAIT: Duration = Duration::from_secs(5);
/// How long the driver may take to answer; what it accepts goes on in the background and isn't waited for.
pub const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// The longest that one long poll waits.
pub const LONG_POLL_MAX: Duration = Duration::from_secs(60);
/// How long a deployment that was just accepted may take to appear in a snapshot.
pub const APPEAR_WAIT: Duration = Duration::from_millis(500);
/// How long open connections may take to finish once the server is told to stop.
pub const STOP_WAIT: Duration = Duration::from_secs(2);
/// How many events are shown when nobody says.
pub const EVENTS_SHOWN: u64 = 50;
/// How many incidents are shown when nobody says.
pub const INCIDENTS_SHOWN: u64 = 5;
/// How many lines of each log are shown when nobody says.
pub const LOG_TAIL: u32 = 100;

/// A request on its way to the driver, with the place for its one answer.
pub type Asked = (Request, oneshot::Sender<Answer>);

/// How the API reaches the driver and what it publishes.
///
/// The driver publishes a snapshot that shows a deployment *before* it answers that it accepted it.
#[derive(Clone, Debug)]
pub struct DriverHandle {
    /// Its queue of requests.
    pub requests: mpsc::Sender<Asked>,
    /// What it published last.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// What happens, as it happens; subscribed to for each stream.
    pub events: broadcast::Sender<Event>,
    /// History.
    pub store: Store,
    /// Tries the URLs that a project's messages go to.
    pub tester: Tester,
    /// Who puts files into containers.
    pub watchers: Watchers,
    pub(in crate::agent) clock: Clock,
}

#[derive(Clone)]
struct Server {
    driver: DriverHandle,
    stopping: CancellationToken,
}

/// Serves the API on `listener` until `shutdown` ends; then streams end, and open connections get [`STOP_WAIT`].
///
/// The listener's socket file, its mode 0600 included, belongs to whoever bound it.
///
/// # Errors
/// When the listener can't be used.
pub async fn serve(
    listener: UnixListener,
    driver: DriverHandle,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let door = Door::new(tokio::net::UnixListener::from_std(listener)?);
    let stopping = CancellationToken::new();
    let app = router(Server { driver, stopping: stopping.clone() });
    let told = stopping.clone();
    let graceful = async move {
        shutdown.await;
        told.cancel();
    };
    let serving = axum::serve(door, app.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(graceful)
        .into_future();
    let too_long = async {
        stopping.cancelled().await;
        tokio::time::sleep(STOP_WAIT).await;
    };
    tokio::select! {
        result = serving => result,
        () = too_long => Ok(()),
    }
}

fn router(server: Server) -> Router {
    Router::new()
        .route("/v1/request", post(request))
        .route("/v1/snapshot", get(snapshot))
        .route("/v1/deploys/{project}/{id}/progress", get(progress))
        .route("/v1/events", get(events))
        .route("/v1/releases", get(releases))
        .route("/v1/sources", get(sources))
        .route("/v1/why", get(why))
        .route("/v1/logs", get(logs))
        .route("/v1/notify/test", post(notify_test))
        .route("/v1/since", get(since::since))
        .route("/v1/sync/news", get(sync::news))
        .route("/v1/sync/filled", post(sync::filled))
        .route("/v1/sync/files", post(sync::files))
        .route("/v1/sync/owner", get(sync::owner))
        .route("/v1/sync/run", post(sync::run))
        .fallback(|| async { Failure::new(StatusCode::NOT_FOUND, "this daemon has no such path", None) })
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .layer(middleware::from_fn(only_our_user))
        .with_state(server)
}

/// An answer that isn't one of the driver's.
struct Failure(StatusCode, ApiError);

impl Failure {
    fn new(status: StatusCode, error: impl Into<String>, hint: Option<&str>) -> Self {
        Self(status, ApiError { error: error.into(), hint: hint.map(str::to_owned) })
    }

    fn no_project(name: &str) -> Self {
        let hint = "`bulsa status` lists the projects";
        Self::new(StatusCode::NOT_FOUND, format!("there is no project `{name}`"), Some(hint))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

/// The file's mode keeps others out already; this holds also when somebody loosened it.
async fn only_our_user(ConnectInfo(peer): ConnectInfo<Peer>, request: HttpRequest, next: Next) -> Response {
    if peer.may_ask() {
        return next.run(request).await;
    }
    let hint = "ask as root or as the user that runs the daemon";
    Failure::new(StatusCode::FORBIDDEN, "this daemon belongs to another user", Some(hint)).into_response()
}

async fn request(
    State(server): State<Server>,
    Json(request): Json<Request>,
) -> Result<Json<Answer>, Failure> {
    let gone = || {
        let hint = "it is started again by itself; try again in a second";
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the agent is going down", Some(hint))
    };
    // A deploy is answered once its images are here.
    let wait = match &request {
        Request::Deploy(_) => ANSWER_WAIT + Duration::from_secs(PREPARE_SECS_MAX),
        _ => ANSWER_WAIT,
    };
    let (answer, answered) = oneshot::channel();
    server.driver.requests.send_timeout((request, answer), QUEUE_WAIT).await.map_err(
        |error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => {
                let text = "the driver has too many requests waiting; this one was not begun";
                Failure::new(StatusCode::SERVICE_UNAVAILABLE, text, Some("try again in a moment"))
            }
            mpsc::error::SendTimeoutError::Closed(_) => gone(),
        },
    )?;
    match timeout(wait, answered).await {
        Ok(Ok(answer)) => Ok(Json(answer)),
        Ok(Err(_)) => Err(gone()),
        Err(_) => {
            let text = format!("the driver did not answer within {} s; it may still do it", wait.as_secs());
            Err(Failure::new(StatusCode::GATEWAY_TIMEOUT, text, Some("see what it does with `bulsa status`")))
        }
    }
}

#[derive(Deserialize)]
struct SnapshotQuery {
    after: Option<u64>,
    #[serde(default)]
    wait_ms: u64,
}

async fn snapshot(State(server): State<Server>, Query(query): Query<SnapshotQuery>) -> Json<Snapshot> {
    let mut published = server.driver.snapshot.clone();
    if let Some(after) = query.after {
        let wait = Duration::from_millis(query.wait_ms).min(LONG_POLL_MAX);
        let newer = published.wait_for(|snapshot| snapshot.number > after);
        // Nothing newer in time, a driver that ended, or a server that stops: then the last one is the answer.
        tokio::select! {
            result = timeout(wait, newer) => drop(result),
            () = server.stopping.cancelled() => {}
        }
    }
    Json(Snapshot::clone(&published.borrow()))
}

#[derive(Deserialize)]
struct ProgressQuery {
    #[serde(default)]
    after: u32,
}

async fn progress(
    State(server): State<Server>,
    Path((project, id)): Path<(String, u32)>,
    Query(query): Query<ProgressQuery>,
) -> Result<Response, Failure> {
    let mut published = server.driver.snapshot.clone();
    let shown = |snapshot: &Arc<Snapshot>| {
        snapshot.project(&project).is_some_and(|p| p.deployments.iter().any(|d| d.id == id))
    };
    if !shown(&published.borrow()) {
        let row = server.driver.store.deployment(project.clone(), id).await.map_err(store_failed)?;
        let appeared = async {
            row.is_some() || timeout_at(Instant::now() + APPEAR_WAIT, published.wait_for(shown)).await.is_ok()
        };
        if !appeared.await {
            let text = format!("project `{project}` has no deploy {id}");
            return Err(Failure::new(
                StatusCode::NOT_FOUND,
                text,
                Some("`bulsa status` shows the last deploy"),
            ));
        }
    }
    let stream = ProgressStream::new(server.driver, project, id, query.after);
    Ok(streams::ndjson(stream, server.stopping))
}

#[derive(Deserialize)]
struct EventsQuery {
    project: Option<String>,
    after: Option<u64>,
    last: Option<u64>,
    #[serde(default)]
    follow: bool,
}

async fn events(State(server): State<Server>, Query(query): Query<EventsQuery>) -> Result<Response, Failure> {
    let mut stream = EventStream::new(server.driver, query.project, query.follow);
    match query.after {
        Some(after) => stream.start_after(after),
        None => stream.start_with_last(query.last.unwrap_or(EVENTS_SHOWN)).await.map_err(store_failed)?,
    }
    Ok(streams::ndjson(stream, server.stopping))
}

#[derive(Deserialize)]
struct ReleasesQuery {
    project: String,
}

async fn releases(
    State(server): State<Server>,
    Query(query): Query<ReleasesQuery>,
) -> Result<Json<Vec<ReleaseView>>, Failure> {
    let snapshot = Arc::clone(&server.driver.snapshot.borrow());
    let project = snapshot.project(&query.project).ok_or_else(|| Failure::no_project(&query.project))?;
    Ok(Json(project.releases.clone()))
}

#[derive(Deserialize)]
struct SourcesQuery {
    project: String,
    release: u32,
}

async fn sources(
    State(server): State<Server>,
    Query(query): Query<SourcesQuery>,
) -> Result<Json<Vec<SourceFile>>, Failure> {
    let SourcesQuery { project, release } = query;
    let stored = server.driver.store.sources(project.clone(), release).await.map_err(store_failed)?;
    let text = stored.ok_or_else(|| {
        let text = format!("project `{project}` has no release {release}");
        Failure::new(StatusCode::NOT_FOUND, text, Some("`bulsa releases` lists them"))
    })?;
    // What can't be read was written by something else: nothing is known of the files then.
    Ok(Json(serde_json::from_str(&text).unwrap_or_default()))
}

#[derive(Deserialize)]
struct WhyQuery {
    project: String,
    service: String,
    last: Option<u64>,
}

async fn why(State(server): State<Server>, Query(query): Query<WhyQuery>) -> Result<Json<Why>, Failure> {
    let WhyQuery { project, service, last } = query;
    let last = last.unwrap_or(INCIDENTS_SHOWN);
    let rows = server.driver.store.incidents(project.clone(), Some(service.clone()), last).await;
    let incidents: Vec<Incident> = rows.map_err(store_failed)?.iter().rev().map(Incident::from).collect();
    let snapshot = Arc::clone(&server.driver.snapshot.borrow());
    let shown = snapshot.project(&project).ok_or_else(|| Failure::no_project(&project))?;
    let view = shown.service(&service).ok_or_else(|| no_service(&project, &service))?;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    Ok(Json(bulsa_core::why::why(view, incidents, u64::try_from(now).unwrap_or(u64::MAX))))
}

fn no_service(project: &str, service: &str) -> Failure {
    let text = format!("project `{project}` has no service `{service}`");
    Failure::new(StatusCode::NOT_FOUND, text, Some("`bulsa ps` lists the services"))
}

#[derive(Deserialize)]
struct LogsQuery {
    project: String,
    service: Option<String>,
    tail: Option<u32>,
    #[serde(default)]
    follow: bool,
}

async fn logs(State(server): State<Server>, Query(query): Query<LogsQuery>) -> Result<Response, Failure> {
    let snapshot = Arc::clone(&server.driver.snapshot.borrow());
    let project = snapshot.project(&query.project).ok_or_else(|| Failure::no_project(&query.project))?;
    if let Some(service) = &query.service
        && project.service(service).is_none()
    {
        return Err(no_service(&query.project, service));
    }
    let wanted = logs::Wanted {
        project: query.project,
        service: query.service,
        tail: query.tail.unwrap_or(LOG_TAIL),
        follow: query.follow,
    };
    Ok(streams::ndjson(logs::LogStream::new(server.driver.snapshot, wanted), server.stopping))
}

async fn notify_test(
    State(server): State<Server>,
    Json(asked): Json<NotifyTest>,
) -> Result<Json<Vec<NotifyTested>>, Failure> {
    let snapshot = Arc::clone(&server.driver.snapshot.borrow());
    snapshot.project(&asked.project).ok_or_else(|| Failure::no_project(&asked.project))?;
    let now = server.driver.clock.now();
    let (tester, project) = (&server.driver.tester, &asked.project);
    Ok(Json(match asked.url {
        Some(url) => tester.test_url(project, url, asked.format, now).await,
        None => tester.test(project, now).await,
    }))
}

fn store_failed(error: super::store::StoreError) -> Failure {
    Failure::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        error.to_string(),
        Some("look at the disk of the state directory"),
    )
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

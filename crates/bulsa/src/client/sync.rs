//! Files for containers: what whoever watches them says to the daemon.

use std::{io, time::Duration};

use bulsa_core::wire::api::{SyncNews, SyncOwner, SyncRan, SyncRun};
use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};
use http::Method;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::{ANSWER_MAX, Client, ClientError, LineStream, encode};

/// How long an archive or a command may take: longer than the daemon's own limits, so that its words reach us.
const WORK_MAX: Duration = Duration::from_secs(330);

/// A place in a container of a project.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The project.
    pub project: &'a str,
    /// The container's id.
    pub container: &'a str,
    /// The path in it; absolute.
    pub path: &'a str,
}

impl Place<'_> {
    fn query(&self) -> String {
        let Place { project, container, path } = self;
        format!("project={}&container={}&path={}", encode(project), encode(container), encode(path))
    }
}

impl Client {
    /// Watches services: as long as it is read, their containers start with the reader's files in them only.
    ///
    /// # Errors
    /// When the daemon doesn't answer, has no such project or service, or enough of those who watch.
    pub async fn sync_news(
        &self,
        project: &str,
        services: &[&str],
    ) -> Result<LineStream<SyncNews>, ClientError> {
        let services = services.join(",");
        self.stream(&format!("/v1/sync/news?project={}&services={}", encode(project), encode(&services)))
            .await
    }

    /// Says that a container that waits for its start has its files.
    ///
    /// # Errors
    /// When the daemon doesn't answer.
    pub async fn sync_filled(&self, ticket: u64) -> Result<(), ClientError> {
        let path = format!("/v1/sync/filled?ticket={ticket}");
        self.call(Method::POST, &path, Bytes::new(), ANSWER_MAX).await
    }

    /// Has a tar unpacked, which comes in pieces.
    ///
    /// # Errors
    /// When the daemon doesn't answer, or the Engine can't.
    pub async fn sync_files(
        &self,
        place: Place<'_>,
        mut tar: mpsc::Receiver<io::Result<Bytes>>,
    ) -> Result<(), ClientError> {
        let frames = stream::poll_fn(move |context| tar.poll_recv(context)).map_ok(Frame::data);
        let path = format!("/v1/sync/files?{}", place.query());
        self.call_with(Method::POST, &path, StreamBody::new(frames), WORK_MAX).await
    }

    /// Whose a place is.
    ///
    /// # Errors
    /// When the daemon doesn't answer, or the Engine can't say.
    pub async fn sync_owner(&self, place: Place<'_>) -> Result<SyncOwner, ClientError> {
        self.get(&format!("/v1/sync/owner?{}", place.query())).await
    }

    /// Runs a command.
    ///
    /// # Errors
    /// When the daemon doesn't answer, or there is no such container.
    pub async fn sync_run(&self, run: &SyncRun) -> Result<SyncRan, ClientError> {
        let body =
            serde_json::to_vec(run).map_err(|error| ClientError::Unreadable { detail: error.to_string() })?;
        self.call(Method::POST, "/v1/sync/run", body.into(), WORK_MAX).await
    }
}

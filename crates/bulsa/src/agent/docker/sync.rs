//! Files of whoever watches, put into containers.
//!
//! Owns: passing an archive on as it comes, and whose a place in a container is. Never: holds an archive in memory or on
//! a disk.

use std::{io, time::Duration};

use bollard::query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use bulsa_core::{compose::paths, spec::container::Hook, wire::api::SyncOwner};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

use super::{ANSWER_MAX, Docker, DockerError, ExecOutcome};

/// The longest that putting one archive into a container may take.
pub(crate) const PUT_MAX: Duration = Duration::from_secs(300);
/// The longest that a command after a copy may take.
pub(crate) const RUN_MAX: Duration = Duration::from_secs(300);
/// A tar's header has so many bytes; whose the file is stands in it.
const HEADER: usize = 512;

impl Docker {
    /// Unpacks a tar in a directory of a container, be it running or only made.
    ///
    /// # Errors
    /// If the Engine can't: no such container or directory, a root that may not be written.
    pub(crate) async fn put(
        &self,
        container: &str,
        directory: &str,
        tar: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), DockerError> {
        let options = UploadToContainerOptionsBuilder::new().path(directory).build();
        let client = self.client().clone().with_timeout(PUT_MAX);
        let work = client.upload_to_container(container, Some(options), bollard::body_try_stream(tar));
        self.call("asked to put files into a container", PUT_MAX, work).await
    }

    /// Whose a place in a container is, or, where nothing is there, the directory around it.
    ///
    /// # Errors
    /// If the Engine can't say.
    pub(crate) async fn owner_of(&self, container: &str, place: &str) -> Result<SyncOwner, DockerError> {
        let mut place = place;
        loop {
            match self.call("asked whose a file is", ANSWER_MAX, self.header(container, place)).await {
                Err(error) if error.status() == Some(404) && place != "/" => place = paths::directory(place),
                Ok(header) => return Ok(owner_in(&header)),
                Err(error) => return Err(error),
            }
        }
    }

    /// The first header of a place's archive. The rest isn't read: with the stream its connection ends.
    async fn header(&self, container: &str, place: &str) -> Result<Vec<u8>, bollard::errors::Error> {
        let options = DownloadFromContainerOptionsBuilder::new().path(place).build();
        let mut archive = std::pin::pin!(self.client().download_from_container(container, Some(options)));
        let mut header = Vec::with_capacity(HEADER);
        while header.len() < HEADER {
            let Some(chunk) = archive.next().await else { break };
            let room = HEADER - header.len();
            header.extend(chunk?.iter().take(room));
        }
        Ok(header)
    }

    /// Runs a command in a container, as a hook says.
    pub(crate) async fn run_hook(&self, container: &str, hook: &Hook) -> ExecOutcome {
        self.exec_as(container, &hook.command, RUN_MAX, Some(hook)).await
    }
}

/// What can't be read is root's.
fn owner_in(header: &[u8]) -> SyncOwner {
    let Ok(bytes) = <[u8; HEADER]>::try_from(header) else { return SyncOwner::default() };
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(&bytes);
    SyncOwner { uid: header.uid().unwrap_or_default(), gid: header.gid().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_read_from_the_first_header() {
        let mut header = tar::Header::new_gnu();
        header.set_uid(1000);
        header.set_gid(33);
        assert_eq!(owner_in(header.as_bytes()), SyncOwner { uid: 1000, gid: 33 });
        assert_eq!(owner_in(b"short"), SyncOwner::default());
    }
}

//! How much room there is for images and containers.
//!
//! Owns: finding the Engine's directory and its file system's free space, and the words for too little of it. Never:
//! decides how much is enough; that is [`bulsa_core::room`]'s.

use bollard::Docker;
use bulsa_core::room::DISK_MIN_BYTES;

use super::ImageProblem;

/// The room where the Engine keeps images and containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// The Engine's directory on this host.
    pub directory: String,
    /// Free bytes.
    pub free: u64,
    /// All bytes.
    pub total: u64,
}

/// Free space where the Engine keeps images; right for an Engine on this host only.
///
/// # Errors
/// [`ImageProblem::Engine`] when it doesn't say where that is, or the directory can't be looked at.
pub async fn disk_free(docker: &Docker) -> Result<Space, ImageProblem> {
    let problem =
        |detail: String| ImageProblem::Engine { what: "the directory of its images".to_owned(), detail };
    let info = docker.info().await.map_err(|error| problem(error.to_string()))?;
    let directory = info.docker_root_dir.unwrap_or_default();
    if directory.is_empty() {
        return Err(problem("it gave none".to_owned()));
    }
    let space = rustix::fs::statvfs(directory.as_str())
        .map_err(|error| problem(format!("{directory} can't be looked at: {error}")))?;
    Ok(Space {
        free: space.f_bavail.saturating_mul(space.f_frsize),
        total: space.f_blocks.saturating_mul(space.f_frsize),
        directory,
    })
}

/// Why nothing is pulled, built or begun: a disk that is about to be full. An image or a log more, and everything on it
/// stops.
pub async fn disk_problem(docker: &Docker) -> Option<String> {
    // A remote disk that can't be seen from here is nobody's reason to refuse a deploy.
    let space = disk_free(docker).await.ok()?;
    (space.free < DISK_MIN_BYTES).then(|| {
        format!(
            "the Docker Engine's disk has {} MiB left in {}: no release is begun on less than {} MiB; make room, for \
             example with `docker system df` and `docker image prune`",
            space.free >> 20,
            space.directory,
            DISK_MIN_BYTES >> 20
        )
    })
}

//! How much room there is for images and containers.
//!
//! Owns: finding the Engine's directory and its file system's free space. Never: decides whether it is enough.

use bollard::Docker;

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

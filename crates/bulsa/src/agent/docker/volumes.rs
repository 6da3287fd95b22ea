//! The named volumes of a project.
//!
//! Owns: making those that are missing, as Compose would name and label them. Never: removes or changes a volume: what
//! is in it is the user's.

use bollard::models::VolumeCreateRequest;
use bulsa_core::spec::{Spec, container::Volume};

use super::{ANSWER_MAX, Docker, DockerError, WORK_MAX, create::labels, label};

/// Compose's key of a volume.
const VOLUME: &str = "com.docker.compose.volume";

impl Docker {
    /// Makes the volumes of `spec` that are missing; returns the names of those that it made.
    ///
    /// One that is there is used as it is, whoever made it, as Compose does; it is noted where the labels say that it
    /// is another project's. Compose's `config-hash` is left out: Compose would ask to remake a volume whose hash isn't
    /// its own.
    ///
    /// # Errors
    /// Every volume that can't be had, at once; the others are there then.
    pub async fn ensure_volumes(&self, spec: &Spec) -> Result<Vec<String>, Vec<DockerError>> {
        let (mut made, mut errors) = (Vec::new(), Vec::new());
        for (key, volume) in &spec.volumes {
            match self.ensure_volume(key, volume, &spec.project).await {
                Ok(true) => made.push(volume.name.clone()),
                Ok(false) => {}
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(made) } else { Err(errors) }
    }

    /// Whether it was made.
    async fn ensure_volume(&self, key: &str, volume: &Volume, project: &str) -> Result<bool, DockerError> {
        let name = &volume.name;
        let work = self.client().inspect_volume(name);
        match self.call(&format!("asked about volume {name}"), ANSWER_MAX, work).await {
            Ok(there) => {
                let theirs = there.labels.get(labels::PROJECT).map(String::as_str).unwrap_or_default();
                if !volume.external && theirs != project {
                    tracing::warn!(
                        volume = name,
                        project = theirs,
                        "a volume of another project, or of none, is used; `external: true` says that it is meant"
                    );
                }
                return Ok(false);
            }
            Err(error) if error.status() == Some(404) => {}
            Err(error) => return Err(error),
        }
        if volume.external {
            return Err(DockerError::Resource(format!(
                "volume {name} (`{key}`) is external and isn't there: make it with `docker volume create {name}`"
            )));
        }
        let request = request(key, volume, project, self.owner());
        let work = self.client().create_volume(request);
        self.call(&format!("asked to make volume {name}"), WORK_MAX, work).await?;
        Ok(true)
    }
}

fn request(key: &str, volume: &Volume, project: &str, owner: &str) -> VolumeCreateRequest {
    let mut labels = volume.labels.clone();
    for (name, value) in [
        (labels::PROJECT, project),
        (VOLUME, key),
        (labels::VERSION, env!("CARGO_PKG_VERSION")),
        (label::OWNER, owner),
        (label::PROJECT, project),
    ] {
        labels.insert(name.to_owned(), value.to_owned());
    }
    VolumeCreateRequest {
        name: Some(volume.name.clone()),
        driver: volume.driver.clone(),
        driver_opts: (!volume.driver_options.is_empty())
            .then(|| volume.driver_options.clone().into_iter().collect()),
        labels: Some(labels.into_iter().collect()),
        cluster_volume_spec: None,
    }
}

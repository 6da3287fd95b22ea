//! The named volumes of a project.
//!
//! Owns: making those that are missing, as Compose would name and label them. Never: removes or changes a volume that a
//! container may have had: what is in it is the user's.

use bollard::{models::VolumeCreateRequest, query_parameters::RemoveVolumeOptions};
use bulsa_core::spec::{Spec, container::Volume};

use super::{ANSWER_MAX, Docker, DockerError, WORK_MAX, create::labels, label};

/// Compose's key of a volume.
const VOLUME: &str = "com.docker.compose.volume";

/// The Engine's own driver: a new volume of it is empty.
const LOCAL_DRIVER: &str = "local";

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
        let (made, errors) = self.make_volumes(spec).await;
        if errors.is_empty() { Ok(made) } else { Err(errors) }
    }

    /// The same, with the names of those that it made also where others can't be had.
    pub async fn make_volumes(&self, spec: &Spec) -> (Vec<String>, Vec<DockerError>) {
        let (mut made, mut errors) = (Vec::new(), Vec::new());
        for (key, volume) in &spec.volumes {
            match self.ensure_volume(key, volume, &spec.project).await {
                Ok(true) => made.push(volume.name.clone()),
                Ok(false) => {}
                Err(error) => errors.push(error),
            }
        }
        (made, errors)
    }

    /// Removes a volume that was just made here for `project`, and that nothing has used; any other one stays.
    ///
    /// # Errors
    /// If the Engine can't. One that is gone, or is in use, is fine.
    pub async fn remove_new_volume(&self, project: &str, name: &str) -> Result<(), DockerError> {
        let work = self.client().inspect_volume(name);
        let there = match self.call(&format!("asked about volume {name}"), ANSWER_MAX, work).await {
            Err(error) if error.status() == Some(404) => return Ok(()),
            there => there?,
        };
        let is_ours = there.labels.get(label::OWNER).is_some_and(|owner| owner == self.owner())
            && there.labels.get(label::PROJECT).is_some_and(|of| of == project);
        // A driver from elsewhere may lead to data that was there before.
        if !is_ours || there.driver != LOCAL_DRIVER {
            return Ok(());
        }
        let work = self.client().remove_volume(name, None::<RemoveVolumeOptions>);
        match self.call(&format!("asked to remove volume {name}"), WORK_MAX, work).await {
            Err(error) if matches!(error.status(), Some(404 | 409)) => Ok(()),
            result => result,
        }
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

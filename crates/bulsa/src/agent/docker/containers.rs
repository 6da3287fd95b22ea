//! What is done with containers that exist.
//!
//! Owns: listing, looking at, stopping, killing, renaming and removing. Never: decides which.

use std::{collections::HashMap, time::Duration};

use bollard::{
    models::{ContainerSummary, ContainerUpdateBody},
    query_parameters::{
        KillContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
        RenameContainerOptionsBuilder, StopContainerOptionsBuilder,
    },
};
use bulsa_core::spec::{
    Role,
    container::{Container, Hook},
};

use super::{
    ANSWER_MAX, Docker, DockerError, Found, WORK_MAX,
    create::{host, labels},
    label,
};

/// The longest grace that is passed on: the Engine takes whole seconds, and nobody means more.
const GRACE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

impl Docker {
    /// Every container of ours, and what Compose made for the [adopted](Docker::adopt) projects.
    ///
    /// # Errors
    /// If the Engine gives no list. A container that goes away meanwhile is left out.
    pub async fn list(&self) -> Result<Vec<Found>, DockerError> {
        let mut listed = self.summaries(&[format!("{}={}", label::OWNER, self.owner())]).await?;
        for project in self.adopted() {
            let filters = [format!("{}={project}", labels::PROJECT), format!("{}=False", labels::ONEOFF)];
            for summary in self.summaries(&filters).await? {
                if listed.iter().all(|known| known.id != summary.id) {
                    listed.push(summary);
                }
            }
        }
        let mut all = Vec::with_capacity(listed.len());
        for summary in listed {
            let Some(id) = summary.id.clone() else { continue };
            match self.inspect(&id).await {
                Ok(found) => all.extend(found),
                // What isn't in the list counts as gone; so one that is broken is in it as far as it is known.
                Err(error) if error.status().is_some_and(|status| status >= 500) => {
                    tracing::warn!(container = id, %error, "the Engine can't say much of a container");
                    all.extend(Found::of_summary(summary, self.owner()));
                }
                Err(error) => return Err(error),
            }
        }
        // What another daemon made belongs to it, though it has Compose's labels too.
        all.retain(|found| found.ours || !found.labels.contains_key(label::OWNER));
        Ok(all)
    }

    /// What Compose made for a service of a project, aside from ours.
    ///
    /// # Errors
    /// If the Engine can't say.
    pub async fn made_by_compose(&self, project: &str, service: &str) -> Result<Vec<Found>, DockerError> {
        let filters = [
            format!("{}={project}", labels::PROJECT),
            format!("{}={service}", labels::SERVICE),
            format!("{}=False", labels::ONEOFF),
        ];
        let mut all = Vec::new();
        for id in self.ids(&filters).await? {
            all.extend(self.inspect(&id).await?.filter(|found| !found.labels.contains_key(label::OWNER)));
        }
        Ok(all)
    }

    /// The ids of the containers that have all of these labels, running or not, newest first.
    pub(super) async fn ids(&self, labels: &[String]) -> Result<Vec<String>, DockerError> {
        let all = self.summaries(labels).await?;
        Ok(all.into_iter().filter_map(|container| container.id).collect())
    }

    async fn summaries(&self, labels: &[String]) -> Result<Vec<ContainerSummary>, DockerError> {
        let filters = HashMap::from([("label", labels.to_vec())]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let work = self.client().list_containers(Some(options));
        self.call("asked for its containers", ANSWER_MAX, work).await
    }

    /// One container, by id or name; `None` if there is none.
    ///
    /// # Errors
    /// If the Engine can't say.
    pub async fn inspect(&self, container: &str) -> Result<Option<Found>, DockerError> {
        let work = self.client().inspect_container(container, None);
        match self.call(&format!("asked about container {container}"), ANSWER_MAX, work).await {
            Ok(answer) => Ok(Found::read(answer, self.owner())),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Starts a container that exists and doesn't run.
    ///
    /// # Errors
    /// If the Engine can't. One that runs already is fine.
    pub async fn start_existing(&self, container: &str) -> Result<(), DockerError> {
        let work = self.client().start_container(container, None);
        self.call(&format!("asked to start container {container}"), WORK_MAX, work).await
    }

    /// Runs the `pre_stop` hooks, then has the Engine stop it: its own stop signal, and SIGKILL after `grace` (in whole
    /// seconds, rounded up). Returns when it is down. A hook that fails is only noted: it must still stop.
    ///
    /// # Errors
    /// If the Engine can't. One that is down or gone already is fine.
    pub async fn stop(&self, container: &str, grace: Duration, pre_stop: &[Hook]) -> Result<(), DockerError> {
        let grace = grace.min(GRACE_MAX);
        if let Err(error) = self.hooks(container, pre_stop, grace).await {
            tracing::warn!(container, error, "a pre_stop hook failed; the container is stopped nevertheless");
        }
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let options =
            StopContainerOptionsBuilder::new().t(i32::try_from(seconds).unwrap_or(i32::MAX)).build();
        // The answer comes when it is down, so the client has to have the patience.
        let patience = Duration::from_secs(seconds) + WORK_MAX;
        let client = self.client().clone().with_timeout(patience);
        let work = client.stop_container(container, Some(options));
        is_fine(self.call(&format!("asked to stop container {container}"), patience, work).await, &[304, 404])
    }

    /// SIGKILL, without any grace.
    ///
    /// # Errors
    /// If the Engine can't. One that is down or gone already is fine.
    pub async fn kill(&self, container: &str) -> Result<(), DockerError> {
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        let work = self.client().kill_container(container, Some(options));
        is_fine(
            self.call(&format!("asked to kill container {container}"), ANSWER_MAX, work).await,
            &[404, 409],
        )
    }

    /// Removes it, with its anonymous volumes if `volumes`; one that runs is killed.
    ///
    /// # Errors
    /// If the Engine can't. One that is gone, or is being removed already, is fine.
    pub async fn remove(&self, container: &str, volumes: bool) -> Result<(), DockerError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(volumes).build();
        let client = self.client().clone().with_timeout(WORK_MAX);
        let work = client.remove_container(container, Some(options));
        is_fine(
            self.call(&format!("asked to remove container {container}"), WORK_MAX, work).await,
            &[404, 409],
        )
    }

    /// Says how Docker itself starts a container again from now on; `None`: not at all.
    ///
    /// # Errors
    /// If the Engine can't.
    pub async fn set_restart(&self, container: &str, of: Option<&Container>) -> Result<(), DockerError> {
        let policy = of.map_or_else(host::no_restart, |of| host::restart_policy(Role::Shared, of));
        let body = ContainerUpdateBody { restart_policy: Some(policy), ..ContainerUpdateBody::default() };
        let work = self.client().update_container(container, body);
        self.call(&format!("asked to change the restart policy of {container}"), ANSWER_MAX, work).await
    }

    /// Lets a container use so many bytes of memory, swap included, and no more.
    ///
    /// # Errors
    /// If the Engine can't, or the kernel takes no limit below what is used.
    pub async fn limit_memory(&self, container: &str, bytes: u64) -> Result<(), DockerError> {
        let bytes = Some(i64::try_from(bytes).unwrap_or(i64::MAX));
        let body =
            ContainerUpdateBody { memory: bytes, memory_swap: bytes, ..ContainerUpdateBody::default() };
        let work = self.client().update_container(container, body);
        self.call(&format!("asked to limit the memory of {container}"), ANSWER_MAX, work).await
    }

    /// Gives it another name.
    ///
    /// # Errors
    /// If the Engine can't, or the name is taken (status 409).
    pub async fn rename(&self, container: &str, name: &str) -> Result<(), DockerError> {
        let options = RenameContainerOptionsBuilder::new().name(name).build();
        let work = self.client().rename_container(container, options);
        self.call(&format!("asked to name container {container} {name}"), ANSWER_MAX, work).await
    }
}

fn is_fine(result: Result<(), DockerError>, statuses: &[u16]) -> Result<(), DockerError> {
    match result {
        Err(error) if error.status().is_some_and(|status| statuses.contains(&status)) => Ok(()),
        result => result,
    }
}

//! Making and starting one replica.
//!
//! Owns: the order (make, join, put files in, those of whoever watches too, start, `post_start`), that a second call finds
//! what the first one made, and that a failure leaves nothing. Never: tries again; that is decided elsewhere.

use std::time::Duration;

use bollard::{models::NetworkConnectRequest, query_parameters::CreateContainerOptionsBuilder};
use bulsa_core::spec::{
    Role,
    container::{Container, Hook},
};

use super::{
    Docker, DockerError, ExecOutcome, Found, StartProblem, State, WORK_MAX,
    create::{self, Others, Plan, StartReplica, labels, mounts},
    label, recreate,
};

/// The longest that one `post_start` hook may take.
const HOOK_MAX: Duration = Duration::from_secs(300);

/// A replica's container.
#[derive(Clone, Debug)]
pub struct Running {
    /// As it was seen last. It may have ended since, or even before: look at [`Found::state`].
    pub found: Found,
    /// Whether this call made it; else it was there already.
    pub made: bool,
    /// What this Engine can't keep of the file, and what it warned of.
    pub notes: Vec<String>,
}

impl Docker {
    /// Makes and starts the container of a replica.
    ///
    /// One that has the replica's label already is returned as it is, whatever became of it, and none is made beside
    /// it; but one of ours that was never started is half-made, and is made anew. A backing service has one container
    /// for all its lives, Compose's included: its data may be in it. Only where it [is recreated](StartReplica::recreates)
    /// the one that it had is set aside, and a new one gets its volumes. On a failure what was made is removed.
    ///
    /// # Errors
    /// Why it doesn't run, in plain words.
    pub async fn start(&self, start: &StartReplica<'_>) -> Result<Running, StartProblem> {
        let container = create::container_of(start.service)?;
        let (existing, before) = self.existing(start).await?;
        if let Some(found) = existing {
            if found.state != State::Created || !found.ours {
                let found = self.take_up(start, container, found).await?;
                return Ok(Running { found, made: false, notes: Vec::new() });
            }
            self.remove(&found.id, true).await.map_err(StartProblem::from)?;
        }
        let carried = self.set_aside(start, container, &before).await?;
        let others = self.others(start, container).await?;
        let mut plan = create::plan(start, &self.engine(), self.owner(), &others)?;
        mounts::carry(container, &carried, plan.body.host_config.get_or_insert_default())?;
        let id = self.create(&mut plan, container).await?;
        match self.bring_up(start, &id, container, &mut plan).await {
            Ok(found) => Ok(Running { found, made: true, notes: plan.notes }),
            Err(problem) => {
                // Volumes that were carried over have names now, and so are never removed with it.
                if let Err(error) = self.remove(&id, true).await {
                    tracing::warn!(container = id, %error, "what a failed start left can't be removed");
                }
                Err(problem)
            }
        }
    }

    /// The container that the replica has already, and those of its `shared` service that it takes the place of.
    async fn existing(&self, start: &StartReplica<'_>) -> Result<(Option<Found>, Vec<Found>), StartProblem> {
        let is_shared = start.service.role == Role::Shared;
        let filters = if is_shared {
            vec![
                format!("{}={}", labels::PROJECT, start.project),
                format!("{}={}", labels::SERVICE, start.service.name),
                format!("{}={}", labels::NUMBER, start.id.ordinal),
                format!("{}=False", labels::ONEOFF),
            ]
        } else {
            vec![
                format!("{}={}", label::OWNER, self.owner()),
                format!("{}={}", label::PROJECT, start.project),
                format!("{}={}", label::REPLICA, start.id),
            ]
        };
        let look = async {
            let mut all = Vec::new();
            for id in self.ids(&filters).await? {
                all.extend(self.inspect(&id).await?);
            }
            Ok::<_, DockerError>(all)
        };
        let all = look.await.map_err(StartProblem::from)?;
        let (mut own, before) = if is_shared { recreate::split(start, all) } else { (all, Vec::new()) };
        own.sort_by_key(|found| !found.is_up());
        Ok((own.into_iter().next(), before))
    }

    /// The containers that `service:NAME` means: of the same release first, one that runs first, the lowest number
    /// first.
    async fn others(&self, start: &StartReplica<'_>, container: &Container) -> Result<Others, StartProblem> {
        let passing = StartProblem::from;
        let mut others = Others::new();
        for service in create::needed(container) {
            let filters = [
                format!("{}={}", labels::PROJECT, start.project),
                format!("{}={service}", labels::SERVICE),
                format!("{}=False", labels::ONEOFF),
            ];
            let mut all = Vec::new();
            for id in self.ids(&filters).await.map_err(passing)? {
                all.extend(self.inspect(&id).await.map_err(passing)?);
            }
            all.sort_by_key(|found| {
                (found.release != Some(start.id.release), !found.is_up(), found.number.unwrap_or(u32::MAX))
            });
            if let Some(first) = all.into_iter().next() {
                others.insert(service, first.id);
            }
        }
        Ok(others)
    }

    /// Makes it under the first of its names that is free.
    async fn create(&self, plan: &mut Plan, container: &Container) -> Result<String, StartProblem> {
        for name in &plan.names {
            let mut options = CreateContainerOptionsBuilder::new().name(name);
            if let Some(platform) = &plan.platform {
                options = options.platform(platform);
            }
            let client = self.client().clone().with_timeout(WORK_MAX);
            let work = client.create_container(Some(options.build()), plan.body.clone());
            match self.call(&format!("asked to make container {name}"), WORK_MAX, work).await {
                Ok(made) => {
                    plan.notes.extend(made.warnings);
                    return Ok(made.id);
                }
                Err(DockerError::Refused { status: 409, message, .. })
                    if message.contains("already in use") => {}
                Err(error) => return Err(StartProblem::from_engine(&error, &container.image)),
            }
        }
        Err(self.taken(&plan.names).await)
    }

    async fn taken(&self, names: &[String]) -> StartProblem {
        let name = names.first().map(String::as_str).unwrap_or_default();
        let holder = self.inspect(name).await.ok().flatten();
        let is_ours = holder.is_some_and(|holder| holder.ours);
        let advice = if is_ours {
            "by a replica of ours that has to go first".to_owned()
        } else {
            format!("by a container that isn't Bulsa's: remove it (`docker rm -f {name}`) or change the name")
        };
        let message = format!("the container name {} is taken {advice}", names.join(", "));
        StartProblem { permanent: !is_ours, ..StartProblem::passing(message) }
    }

    /// From made to running.
    async fn bring_up(
        &self,
        start: &StartReplica<'_>,
        id: &str,
        container: &Container,
        plan: &mut Plan,
    ) -> Result<Found, StartProblem> {
        let refused = |error: DockerError| StartProblem::from_engine(&error, &container.image);
        for (network, settings) in std::mem::take(&mut plan.later) {
            let request = NetworkConnectRequest { container: id.to_owned(), endpoint_config: Some(settings) };
            let work = self.client().connect_network(&network, request);
            self.call(&format!("asked to join network {network}"), WORK_MAX, work).await.map_err(refused)?;
        }
        self.upload(id, container).await?;
        if let Some(watchers) = start.watchers {
            plan.notes.extend(watchers.before_start(start.project, &start.id.service, id).await);
        }
        let client = self.client().clone().with_timeout(WORK_MAX);
        let work = client.start_container(id, None);
        self.call("asked to start a container", WORK_MAX, work).await.map_err(refused)?;
        self.hooks(id, &container.post_start, HOOK_MAX)
            .await
            .map_err(|error| StartProblem::passing(format!("a `post_start` hook failed: {error}")))?;
        let found = self
            .inspect(id)
            .await
            .map_err(StartProblem::from)?
            .ok_or_else(|| StartProblem::passing("somebody removed it while it was started"))?;
        if !found.is_up() && found.exit_code != 0 {
            let words = self.last_words(id, 1).await.unwrap_or_default();
            if let Some(problem) = words.last().and_then(|line| StartProblem::from_last_words(&line.text)) {
                return Err(problem);
            }
        }
        Ok(found)
    }

    /// Runs hooks in a container, one after the other, until one fails.
    pub(super) async fn hooks(&self, id: &str, hooks: &[Hook], limit: Duration) -> Result<(), String> {
        for hook in hooks {
            let told = hook.command.join(" ");
            match self.exec_as(id, &hook.command, limit, Some(hook)).await {
                ExecOutcome::Exited { code: 0, .. } => {}
                ExecOutcome::Exited { code, output } => {
                    return Err(format!("`{told}` ended with {code}: {output}"));
                }
                ExecOutcome::TimedOut { .. } => {
                    return Err(format!("`{told}` did not end within {} s", limit.as_secs()));
                }
                ExecOutcome::CouldNotRun { reason } => {
                    return Err(format!("`{told}` could not run: {reason}"));
                }
            }
        }
        Ok(())
    }
}

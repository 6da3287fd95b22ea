//! A `shared` service's container in place of another: the old one is set aside, and may come back.
//!
//! Owns: names, restart policies and anonymous volumes of both. Which container is whose is told by labels only; the name
//! of one that was set aside says what it was called before. Everything here may be repeated, by another agent too.
//! Never: stops or removes one that runs, removes a volume, or decides which of the two is wanted.

use bulsa_core::{
    ids::ReleaseId,
    spec::{
        container::Container,
        drift::{Made, MadeMount},
    },
};

use super::{
    Docker, Found, StartProblem, State,
    create::{self, StartReplica},
};

/// Between a name and the release that its container was set aside for.
const ASIDE: &str = "-before-r";

/// Those of a service's containers that are the replica's own, and those before it. Of what Compose made no label tells:
/// it is what a new one takes the place of, and else as good as our own.
pub(super) fn split(start: &StartReplica<'_>, all: Vec<Found>) -> (Vec<Found>, Vec<Found>) {
    let is_own = |found: &Found| match found.release {
        Some(release) => release == start.id.release,
        None => !start.recreates,
    };
    let (own, others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_own);
    let is_before = |found: &Found| found.release.unwrap_or_default() < start.id.release;
    (own, others.into_iter().filter(is_before).collect())
}

/// The name that a container had before it was set aside.
fn name_before(name: &str) -> Option<&str> {
    let (before, release) = name.rsplit_once(ASIDE)?;
    release.bytes().all(|byte| byte.is_ascii_digit()).then_some(before)
}

impl Docker {
    /// Makes room for a container in the place of others, which have to be down: their names are free then, Docker
    /// doesn't start them again. Gives the volumes without a name of the last of them.
    pub(super) async fn set_aside(
        &self,
        start: &StartReplica<'_>,
        container: &Container,
        before: &[Found],
    ) -> Result<Vec<MadeMount>, StartProblem> {
        let names = create::names(start, container);
        for found in before {
            if found.is_up() || found.state == State::Restarting {
                let text = format!("the container {} runs, and has to go first", found.name);
                return Err(StartProblem::passing(text));
            }
            if found.restarts {
                self.set_restart(&found.id, None).await.map_err(StartProblem::from)?;
            }
            if names.contains(&found.name) {
                let aside = format!("{}{ASIDE}{}", found.name, start.id.release.0);
                self.rename(&found.id, &aside).await.map_err(StartProblem::from)?;
            }
        }
        let last = before.iter().max_by_key(|found| found.started_at_ms);
        let Made { mounts, .. } = last.map(|found| found.made.clone()).unwrap_or_default();
        Ok(mounts.into_iter().filter(MadeMount::is_anonymous).collect())
    }

    /// A container that exists is taken up again, though it may have been set aside: it gets its name and its restart
    /// policy back.
    pub(super) async fn take_up(
        &self,
        start: &StartReplica<'_>,
        container: &Container,
        mut found: Found,
    ) -> Result<Found, StartProblem> {
        let is_down = !found.is_up() && found.state != State::Restarting;
        if is_down && !found.restarts && !start.recreates && name_or_policy_lost(&found, container) {
            self.set_restart(&found.id, Some(container)).await.map_err(StartProblem::from)?;
        }
        let Some(name) = name_before(&found.name).map(str::to_owned) else { return Ok(found) };
        if let Some(holder) = self.inspect(&name).await.map_err(StartProblem::from)? {
            self.clear_name(start, &found, &holder).await?;
        }
        self.rename(&found.id, &name).await.map_err(StartProblem::from)?;
        found.name = name;
        Ok(found)
    }

    /// Removes the container that was to take another's place, and holds its name.
    async fn clear_name(
        &self,
        start: &StartReplica<'_>,
        found: &Found,
        holder: &Found,
    ) -> Result<(), StartProblem> {
        let is_successor = holder.ours
            && (holder.project.as_str(), holder.service.as_str()) == (start.project, &start.service.name)
            && holder.release.unwrap_or_default() > found.release.unwrap_or(ReleaseId(0));
        if !is_successor || holder.is_up() || holder.state == State::Restarting {
            let text = format!("the container {} holds the name that {} had before", holder.id, found.name);
            return Err(StartProblem::passing(text));
        }
        self.remove(&holder.id, false).await.map_err(StartProblem::from)
    }
}

/// Whether it was set aside, or the file has a policy that it no longer has.
fn name_or_policy_lost(found: &Found, container: &Container) -> bool {
    name_before(&found.name).is_some()
        || found.ours
        || container.docker_restart.as_ref().is_some_and(|policy| policy != "no")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_set_aside_tells_what_it_was() {
        assert_eq!(name_before("shop-redis-1-before-r5"), Some("shop-redis-1"));
        assert_eq!(name_before("shop-before-rush-1"), None);
        assert_eq!(name_before("shop-redis-1"), None);
    }
}

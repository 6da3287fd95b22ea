//! Which images of old releases are needed no more.
//!
//! Owns: the policy. Kept are the images of the live release, of the one that a rollback goes to and of everything
//! newer, failed releases included: what was deployed and did not work is mended and deployed again, and may be the only
//! copy. What `shared` services use is never ours to remove, and of a project that is down nothing is. Never: looks at an
//! Engine; whether an image is somebody else's too is found out there.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    decide::{Desired, Release, ReleaseState},
    ids::ReleaseId,
    spec::{Role, Service, container::Container},
};

/// An image that only old releases used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surplus {
    /// The names under which they did.
    pub names: BTreeSet<String>,
    /// Whether it can be had again: it was built by what the file says in `build`, or pulled for a release.
    pub replaceable: bool,
    /// The projects whose releases did.
    pub projects: BTreeSet<String>,
}

/// What is kept, and what isn't needed any more; both by the images' ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The images that stay.
    pub keep: BTreeSet<String>,
    /// The others.
    pub surplus: BTreeMap<String, Surplus>,
}

/// The images of all projects, by their names.
pub fn inventory<'a>(projects: impl Iterator<Item = (&'a str, &'a Desired)>) -> Inventory {
    let mut all = Inventory::default();
    for (name, desired) in projects {
        let oldest = oldest_kept(desired);
        for (id, release) in &desired.releases {
            let is_old = oldest.is_some_and(|oldest| *id < oldest);
            for (service, container, image) in images(release) {
                if !is_old || service.role == Role::Shared {
                    all.keep.insert(image.to_owned());
                    continue;
                }
                let surplus = all.surplus.entry(image.to_owned()).or_default();
                surplus.names.insert(container.image.clone());
                surplus.replaceable |= container.build.is_some() || container.is_pulled;
                surplus.projects.insert(name.to_owned());
            }
        }
    }
    let Inventory { keep, surplus } = &mut all;
    surplus.retain(|image, _| !keep.contains(image));
    all
}

fn images(release: &Release) -> impl Iterator<Item = (&Service, &Container, &str)> {
    release.spec.services.values().filter_map(|service| {
        let container = service.container.as_deref()?;
        Some((service, container, container.image_id.as_deref()?))
    })
}

/// The oldest release whose images stay; `None`: all stay.
fn oldest_kept(desired: &Desired) -> Option<ReleaseId> {
    let live = desired.live.filter(|_| !desired.down)?;
    let running = |state| matches!(state, ReleaseState::Candidate | ReleaseState::Warm { .. });
    let running = desired.releases.iter().filter(|(_, release)| running(release.state)).map(|(id, _)| *id);
    let deployed = desired.running().into_iter().flat_map(|d| [Some(d.candidate), d.previous]).flatten();
    running.chain(deployed).chain(rollback_target(desired, live)).chain([live]).min()
}

/// Where `bulsa rollback` goes to.
fn rollback_target(desired: &Desired, live: ReleaseId) -> Option<ReleaseId> {
    let can_serve = |release: &Release| {
        release.proven && matches!(release.state, ReleaseState::Warm { .. } | ReleaseState::Retired)
    };
    let before = desired.releases.iter().rev();
    before.filter(|(id, release)| **id < live && can_serve(release)).map(|(id, _)| *id).next()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        decide::{Change, Deployment, Kind, Outcome, Phase},
        spec::{Spec, container::Build},
        time::Timestamp,
    };

    /// A release whose `web` is made from `image`, beside a `redis` that is always the same.
    fn spec(image: &str) -> Spec {
        let mut spec = Spec { project: "shop".to_owned(), ..example() };
        for (name, role, image) in [("web", Role::App, image), ("redis", Role::Shared, "redis-1")] {
            let container = Container {
                image: format!("{image}:latest"),
                image_id: Some(image.to_owned()),
                ..Container::default()
            };
            let service = spec.services.get_mut(name).unwrap();
            (service.role, service.container) = (role, Some(Box::new(container)));
        }
        spec
    }

    fn example() -> Spec {
        use crate::compose::{LoadInput, ReadError, SourceFile, load};
        let text = "name: shop\nservices:\n  web: {command: [a]}\n  redis: {command: [a]}\n".to_owned();
        let files = vec![SourceFile { path: "compose.yaml".to_owned(), text }];
        load(LoadInput::new(files, "/srv/shop", &mut |_: &str| Err(ReadError::NotFound))).spec.unwrap()
    }

    /// A project whose releases from 1 on are in these states; the newest live one is live.
    fn project(states: &[ReleaseState]) -> Desired {
        let mut desired = Desired::default();
        for (id, state) in (1_u32..).zip(states) {
            let release = Release {
                spec: Arc::new(spec(&format!("web-{id}"))),
                hash: id.to_string(),
                state: *state,
                proven: *state != ReleaseState::Failed,
            };
            desired.releases.insert(ReleaseId(id), release);
            if *state == ReleaseState::Live {
                desired.live = Some(ReleaseId(id));
            }
        }
        desired
    }

    fn gone(desired: &Desired) -> Vec<String> {
        inventory([("shop", desired)].into_iter()).surplus.into_keys().collect()
    }

    use ReleaseState::{Failed, Live, Retired};

    #[test]
    fn the_live_release_and_the_one_to_go_back_to_are_kept() {
        assert_eq!(gone(&project(&[Retired, Retired, Retired, Live])), ["web-1", "web-2"]);
        assert_eq!(gone(&project(&[Retired, Live])), [""; 0]);
        assert_eq!(gone(&project(&[Retired, Retired, Live, Retired])), ["web-1"], "after a rollback");
        assert_eq!(gone(&project(&[Live, Retired, Retired])), [""; 0], "all the way back");
    }

    #[test]
    fn what_failed_stays_until_later_releases_are_live() {
        assert_eq!(gone(&project(&[Retired, Live, Failed, Failed])), [""; 0]);
        assert_eq!(gone(&project(&[Retired, Retired, Failed, Live])), ["web-1"]);
        assert_eq!(gone(&project(&[Retired, Retired, Failed, Retired, Live])), ["web-1", "web-2", "web-3"]);
    }

    #[test]
    fn what_a_deploy_goes_back_to_is_kept_while_it_runs() {
        let mut desired = project(&[Retired, Retired, Retired, Live]);
        let deployment = Deployment {
            id: 1,
            kind: Kind::Rollback,
            candidate: ReleaseId(2),
            recreates: std::collections::BTreeSet::new(),
            previous: Some(ReleaseId(4)),
            started: Timestamp(0),
            phase: Phase::Gate,
        };
        desired.apply(&Change::Begin { deployment, release: None });
        assert_eq!(gone(&desired), ["web-1"]);
        let at = Timestamp(1);
        desired.apply(&Change::Finish { outcome: Outcome::Deployed, reason: String::new(), at });
        assert_eq!(gone(&desired), ["web-1"]);
    }

    #[test]
    fn nothing_of_a_shared_service_goes_and_nothing_of_a_project_that_is_down() {
        let mut desired = project(&[Retired, Retired, Live]);
        let first = desired.releases.get_mut(&ReleaseId(1)).unwrap();
        let mut older = Spec::clone(&first.spec);
        older.services.get_mut("redis").unwrap().container.as_mut().unwrap().image_id =
            Some("redis-0".to_owned());
        first.spec = Arc::new(older);
        assert_eq!(gone(&desired), ["web-1"]);
        desired.down = true;
        assert_eq!(gone(&desired), [""; 0]);
    }

    #[test]
    fn one_that_was_pulled_for_a_release_can_be_had_again() {
        let mut desired = project(&[Retired, Retired, Live]);
        let is_replaceable =
            |desired: &Desired| inventory([("shop", desired)].into_iter()).surplus["web-1"].replaceable;
        assert!(!is_replaceable(&desired));
        let first = desired.releases.get_mut(&ReleaseId(1)).unwrap();
        let mut pulled = Spec::clone(&first.spec);
        pulled.services.get_mut("web").unwrap().container.as_mut().unwrap().is_pulled = true;
        first.spec = Arc::new(pulled);
        assert!(is_replaceable(&desired));
    }

    #[test]
    fn what_another_project_keeps_stays_and_a_built_one_is_known_for_it() {
        let (old, mut other) = (project(&[Retired, Retired, Live]), project(&[Live]));
        let both = [("shop", &old), ("other", &other)];
        assert!(inventory(both.into_iter()).surplus.is_empty());
        other = project(&[Retired, Retired, Live]);
        let first = other.releases.get_mut(&ReleaseId(1)).unwrap();
        let mut built = Spec::clone(&first.spec);
        built.services.get_mut("web").unwrap().container.as_mut().unwrap().build = Some(Build::default());
        first.spec = Arc::new(built);
        let both = [("shop", &old), ("other", &other)];
        let surplus = inventory(both.into_iter()).surplus;
        let expected = Surplus {
            names: BTreeSet::from(["web-1:latest".to_owned()]),
            replaceable: true,
            projects: BTreeSet::from(["other".to_owned(), "shop".to_owned()]),
        };
        assert_eq!(surplus, BTreeMap::from([("web-1".to_owned(), expected)]));
    }
}

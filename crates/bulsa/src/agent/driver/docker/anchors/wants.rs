//! Which anchors there should be, as the projects stand.
//!
//! Owns: one for each service that has one in any release that [`Desired::anchored_by`] names, and what they want of it
//! together. Never: makes one; that is the driver's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::Arc,
};

use bulsa_core::{
    decide::{Desired, Release},
    ids::ReleaseId,
    spec::Spec,
};

use super::Name;
use crate::agent::anchor;

/// An anchor that should be: for which releases, and with which ports.
pub(super) struct Want {
    /// What it is told by: where this differs, it has to be looked after.
    pub(super) mark: String,
    pub(super) ports: BTreeSet<u16>,
    /// The specs of all these releases, its service's and its neighbours'.
    specs: Vec<Arc<Spec>>,
    /// The release by which its name goes.
    by: Option<Arc<Spec>>,
}

impl Want {
    /// What it is to be.
    pub(super) fn anchor(&self, (project, service): &Name) -> anchor::Wanted {
        let specs: Vec<&Spec> = self.specs.iter().map(AsRef::as_ref).collect();
        anchor::Wanted::of(project, service, &specs, self.by.as_deref())
    }
}

/// The anchors of some projects.
pub(super) fn wanted<'a>(projects: impl Iterator<Item = (&'a str, &'a Desired)>) -> BTreeMap<Name, Want> {
    let mut wanted = BTreeMap::new();
    for (project, desired) in projects.filter(|(_, desired)| !desired.down) {
        let services = desired.releases.values().flat_map(|release| release.spec.services.keys());
        for service in services.collect::<BTreeSet<_>>() {
            let name = (project.to_owned(), service.clone());
            wanted.extend(want(desired, &name).map(|want| (name, want)));
        }
    }
    wanted
}

fn want(desired: &Desired, name: &Name) -> Option<Want> {
    let anchored = desired.anchored_by(&name.1);
    let of = |id: &ReleaseId| desired.releases.get(id);
    let services = anchored.iter().filter_map(|id| of(id)?.spec.services.get(&name.1));
    let containers = services.filter_map(|service| service.container.as_deref());
    let ports: BTreeSet<u16> = containers.flat_map(|container| container.anchor.iter().copied()).collect();
    if ports.is_empty() {
        return None;
    }
    let ids: BTreeSet<ReleaseId> = desired.led_to().union(&anchored).copied().collect();
    let releases: Vec<&Release> = ids.iter().filter_map(of).collect();
    let by = desired.named_by(&name.1).as_ref().and_then(of);
    let mut want = Want {
        mark: releases.iter().map(|release| release.hash.as_str()).collect(),
        ports,
        specs: releases.iter().map(|release| Arc::clone(&release.spec)).collect(),
        by: by.map(|release| Arc::clone(&release.spec)),
    };
    if releases.len() > 1 {
        add_names(&mut want, name);
    }
    Some(want)
}

/// Between several releases a name may change hands, with the releases being the same.
fn add_names(want: &mut Want, name: &Name) {
    for (network, names) in want.anchor(name).names() {
        // Writing to a string never fails.
        write!(want.mark, " {network}:{names:?}").ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulsa_core::{
        compose::{LoadInput, ReadError, SourceFile, load},
        decide::{Change, Deployment, Kind, Outcome, Phase, ReleaseState},
        spec::Role,
        time::Timestamp,
    };

    /// `api` with an anchor or without, beside a `web` that always has one.
    fn release(anchored: bool, state: ReleaseState) -> Release {
        let text = "name: shop\nservices:\n  web: { image: web }\n  api: { image: api }\n".to_owned();
        let files = vec![SourceFile { path: "compose.yaml".to_owned(), text }];
        let mut spec =
            load(LoadInput::new(files, "/srv/shop", &mut |_: &str| Err(ReadError::NotFound))).spec.unwrap();
        for service in spec.services.values_mut() {
            service.role = Role::App;
            let container = service.container.as_mut().unwrap();
            container.anchor = if anchored || service.name == "web" { vec![3000] } else { Vec::new() };
        }
        let hash = anchored.to_string();
        Release { spec: Arc::new(spec), hash, state, proven: true }
    }

    /// Release 1 is live, and release 2 is being deployed.
    fn deploying(before: bool, after: bool) -> Desired {
        let mut desired = Desired { live: Some(ReleaseId(1)), ..Desired::default() };
        desired.releases.insert(ReleaseId(1), release(before, ReleaseState::Live));
        desired.releases.insert(ReleaseId(2), release(after, ReleaseState::Candidate));
        let deployment = Deployment {
            id: 1,
            kind: Kind::Deploy,
            candidate: ReleaseId(2),
            previous: Some(ReleaseId(1)),
            recreates: BTreeSet::new(),
            started: Timestamp(0),
            phase: Phase::Gate,
        };
        desired.apply(&Change::Begin { deployment, release: None });
        desired
    }

    /// The names and the mark of a service's anchor.
    fn anchor(desired: &Desired, service: &str) -> Option<(Vec<String>, String)> {
        let name = ("shop".to_owned(), service.to_owned());
        let want = wanted([("shop", desired)].into_iter()).remove(&name)?;
        let names = want.anchor(&name).names().flat_map(|(_, names)| names.clone()).collect();
        Some((names, want.mark))
    }

    #[test]
    fn an_anchor_is_there_from_a_deploys_begin_and_has_its_name_where_the_live_release_gives_it_to_it() {
        for (before, after) in [(false, true), (true, false)] {
            let mut desired = deploying(before, after);
            let (api, web) = (anchor(&desired, "api").unwrap(), anchor(&desired, "web").unwrap());
            assert_eq!((api.0.is_empty(), web.0.as_slice()), (!before, ["web".to_owned()].as_slice()));
            desired.apply(&Change::Switch { at: Timestamp(1) });
            let switched = anchor(&desired, "api").unwrap();
            assert_eq!(switched.0.is_empty(), !after);
            assert_ne!(switched.1, api.1, "it is looked after again");
            assert_eq!(anchor(&desired, "web"), Some(web), "nothing changes for the others");
        }
    }

    #[test]
    fn an_anchor_that_has_lost_its_name_stays_as_long_as_its_release_is_warm() {
        let mut desired = deploying(true, false);
        desired.apply(&Change::Switch { at: Timestamp(1) });
        let outcome = Outcome::Deployed;
        desired.apply(&Change::Finish { outcome, reason: String::new(), at: Timestamp(2) });
        assert_eq!(anchor(&desired, "api").unwrap().0, [""; 0]);
        assert_eq!(anchor(&desired, "web"), Some((vec!["web".to_owned()], "false".to_owned())));
        desired.apply(&Change::Retire { release: ReleaseId(1) });
        assert_eq!(anchor(&desired, "api"), None);
    }

    #[test]
    fn once_a_deploy_is_settled_only_the_live_releases_anchors_are_there() {
        let mut desired = deploying(false, true);
        desired.apply(&Change::Undo { reason: String::new(), at: Timestamp(1) });
        assert_eq!(anchor(&desired, "api"), None);
        assert_eq!(anchor(&desired, "web"), Some((vec!["web".to_owned()], "false".to_owned())));
        desired.down = true;
        assert_eq!(anchor(&desired, "web"), None);
    }
}

//! Who is told of the projects: from their files to the notifier, and how far it is, back to the snapshot.
//!
//! Owns: what the notifier is given. Never: waits for it; that is a task of its own (`agent/notify`).

use std::{collections::BTreeMap, sync::Arc};

use bulsa_core::{
    notify::memory::Settings,
    spec::Spec,
    wire::api::{DeployRequest, NotifyView},
};
use tokio::sync::watch;

use super::Driver;

/// Who is told of which project.
pub(in crate::agent) type AllSettings = Arc<BTreeMap<String, Settings>>;
/// How far each project's URLs are.
pub(in crate::agent) type AllViews = Arc<BTreeMap<String, Vec<NotifyView>>>;

/// The driver's ends of what it shares with the notifier.
pub(in crate::agent) struct Told {
    /// Who is told.
    pub(in crate::agent) settings: watch::Sender<AllSettings>,
    /// How far that is.
    pub(in crate::agent) views: watch::Receiver<AllViews>,
}

impl Told {
    /// How far a project's URLs are.
    pub(super) fn views(&self, project: &str) -> Vec<NotifyView> {
        self.views.borrow().get(project).cloned().unwrap_or_default()
    }
}

impl Driver {
    /// Who is told by a deploy's file, where that differs from now. A deploy of some services leaves it as it is, as all
    /// that isn't theirs.
    pub(super) fn told_anew(&self, spec: &Spec, request: &DeployRequest) -> Option<Settings> {
        let known = self.projects.get(&spec.project).map(|project| &project.notify.notify);
        let differs = known.map_or(!spec.notify.is_empty(), |known| *known != spec.notify);
        (differs && (request.services.is_empty() || known.is_none()))
            .then(|| Settings { since: self.store.next_id(), notify: spec.notify.clone() })
    }

    /// From here on these are told of a project.
    pub(super) fn tell_others(&mut self, name: &str, settings: Settings) {
        if let Some(project) = self.projects.get_mut(name) {
            project.notify = settings;
            self.publish_settings();
        }
    }

    /// All that the store has is known: the notifier may begin, be it with what is left of projects that are gone.
    pub(super) fn begin_telling(&self) {
        self.notify.settings.send_modify(|_| {});
    }

    /// Gives the notifier what the projects want.
    pub(super) fn publish_settings(&self) {
        let all = self.projects.values().map(|project| (project.name.clone(), project.notify.clone()));
        let all: BTreeMap<String, Settings> =
            all.filter(|(_, settings)| !settings.notify.is_empty()).collect();
        self.notify.settings.send_if_modified(|known| {
            let is_new = **known != all;
            if is_new {
                *known = Arc::new(all);
            }
            is_new
        });
    }
}

//! The anchors of the running projects, and the sockets in them.
//!
//! Owns: that the anchors are there which there should be (`wants`), again and again where one can't be had (`failures`),
//! and that the proxy listens in each. Sockets are named after the anchor's container and process: one that was started
//! again has another namespace, so its sockets are opened anew, before any replica is started. Never: decides where a name
//! leads, or who carries it: that is the route table, and [`bulsa_core::decide::Desired::named_by`].

mod failures;
mod wants;

use std::collections::{BTreeMap, BTreeSet};

use bulsa_core::decide::Event;

use self::{failures::Failures, wants::Want};
use super::{DockerInput, Driver, Input};
use crate::agent::{
    anchor::{self, Anchor, netns},
    docker::{Found, Happened, State},
};

/// A service of a project.
type Name = (String, String);

/// What is known of the anchors.
#[derive(Default)]
pub(in crate::agent::driver) struct Anchors {
    open: BTreeMap<Name, Open>,
    /// Being made or looked at.
    ensuring: BTreeSet<Name>,
    /// What those were to be that were made sure of ([`Want::mark`]): other releases may want them on other networks.
    ensured: BTreeMap<Name, String>,
    /// What went wrong with it last: it isn't tried again at once.
    failed: Failures,
}

/// An anchor that the proxy listens in.
struct Open {
    anchor: Anchor,
    ports: BTreeSet<u16>,
}

/// What came of an anchor.
pub(in crate::agent) struct Anchored {
    project: String,
    service: String,
    /// What it was to be.
    mark: String,
    result: Result<Anchor, String>,
}

/// What begins the names of sockets in anchors.
pub(in crate::agent::driver) const SOCKET_PREFIX: &str = "anchor/";

fn socket(anchor: &Anchor, port: u16) -> String {
    let id: String = anchor.container.chars().take(12).collect();
    format!("{SOCKET_PREFIX}{}/{}/{id}.{}/{port}", anchor.project, anchor.service, anchor.pid)
}

impl Anchors {
    /// The sockets in a service's anchor, with the port that each is for.
    pub(in crate::agent::driver) fn sockets(&self, project: &str, service: &str) -> Vec<(u16, String)> {
        let open = self.open.get(&(project.to_owned(), service.to_owned()));
        open.iter()
            .flat_map(|open| open.ports.iter().map(|port| (*port, socket(&open.anchor, *port))))
            .collect()
    }
}

impl Driver {
    /// Makes the anchors that are missing, and lets go of those that nobody wants any more.
    pub(in crate::agent::driver) async fn keep_anchors(&mut self) {
        if self.shutdown.is_some() || self.projects.values().any(|project| project.dormant) {
            return;
        }
        let (wanted, now) = (self.wanted_anchors(), self.clock.now());
        let unwanted = self.docker.anchors.failed.keep(|name| wanted.contains_key(name));
        self.holds_no_more(unwanted);
        for (name, want) in &wanted {
            let is_done = self.docker.anchors.ensured.get(name) == Some(&want.mark)
                || self.docker.anchors.failed.waits(name, now);
            // One after the other: each takes the highest address that is free.
            if !is_done && self.docker.anchors.ensuring.is_empty() {
                self.docker.anchors.ensuring.insert(name.clone());
                self.ensure_anchor(name.clone(), want);
            }
        }
        let gone: Vec<Name> =
            self.docker.anchors.open.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        for name in &gone {
            self.docker.anchors.open.remove(name);
            self.docker.anchors.ensured.remove(name);
        }
        let projects: BTreeSet<&String> = gone.iter().map(|(project, _)| project).collect();
        for project in projects {
            let of_project = wanted.keys().filter(|(of, _)| of == project);
            let keep = of_project.map(|(_, service)| service.clone()).collect();
            self.remove_anchors(project.clone(), keep);
        }
        if !gone.is_empty() {
            self.republish = true;
            self.drop_stale_anchor_sockets().await;
        }
        self.tell_of_names(&wanted);
    }

    /// A candidate isn't switched to before its names are served.
    fn tell_of_names(&mut self, wanted: &BTreeMap<Name, Want>) {
        let anchors = &self.docker.anchors;
        let mut unserved: BTreeMap<&str, BTreeMap<String, Option<String>>> = BTreeMap::new();
        for (name, want) in wanted {
            let is_open = anchors.open.get(name).is_some_and(|open| open.ports.is_superset(&want.ports));
            if is_open && anchors.ensured.get(name) == Some(&want.mark) {
                continue;
            }
            let of_project = unserved.entry(name.0.as_str()).or_default();
            of_project.insert(name.1.clone(), anchors.failed.given_up(name).map(str::to_owned));
        }
        let now = self.clock.now();
        for project in self.projects.values_mut() {
            let unserved = unserved.remove(project.name.as_str()).unwrap_or_default();
            project.apply(Event::Names { unserved }, now);
        }
    }

    /// Something went wrong with an anchor.
    fn anchor_failed(&mut self, name: Name, why: String) {
        self.docker.anchors.ensured.remove(&name);
        let (project, now) = (name.0.clone(), self.clock.now());
        let before = self.docker.anchors.failed.add(name, why.clone(), now);
        self.holds_no_more(before);
        self.warn(&project, "anchor.failed", why);
    }

    /// What was wrong with an anchor isn't any more.
    fn anchor_well(&mut self, name: &Name) {
        let warning = self.docker.anchors.failed.forget(name);
        self.holds_no_more(warning);
    }

    fn holds_no_more(&mut self, warnings: impl IntoIterator<Item = String>) {
        for warning in warnings {
            self.warnings.retain(|text| *text != warning);
        }
    }

    /// An anchor was started, or ended, by anybody: its name is dead until it is listened in again.
    pub(super) fn anchor_happened(&mut self, project: &str, service: &str, container: &str, what: &Happened) {
        let name = (project.to_owned(), service.to_owned());
        if self.docker.anchors.ensuring.contains(&name) || !self.wanted_anchors().contains_key(&name) {
            return; // our own doing
        }
        match what {
            Happened::Started => {
                let Ok(engine) = self.engine() else { return };
                let (inbox, container) = (self.inbox.clone(), container.to_owned());
                drop(tokio::spawn(async move {
                    match anchor::find(engine.client(), &container).await {
                        Ok(Some(anchor)) => drop(inbox.send(DockerInput::AnchorUp(anchor).into()).await),
                        Ok(None) => {}
                        // The next list tells.
                        Err(error) => tracing::info!(%error, container, "an anchor can't be looked at"),
                    }
                }));
            }
            Happened::Died { .. } | Happened::Removed => {
                let open = self.docker.anchors.open.get(&name);
                if open.is_some_and(|open| open.anchor.container == container) {
                    self.docker.anchors.ensured.remove(&name);
                    self.anchor_well(&name);
                }
            }
            _ => {}
        }
    }

    /// An anchor that somebody started runs.
    pub(super) async fn anchor_up(&mut self, anchor: Anchor) {
        let name = (anchor.project.clone(), anchor.service.clone());
        let is_known =
            |open: &Open| open.anchor.container == anchor.container && open.anchor.pid == anchor.pid;
        if !self.docker.anchors.open.get(&name).is_some_and(is_known) {
            self.listen_in(anchor).await;
            self.drop_stale_anchor_sockets().await;
        }
    }

    fn wanted_anchors(&self) -> BTreeMap<Name, Want> {
        wants::wanted(self.projects.values().map(|project| (project.name.as_str(), &project.desired)))
    }

    fn ensure_anchor(&self, name: Name, want: &Want) {
        let engine = self.engine();
        let (inbox, owner, mark) = (self.inbox.clone(), self.identity.owner.clone(), want.mark.clone());
        let (wanted, (project, service)) = (want.anchor(&name), name);
        drop(tokio::spawn(async move {
            let result = match engine {
                Ok(engine) => {
                    anchor::ensure(engine.client(), &owner, &wanted).await.map_err(|error| error.to_string())
                }
                Err(error) => Err(error),
            };
            let anchored = Anchored { project, service, mark, result };
            inbox.send(DockerInput::Anchored(anchored).into()).await.ok();
        }));
    }

    /// An anchor runs, or can't be had.
    pub(super) async fn anchored(&mut self, anchored: Anchored) {
        let Anchored { project, service, mark, result } = anchored;
        let name = (project.clone(), service);
        self.docker.anchors.ensuring.remove(&name);
        match result {
            Ok(anchor) => {
                self.docker.anchors.ensured.insert(name.clone(), mark);
                self.ask_for_subnets();
                self.listen_in(anchor).await;
                self.drop_stale_anchor_sockets().await;
            }
            Err(error) => self.anchor_failed(name, error),
        }
    }

    /// Has the proxy listen in an anchor, on every port of its service.
    async fn listen_in(&mut self, anchor: Anchor) {
        let name = (anchor.project.clone(), anchor.service.clone());
        let Some(ports) = self.wanted_anchors().remove(&name).map(|want| want.ports) else { return };
        let missing: Vec<u16> = ports
            .iter()
            .copied()
            .filter(|port| !self.routes.sockets.contains_key(&socket(&anchor, *port)))
            .collect();
        let opened = if missing.is_empty() {
            Ok(Vec::new())
        } else {
            netns::open(&anchor, missing, self.routes.per_address).await
        };
        match opened {
            Ok(opened) => {
                for (port, sockets) in opened {
                    let Some(Ok(addr)) = sockets.first().map(std::net::TcpListener::local_addr) else {
                        continue;
                    };
                    self.keep_sockets(socket(&anchor, port), addr, &sockets).await;
                }
                self.anchor_well(&name);
                self.docker.anchors.open.insert(name, Open { anchor, ports });
                self.republish = true;
            }
            Err(error) => self.anchor_failed(name, error),
        }
    }

    /// Sockets in namespaces that are gone, or of anchors that nobody wants.
    async fn drop_stale_anchor_sockets(&mut self) {
        let open = self.docker.anchors.open.values();
        let keep: BTreeSet<String> =
            open.flat_map(|open| open.ports.iter().map(|port| socket(&open.anchor, *port))).collect();
        let stale: Vec<String> = self
            .routes
            .sockets
            .keys()
            .filter(|name| name.starts_with(SOCKET_PREFIX) && !keep.contains(*name))
            .cloned()
            .collect();
        for name in stale {
            self.routes.sockets.remove(&name);
            if let Err(error) = self.keeper.drop_sockets(&name).await {
                self.lose_keeper(&error);
            }
        }
    }

    /// What the Engine's list says of the anchors: one that was started again is listened in anew, at once, and one that
    /// is gone is made again.
    pub(super) async fn see_anchors(&mut self, containers: &[Found]) {
        let (mut running, wanted) = (BTreeSet::new(), self.wanted_anchors());
        let up: BTreeSet<&String> =
            containers.iter().filter(|found| found.state == State::Running).map(|found| &found.id).collect();
        let mut orphaned = BTreeSet::new();
        for found in containers {
            let Some(service) = anchor::service_of(&found.labels).filter(|_| found.ours) else { continue };
            let project = &found.project;
            if !wanted.contains_key(&(project.clone(), service.to_owned())) {
                // An agent that was killed may have left it.
                orphaned.insert(project.clone());
                continue;
            }
            let Some(pid) = found.pid.filter(|_| found.state == State::Running) else { continue };
            let name = (project.clone(), service.to_owned());
            running.insert(name.clone());
            // A second one, which is about to be removed, is no better than the one that is listened in.
            let is_known = |open: &Open| match open.anchor.container == found.id {
                true => open.anchor.pid == pid,
                false => up.contains(&open.anchor.container),
            };
            if self.docker.anchors.open.get(&name).is_some_and(is_known) {
                continue;
            }
            let anchor = Anchor {
                project: project.clone(),
                service: service.to_owned(),
                container: found.id.clone(),
                pid,
                addresses: Vec::new(),
            };
            self.listen_in(anchor).await;
        }
        // Only now that all are known: the sockets of those that come later in the list are good, too.
        self.drop_stale_anchor_sockets().await;
        let gone = self.docker.anchors.ensured.keys().filter(|name| !running.contains(*name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.docker.anchors.ensured.remove(&name);
        }
        for project in orphaned {
            let of_project = wanted.keys().filter(|(of, _)| *of == project);
            let keep = of_project.map(|(_, service)| service.clone()).collect();
            self.remove_anchors(project, keep);
        }
    }

    /// Removes a project's anchors but those of the services in `keep`.
    fn remove_anchors(&mut self, project: String, keep: BTreeSet<String>) {
        let Ok(engine) = self.engine() else { return };
        let (inbox, owner) = (self.inbox.clone(), self.identity.owner.clone());
        self.removals.spawn(async move {
            if let Err(error) = anchor::remove(engine.client(), &owner, &project, &keep).await {
                let text = format!("anchors that aren't needed any more can't be removed: {error}");
                inbox.send(Input::Warning { project, text }).await.ok();
            }
        });
    }
}

//! Publishing the route table: to the keeper, then to every proxy.
//!
//! Owns: the order of it, and the sockets that a table needs. Never: stops anything that the new table leaves out; that
//! waits for the acknowledgements.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use bulsa_core::decide::Event;

use super::{
    Driver,
    docker::SOCKET_PREFIX,
    project::Project,
    routes::{Needed, needed},
};
use crate::link::memfd;

/// The last table with its number, sealed; nothing before the first.
pub(super) type Sealed = Option<Arc<(u64, OwnedFd)>>;

impl Driver {
    /// Publishes a new table if what the projects want differs from what was given out.
    pub(super) async fn publish_if_changed(&mut self) -> bool {
        let is_same = |project: &Project| {
            project.dormant || project.published.as_ref() == Some(&project.decision.table)
        };
        if self.projects.values().all(is_same) && !self.republish {
            return false;
        }
        self.republish = false;
        self.open_missing_sockets().await;
        let table = self.routes.table(self.projects.values(), &self.docker.anchors);
        let number = table.number;
        // Refused by one proxy it would be refused by each of its successors: the last good one stays in force.
        if let Err(error) = table.check() {
            self.warn("", "table.failed", format!("{error}; the routes stay as they are"));
            return false;
        }
        let sealed = match serde_json::to_vec(&table)
            .map_err(Into::into)
            .and_then(|bytes| memfd::sealed("bulsa-table", &bytes))
        {
            Ok(sealed) => Arc::new((number, sealed)),
            Err(error) => {
                self.warn("", "table.failed", format!("route table {number} can't be made: {error}"));
                return false;
            }
        };
        self.routes.number = number;
        self.want_access_log(table.services.iter().any(|service| service.access_log));
        // The keeper comes first: a proxy that it starts from then on begins with this table.
        if !self.keeper_lost
            && let Err(error) = self.keeper.set_table(number, sealed.1.as_fd()).await
        {
            self.lose_keeper(&error);
        }
        self.sealed = Some(sealed);
        for proxy in self.proxies.values() {
            proxy.tables.send_replace(self.sealed.clone());
        }
        let now = self.clock.now();
        for project in self.projects.values_mut() {
            if project.dormant {
                let routed = self.routes.former_targets(&project.name).collect();
                project.apply(Event::Published { number, routed, closing: BTreeSet::new() }, now);
                continue;
            }
            let table = &project.decision.table;
            let routed = table.targets().cloned().collect();
            let closing = table.close_tunnels.iter().map(|close| close.replica.clone()).collect();
            project.published = Some(project.decision.table.clone());
            project.apply(Event::Published { number, routed, closing }, now);
        }
        self.drop_unneeded_sockets().await;
        true
    }

    /// The sockets that live releases need and that aren't open: after a restart, or when a port was taken.
    async fn open_missing_sockets(&mut self) {
        let missing: Vec<Needed> =
            self.needed().into_iter().filter(|need| !self.routes.sockets.contains_key(&need.name)).collect();
        for need in missing {
            match self.routes.open(&need) {
                Ok((addr, sockets)) => self.keep_sockets(need.name, addr, &sockets).await,
                Err(error) => self.warn("", "port.taken", error),
            }
        }
    }

    /// Whether a live release's socket isn't open; tried again while housekeeping.
    pub(super) fn lacks_sockets(&self) -> bool {
        self.needed().iter().any(|need| !self.routes.sockets.contains_key(&need.name))
    }

    fn needed(&self) -> BTreeSet<Needed> {
        let live = self.projects.values().filter(|project| !project.desired.down);
        let releases = live.filter_map(|project| project.desired.live());
        releases.flat_map(|(_, release)| needed(&release.spec)).collect()
    }

    /// The sockets that nobody needs any more: neither a live release nor one that may become it.
    async fn drop_unneeded_sockets(&mut self) {
        let mut keep: BTreeSet<String> = self.needed().into_iter().map(|need| need.name).collect();
        for project in self.projects.values() {
            let begins =
                project.committing.iter().flat_map(|commit| &commit.changes).filter_map(|c| match c {
                    bulsa_core::decide::Change::Begin { release: Some((spec, _)), .. } => Some(spec.as_ref()),
                    _ => None,
                });
            let running = project.desired.running().into_iter().flat_map(|d| [Some(d.candidate), d.previous]);
            let specs = running.flatten().filter_map(|id| project.desired.releases.get(&id));
            for spec in specs.map(|release| release.spec.as_ref()).chain(begins) {
                keep.extend(needed(spec).into_iter().map(|need| need.name));
            }
        }
        let surplus: Vec<String> = self
            .routes
            .sockets
            .keys()
            .filter(|name| !keep.contains(*name) && !name.starts_with(SOCKET_PREFIX))
            .cloned()
            .collect();
        for name in surplus {
            self.routes.sockets.remove(&name);
            if let Err(error) = self.keeper.drop_sockets(&name).await {
                self.lose_keeper(&error);
            }
        }
    }

    pub(super) async fn keep_sockets(&mut self, name: String, addr: SocketAddr, sockets: &[TcpListener]) {
        if let Err(error) = self.keeper.keep_sockets(&name, sockets).await {
            self.lose_keeper(&error);
        }
        self.routes.sockets.insert(name, addr);
    }
}

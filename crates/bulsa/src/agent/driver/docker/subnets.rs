//! The address blocks of the projects' networks: whose `X-Forwarded-*` fields are kept under `trusted_proxies: [project]`.
//!
//! Owns: asking the Engine for them. Never: chooses one; that is done when a network is made.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{DockerInput, Driver};

impl Driver {
    /// Asks the Engine which address blocks its networks have.
    pub(super) fn ask_for_subnets(&self) {
        let Ok(engine) = self.engine() else { return };
        let inbox = self.inbox.clone();
        drop(tokio::spawn(async move {
            let networks = match engine.client().list_networks(None).await {
                Ok(networks) => networks,
                Err(error) => return tracing::debug!(%error, "the networks can't be listed"),
            };
            let blocks = networks.into_iter().filter_map(|network| {
                let config = network.ipam?.config?;
                let blocks = config.into_iter().filter_map(|one| one.subnet?.parse::<IpNet>().ok());
                Some((network.name?, blocks.collect()))
            });
            inbox.send(DockerInput::Subnets(blocks.collect()).into()).await.ok();
        }));
    }

    pub(super) fn subnets(&mut self, subnets: &BTreeMap<String, BTreeSet<IpNet>>) {
        for project in self.projects.values_mut() {
            let specs = project.desired.releases.values().map(|release| release.spec.as_ref());
            let names = specs.flat_map(|spec| spec.networks.values()).map(|network| &network.name);
            let blocks: BTreeSet<IpNet> =
                names.filter_map(|name| subnets.get(name)).flatten().copied().collect();
            if project.subnets != blocks {
                project.subnets = blocks;
                self.republish = true;
            }
        }
    }
}

//! The route table of all projects, as the proxies get it.
//!
//! Owns: joining what decide wants with ports, sockets, protocols and limits. Never: opens a socket; chooses a target.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use bulsa_core::{
    decide,
    ids::{ReleaseId, ReplicaId},
    spec::{self, TrustedProxy},
};
use bulsa_proxy::{
    CloseTunnels, Limits, ListenerRoutes, Protocol, Route, Service, TABLE_VERSION, Table, Target,
    WITHIN_MS_MAX,
};
use ipnet::IpNet;

use super::{Project, Routes, asked, name_of};
use crate::agent::driver::docker::{Anchors, known};

/// A table in the making.
pub(super) struct Maker<'a> {
    routes: &'a Routes,
    anchors: &'a Anchors,
    table: Table,
    listeners: BTreeMap<String, Listener>,
    trusted: BTreeSet<IpNet>,
    /// The most that a project lets one address have; 0 is no limit, and more than any.
    connections_per_address: Option<u32>,
}

/// What a socket is for.
struct Listener {
    protocol: Protocol,
    proxy_from: BTreeSet<IpNet>,
    routes: Vec<Route>,
}

/// A project with the release that its routes lead to.
struct Live<'a> {
    project: &'a Project,
    release: ReleaseId,
}

impl Live<'_> {
    /// What its replicas were found to speak on a port. Where they aren't asked, since the port is an anchor's that only
    /// another release has, that one's were.
    fn spoken(&self, service: &spec::Service, target: u16) -> Option<spec::Protocol> {
        let mut anchored = service.container.iter().flat_map(|container| &container.anchor);
        let is_asked =
            service.ports.iter().any(|port| port.target == target) || anchored.any(|port| *port == target);
        let others = self.project.desired.anchored_by(&service.name).into_iter().rev().filter(|_| !is_asked);
        let mut releases = std::iter::once(self.release).chain(others);
        releases.find_map(|release| self.project.spoken(release, &service.name, target))
    }

    /// Where a replica has what is `target` on the live release's. A rolling service's new ones may be somewhere else:
    /// what is published alike is alike.
    fn port_of(&self, id: &ReplicaId, target: u16) -> u16 {
        let service = |release| self.project.desired.service(release, &id.service);
        let (Some(old), Some(new)) = (service(self.release), service(id.release)) else { return target };
        let published = old.ports.iter().find(|port| port.target == target);
        let same = published.and_then(|old| {
            new.ports.iter().find(|new| (new.host, new.published) == (old.host, old.published))
        });
        same.map_or(target, |port| port.target)
    }
}

impl<'a> Maker<'a> {
    /// A table with the next number and nothing in it.
    pub(super) fn new(routes: &'a Routes, anchors: &'a Anchors) -> Self {
        let secret = routes.former.secret.clone();
        let table = Table { number: routes.number + 1, version: TABLE_VERSION, secret, ..Table::empty(0) };
        Self {
            routes,
            anchors,
            table,
            listeners: BTreeMap::new(),
            trusted: BTreeSet::new(),
            connections_per_address: None,
        }
    }

    /// Adds what a project wants.
    pub(super) fn add(&mut self, project: &Project) {
        let wanted = &project.decision.table;
        let close = wanted.close_tunnels.iter().map(|close| CloseTunnels {
            target: project.task(&close.replica),
            within_ms: asked::millis(close.within, WITHIN_MS_MAX),
        });
        self.table.close_tunnels.extend(close);
        self.table.abandon.extend(wanted.abandon.iter().map(|replica| project.task(replica)));
        let Some(release) = wanted.release else { return };
        let Some(spec) = project.desired.releases.get(&release).map(|release| &release.spec) else { return };
        self.trusted.extend(spec.trusted_proxies.iter().flat_map(|trusted| blocks(trusted, project)));
        self.allow(spec.limits.connections_per_address);
        let live = Live { project, release };
        for (name, route) in &wanted.routes {
            if let Some(service) = spec.services.get(name) {
                self.add_service(&live, service, route);
            }
        }
    }

    /// Adds what the table of the agent before this one has of a project, as it is.
    pub(super) fn add_former(&mut self, project: &str) {
        let former = &self.routes.former;
        let prefix = format!("{project}/");
        let mut indices = BTreeMap::new();
        for (index, service) in former.services.iter().enumerate() {
            if service.name.starts_with(&prefix) {
                indices.insert(index, self.table.services.len());
                self.table.services.push(service.clone());
            }
        }
        self.trusted.extend(former.trusted.iter().copied());
        self.allow(former.limits.connections_per_address);
        for listener in &former.listeners {
            let routes = listener.routes.iter().filter(|_| self.routes.sockets.contains_key(&listener.name));
            let routes: Vec<Route> = routes
                .filter_map(|route| Some(Route { service: *indices.get(&route.service)?, ..route.clone() }))
                .collect();
            for route in routes {
                let peers = listener.proxy_from.iter().copied();
                self.add_route(listener.name.clone(), listener.protocol, route).extend(peers);
            }
        }
    }

    /// One address may have so many connections, for a project's sake.
    fn allow(&mut self, connections: u32) {
        let most = match self.connections_per_address {
            Some(most) if most == 0 || connections == 0 => 0,
            Some(most) => most.max(connections),
            None => connections,
        };
        self.connections_per_address = Some(most);
    }

    fn add_service(&mut self, live: &Live<'_>, service: &spec::Service, route: &decide::Route) {
        let mut indices: BTreeMap<Option<u16>, usize> = BTreeMap::new();
        let mut index = |maker: &mut Self, target: u16| {
            // A process has one port, whichever it is; a container has all that the file names.
            let own = service.container.as_ref().map(|_| target);
            *indices.entry(own).or_insert_with(|| maker.add_targets(live, service, route, own))
        };
        let project = &live.project.name;
        for port in &service.ports {
            let socket = name_of(project, &service.name, port);
            if self.routes.sockets.contains_key(&socket) {
                let target = index(self, port.target);
                let protocol = self.protocol(live, service, port.target, &socket);
                for route in &service.routing.routes {
                    let route = asked::route(route, target);
                    let peers = service.routing.proxy_from.iter().flat_map(|peer| blocks(peer, live.project));
                    self.add_route(socket.clone(), protocol, route).extend(peers);
                }
            }
        }
        let served = live.project.desired.anchor_ports(&service.name);
        for (port, socket) in self.anchors.sockets(project, &service.name) {
            if served.contains(&port) && self.routes.sockets.contains_key(&socket) {
                // Inside its name stands for its replicas: what is asked there is asked of them, as it is.
                let route = Route::to(index(self, port));
                let protocol = self.protocol(live, service, port, &socket);
                self.add_route(socket, protocol, route);
            }
        }
    }

    /// Adds a route; returns from whom its listener expects PROXY headers.
    fn add_route(&mut self, socket: String, protocol: Protocol, route: Route) -> &mut BTreeSet<IpNet> {
        let empty = || Listener { protocol, proxy_from: BTreeSet::new(), routes: Vec::new() };
        let listener = self.listeners.entry(socket).or_insert_with(empty);
        let is_plain = listener.routes.is_empty() && route == Route::to(route.service);
        listener.routes.push(route);
        if !is_plain {
            // Only HTTP has hosts and paths to tell services apart by, and what rules are about.
            listener.protocol = Protocol::Http;
        }
        &mut listener.proxy_from
    }

    fn add_targets(
        &mut self,
        live: &Live<'_>,
        service: &spec::Service,
        route: &decide::Route,
        port: Option<u16>,
    ) -> usize {
        let targets = route.targets.iter().map(|(id, addr)| {
            let port = port.map_or(addr.port(), |port| live.port_of(id, port));
            let target = Target::new(&live.project.task(id), SocketAddr::new(addr.ip(), port));
            let weight = asked::weight(&service.balance, id.ordinal);
            Target { release: id.release.to_string(), weight, ..target }
        });
        let suffix = port.map(|port| format!(":{port}")).unwrap_or_default();
        let name = format!("{}/{}{suffix}", live.project.name, service.name);
        self.table.services.push(Service {
            hold: asked::hold(&service.hold, route.stopped, route.held),
            balance: asked::balance(&service.balance),
            times: asked::times(service.times),
            health_path: asked::health_path(service, port),
            send_proxy: service.routing.send_proxy.map(asked::send_proxy),
            access_log: service.access_log,
            ..Service::new(&name, targets.collect())
        });
        self.table.services.len() - 1
    }

    /// What is spoken on a socket: what the file says, what a replica was found to speak, or what the last table of the
    /// agent before this one says; HTTP until anything is known.
    fn protocol(&self, live: &Live<'_>, service: &spec::Service, target: u16, socket: &str) -> Protocol {
        let found = || live.spoken(service, target);
        match known(service, target).or_else(found) {
            Some(spec::Protocol::Tcp) => Protocol::Tcp,
            Some(spec::Protocol::Http) => Protocol::Http,
            Some(spec::Protocol::Detect) | None => {
                let mut former = self.routes.former.listeners.iter();
                former.find(|one| one.name == socket).map_or(Protocol::Http, |one| one.protocol)
            }
        }
    }

    /// The table.
    pub(super) fn finish(mut self) -> Table {
        let listeners = self.listeners.into_iter();
        let made = listeners.map(|(name, listener)| ListenerRoutes {
            protocol: listener.protocol,
            proxy_from: listener.proxy_from.into_iter().collect(),
            ..ListenerRoutes::http(&name, listener.routes)
        });
        self.table.listeners = made.collect();
        if let Some(connections_per_address) = self.connections_per_address {
            self.table.limits = Limits { connections_per_address };
        }
        self.table.trusted = self.trusted.into_iter().collect();
        self.table
    }
}

fn blocks(trusted: &TrustedProxy, project: &Project) -> Vec<IpNet> {
    let loopback = || {
        [
            IpNet::new(IpAddr::from([127, 0, 0, 0]), 8),
            IpNet::new(IpAddr::from(std::net::Ipv6Addr::LOCALHOST), 128),
        ]
    };
    match trusted {
        TrustedProxy::Loopback => loopback().into_iter().filter_map(Result::ok).collect(),
        // On the process engine the project's own replicas come over loopback, or from a namespace of their own; on the
        // docker engine from its networks.
        TrustedProxy::Project => {
            let pools = crate::agent::process::netns::plan::POOLS.iter();
            let namespaces = pools.filter_map(|(base, length)| IpNet::new(IpAddr::V4(*base), *length).ok());
            namespaces.chain(project.subnets.iter().copied()).collect()
        }
        TrustedProxy::Block(base, length) => IpNet::new(*base, *length).ok().into_iter().collect(),
    }
}

#[cfg(test)]
mod tests;

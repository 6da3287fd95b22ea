//! From the projects' routes to the one table that the proxies run on, and to the sockets that it needs.
//!
//! Owns: the table's number, its making (`table`), and which listening sockets are open under which names. Never:
//! decides who is routed.

mod asked;
pub(super) mod secret;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
};

use bulsa_core::{
    ids::ReplicaId,
    spec::{Port, Role, Spec},
};
use bulsa_proxy::Table;

use self::table::Maker;
use super::{
    docker::Anchors,
    project::{Project, parse_task},
};
use crate::link::listeners::{ListenAddr, open_listeners};

/// The open sockets and the last table.
pub(super) struct Routes {
    /// The number of the last table.
    pub(super) number: u64,
    /// The open sockets' names, with the address that each is bound to.
    pub(super) sockets: BTreeMap<String, SocketAddr>,
    /// How many sockets each address has: one for each of a proxy's threads.
    pub(super) per_address: usize,
    /// The last table of the agent before this one: what is served on until this one knows better. Its secret is every
    /// later table's.
    pub(super) former: Table,
}

/// A socket that a spec needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Needed {
    /// Its opaque name.
    pub(super) name: String,
    /// The address to listen on.
    pub(super) host: Option<IpAddr>,
    /// The port; `None` lets the system choose.
    pub(super) port: Option<u16>,
}

/// The name of the socket of a published port. Two services that publish one port share it; a port that the system
/// chooses belongs to its service, so that it stays the same from release to release.
fn name_of(project: &str, service: &str, port: &Port) -> String {
    match (port.host, port.published) {
        (Some(host), Some(number)) => format!("tcp/{}", SocketAddr::new(host, number)),
        (None, Some(number)) => format!("tcp/*:{number}"),
        (_, None) => format!("auto/{project}/{service}/{}", port.target),
    }
}

/// The sockets that a spec's routed services need.
pub(super) fn needed(spec: &Spec) -> BTreeSet<Needed> {
    let routed = spec.services.values().filter(|service| service.role == Role::App);
    routed
        .flat_map(|service| service.ports.iter().map(move |port| (service, port)))
        .map(|(service, port)| Needed {
            name: name_of(&spec.project, &service.name, port),
            host: port.host,
            port: port.published,
        })
        .collect()
}

/// What must be unique among all projects: socket, host and path.
pub(super) type RouteKey = (String, Option<String>, String);

/// The keys of a spec's routes, each with its service.
pub(super) fn keys(spec: &Spec) -> Vec<(RouteKey, String)> {
    let routed = spec.services.values().filter(|service| service.role == Role::App);
    routed
        .flat_map(|service| service.ports.iter().map(move |port| (service, port)))
        .flat_map(|(service, port)| {
            let socket = name_of(&spec.project, &service.name, port);
            service.routing.routes.iter().map(move |route| {
                let (host, path) = route.key();
                ((socket.clone(), host.map(str::to_owned), path.to_owned()), service.name.clone())
            })
        })
        .collect()
}

impl Routes {
    /// Opens a socket group; the address that it got.
    pub(super) fn open(&self, needed: &Needed) -> Result<(SocketAddr, Vec<TcpListener>), String> {
        let addr = ListenAddr { host: needed.host, port: needed.port.unwrap_or(0) };
        let sockets = open_listeners(addr, self.per_address).map_err(|error| error.to_string())?;
        let bound = sockets.first().ok_or("no socket was opened")?.local_addr();
        Ok((bound.map_err(|error| error.to_string())?, sockets))
    }

    /// Where the routed services of a spec can be reached from this host: their first port each.
    pub(super) fn addresses(&self, spec: &Spec) -> BTreeMap<String, SocketAddr> {
        let of = |service: &bulsa_core::spec::Service| {
            let port = service.ports.first().filter(|_| service.role == Role::App)?;
            let bound = self.sockets.get(&name_of(&spec.project, &service.name, port)).copied();
            let declared = port
                .published
                .map(|number| SocketAddr::new(port.host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), number));
            let mut addr = bound.or(declared)?;
            if addr.ip().is_unspecified() {
                addr.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
            }
            Some((service.name.clone(), addr))
        };
        spec.services.values().filter_map(of).collect()
    }

    /// The URLs at which users reach a service, for people.
    pub(super) fn urls(&self, project: &str, service: &bulsa_core::spec::Service) -> Vec<String> {
        let routed = service.ports.iter().filter(|_| service.role == Role::App);
        // Where users are only sent elsewhere nobody is reached.
        let routes = service.routing.routes.iter().filter(|route| route.rules.redirect.is_none());
        routed
            .flat_map(|port| routes.clone().map(move |route| (port, route)))
            .filter_map(|(port, route)| {
                let mut addr = *self.sockets.get(&name_of(project, &service.name, port))?;
                if addr.ip().is_unspecified() {
                    addr.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
                }
                let path = if route.path == "/" { "" } else { route.path.as_str() };
                Some(match &route.host {
                    Some(host) => format!("http://{host}:{}{path}", addr.port()),
                    None if addr.ip().is_loopback() => format!("http://localhost:{}{path}", addr.port()),
                    None => format!("http://{addr}{path}"),
                })
            })
            .collect()
    }

    /// The replicas of a project that the table of the agent before this one routes to.
    pub(super) fn former_targets(&self, project: &str) -> impl Iterator<Item = ReplicaId> {
        let targets = self.former.services.iter().flat_map(|service| &service.targets);
        targets
            .filter_map(|target| parse_task(&target.id))
            .filter_map(move |(of, id)| (of == project).then_some(id))
    }

    /// The table for what all projects want, with number `self.number + 1`.
    pub(super) fn table<'a>(&self, projects: impl Iterator<Item = &'a Project>, anchors: &Anchors) -> Table {
        let mut maker = Maker::new(self, anchors);
        for project in projects {
            // Until its containers are known again, the routes of the agent before this one are the best there are.
            if project.dormant { maker.add_former(&project.name) } else { maker.add(project) }
        }
        maker.finish()
    }
}

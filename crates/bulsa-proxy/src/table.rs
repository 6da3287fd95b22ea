//! The route table as it crosses processes: plain, versioned, serialisable data.
//!
//! Owns: the shape of the table and the check that one is sound.
//! Never: holds state of a running proxy. [`crate::route`] compiles a checked table into what the workers use.
//!
//! A table is immutable and numbered. The proxy takes a table only when its number is higher than the one it
//! has, so a late or doubled message changes nothing. Fields that a reader does not know are ignored, so that a
//! newer writer may add some within one version, as long as the table still means the same without them. What does
//! not raises the version: a reader that does not know of [`Protocol`] would speak HTTP to a database.

use std::collections::HashSet;
use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of the table's form that this crate writes. Since version 2 a listener has a [`Protocol`].
pub const TABLE_VERSION: u32 = 2;
/// The oldest version that this crate still reads: the keeper may have kept such a table over an update.
pub const TABLE_VERSION_MIN: u32 = 1;
/// Listeners in one table, at most.
pub const LISTENERS_MAX: usize = 1024;
/// Routes of one listener, at most.
pub const ROUTES_MAX: usize = 10_000;
/// Targets of one service, at most.
pub const TARGETS_MAX: usize = 10_000;
/// Services in one table, at most.
pub const SERVICES_MAX: usize = 10_000;
/// The longest hold that a table may ask for, in milliseconds (an hour).
pub const HOLD_MS_MAX: u64 = 3_600_000;
/// The widest window over which tunnels may be ended, in milliseconds (a day).
pub const WITHIN_MS_MAX: u64 = 86_400_000;

/// One numbered snapshot of everything that the proxy serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The version of this form: [`TABLE_VERSION_MIN`] to [`TABLE_VERSION`].
    pub version: u32,
    /// The table's number. A table whose number is not higher than the current one is ignored.
    pub number: u64,
    /// The routes of each listener, by the listener's opaque name.
    pub listeners: Vec<ListenerRoutes>,
    /// The services that routes point at by their index.
    pub services: Vec<Service>,
    /// Peers whose `X-Forwarded-*` fields are kept and appended to. Everybody else's are replaced.
    #[serde(default)]
    pub trusted: Vec<IpNet>,
    /// Targets whose tunnels are to be ended now.
    #[serde(default)]
    pub close_tunnels: Vec<CloseTunnels>,
}

/// The routes of one listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerRoutes {
    /// The listener's opaque name, as given to [`crate::Proxy::add_listener`].
    pub name: String,
    /// What is spoken on it. It may change from table to table: new connections follow the newest one.
    #[serde(default)]
    pub protocol: Protocol,
    /// The routes, in any order: the most specific one wins. A TCP listener has exactly one, for every host and `/`.
    pub routes: Vec<Route>,
}

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1: each request is routed, held and sent again on its own.
    #[default]
    Http,
    /// Anything over TCP: each connection goes whole to one target, its bytes unseen.
    Tcp,
}

/// Host and path to service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The exact host, without a port, any case. `None` takes every host.
    #[serde(default)]
    pub host: Option<String>,
    /// A path prefix that begins with `/`; it matches whole segments only.
    pub path: String,
    /// The index into [`Table::services`].
    pub service: usize,
}

/// A service and the targets that can answer for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The name, unique in the table. Requests held for a service are counted under it across tables.
    pub name: String,
    /// The targets that are ready now, each id once. None means: hold. Another service may name the same id at another
    /// address (two ports of one replica); whoever reads a report adds the two up.
    pub targets: Vec<Target>,
    /// How long and how many requests wait while no target is ready.
    pub hold: Hold,
}

/// An address that can receive traffic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// An opaque name. Together with the address it says whether two tables mean the same target.
    pub id: String,
    /// Where it listens.
    pub addr: SocketAddr,
    /// The release that it belongs to, for reports.
    #[serde(default)]
    pub release: String,
}

/// The limits of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The longest wait of one request or TCP connection, in milliseconds. 0 holds nothing.
    pub time_ms: u64,
    /// The number of requests and TCP connections that may wait at once, over all workers. 0 holds nothing.
    pub requests: u32,
}

impl Default for Hold {
    fn default() -> Self {
        Self { time_ms: 30_000, requests: 1000 }
    }
}

/// An order to end the tunnels on one target; TCP connections are tunnels too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseTunnels {
    /// The target's id. The order is for all addresses that it has.
    pub target: String,
    /// The window, in milliseconds, over which the tunnels are ended a few at a time. 0 ends all at once.
    pub within_ms: u64,
}

/// Why a table was refused. The proxy goes on with the one it has.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TableError {
    /// The form is of another version.
    #[error(
        "route table {number} has version {found}, this proxy reads versions {TABLE_VERSION_MIN} to {TABLE_VERSION}"
    )]
    Version {
        /// The table's number.
        number: u64,
        /// The version found.
        found: u32,
    },
    /// There is more of something than the limit allows.
    #[error("route table {number} has {found} {what}, at most {max} are allowed")]
    TooMany {
        /// The table's number.
        number: u64,
        /// What there is too much of.
        what: &'static str,
        /// How many were found.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// A name is used twice where it must be unique.
    #[error("route table {number} names the {what} `{name}` twice")]
    Twice {
        /// The table's number.
        number: u64,
        /// What is named twice.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A route points at a service that is not there.
    #[error("route table {number}: a route of listener `{listener}` names service {service} of {services}")]
    NoSuchService {
        /// The table's number.
        number: u64,
        /// The listener's name.
        listener: String,
        /// The index that the route names.
        service: usize,
        /// The number of services in the table.
        services: usize,
    },
    /// A route's path does not begin with a slash.
    #[error("route table {number}: the path `{path}` of listener `{listener}` does not begin with `/`")]
    Path {
        /// The table's number.
        number: u64,
        /// The listener's name.
        listener: String,
        /// The path.
        path: String,
    },
    /// A TCP listener has no route, several, or one that asks for a host or path, which TCP does not have.
    #[error(
        "route table {number}: the TCP listener `{listener}` must have exactly one route, for every host and the path `/`"
    )]
    TcpRoute {
        /// The table's number.
        number: u64,
        /// The listener's name.
        listener: String,
    },
}

impl Table {
    /// A table with nothing in it: every request is answered 404.
    #[must_use]
    pub fn empty(number: u64) -> Self {
        Self {
            version: TABLE_VERSION,
            number,
            listeners: Vec::new(),
            services: Vec::new(),
            trusted: Vec::new(),
            close_tunnels: Vec::new(),
        }
    }

    /// Checks the table's version, limits, names and references.
    ///
    /// # Errors
    /// Returns the first thing found wrong.
    pub fn check(&self) -> Result<(), TableError> {
        let number = self.number;
        if !(TABLE_VERSION_MIN..=TABLE_VERSION).contains(&self.version) {
            return Err(TableError::Version { number, found: self.version });
        }
        self.limit("listeners", self.listeners.len(), LISTENERS_MAX)?;
        self.limit("services", self.services.len(), SERVICES_MAX)?;
        self.limit("orders to close tunnels", self.close_tunnels.len(), TARGETS_MAX)?;
        for close in &self.close_tunnels {
            self.limit_number("milliseconds to close tunnels in", close.within_ms, WITHIN_MS_MAX)?;
        }
        let mut names = HashSet::new();
        for service in &self.services {
            self.once("service", &service.name, names.insert(&service.name))?;
            self.check_service(service)?;
        }
        let mut names = HashSet::new();
        for listener in &self.listeners {
            self.once("listener", &listener.name, names.insert(&listener.name))?;
            self.check_listener(listener)?;
        }
        Ok(())
    }

    fn check_service(&self, service: &Service) -> Result<(), TableError> {
        self.limit("targets of one service", service.targets.len(), TARGETS_MAX)?;
        self.limit_number("milliseconds of hold", service.hold.time_ms, HOLD_MS_MAX)?;
        let mut ids = HashSet::new();
        for target in &service.targets {
            self.once("target", &target.id, ids.insert(&target.id))?;
        }
        Ok(())
    }

    fn check_listener(&self, listener: &ListenerRoutes) -> Result<(), TableError> {
        let number = self.number;
        self.limit("routes of one listener", listener.routes.len(), ROUTES_MAX)?;
        let takes_all = |route: &Route| route.host.is_none() && route.path == "/";
        if listener.protocol == Protocol::Tcp && !matches!(&listener.routes[..], [route] if takes_all(route))
        {
            return Err(TableError::TcpRoute { number, listener: listener.name.clone() });
        }
        for route in &listener.routes {
            if !route.path.starts_with('/') {
                let (listener, path) = (listener.name.clone(), route.path.clone());
                return Err(TableError::Path { number, listener, path });
            }
            if self.services.len() <= route.service {
                return Err(TableError::NoSuchService {
                    number,
                    listener: listener.name.clone(),
                    service: route.service,
                    services: self.services.len(),
                });
            }
        }
        Ok(())
    }

    fn limit(&self, what: &'static str, found: usize, max: usize) -> Result<(), TableError> {
        self.limit_number(what, found as u64, max as u64)
    }

    fn limit_number(&self, what: &'static str, found: u64, max: u64) -> Result<(), TableError> {
        if max < found {
            return Err(TableError::TooMany { number: self.number, what, found, max });
        }
        Ok(())
    }

    fn once(&self, what: &'static str, name: &str, new: bool) -> Result<(), TableError> {
        if new {
            return Ok(());
        }
        Err(TableError::Twice { number: self.number, what, name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests;

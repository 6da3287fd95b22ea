//! The route table as it crosses processes: plain, versioned, serialisable data.
//!
//! Owns: the shape of the table and the check that one is sound.
//! Never: holds state of a running proxy. [`crate::route`] compiles a checked table into what the workers use.
//!
//! A table is immutable and numbered. The proxy takes a table only when its number is higher than the one it
//! has, so a late or doubled message changes nothing. Fields that a reader does not know are ignored, so that a
//! newer writer may add some within one version, as long as the table still means the same without them. What does
//! not raises the version: a reader that does not know of [`Protocol`] would speak HTTP to a database, and one that does
//! not know of [`Rules`] would ask an application for what it was to redirect.

mod balance;
mod error;
mod rules;

use std::collections::HashSet;
use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::balance::{Balance, Policy, SLOW_START_MS_MAX, WEIGHT_MAX};
pub use self::error::TableError;
pub use self::rules::{HeaderRule, Redirect, Rules};

/// The version of the table's form that this crate writes. Since version 2 a listener has a [`Protocol`], since version
/// 3 a route has [`Rules`], and a listener may expect the PROXY protocol.
pub const TABLE_VERSION: u32 = 3;
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
/// The largest page for requests that were held in vain, in bytes.
pub const PAGE_BYTES_MAX: usize = 64 * 1024;

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
    /// The ids of targets that are dead or proven hung: what waits there for a first byte goes elsewhere, if it may.
    #[serde(default)]
    pub abandon: Vec<String>,
    /// What sticky cookies are signed with. Without it no service is sticky.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// What one client may take.
    #[serde(default)]
    pub limits: Limits,
}

/// What sticky cookies are signed with: 16 to 64 bytes that no client knows. Not shown in debug output.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What one client may take, on all listeners together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Connections that one address may have open at once; 0 is no limit. Trusted peers may have as many as there are.
    pub connections_per_address: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_per_address: 4096 }
    }
}

/// The routes of one listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerRoutes {
    /// The listener's opaque name, as given to [`crate::Proxy::add_listener`].
    pub name: String,
    /// What is spoken on it. It may change from table to table: new connections follow the newest one.
    #[serde(default)]
    pub protocol: Protocol,
    /// Peers whose connections begin with a PROXY protocol header, version 1 or 2, that says who the client is. One from
    /// them without it is closed; anybody else's header is taken for what it is then: no HTTP.
    #[serde(default)]
    pub proxy_from: Vec<IpNet>,
    /// The routes, in any order: the most specific one wins. A TCP listener has exactly one, for every host and `/`.
    pub routes: Vec<Route>,
}

impl ListenerRoutes {
    /// A listener that speaks HTTP with everybody.
    #[must_use]
    pub fn http(name: &str, routes: Vec<Route>) -> Self {
        Self { name: name.to_owned(), protocol: Protocol::Http, proxy_from: Vec::new(), routes }
    }

    /// A listener whose connections go whole to the service with this index.
    #[must_use]
    pub fn tcp(name: &str, service: usize) -> Self {
        Self { protocol: Protocol::Tcp, ..Self::http(name, vec![Route::to(service)]) }
    }
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
    /// What else is done to requests on this route.
    #[serde(default, skip_serializing_if = "Rules::is_empty")]
    pub rules: Rules,
}

impl Route {
    /// A route for every host and path, without rules.
    #[must_use]
    pub fn to(service: usize) -> Self {
        Self::new(None, "/", service)
    }

    /// A route without rules.
    #[must_use]
    pub fn new(host: Option<&str>, path: &str, service: usize) -> Self {
        let (host, path) = (host.map(str::to_owned), path.to_owned());
        Self { host, path, service, rules: Rules::default() }
    }
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
    /// Which target gets a request, and when one is taken for bad.
    #[serde(default)]
    pub balance: Balance,
    /// Limits on how long things take.
    #[serde(default)]
    pub times: Times,
    /// The path at which an outer balancer looks whether this service is well. While requests are held, it is answered
    /// 200: the service is about to be there, and its requests are to come here and wait.
    #[serde(default)]
    pub health_path: Option<String>,
    /// The PROXY protocol header that a target gets before the bytes of a TCP connection, if it wants one.
    #[serde(default)]
    pub send_proxy: Option<ProxyHeader>,
    /// Whether each of its requests gets a line in the access log.
    #[serde(default)]
    pub access_log: bool,
}

impl Service {
    /// A service with the defaults.
    #[must_use]
    pub fn new(name: &str, targets: Vec<Target>) -> Self {
        Self {
            name: name.to_owned(),
            targets,
            hold: Hold::default(),
            balance: Balance::default(),
            times: Times::default(),
            health_path: None,
            send_proxy: None,
            access_log: false,
        }
    }
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyHeader {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Limits on how long things take, in milliseconds; 0 is none, and the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Times {
    /// From a request's last byte to its answer's first. What takes longer is a failure of the target: the request goes
    /// elsewhere if it may, else it is answered 504.
    pub first_byte_ms: u64,
    /// How long a tunnel may carry nothing in either direction.
    pub tunnel_idle_ms: u64,
    /// How long a tunnel may live at all.
    pub tunnel_life_ms: u64,
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
    /// Its share of requests, relative to the others': 1 to [`WEIGHT_MAX`].
    #[serde(default = "balance::weight_default")]
    pub weight: u32,
    /// Whether it gets requests only while no other target is ready.
    #[serde(default)]
    pub backup: bool,
}

impl Target {
    /// A target with weight 1, of no release, that is no backup.
    #[must_use]
    pub fn new(id: &str, addr: SocketAddr) -> Self {
        Self { id: id.to_owned(), addr, release: String::new(), weight: 1, backup: false }
    }
}

/// The limits of a hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The longest wait of one request or TCP connection, in milliseconds. 0 holds nothing.
    pub time_ms: u64,
    /// The number of requests and TCP connections that may wait at once, over all workers. 0 holds nothing.
    pub requests: u32,
    /// Whether requests wait although targets may be ready: somebody has asked for it.
    #[serde(default)]
    pub on: bool,
    /// The page, in HTML, for those who waited in vain or found no room to. A short text if there is none.
    #[serde(default)]
    pub page: Option<String>,
}

impl Default for Hold {
    fn default() -> Self {
        Self { time_ms: 30_000, requests: 1000, on: false, page: None }
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
            abandon: Vec::new(),
            secret: None,
            limits: Limits::default(),
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
        self.limit("targets to abandon", self.abandon.len(), TARGETS_MAX)?;
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
        self.limit("bytes of a page", service.hold.page.as_ref().map_or(0, String::len), PAGE_BYTES_MAX)?;
        self.limit_number("milliseconds of slow start", service.balance.slow_start_ms, SLOW_START_MS_MAX)?;
        let mut ids = HashSet::new();
        for target in &service.targets {
            self.once("target", &target.id, ids.insert(&target.id))?;
            self.limit_number("weight of a target", u64::from(target.weight), u64::from(WEIGHT_MAX))?;
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
            if let Some(what) = route.rules.mistake() {
                let (listener, path) = (listener.name.clone(), route.path.clone());
                return Err(TableError::Rule { number, listener, path, what });
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

//! The Spec: the normalised desired state of one project, as every later stage reads it.
//!
//! Owns: what a project is once its compose files are resolved (interpolated, merged, defaulted, checked).
//! Never: keeps a position in a file, an unresolved value or a default that isn't filled in; is written to a disk or
//! a socket as it is (that is [`crate::wire::spec`], which is versioned).

pub mod container;
pub mod drift;
pub mod pin;
pub(crate) mod probe;
pub(crate) mod rules;
pub mod traffic;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

use self::container::{Container, Network, Volume};
pub use self::traffic::{
    Balance, HeaderRule, Limits, Policy, ProxyHeader, Redirect, Route, Routing, Rules, Times,
};
use crate::notify::Notify;

/// The desired state of one project.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spec {
    /// The project's name: `[a-z0-9][a-z0-9_-]*`.
    pub project: String,
    /// Every service of the file, by name.
    pub services: BTreeMap<String, Service>,
    /// How much of the past keeps running.
    pub keep: Keep,
    /// Peers whose `X-Forwarded-*` fields are kept.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// What one client may take.
    pub limits: Limits,
    /// Who is told what happens. Not part of the content hash: it is the operator's, not the release's, and a rollback
    /// brings no old one back.
    pub notify: Notify,
    /// The networks that its containers use, by their key in the file.
    pub networks: BTreeMap<String, Network>,
    /// The volumes that its containers use, by their key in the file.
    pub volumes: BTreeMap<String, Volume>,
    /// The compose files and the directory that relative paths were seen from, for Compose's labels.
    pub sources: Sources,
}

/// Where a project was read from. Not part of the content hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sources {
    /// The project's directory, absolute.
    pub directory: String,
    /// The compose files, absolute, in the order of `-f`.
    pub files: Vec<String>,
    /// The files of `--env-file`, absolute.
    pub env_files: Vec<String>,
}

/// `x-bulsa.keep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// At most this many releases have running replicas (at least 2, the live one included).
    pub releases: u32,
    /// How long the previous release stays warm after a switch.
    pub warm: Duration,
}

impl Default for Keep {
    fn default() -> Self {
        Self { releases: 2, warm: Duration::from_secs(600) }
    }
}

/// One entry of `x-bulsa.trusted_proxies`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedProxy {
    /// `loopback`: 127.0.0.0/8 and ::1.
    Loopback,
    /// `project`: the project's own networks and replicas.
    Project,
    /// An address block, `10.0.0.0/8`; a lone address is a block of one.
    Block(IpAddr, u8),
}

/// One entry of the compose file.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name in the file.
    pub name: String,
    /// How a deploy treats it.
    pub role: Role,
    /// Why it has this role, for the plan: `it publishes a port`.
    pub role_reason: String,
    /// How its replicas are made on the docker engine; `None` is the process engine.
    pub container: Option<Box<Container>>,
    /// The program and its arguments (`entrypoint` + `command`); never empty on the process engine, always on the
    /// docker engine.
    pub argv: Vec<String>,
    /// Its environment, resolved: `environment` over `env_file`. Bulsa's own variables are not in it.
    pub env: BTreeMap<String, String>,
    /// Absolute; the directory of the compose file where the file gives none. Empty on the docker engine.
    pub working_dir: String,
    /// `user[:group]`, names or numbers.
    pub user: Option<String>,
    /// How many copies.
    pub replicas: u32,
    /// The published ports.
    pub ports: Vec<Port>,
    /// Which requests on them are its own.
    pub routing: Routing,
    /// How the program learns, or ignores, the port it should listen on.
    pub app_port: AppPort,
    /// How a replica is proven healthy.
    pub probe: Probe,
    /// How long a new replica may take to pass its gate.
    pub gate_timeout: Duration,
    /// How the old release's work is finished.
    pub drain: Drain,
    /// How requests are spread over its replicas.
    pub balance: Balance,
    /// How long things may take on their way through the proxy.
    pub times: Times,
    /// What happens to requests while no target is ready.
    pub hold: Hold,
    /// Whether each of its requests gets a line in the access log.
    pub access_log: bool,
    /// What is done for its replicas before anything is wrong with them.
    pub care: Care,
    /// What each replica may take of the host, on the process engine; a container's limits are in its [`Container`].
    pub resources: ResourceLimits,
    /// A path of the app's own that blocks it, for drills: `/drill/block`.
    pub drill_block: Option<String>,
    /// How often a replica must say that its own loop goes round, once it has said so.
    pub heartbeat: Option<Duration>,
    /// How a release is watched after its switch.
    pub bake: Bake,
    /// How the old and the new replicas of a deploy relate in time.
    pub handover: Handover,
    /// When a dead replica is started again.
    pub restart: Restart,
    /// The signal that asks it to stop, a number (15 is SIGTERM).
    pub stop_signal: i32,
    /// How long it may take to stop before SIGKILL.
    pub stop_grace: Duration,
    /// What must hold before its replicas are started.
    pub depends_on: BTreeMap<String, Dependency>,
    /// Where in the compose file it stands (`compose.yaml:12:3`), for messages; not part of the content hash.
    pub position: String,
}

impl Service {
    /// Whether its replicas are containers.
    #[must_use]
    pub const fn is_container(&self) -> bool {
        self.container.is_some()
    }

    /// Whether Docker itself restarts its container: Bulsa starts it where it is missing, and else leaves it alone.
    #[must_use]
    pub fn is_kept_by_docker(&self) -> bool {
        self.role == Role::Shared && self.is_container()
    }

    /// Whether the proxy serves it: at published ports, or under its name inside the project's networks.
    #[must_use]
    pub fn is_routed(&self) -> bool {
        self.role == Role::App && (!self.ports.is_empty() || self.has_anchor())
    }

    /// Whether a replica is of no use before its address is known: somebody sends it requests, or its probe does. On
    /// the process engine a check without a published port names its own port, so there no address is waited for.
    #[must_use]
    pub fn needs_address(&self) -> bool {
        let is_asked = self.is_container() && matches!(self.probe.check, Check::Http { .. });
        !self.ports.is_empty() || self.has_anchor() || is_asked
    }

    fn has_anchor(&self) -> bool {
        self.container.as_ref().is_some_and(|container| !container.anchor.is_empty())
    }
}

/// `deploy.resources.limits` and the short keys of the same meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Processor time, in thousandths of one processor.
    pub millicpus: Option<u64>,
    /// Memory, in bytes.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl ResourceLimits {
    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.millicpus.is_none() && self.memory.is_none() && self.pids.is_none()
    }
}

/// `x-bulsa.spare` and `x-bulsa.recycle`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Care {
    /// So many replicas more are kept ready; requests come to them when others fail.
    pub spare: u32,
    /// A replica that takes so much memory is replaced, in bytes.
    pub memory: Option<u64>,
    /// One that has run for so long is.
    pub age: Option<Duration>,
    /// One that has had so many requests is.
    pub requests: Option<u64>,
}

impl Care {
    /// Whether replicas are replaced though nothing is wrong with them.
    #[must_use]
    pub const fn recycles(&self) -> bool {
        self.memory.is_some() || self.age.is_some() || self.requests.is_some()
    }
}

/// How a deploy treats a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Replaced side by side by a deploy.
    App,
    /// A backing service that a deploy never touches.
    Shared,
    /// No port; handed over as [`Handover`] says.
    Worker,
    /// Runs once per release, before what waits for it.
    Job,
}

/// A published port: Bulsa listens on `host:published` and sends what comes to the replicas' `target`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The address to listen on; `None` is every address.
    pub host: Option<IpAddr>,
    /// The port that users connect to; `None` lets the system choose one.
    pub published: Option<u16>,
    /// The port that the file says the program listens on.
    pub target: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
}

/// What is spoken on a published port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1 if a replica answers so, otherwise plain TCP.
    #[default]
    Detect,
    /// HTTP/1.
    Http,
    /// Bytes, passed through.
    Tcp,
}

/// How a replica on the process engine comes to its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppPort {
    /// Each replica gets its own `PORT`; one that listens on the target half of `ports` instead is accepted while it
    /// is the only one.
    Env,
    /// The program always listens on this port: one replica only.
    Fixed(u16),
    /// The program always listens on this port, and each replica has a network namespace of its own.
    Isolated(u16),
}

/// How a replica is proven healthy.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// What one run does.
    pub check: Check,
    /// From one run to the next once there is a verdict.
    pub interval: Duration,
    /// From one run to the next until the first verdict.
    pub start_interval: Duration,
    /// A run that takes longer has failed.
    pub timeout: Duration,
    /// This many passes in a row make a replica ready.
    pub rise: u32,
    /// This many failures in a row make it failed.
    pub fall: u32,
    /// Failures don't count for this long after the start.
    pub start_period: Duration,
    /// Whether the file asked for it, or Bulsa chose it for want of anything better (the plan calls that weak).
    pub declared: bool,
}

/// What one probe run does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// An HTTP GET from the host: the replica's port unless one is given.
    Http {
        /// The port in the URL, where the file gives one that isn't a published target.
        port: Option<u16>,
        /// The path with its query, `/health-check`.
        path: String,
        /// The `Host` field; the target's address where none is given.
        host: Option<String>,
        /// Which answers pass.
        accept: Accept,
    },
    /// A program run with the service's user, directory and environment; exit 0 passes.
    Exec(Vec<String>),
    /// It is up and stays up for [`MIN_UP`]: a service with no port and no check.
    Up,
}

/// Which HTTP status passes a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// 200 to 399, as `curl -f` and Compose users expect.
    Success,
    /// Everything below 500: the weak probe of a service that declares none.
    AnyAnswer,
}

/// How long a service without port and check must stay up to count as ready.
pub const MIN_UP: Duration = Duration::from_secs(1);

/// `x-bulsa.drain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// The longest that requests in flight may take to finish.
    pub requests: Duration,
    /// The longest that tunnels of a replaced release live on.
    pub websockets: Duration,
    /// The window over which they are closed then.
    pub stagger: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            requests: Duration::from_secs(30),
            websockets: Duration::from_secs(3600),
            stagger: Duration::from_secs(60),
        }
    }
}

/// `x-bulsa.hold`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The longest that a request waits for a ready target.
    pub time: Duration,
    /// At most this many wait.
    pub requests: u32,
    /// The page, in HTML, for those who waited in vain; at most [`traffic::PAGE_BYTES_MAX`].
    pub page: Option<String>,
}

impl Default for Hold {
    fn default() -> Self {
        Self { time: Duration::from_secs(30), requests: 1000, page: None }
    }
}

/// `x-bulsa.bake`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bake {
    /// How long a release is watched after the switch; zero watches nothing.
    pub time: Duration,
    /// The share (0 to 1) of 5xx answers and broken connections above which it is bad.
    pub errors: f64,
}

impl Default for Bake {
    fn default() -> Self {
        Self { time: Duration::from_secs(60), errors: 0.05 }
    }
}

/// `x-bulsa.handover`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// The new replicas start beside the old ones.
    Overlap,
    /// The old ones are un-routed, drained and stopped first; requests are held meanwhile.
    StopFirst,
    /// A few at a time; both releases answer meanwhile.
    Rolling(Rolling),
}

/// How the replicas of a service are replaced a few at a time (`deploy.update_config`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rolling {
    /// So many at a time, at least 1.
    pub parallelism: u32,
    /// Whether the old ones of a step stop before its new ones start.
    pub stop_first: bool,
    /// How long after a step the next one begins, at the earliest.
    pub delay: Duration,
}

impl Default for Rolling {
    fn default() -> Self {
        Self { parallelism: 1, stop_first: false, delay: Duration::ZERO }
    }
}

/// When a dead replica is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Always, also after exit 0 (`always`, `unless-stopped`, and the default).
    Always,
    /// After a failure only, at most this often in a row where a number is given.
    OnFailure(Option<u32>),
    /// Never: only reported.
    No,
}

/// One entry of `depends_on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// What must hold.
    pub condition: Condition,
    /// Whether a failed dependency stops the deploy (`required`, default true).
    pub required: bool,
    /// Whether its replicas are replaced after the dependency's were (`restart`, default false).
    pub restart: bool,
}

/// `depends_on.*.condition`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// `service_started`
    Started,
    /// `service_healthy`
    Healthy,
    /// `service_completed_successfully`
    Completed,
}

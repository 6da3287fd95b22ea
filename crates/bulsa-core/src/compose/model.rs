//! The project as the file says it, typed and checked key by key, before defaults.
//!
//! Owns: the types between the canonical tree and the [`crate::spec::Spec`].

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::{
    notify::Notify,
    spec::{
        self,
        container::{Container, Network, Volume},
    },
};

use super::diagnostic::Pos;

/// A whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct Project {
    pub(super) name: String,
    pub(super) services: BTreeMap<String, Service>,
    /// Every service the file names, also those with mistakes.
    pub(super) names: Vec<String>,
    pub(super) keep: spec::Keep,
    pub(super) limits: spec::Limits,
    pub(super) notify: Notify,
    pub(super) trusted_proxies: Vec<spec::TrustedProxy>,
    /// The top's `networks`, and `default` where a service needs it; by key.
    pub(super) networks: BTreeMap<String, Network>,
    /// The top's `volumes`, by key.
    pub(super) volumes: BTreeMap<String, Volume>,
}

/// One service.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Service {
    pub(super) name: String,
    /// Its key.
    pub(super) pos: Pos,
    pub(super) command: Option<Vec<String>>,
    pub(super) entrypoint: Option<Vec<String>>,
    /// `environment` over `env_file`; `None` is a variable that is named but has no value anywhere.
    pub(super) environment: BTreeMap<String, Option<String>>,
    pub(super) working_dir: Option<String>,
    pub(super) user: Option<String>,
    pub(super) ports: Vec<Port>,
    pub(super) healthcheck: Option<Healthcheck>,
    pub(super) deploy: Option<Deploy>,
    pub(super) scale: Option<u32>,
    /// Where the number of replicas is written.
    pub(super) replicas_pos: Option<Pos>,
    pub(super) depends_on: BTreeMap<String, Dependency>,
    pub(super) stop_signal: Option<(String, i32)>,
    pub(super) stop_grace_period: Option<Duration>,
    pub(super) restart: Option<(String, spec::Restart)>,
    /// On the process engine.
    pub(super) resources: spec::ResourceLimits,
    pub(super) bulsa: Bulsa,
    /// What its container is; `None` on the process engine.
    pub(super) docker: Option<Box<Docker>>,
}

impl Service {
    pub(super) fn new(name: &str, pos: &Pos) -> Self {
        Self {
            name: name.to_owned(),
            pos: pos.clone(),
            command: None,
            entrypoint: None,
            environment: BTreeMap::new(),
            working_dir: None,
            user: None,
            ports: Vec::new(),
            healthcheck: None,
            deploy: None,
            scale: None,
            replicas_pos: None,
            depends_on: BTreeMap::new(),
            stop_signal: None,
            stop_grace_period: None,
            restart: None,
            resources: spec::ResourceLimits::default(),
            bulsa: Bulsa::default(),
            docker: None,
        }
    }

    pub(super) fn replicas(&self) -> u32 {
        self.deploy.as_ref().and_then(|deploy| deploy.replicas).or(self.scale).unwrap_or(1)
    }
}

/// `deploy`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Deploy {
    pub(super) replicas: Option<u32>,
}

/// One entry of `ports`, ranges expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) pos: Pos,
    pub(super) name: Option<String>,
    pub(super) mode: String,
    pub(super) host_ip: Option<IpAddr>,
    pub(super) target: u16,
    /// `Some(0)` and `None` both let the system choose.
    pub(super) published: Option<u16>,
    /// The last of several published ports, of which one is to be taken.
    pub(super) published_to: Option<u16>,
    /// `tcp`, `udp` or `sctp`.
    pub(super) protocol: String,
    /// A hint of what is spoken: `http`.
    pub(super) app_protocol: Option<String>,
}

/// What the file says of a service's container.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Docker {
    /// Without what other keys of the service say too, and without `secrets` and `configs` until they are looked up.
    pub(super) container: Container,
    /// Where things stand, for later messages.
    pub(super) at: Places,
    /// `secrets` and `configs`.
    pub(super) grants: Vec<Grant>,
    /// `build.secrets`: the id in the build, and the secret's key.
    pub(super) build_secrets: Vec<(String, String, Pos)>,
    /// `deploy.update_config`
    pub(super) update: Option<Update>,
    /// `deploy.restart_policy`, in Docker's words; it wins over `restart`.
    pub(super) restart_policy: Option<(String, spec::Restart)>,
}

/// `deploy.update_config`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Update {
    /// So many replicas at a time; 0 is all of them.
    pub(super) parallelism: Option<u32>,
    /// `order: stop-first`
    pub(super) stop_first: Option<bool>,
    pub(super) delay: Option<Duration>,
}

/// Where things of a container stand in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// `image`, else `build`.
    pub(super) image: Option<Pos>,
    pub(super) container_name: Option<Pos>,
    /// Each label.
    pub(super) labels: BTreeMap<String, Pos>,
    /// Each entry of `volumes`.
    pub(super) mounts: Vec<Pos>,
    pub(super) networks: BTreeMap<String, Pos>,
    pub(super) network_mode: Option<Pos>,
    pub(super) links: Option<Pos>,
    pub(super) volumes_from: Option<Pos>,
    pub(super) healthcheck: Option<Pos>,
    pub(super) restart: Option<Pos>,
}

/// Whether it is a secret or a config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrantKind {
    Secret,
    Config,
}

/// One entry of a service's `secrets` or `configs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) kind: GrantKind,
    pub(super) pos: Pos,
    /// Its key at the top.
    pub(super) source: String,
    pub(super) target: Option<String>,
    pub(super) uid: Option<String>,
    pub(super) gid: Option<String>,
    pub(super) mode: Option<u32>,
}

/// `healthcheck`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Healthcheck {
    /// Starts with `CMD`, `CMD-SHELL` or `NONE`.
    pub(super) test: Option<Vec<String>>,
    pub(super) test_pos: Option<Pos>,
    pub(super) interval: Option<Duration>,
    pub(super) timeout: Option<Duration>,
    pub(super) start_period: Option<Duration>,
    pub(super) start_interval: Option<Duration>,
    pub(super) retries: Option<u32>,
    pub(super) disable: Option<bool>,
}

/// One entry of `depends_on`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dependency {
    pub(super) pos: Pos,
    pub(super) condition: spec::Condition,
    pub(super) required: bool,
    pub(super) restart: bool,
}

/// A service's `x-bulsa`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Bulsa {
    pub(super) role: Option<(spec::Role, Pos)>,
    /// Each entry of `route`; one where it isn't a list.
    pub(super) routes: Vec<Route>,
    /// `route.protocol`
    pub(super) protocol: Option<(spec::Protocol, Pos)>,
    /// `route.proxy_protocol`
    pub(super) proxy_from: Option<(Vec<spec::TrustedProxy>, Pos)>,
    /// `route.send_proxy`
    pub(super) send_proxy: Option<(spec::ProxyHeader, Pos)>,
    pub(super) probe: Option<Probe>,
    pub(super) gate_timeout: Option<Duration>,
    pub(super) balance: spec::Balance,
    pub(super) times: spec::Times,
    pub(super) drain: spec::Drain,
    pub(super) hold: spec::Hold,
    /// `hold.page`: the file, until it is read.
    pub(super) page: Option<(String, Pos)>,
    pub(super) access_log: bool,
    /// Its `memory` is that of `recycle` in bytes; a share is in `memory_share` until the limit is known.
    pub(super) care: spec::Care,
    /// `recycle.memory`, as a share of the limit from 0 to 1.
    pub(super) memory_share: Option<(f64, Pos)>,
    /// `drill.block`
    pub(super) drill_block: Option<String>,
    pub(super) heartbeat: Option<Duration>,
    pub(super) bake: spec::Bake,
    pub(super) handover: Option<spec::Handover>,
    pub(super) app_port: Option<(spec::AppPort, Pos)>,
    /// Where `access_log`, `heartbeat`, `spare` and `recycle` stand, and the keys of `balance`, `timeouts` and `hold`, each as `balance.policy`.
    pub(super) at: BTreeMap<String, Pos>,
}

impl Bulsa {
    /// What the file says of the service as a whole.
    pub(super) fn protocol(&self) -> Option<spec::Protocol> {
        self.protocol.as_ref().map(|(protocol, _)| *protocol)
    }
}

/// One entry of `x-bulsa.route`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) pos: Pos,
    pub(super) route: spec::Route,
    /// Where its keys stand.
    pub(super) at: BTreeMap<String, Pos>,
    /// Whether everything in it was understood; of one that wasn't nothing further can be said.
    pub(super) is_whole: bool,
}

impl Route {
    pub(super) fn new(pos: &Pos) -> Self {
        Self { pos: pos.clone(), route: spec::Route::default(), at: BTreeMap::new(), is_whole: true }
    }
}

/// `x-bulsa.probe`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) path: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) interval: Option<Duration>,
    pub(super) timeout: Option<Duration>,
    pub(super) rise: Option<u32>,
    pub(super) fall: Option<u32>,
}

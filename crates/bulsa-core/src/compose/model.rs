//! The project as the file says it, typed and checked key by key, before defaults.
//!
//! Owns: the types between the tree and the [`crate::spec::Spec`]; `config --json` prints them. Unlike the Spec they
//! keep what was left out, so that the output can be compared with Compose's.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::spec;

use super::diagnostic::Pos;

/// A whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct Project {
    pub(super) name: String,
    pub(super) services: BTreeMap<String, Service>,
    /// Every service the file names, also those with mistakes.
    pub(super) names: Vec<String>,
    pub(super) keep: spec::Keep,
    pub(super) trusted_proxies: Vec<spec::TrustedProxy>,
    /// The top's `x-…` keys, as they are.
    pub(super) extensions: BTreeMap<String, serde_json::Value>,
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
    pub(super) bulsa: Bulsa,
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
            bulsa: Bulsa::default(),
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
}

/// A service's `x-bulsa`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Bulsa {
    pub(super) role: Option<(spec::Role, Pos)>,
    pub(super) route_host: Option<String>,
    pub(super) route_path: Option<String>,
    pub(super) probe: Option<Probe>,
    pub(super) gate_timeout: Option<Duration>,
    pub(super) drain: spec::Drain,
    pub(super) hold: spec::Hold,
    pub(super) bake: spec::Bake,
    pub(super) handover: Option<spec::Handover>,
    pub(super) app_port: Option<(spec::AppPort, Pos)>,
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

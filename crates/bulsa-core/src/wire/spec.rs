//! The Spec as it is stored in a release and sent to the daemon, version 1.
//!
//! Owns: [`SpecV1`] and its parts, [`encode`] and [`decode`], and [`content_hash`]. Every field of [`Spec`] has its
//! place here, durations in whole milliseconds under names that end in `_ms`. Names and shapes never change within a
//! version: a change of meaning is a new version beside this one, and a field that is added has a default.
//!
//! Never: is used inside the program; what comes in is turned into a [`Spec`] at once, and checked on the way.

mod convert;
#[cfg(test)]
mod tests;
mod traffic;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    notify::Notify,
    spec::{
        Protocol, Sources, Spec,
        container::{Container, MountSource, Network, Volume},
    },
};

pub use self::traffic::{
    BalanceV1, HeaderRuleV1, LimitsV1, PolicyV1, RedirectV1, RouteV1, RoutingV1, TimesV1,
};

/// The version that this program writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// Why a stored or sent Spec can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecWireError {
    /// It isn't JSON, or not of this shape.
    #[error("the Spec can't be read: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a newer program.
    #[error(
        "the Spec has version {found}, and this program reads up to version {VERSION}: use the newer program"
    )]
    Newer {
        /// The version it says it has.
        found: u32,
    },
    /// Written by no program of ours.
    #[error("the Spec has version {found}, which never existed")]
    Unknown {
        /// The version it says it has.
        found: u32,
    },
    /// A value that no compose file could have given.
    #[error("the Spec can't be used: {0}")]
    Invalid(String),
}

/// A [`Spec`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpecV1 {
    /// Always 1.
    pub version: u32,
    /// The project's name.
    pub project: String,
    /// The services by name.
    pub services: BTreeMap<String, ServiceV1>,
    /// How much of the past keeps running.
    pub keep: KeepV1,
    /// Peers whose `X-Forwarded-*` fields are kept.
    pub trusted_proxies: Vec<TrustedProxyV1>,
    /// What one client may take.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: LimitsV1,
    /// Who is told what happens. The types of [`crate::notify`] are their own wire form.
    #[serde(default, skip_serializing_if = "is_default")]
    pub notify: Notify,
    /// The networks of its containers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, Network>,
    /// The volumes of its containers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Volume>,
    /// Where it was read from.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sources: Sources,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A [`crate::spec::Keep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepV1 {
    /// Releases with running replicas.
    pub releases: u32,
    /// How long the previous one stays warm.
    pub warm_ms: u64,
}

/// A [`crate::spec::TrustedProxy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustedProxyV1 {
    /// This host.
    Loopback,
    /// The project itself.
    Project,
    /// An address block.
    Block {
        /// Its address.
        address: IpAddr,
        /// How many leading bits count.
        bits: u8,
    },
}

/// A [`crate::spec::Service`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceV1 {
    /// Its name.
    pub name: String,
    /// How a deploy treats it.
    pub role: RoleV1,
    /// Why it has this role.
    pub role_reason: String,
    /// How its replicas are made on the docker engine. The types of [`crate::spec::container`] are their own wire form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Box<Container>>,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Its directory, absolute.
    pub working_dir: String,
    /// `user[:group]`.
    pub user: Option<String>,
    /// How many copies.
    pub replicas: u32,
    /// The published ports.
    pub ports: Vec<PortV1>,
    /// Which requests on them are its own, beyond what stands in the ports.
    #[serde(default, skip_serializing_if = "is_default")]
    pub routing: RoutingV1,
    /// How it comes to its port.
    pub app_port: AppPortV1,
    /// How it is proven healthy.
    pub probe: ProbeV1,
    /// How long a new replica may take to pass its gate.
    pub gate_timeout_ms: u64,
    /// How work is finished.
    pub drain: DrainV1,
    /// How requests are spread.
    #[serde(default, skip_serializing_if = "is_default")]
    pub balance: BalanceV1,
    /// How long things may take.
    #[serde(default, skip_serializing_if = "is_default")]
    pub times: TimesV1,
    /// What happens to requests without a target.
    pub hold: HoldV1,
    /// Whether its requests are logged.
    #[serde(default, skip_serializing_if = "is_default")]
    pub access_log: bool,
    /// What is done for it before anything is wrong.
    #[serde(default, skip_serializing_if = "is_default")]
    pub care: CareV1,
    /// What a process may take of the host.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: ResourceLimitsV1,
    /// A path of the app's own that blocks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill_block: Option<String>,
    /// How often a replica must say that it lives; 0: never.
    #[serde(default, skip_serializing_if = "is_default")]
    pub heartbeat_ms: u64,
    /// The watch after a switch.
    pub bake: BakeV1,
    /// How old and new replicas relate in time.
    pub handover: HandoverV1,
    /// When a dead replica is started again.
    pub restart: RestartV1,
    /// The signal that asks it to stop.
    pub stop_signal: i32,
    /// How long it may take to stop.
    pub stop_grace_ms: u64,
    /// What must hold before it starts.
    pub depends_on: BTreeMap<String, DependencyV1>,
    /// Where it stands in its compose file.
    pub position: String,
}

/// A [`crate::spec::ResourceLimits`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceLimitsV1 {
    /// Thousandths of a processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub millicpus: Option<u64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
}

/// A [`crate::spec::Care`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CareV1 {
    /// Replicas that are kept ready besides.
    #[serde(skip_serializing_if = "is_default")]
    pub spare: u32,
    /// Bytes of memory from which on one is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// The time after which one is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// The requests after which one is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
}

/// A [`crate::spec::Role`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named as in the Spec, and explained there")]
pub enum RoleV1 {
    App,
    Shared,
    Worker,
    Job,
}

/// A [`crate::spec::Port`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortV1 {
    /// The address to listen on.
    pub host: Option<IpAddr>,
    /// The port that users connect to.
    pub published: Option<u16>,
    /// The port that the program listens on.
    pub target: u16,
    /// The host name of the service's first route.
    pub route_host: Option<String>,
    /// The path prefix of the service's first route.
    pub route_path: String,
    /// What is spoken on it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Protocol,
}

/// A [`crate::spec::AppPort`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named as in the Spec, and explained there")]
pub enum AppPortV1 {
    Env,
    Fixed(u16),
    Isolated(u16),
}

/// A [`crate::spec::Probe`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeV1 {
    /// What one run does.
    pub check: CheckV1,
    /// From one run to the next.
    pub interval_ms: u64,
    /// The same until the first verdict.
    pub start_interval_ms: u64,
    /// The longest run.
    pub timeout_ms: u64,
    /// Passes in a row that make it ready.
    pub rise: u32,
    /// Failures in a row that make it failed.
    pub fall: u32,
    /// Failures don't count for this long.
    pub start_period_ms: u64,
    /// Whether the file asked for it.
    pub declared: bool,
}

/// A [`crate::spec::Check`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckV1 {
    /// An HTTP GET.
    Http {
        /// The port, where it isn't the replica's own.
        port: Option<u16>,
        /// The path with its query.
        path: String,
        /// The `Host` field.
        host: Option<String>,
        /// Which answers pass.
        accept: AcceptV1,
    },
    /// A program.
    Exec {
        /// The program and its arguments.
        argv: Vec<String>,
    },
    /// Up is enough.
    Up,
}

/// A [`crate::spec::Accept`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named as in the Spec, and explained there")]
pub enum AcceptV1 {
    Success,
    AnyAnswer,
}

/// A [`crate::spec::Drain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in the Spec, and explained there")]
pub struct DrainV1 {
    pub requests_ms: u64,
    pub websockets_ms: u64,
    pub stagger_ms: u64,
}

/// A [`crate::spec::Hold`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in the Spec, and explained there")]
pub struct HoldV1 {
    pub time_ms: u64,
    pub requests: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
}

/// A [`crate::spec::Bake`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BakeV1 {
    /// How long.
    pub time_ms: u64,
    /// The share of errors, in parts per million: a whole number, because decimal fractions don't survive every
    /// reader of JSON to the last bit, and the content hash would change.
    pub errors_ppm: u32,
}

/// A [`crate::spec::Handover`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named as in the Spec, and explained there")]
pub enum HandoverV1 {
    Overlap,
    StopFirst,
    Rolling { parallelism: u32, stop_first: bool, delay_ms: u64 },
}

/// A [`crate::spec::Restart`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartV1 {
    /// Always.
    Always,
    /// After a failure.
    OnFailure {
        /// At most this often in a row.
        max: Option<u32>,
    },
    /// Never.
    No,
}

/// A [`crate::spec::Dependency`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DependencyV1 {
    /// What must hold.
    pub condition: ConditionV1,
    /// Whether a failed one stops the deploy.
    pub required: bool,
    /// Whether replicas are replaced after those of the dependency.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: bool,
}

/// A [`crate::spec::Condition`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named as in the Spec, and explained there")]
pub enum ConditionV1 {
    Started,
    Healthy,
    Completed,
}

/// The Spec as JSON text, for the store and the socket.
#[must_use]
pub fn encode(spec: &Spec) -> String {
    canonical(&SpecV1::from(spec))
}

/// Reads what [`encode`] wrote, in any version up to [`VERSION`].
pub fn decode(json: &str) -> Result<Spec, SpecWireError> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    match serde_json::from_str::<Version>(json)?.version {
        VERSION => serde_json::from_str::<SpecV1>(json)?.try_into(),
        found if found > VERSION => Err(SpecWireError::Newer { found }),
        found => Err(SpecWireError::Unknown { found }),
    }
}

/// Names what a release of a Spec makes run: SHA-256 in lower-case hex. Where its services stand in the file, why they
/// have their roles and what the plan notes is no part of it; of a `shared` service, which no deploy touches, only that
/// it is there.
#[must_use]
pub fn content_hash(spec: &Spec) -> String {
    let mut wire = SpecV1::from(spec);
    wire.sources = Sources::default();
    wire.notify = Notify::default();
    let shared = |service: &ServiceV1| service.role == RoleV1::Shared;
    let (mut networks, mut volumes) = (BTreeSet::new(), BTreeSet::new());
    for service in wire.services.values_mut() {
        service.position.clear();
        service.role_reason.clear();
        let Some(container) = service.container.as_mut().filter(|_| service.role != RoleV1::Shared) else {
            continue;
        };
        container.notes.clear();
        // The same image from this host, where the registry is away, is no other release.
        container.is_pulled = false;
        networks.extend(container.networks.keys().cloned());
        volumes.extend(container.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume { name, .. } => name.clone(),
            _ => None,
        }));
    }
    wire.networks.retain(|key, _| networks.contains(key));
    wire.volumes.retain(|key, _| volumes.contains(key));
    let services = std::mem::take(&mut wire.services);
    let (shared, own): (BTreeMap<_, _>, BTreeMap<_, _>) =
        services.into_iter().partition(|(_, service)| shared(service));
    wire.services = own;
    let mut text = canonical(&wire);
    for name in shared.keys() {
        // A control character stands in no name, so that no Spec can say this in another way.
        text.push('\u{1}');
        text.push_str(name);
    }
    let mut hex = String::new();
    for byte in Sha256::digest(text) {
        // Writing to a String can't fail.
        if write!(hex, "{byte:02x}").is_err() {
            return hex;
        }
    }
    hex
}

/// One text for one Spec: fields in the order of the types, maps in the order of their keys, no white space.
#[expect(
    clippy::expect_used,
    reason = "types made of text, numbers and maps with text keys always serialise"
)]
fn canonical(wire: &SpecV1) -> String {
    serde_json::to_string(wire).expect("the wire form of a Spec serialises")
}

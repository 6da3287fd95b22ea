//! A container as it was found, in the words that the agent uses.
//!
//! Owns: what is read of the Engine's answers, in the shapes of API 1.41 up to the newest. Never: asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use bollard::models::{
    ContainerConfig, ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ContainerSummary,
    EndpointSettings, HostConfig, MountPoint, NetworkSettings, PortMap,
};
use bulsa_core::{
    ids::{ReleaseId, ReplicaId},
    spec::{
        container::PortNumber,
        drift::{Made, MadeMount},
    },
};

use super::label;

/// A container of ours, or one that Compose made for a project of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The Engine's id of it, in full.
    pub id: String,
    /// Its name, without the slash.
    pub name: String,
    /// Whether this daemon made it.
    pub ours: bool,
    /// [`label::PROJECT`], else Compose's project.
    pub project: String,
    /// [`label::REPLICA`], where it can be read.
    pub replica: Option<ReplicaId>,
    /// The service, by Compose's label.
    pub service: String,
    /// [`label::RELEASE`], where it can be read.
    pub release: Option<ReleaseId>,
    /// Compose's number of it among the service's.
    pub number: Option<u32>,
    /// The id of the image that it was made from.
    pub image_id: String,
    /// What it does.
    pub state: State,
    /// Of its last end; 0 while it has none.
    pub exit_code: i64,
    /// Whether the kernel ended it for want of memory.
    pub oom_killed: bool,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: Option<u64>,
    /// When it was last started, in milliseconds since 1970; `None`: never.
    pub started_at_ms: Option<u64>,
    /// When it last ended, likewise.
    pub finished_at_ms: Option<u64>,
    /// Its first process on this host, while it runs.
    pub pid: Option<u32>,
    /// How often the Engine restarted it.
    pub restart_count: u64,
    /// The Engine's own verdict: `starting`, `healthy`, `unhealthy`; `None` without a HEALTHCHECK.
    pub health: Option<String>,
    /// Its addresses, by the networks' names. An address is true for this moment only.
    pub addresses: BTreeMap<String, IpAddr>,
    /// The ports that it is said to listen on: the image's and the file's.
    pub exposed: Vec<PortNumber>,
    /// What Docker publishes: the container's port, and where on the host.
    pub published: Vec<(PortNumber, IpAddr, u16)>,
    /// Whether it has a terminal, so that its output is one stream.
    pub tty: bool,
    /// Whether Docker starts it again by itself.
    pub restarts: bool,
    /// What it was made from, for the comparison with its file.
    pub made: Made,
    /// The ids of the containers whose network, IPC or PID name space it is in.
    pub inside: Vec<String>,
    /// Every label.
    pub labels: BTreeMap<String, String>,
    /// What the Engine says was wrong with its last start; empty for nothing.
    pub error: String,
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was made and never started.
    Created,
    /// Its first process runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// It ended, and the Engine will start it again by its policy.
    Restarting,
    /// It ended.
    Exited,
    /// It can neither be started nor removed cleanly.
    Dead,
    /// It is being removed.
    Removing,
}

impl Found {
    /// What an inspection says; `None` without an id.
    pub(super) fn read(answer: ContainerInspectResponse, owner: &str) -> Option<Self> {
        let host = answer.host_config.unwrap_or_default();
        let inside = inside(&host);
        let mut made = Made { mounts: mounts(answer.mounts.unwrap_or_default()), ..Made::default() };
        made.published = asked(host.port_bindings.unwrap_or_default());
        let config = answer.config.unwrap_or_default();
        made.image = config.image.clone().unwrap_or_default();
        made.image_id = answer.image.clone().unwrap_or_default();
        made.entrypoint = config.entrypoint.clone().unwrap_or_default();
        made.command = config.cmd.clone().unwrap_or_default();
        made.env = config.env.clone().unwrap_or_default().into_iter().collect();
        let state = answer.state.unwrap_or_default();
        let network = answer.network_settings.unwrap_or_default();
        let labels: BTreeMap<String, String> = config.labels.unwrap_or_default().into_iter().collect();
        let get = |name: &str| labels.get(name).cloned();
        made.form = get(label::FORM);
        let policy = host.restart_policy.and_then(|policy| policy.name);
        let is_up = state.running.unwrap_or_default();
        Some(Self {
            id: answer.id?,
            name: answer.name.unwrap_or_default().trim_start_matches('/').to_owned(),
            ours: get(label::OWNER).as_deref() == Some(owner),
            project: get(label::PROJECT).or_else(|| get(super::create::labels::PROJECT)).unwrap_or_default(),
            replica: get(label::REPLICA).and_then(|text| text.parse().ok()),
            service: get(super::create::labels::SERVICE).unwrap_or_default(),
            release: get(label::RELEASE).and_then(|text| text.strip_prefix('r')?.parse().ok()).map(ReleaseId),
            number: get(super::create::labels::NUMBER).and_then(|text| text.parse().ok()),
            image_id: answer.image.unwrap_or_default(),
            state: state_of(state.status, is_up),
            exit_code: state.exit_code.unwrap_or_default(),
            oom_killed: state.oom_killed.unwrap_or_default(),
            created_at_ms: answer.created.as_deref().and_then(moment),
            started_at_ms: state.started_at.as_deref().and_then(moment),
            finished_at_ms: state.finished_at.as_deref().and_then(moment),
            pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0),
            restart_count: answer
                .restart_count
                .and_then(|count| u64::try_from(count).ok())
                .unwrap_or_default(),
            health: state
                .health
                .and_then(|health| health.status)
                .map(|status| status.to_string())
                .filter(|status| !status.is_empty() && status != "none"),
            addresses: network.networks.unwrap_or_default().into_iter().filter_map(address).collect(),
            exposed: config
                .exposed_ports
                .unwrap_or_default()
                .iter()
                .filter_map(|port| port_of(port))
                .collect(),
            published: published(network.ports.unwrap_or_default()),
            inside,
            tty: config.tty.unwrap_or_default(),
            restarts: policy.is_some_and(|policy| !matches!(policy.to_string().as_str(), "" | "no")),
            made,
            labels,
            error: state.error.unwrap_or_default(),
        })
    }

    /// What a list says: less than an inspection, but who it is and whether it runs.
    pub(super) fn of_summary(summary: ContainerSummary, owner: &str) -> Option<Self> {
        let state = summary.state.map(|state| state.to_string());
        let status = state.and_then(|state| state.parse::<ContainerStateStatusEnum>().ok());
        let networks = summary.network_settings.and_then(|settings| settings.networks);
        let answer = ContainerInspectResponse {
            id: summary.id,
            name: summary.names.and_then(|names| names.into_iter().next()),
            image: summary.image_id,
            config: Some(ContainerConfig { labels: summary.labels, ..ContainerConfig::default() }),
            state: Some(ContainerState { status, ..ContainerState::default() }),
            network_settings: Some(NetworkSettings { networks, ..NetworkSettings::default() }),
            ..ContainerInspectResponse::default()
        };
        Self::read(answer, owner)
    }

    /// Whether its first process exists.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Running | State::Paused)
    }
}

fn inside(host: &HostConfig) -> Vec<String> {
    let modes = [&host.network_mode, &host.ipc_mode, &host.pid_mode].into_iter().flatten();
    let mut all: Vec<String> =
        modes.filter_map(|mode| mode.strip_prefix("container:")).map(str::to_owned).collect();
    all.sort();
    all.dedup();
    all
}

fn state_of(status: Option<ContainerStateStatusEnum>, is_up: bool) -> State {
    match status {
        Some(ContainerStateStatusEnum::CREATED) => State::Created,
        // One that is being stopped still runs.
        Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::STOPPING) => State::Running,
        Some(ContainerStateStatusEnum::PAUSED) => State::Paused,
        Some(ContainerStateStatusEnum::RESTARTING) => State::Restarting,
        Some(ContainerStateStatusEnum::REMOVING) => State::Removing,
        Some(ContainerStateStatusEnum::DEAD) => State::Dead,
        Some(ContainerStateStatusEnum::EXITED) => State::Exited,
        _ if is_up => State::Running,
        _ => State::Exited,
    }
}

fn address((network, endpoint): (String, EndpointSettings)) -> Option<(String, IpAddr)> {
    let v4 = endpoint.ip_address.and_then(|text| text.parse().ok());
    let v6 = || endpoint.global_ipv6_address.and_then(|text| text.parse().ok());
    Some((network, v4.or_else(v6)?))
}

fn published(ports: PortMap) -> Vec<(PortNumber, IpAddr, u16)> {
    let mut all: Vec<_> = ports
        .into_iter()
        .filter_map(|(port, bindings)| Some((port_of(&port)?, bindings.unwrap_or_default())))
        .flat_map(|(port, bindings)| {
            bindings.into_iter().filter_map(move |binding| {
                let ip = binding.host_ip?.parse().ok()?;
                Some((port.clone(), ip, binding.host_port?.parse().ok()?))
            })
        })
        .collect();
    all.sort();
    all
}

fn mounts(mounts: Vec<MountPoint>) -> Vec<MadeMount> {
    let read = |mount: MountPoint| MadeMount {
        kind: mount.typ.map(|kind| kind.to_string()).unwrap_or_default(),
        source: mount.name.filter(|name| !name.is_empty()).or(mount.source).unwrap_or_default(),
        target: mount.destination.unwrap_or_default(),
        writable: mount.rw.unwrap_or(true),
    };
    mounts.into_iter().map(read).collect()
}

/// The published ports as they were asked for.
fn asked(ports: PortMap) -> BTreeSet<(String, Option<IpAddr>, String)> {
    let all = ports.into_iter().flat_map(|(port, bindings)| {
        bindings.unwrap_or_default().into_iter().map(move |binding| {
            let host = binding.host_ip.and_then(|ip| ip.parse().ok());
            let host = host.filter(|ip: &IpAddr| !ip.is_unspecified());
            (port.clone(), host, binding.host_port.unwrap_or_default())
        })
    });
    all.collect()
}

/// `80/tcp`
fn port_of(text: &str) -> Option<PortNumber> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    Some(PortNumber { port: port.parse().ok()?, protocol: protocol.to_owned() })
}

/// RFC 3339 to milliseconds since 1970; the Engine's `0001-01-01T00:00:00Z` is "never".
pub(super) fn moment(text: &str) -> Option<u64> {
    let at: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok()
}

/// The same in nanoseconds since 1970, as exact as the Engine writes it.
pub(super) fn moment_ns(text: &str) -> Option<u64> {
    let at: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(at.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspected(json: &str) -> Found {
        Found::read(serde_json::from_str(json).unwrap(), "me").unwrap()
    }

    #[test]
    fn the_shape_of_an_old_engine_is_read() {
        let found = inspected(
            r#"{"Id":"abc","Name":"/shop-web-r3-1","Image":"sha256:1","RestartCount":0,
            "State":{"Status":"exited","Running":false,"Paused":false,"Restarting":false,"OOMKilled":true,"Dead":false,
              "Pid":0,"ExitCode":137,"Error":"","StartedAt":"2026-11-22T04:00:00.5Z","FinishedAt":"2026-11-22T04:00:01Z",
              "Health":{"Status":"unhealthy","FailingStreak":3,"Log":[]}},
            "Config":{"Tty":false,"ExposedPorts":{"3000/tcp":{}},
              "Labels":{"bulsa.owner":"me","bulsa.project":"shop","bulsa.replica":"web-r3-1.2","bulsa.release":"r3",
                "com.docker.compose.service":"web","com.docker.compose.container-number":"1"}},
            "NetworkSettings":{"IPAddress":"","Gateway":"","Ports":{"3000/tcp":[{"HostIp":"0.0.0.0","HostPort":"80"}]},
              "Networks":{"shop_default":{"IPAddress":"172.30.0.2","Aliases":["web"]},"gone":{"IPAddress":""}}}}"#,
        );
        assert!(found.ours);
        assert_eq!(found.replica.as_ref().unwrap().to_string(), "web-r3-1.2");
        assert_eq!((found.state, found.exit_code, found.oom_killed), (State::Exited, 137, true));
        assert_eq!((found.finished_at_ms.unwrap() - found.started_at_ms.unwrap(), found.pid), (500, None));
        assert_eq!(
            found.addresses,
            BTreeMap::from([("shop_default".to_owned(), "172.30.0.2".parse().unwrap())])
        );
        assert_eq!(found.published[0].2, 80);
        assert_eq!((found.health.as_deref(), found.release), (Some("unhealthy"), Some(ReleaseId(3))));
    }

    #[test]
    fn a_list_tells_who_a_broken_container_is_and_whether_it_runs() {
        let summary = serde_json::from_str(
            r#"{"Id":"abc","Names":["/shop-web-r3-1"],"State":"running","ImageID":"sha256:1",
            "Labels":{"bulsa.owner":"me","bulsa.project":"shop","bulsa.replica":"web-r3-1.2"},
            "NetworkSettings":{"Networks":{"shop_default":{"IPAddress":"172.30.0.2"}}}}"#,
        );
        let found = Found::of_summary(summary.unwrap(), "me").unwrap();
        assert!(found.ours && found.is_up() && found.addresses.len() == 1, "{found:?}");
        assert_eq!(found.replica.unwrap().to_string(), "web-r3-1.2");
    }

    #[test]
    fn what_compose_made_isnt_ours_and_has_no_replica() {
        let found = inspected(
            r#"{"Id":"abc","Name":"/shop-db-1","State":{"Status":"created","StartedAt":"0001-01-01T00:00:00Z"},
            "Config":{"Labels":{"com.docker.compose.project":"shop","com.docker.compose.service":"db"}}}"#,
        );
        assert!(!found.ours && found.replica.is_none() && !found.is_up());
        assert_eq!((found.project.as_str(), found.service.as_str()), ("shop", "db"));
        assert_eq!((found.state, found.started_at_ms), (State::Created, None));
    }
}

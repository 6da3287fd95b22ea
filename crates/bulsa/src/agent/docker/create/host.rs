//! What of a container is the host's side: limits, rights, name spaces, ports.
//!
//! Owns: the Engine's `HostConfig`. Never: decides a limit that the file doesn't say.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    DeviceMapping, DeviceRequest, HostConfig, HostConfigCgroupnsModeEnum, HostConfigIsolationEnum,
    HostConfigLogConfig, PortBinding, PortMap, ResourcesBlkioWeightDevice, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum, ThrottleDevice,
};
use bulsa_core::spec::{
    Role,
    container::{Container, NetworkMode, Resources},
};

use super::{
    super::{EngineInfo, StartProblem},
    Others, StartReplica, mounts,
    networks::Joined,
};

pub(super) fn config(
    start: &StartReplica<'_>,
    container: &Container,
    engine: &EngineInfo,
    joined: &Joined,
    others: &Others,
    notes: &mut Vec<String>,
) -> Result<HostConfig, StartProblem> {
    let mounts = mounts::of(container, start.spec, engine)?;
    if !container.annotations.is_empty() && !engine.has(43) {
        notes.push(format!("`{}`: `annotations` need Docker Engine 24 and are left out", start.service.name));
    }
    let is_borrowed = container.network_mode.as_ref().is_some_and(super::is_borrowed);
    let mut host = HostConfig {
        binds: some(mounts.binds),
        mounts: some(mounts.mounts),
        tmpfs: map(&container.tmpfs),
        volumes_from: some(volumes_from(container, others)?),
        network_mode: Some(network_mode(container, joined, others)?),
        port_bindings: (start.service.role != Role::App && !is_borrowed).then(|| ports(container)).flatten(),
        // Until it has proven itself its deaths are ours to see.
        restart_policy: Some(if start.recreates {
            no_restart()
        } else {
            restart_policy(start.service.role, container)
        }),
        extra_hosts: some(container.extra_hosts.iter().map(|(name, to)| format!("{name}:{to}")).collect()),
        dns: some(container.dns.clone()),
        dns_search: some(container.dns_search.clone()),
        dns_options: some(container.dns_options.clone()),
        init: container.init,
        log_config: container.logging.as_ref().map(|logging| HostConfigLogConfig {
            typ: logging.driver.clone(),
            config: map(&logging.options),
        }),
        runtime: container.runtime.clone(),
        shm_size: container.shm_size,
        storage_opt: map(&container.storage_options),
        annotations: map(&container.annotations).filter(|_| engine.has(43)),
        ..HostConfig::default()
    };
    if container.network_mode == Some(NetworkMode::Bridge) {
        host.links = some(legacy_links(container, others)?);
    }
    limits(&mut host, &container.resources);
    rights(&mut host, container, others)?;
    Ok(host)
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn map(from: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    (!from.is_empty()).then(|| from.clone().into_iter().collect())
}

/// The id of another service's container.
fn other<'a>(others: &'a Others, service: &str, what: &str) -> Result<&'a str, StartProblem> {
    others.get(service).map(String::as_str).ok_or_else(|| {
        StartProblem::passing(format!("{what} needs a container of `{service}`, and there is none yet"))
    })
}

/// `service:NAME` to `container:ID`; anything else stays.
fn name_space(mode: Option<&String>, key: &str, others: &Others) -> Result<Option<String>, StartProblem> {
    match mode {
        None => Ok(None),
        Some(mode) => match mode.strip_prefix("service:") {
            None => Ok(Some(mode.clone())),
            Some(service) => {
                Ok(Some(format!("container:{}", other(others, service, &format!("`{key}: {mode}`"))?)))
            }
        },
    }
}

fn network_mode(container: &Container, joined: &Joined, others: &Others) -> Result<String, StartProblem> {
    Ok(match &container.network_mode {
        Some(NetworkMode::None) => "none".to_owned(),
        Some(NetworkMode::Host) => "host".to_owned(),
        Some(NetworkMode::Bridge) => "bridge".to_owned(),
        Some(NetworkMode::Service(name)) => {
            format!("container:{}", other(others, name, &format!("`network_mode: service:{name}`"))?)
        }
        Some(NetworkMode::Container(name)) => format!("container:{name}"),
        Some(NetworkMode::Named(name)) => name.clone(),
        None => joined.first.clone().unwrap_or_else(|| "none".to_owned()),
    })
}

fn volumes_from(container: &Container, others: &Others) -> Result<Vec<String>, StartProblem> {
    let resolve = |from: &String| {
        if let Some(rest) = from.strip_prefix("container:") {
            return Ok(rest.to_owned());
        }
        let (service, mode) = from.split_once(':').map_or((from.as_str(), None), |(a, b)| (a, Some(b)));
        let id = other(others, service, "`volumes_from`")?;
        Ok(mode.map_or_else(|| id.to_owned(), |mode| format!("{id}:{mode}")))
    };
    container.volumes_from.iter().map(resolve).collect()
}

/// On the Engine's own bridge nobody has a name: there a link is an entry in /etc/hosts.
fn legacy_links(container: &Container, others: &Others) -> Result<Vec<String>, StartProblem> {
    let mut links = container.external_links.clone();
    for (service, alias) in &container.links {
        links.push(format!("{}:{alias}", other(others, service, "`links`")?));
    }
    Ok(links)
}

fn ports(container: &Container) -> Option<PortMap> {
    let mut map: BTreeMap<String, Vec<PortBinding>> = BTreeMap::new();
    for port in &container.published {
        map.entry(format!("{}/{}", port.target, port.protocol)).or_default().push(PortBinding {
            host_ip: port.host.map(|ip| ip.to_string()),
            host_port: Some(port.published.clone().unwrap_or_default()),
        });
    }
    (!map.is_empty()).then(|| map.into_iter().map(|(port, bindings)| (port, Some(bindings))).collect())
}

/// What Bulsa restarts, Docker must not; what it leaves to Docker is as the file says, and comes back where the file
/// says nothing.
pub(in super::super) fn restart_policy(role: Role, container: &Container) -> RestartPolicy {
    let word = match role {
        Role::Shared => container.docker_restart.as_deref().unwrap_or("unless-stopped"),
        Role::App | Role::Worker | Role::Job => "no",
    };
    let (word, count) = word.split_once(':').map_or((word, None), |(word, count)| (word, count.parse().ok()));
    let name = match word {
        "always" => RestartPolicyNameEnum::ALWAYS,
        "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
        "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
        _ => RestartPolicyNameEnum::NO,
    };
    RestartPolicy { name: Some(name), maximum_retry_count: count }
}

/// Docker leaves it down.
pub(in super::super) fn no_restart() -> RestartPolicy {
    RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }
}

fn limits(host: &mut HostConfig, resources: &Resources) {
    host.nano_cpus = resources.cpus.map(nano_cpus);
    host.memory = resources.memory;
    host.memory_reservation = resources.memory_reservation;
    host.memory_swap = resources.memory_swap;
    host.memory_swappiness = resources.memory_swappiness;
    host.pids_limit = resources.pids;
    host.cpu_shares = resources.cpu_shares;
    host.cpu_period = resources.cpu_period;
    host.cpu_quota = resources.cpu_quota;
    host.cpu_realtime_period = resources.cpu_realtime_period;
    host.cpu_realtime_runtime = resources.cpu_realtime_runtime;
    host.cpuset_cpus.clone_from(&resources.cpuset);
    host.cpu_count = resources.cpu_count;
    host.cpu_percent = resources.cpu_percent;
    host.oom_kill_disable = resources.oom_kill_disable;
    host.oom_score_adj = resources.oom_score_adj;
    host.ulimits = some(
        resources
            .ulimits
            .iter()
            .map(|(name, limit)| ResourcesUlimits {
                name: Some(name.clone()),
                soft: Some(limit.soft),
                hard: Some(limit.hard),
            })
            .collect(),
    );
    host.device_requests = some(
        resources
            .device_requests
            .iter()
            .map(|request| DeviceRequest {
                driver: request.driver.clone(),
                count: request.count,
                device_ids: some(request.device_ids.clone()),
                capabilities: some(request.capabilities.clone()),
                options: map(&request.options),
            })
            .collect(),
    );
    if let Some(io) = &resources.block_io {
        let rates = |list: &[(String, i64)]| {
            let one =
                |(path, rate): &(String, i64)| ThrottleDevice { path: Some(path.clone()), rate: Some(*rate) };
            some(list.iter().map(one).collect())
        };
        host.blkio_weight = io.weight;
        host.blkio_weight_device = some(
            io.weight_device
                .iter()
                .map(|(path, weight)| ResourcesBlkioWeightDevice {
                    path: Some(path.clone()),
                    weight: Some(usize::from(*weight)),
                })
                .collect(),
        );
        host.blkio_device_read_bps = rates(&io.device_read_bps);
        host.blkio_device_write_bps = rates(&io.device_write_bps);
        host.blkio_device_read_iops = rates(&io.device_read_iops);
        host.blkio_device_write_iops = rates(&io.device_write_iops);
    }
}

/// Processors as the Engine counts them.
#[expect(clippy::cast_possible_truncation, reason = "a float that is too large for it is cut to the largest")]
fn nano_cpus(cpus: f64) -> i64 {
    (cpus * 1e9).round() as i64
}

fn rights(host: &mut HostConfig, container: &Container, others: &Others) -> Result<(), StartProblem> {
    let isolation = &container.isolation;
    host.cap_add = some(isolation.cap_add.clone());
    host.cap_drop = some(isolation.cap_drop.clone());
    host.privileged = isolation.privileged.then_some(true);
    host.readonly_rootfs = isolation.read_only.then_some(true);
    host.security_opt = some(isolation.security_options.clone());
    // An empty list is a list: without one the Engine has its own.
    host.masked_paths = isolation.unconfined_paths.then(Vec::new);
    host.readonly_paths = isolation.unconfined_paths.then(Vec::new);
    host.devices = some(
        isolation
            .devices
            .iter()
            .map(|(host, inside, permissions)| DeviceMapping {
                path_on_host: Some(host.clone()),
                path_in_container: Some(inside.clone()),
                cgroup_permissions: Some(permissions.clone()),
            })
            .collect(),
    );
    host.device_cgroup_rules = some(isolation.device_cgroup_rules.clone());
    host.group_add = some(isolation.group_add.clone());
    host.sysctls = map(&isolation.sysctls);
    host.pid_mode = name_space(isolation.pid.as_ref(), "pid", others)?;
    host.ipc_mode = name_space(isolation.ipc.as_ref(), "ipc", others)?;
    host.uts_mode = name_space(isolation.uts.as_ref(), "uts", others)?;
    host.userns_mode.clone_from(&isolation.userns);
    host.cgroupns_mode = match isolation.cgroup.as_deref() {
        Some("host") => Some(HostConfigCgroupnsModeEnum::HOST),
        Some("private") => Some(HostConfigCgroupnsModeEnum::PRIVATE),
        _ => None,
    };
    host.cgroup_parent.clone_from(&isolation.cgroup_parent);
    host.isolation = match isolation.technology.as_deref() {
        None => None,
        Some(text) => Some(text.parse::<HostConfigIsolationEnum>().map_err(|_| {
            StartProblem::permanent(format!("`isolation: {text}` is unknown: default, process or hyperv"))
        })?),
    };
    Ok(())
}

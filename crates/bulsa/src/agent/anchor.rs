//! Anchors: the tiny containers that carry an `app` service's name on its project's networks.
//!
//! Inside a network, `http://api:3000` must mean the healthy replicas of the live release, through every switch, hold
//! and heal. Docker's own DNS can't do that: it isn't gated by health, its answers live for 600 s, and a name can't be
//! moved from one container to another. So the name belongs to an anchor, which never changes, and the proxy listens in
//! the anchor's network namespace.
//!
//! Owns: the anchor's image (`image`), making and finding anchors, and opening listening sockets in their namespaces
//! ([`netns`]). Never: routes anything; puts a name on an address that isn't the anchor's.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
};

use bollard::{
    Docker,
    errors::Error,
    models::{
        ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, NetworkConnectRequest,
        NetworkingConfig, RestartPolicy, RestartPolicyNameEnum,
    },
    query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder},
};
use bulsa_core::spec::{Service, Spec};
use ipnet::Ipv4Net;
use sha2::{Digest, Sha256};

mod image;
pub mod netns;

/// The label that says whose daemon's an anchor is.
const OWNER: &str = "bulsa.owner";
/// The label with its project.
const PROJECT: &str = "bulsa.project";
/// The label with the service whose name it carries.
const SERVICE: &str = "bulsa.anchor";
/// The label with a hash of what it was made from.
const HASH: &str = "bulsa.anchor.hash";

/// Why an anchor can't be had.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// The Engine refused something.
    #[error("the name `{service}` can't be served inside the project's networks: {what}: {source}")]
    Engine {
        /// The service.
        service: String,
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: Error,
    },
    /// It was started, and doesn't run.
    #[error(
        "the name `{service}` can't be served inside the project's networks: its anchor does not stay up"
    )]
    NotRunning {
        /// The service.
        service: String,
    },
}

/// An anchor that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Its project.
    pub project: String,
    /// The service whose name it carries.
    pub service: String,
    /// Its container.
    pub container: String,
    /// Its process: the way to its network namespace. With another start both are others.
    pub pid: u32,
    /// Its addresses.
    pub addresses: Vec<Ipv4Addr>,
}

/// The names that an anchor carries on one network.
fn names(service: &Service, network: &str) -> Vec<String> {
    let Some(container) = service.container.as_deref() else { return Vec::new() };
    let own = [Some(service.name.clone()), container.container_name.clone()];
    let further = container.networks.get(network).map(|joined| joined.aliases.clone()).unwrap_or_default();
    let all: BTreeSet<String> = own.into_iter().flatten().chain(further).collect();
    all.into_iter().collect()
}

/// What an anchor is made from, as a short text; another one means another anchor.
fn fingerprint(service: &Service, spec: &Spec) -> String {
    let mut hash = Sha256::new();
    let networks = service.container.iter().flat_map(|container| container.networks.keys());
    for network in networks {
        let name = spec.networks.get(network).map_or(network.as_str(), |known| known.name.as_str());
        hash.update(name);
        for alias in names(service, network) {
            hash.update([0]);
            hash.update(alias);
        }
        hash.update([1]);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Makes sure that a service's anchor runs and is as the spec wants it.
///
/// # Errors
/// What the Engine refused.
pub async fn ensure(
    engine: &Docker,
    owner: &str,
    service: &Service,
    spec: &Spec,
) -> Result<Anchor, AnchorError> {
    let failed = |what| move |source| AnchorError::Engine { service: service.name.clone(), what, source };
    let (name, hash) = (container_name(spec, service), fingerprint(service, spec));
    let mut former = BTreeMap::new();
    if let Some(found) = inspect(engine, &name).await.map_err(failed("looking for its anchor"))? {
        if found.is(owner, &hash) {
            if found.anchor.is_none() {
                engine.start_container(&name, None).await.map_err(failed("starting its anchor"))?;
            }
            return running(engine, &name, service).await;
        }
        // Clients remember the address for ten minutes: the new anchor gets it again.
        former = found.addresses;
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        engine.remove_container(&name, Some(options)).await.map_err(failed("replacing its anchor"))?;
    }
    let image = image::ensure(engine).await.map_err(failed("making the anchors' image"))?;
    let attachments =
        attachments(engine, service, spec, &former).await.map_err(failed("reading its networks"))?;
    let labels = [(OWNER, owner), (PROJECT, &spec.project), (SERVICE, &service.name), (HASH, &hash)];
    create(engine, &name, image, attachments, labels).await.map_err(failed("making its anchor"))?;
    running(engine, &name, service).await
}

fn container_name(spec: &Spec, service: &Service) -> String {
    format!("{}-{}-anchor", spec.project, service.name)
}

async fn create(
    engine: &Docker,
    name: &str,
    image: String,
    mut attachments: BTreeMap<String, EndpointSettings>,
    labels: [(&str, &str); 4],
) -> Result<(), Error> {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    // Engines before 25 take one network at creation; the others are joined before the start.
    let first = attachments.pop_first();
    let body = ContainerCreateBody {
        image: Some(image),
        labels: Some(labels),
        stop_signal: Some("SIGKILL".to_owned()),
        host_config: Some(HostConfig {
            network_mode: first.as_ref().map(|(network, _)| network.clone()),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::ALWAYS),
                maximum_retry_count: None,
            }),
            cap_drop: Some(vec!["ALL".to_owned()]),
            readonly_rootfs: Some(true),
            log_config: Some(bollard::models::HostConfigLogConfig {
                typ: Some("none".to_owned()),
                config: None,
            }),
            ..HostConfig::default()
        }),
        networking_config: first.map(|(network, endpoint)| NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network, endpoint)])),
        }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    let made = engine.create_container(Some(options), body).await?;
    let joined = async {
        for (network, endpoint) in attachments {
            let request =
                NetworkConnectRequest { container: made.id.clone(), endpoint_config: Some(endpoint) };
            engine.connect_network(&network, request).await?;
        }
        engine.start_container(&made.id, None).await
    };
    let done = joined.await;
    if done.is_err() {
        // Half an anchor is worse than none; the error that made it half is what counts.
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        drop(engine.remove_container(&made.id, Some(options)).await);
    }
    done
}

/// How the anchor joins each network of its service: with its names, and a fixed address where the network has room for
/// one that we know.
async fn attachments(
    engine: &Docker,
    service: &Service,
    spec: &Spec,
    former: &BTreeMap<String, Ipv4Addr>,
) -> Result<BTreeMap<String, EndpointSettings>, Error> {
    let mut attachments = BTreeMap::new();
    let networks = service.container.iter().flat_map(|container| container.networks.keys());
    for key in networks {
        let Some(network) = spec.networks.get(key) else { continue };
        let fixed = fixed_address(engine, &network.name, former.get(&network.name).copied()).await?;
        let endpoint = EndpointSettings {
            aliases: Some(names(service, key)),
            ipam_config: fixed.map(|address| EndpointIpamConfig {
                ipv4_address: Some(address.to_string()),
                ..EndpointIpamConfig::default()
            }),
            ..EndpointSettings::default()
        };
        attachments.insert(network.name.clone(), endpoint);
    }
    Ok(attachments)
}

/// A free address at the far end of a network that has a configured subnet (the Engine refuses one on any other).
async fn fixed_address(
    engine: &Docker,
    network: &str,
    former: Option<Ipv4Addr>,
) -> Result<Option<Ipv4Addr>, Error> {
    let inspected = engine.inspect_network(network, None).await?;
    let is_ours = inspected.labels.as_ref().is_some_and(|labels| labels.contains_key(OWNER));
    let config = inspected.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    let subnet = config.iter().find_map(|one| one.subnet.as_deref()?.parse::<Ipv4Net>().ok());
    let Some(subnet) = subnet.filter(|_| is_ours) else { return Ok(None) };
    let mut taken: BTreeSet<Ipv4Addr> =
        config.iter().filter_map(|one| one.gateway.as_deref()?.parse().ok()).collect();
    let endpoints = inspected.containers.unwrap_or_default();
    let addresses = endpoints.values().filter_map(|one| one.ipv4_address.as_deref());
    taken.extend(addresses.filter_map(|text| Some(text.parse::<Ipv4Net>().ok()?.addr())));
    if let Some(former) = former.filter(|former| subnet.contains(former) && !taken.contains(former)) {
        return Ok(Some(former));
    }
    let last = u32::from(subnet.broadcast());
    let first = u32::from(subnet.network()) + 1;
    Ok((first..last).rev().map(Ipv4Addr::from).find(|address| !taken.contains(address)))
}

/// An anchor's container as it was found.
struct Found {
    owner: Option<String>,
    hash: Option<String>,
    /// By network.
    addresses: BTreeMap<String, Ipv4Addr>,
    /// `None` while it doesn't run.
    anchor: Option<Anchor>,
}

impl Found {
    fn is(&self, owner: &str, hash: &str) -> bool {
        self.owner.as_deref() == Some(owner) && self.hash.as_deref() == Some(hash)
    }
}

async fn running(engine: &Docker, name: &str, service: &Service) -> Result<Anchor, AnchorError> {
    let failed =
        |source| AnchorError::Engine { service: service.name.clone(), what: "looking at its anchor", source };
    let found = inspect(engine, name).await.map_err(failed)?;
    found
        .and_then(|found| found.anchor)
        .ok_or_else(|| AnchorError::NotRunning { service: service.name.clone() })
}

/// The anchor of this container, if it is one and runs.
///
/// # Errors
/// When the Engine doesn't answer.
pub async fn find(engine: &Docker, container: &str) -> Result<Option<Anchor>, Error> {
    Ok(inspect(engine, container).await?.and_then(|found| found.anchor))
}

async fn inspect(engine: &Docker, name: &str) -> Result<Option<Found>, Error> {
    let inspected = match engine.inspect_container(name, None).await {
        Ok(inspected) => inspected,
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let labels = inspected.config.and_then(|config| config.labels).unwrap_or_default();
    let networks = inspected.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let addresses: BTreeMap<String, Ipv4Addr> = networks
        .into_iter()
        .filter_map(|(network, endpoint)| {
            let given = endpoint.ip_address.filter(|text| !text.is_empty());
            let wanted = endpoint.ipam_config.and_then(|config| config.ipv4_address);
            Some((network, given.or(wanted)?.parse().ok()?))
        })
        .collect();
    let state = inspected.state.unwrap_or_default();
    let pid = state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
    let anchor = pid.filter(|_| state.running == Some(true)).and_then(|pid| {
        Some(Anchor {
            project: labels.get(PROJECT)?.clone(),
            service: labels.get(SERVICE)?.clone(),
            container: inspected.id?,
            pid,
            addresses: addresses.values().copied().collect(),
        })
    });
    let (owner, hash) = (labels.get(OWNER).cloned(), labels.get(HASH).cloned());
    Ok(Some(Found { owner, hash, addresses, anchor }))
}

/// Whose name a container carries, if its labels say that it is an anchor.
#[must_use]
pub fn service_of(labels: &BTreeMap<String, String>) -> Option<&str> {
    labels.get(SERVICE).map(String::as_str)
}

/// Removes the anchors of a project, except those of the services in `keep`.
///
/// # Errors
/// When the Engine doesn't answer.
pub async fn remove(
    engine: &Docker,
    owner: &str,
    project: &str,
    keep: &BTreeSet<String>,
) -> Result<(), Error> {
    let labels = vec![format!("{OWNER}={owner}"), format!("{PROJECT}={project}"), SERVICE.to_owned()];
    let filters = HashMap::from([("label".to_owned(), labels)]);
    let options =
        bollard::query_parameters::ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    for found in engine.list_containers(Some(options)).await? {
        let service = found.labels.as_ref().and_then(|labels| labels.get(SERVICE));
        let (Some(service), Some(id)) = (service, found.id) else { continue };
        if !keep.contains(service) {
            let options = RemoveContainerOptionsBuilder::new().force(true).build();
            match engine.remove_container(&id, Some(options)).await {
                // Gone, or being removed already.
                Ok(()) | Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

//! Anchors: the tiny containers that carry an `app` service's name on its project's networks.
//!
//! Inside a network, `http://api:3000` must mean the healthy replicas of the live release, through every switch, hold
//! and heal. Docker's own DNS can't do that: it isn't gated by health, its answers live for 600 s, and a name can't be
//! moved from one container to another. So the name belongs to an anchor, which never changes, and the proxy listens in
//! the anchor's network namespace.
//!
//! An anchor is told by its labels, never by its name: somebody else's container may have that. One that runs isn't
//! replaced when the names change, but joined to what it lacks: its address, which clients remember, stays. One whose
//! name others have as yet (the replicas of a release that has no anchor) is on the networks without it.
//!
//! Owns: the anchor's image (`image`), what an anchor is to be (`wanted`), making and finding anchors (`found`,
//! `address`), and opening listening sockets in their namespaces ([`netns`]). Never: routes anything; puts a name on an
//! address that isn't the anchor's; touches a container that isn't an anchor of this daemon's.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
    time::Duration,
};

use bollard::{
    Docker,
    errors::Error,
    models::{
        ContainerCreateBody, EndpointSettings, HostConfig, NetworkConnectRequest, NetworkDisconnectRequest,
        NetworkingConfig, RestartPolicy, RestartPolicyNameEnum,
    },
    query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder},
};

pub use self::wanted::Wanted;
use self::{found::Found, wanted::Place};
use super::docker::label;

mod address;
mod found;
mod image;
pub mod netns;
mod wanted;

/// The label with the service whose name it carries.
const SERVICE: &str = label::ANCHOR;

/// So many addresses are tried for an anchor, before it is made without a fixed one: what has an address and doesn't
/// run isn't listed by the Engine.
const ADDRESSES_MAX: usize = 3;

/// An anchor that Docker is about to start again, after somebody killed it, is looked at so often,
const LOOKS_MAX: u32 = 20;
/// and so long after one another.
const LOOK_EVERY: Duration = Duration::from_millis(100);

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
    /// Others have the names that its container may have.
    #[error(
        "the name `{service}` can't be served inside the project's networks: other containers are named {names}, as \
         its anchor would be; remove or rename one of them (`docker rename`)"
    )]
    NamesTaken {
        /// The service.
        service: String,
        /// The names.
        names: String,
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

impl Wanted {
    fn failed(&self, what: &'static str) -> impl FnOnce(Error) -> AnchorError {
        let service = self.service.clone();
        move |source| AnchorError::Engine { service, what, source }
    }
}

/// What an anchor that is there lacks.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lacks {
    /// Networks to join.
    join: BTreeSet<String>,
    /// Networks to join again, with other names. Its sockets stay open over that; its name is gone for a moment.
    again: BTreeSet<String>,
    /// Networks to leave.
    leave: BTreeSet<String>,
}

fn lacks(found: &Found, wanted: &Wanted) -> Lacks {
    let mut lacks = Lacks::default();
    for (network, place) in &wanted.networks {
        match found.networks.get(network) {
            None => drop(lacks.join.insert(network.clone())),
            // A name too many still means this service, as long as it isn't another one's.
            Some(joined)
                if place.names.is_subset(&joined.names) && place.others.is_disjoint(&joined.names) => {}
            Some(_) => drop(lacks.again.insert(network.clone())),
        }
    }
    let surplus = found.networks.keys().filter(|network| !wanted.networks.contains_key(*network));
    lacks.leave.extend(surplus.cloned());
    lacks
}

/// Makes sure that a service's anchor runs and is as it is wanted.
///
/// # Errors
/// What the Engine refused. One that ran before still does.
pub async fn ensure(engine: &Docker, owner: &str, wanted: &Wanted) -> Result<Anchor, AnchorError> {
    let looking = "looking for its anchor";
    let all =
        found::all(engine, owner, &wanted.project, &wanted.service).await.map_err(wanted.failed(looking))?;
    let mut all = all.into_iter();
    let mut former = BTreeMap::new();
    if let Some(first) = all.next() {
        for surplus in all {
            remove_one(engine, &surplus.id).await.map_err(wanted.failed("removing a second anchor of it"))?;
        }
        match adapt(engine, &first, wanted).await {
            Ok(()) => return running(engine, &first.id, wanted).await,
            Err(error) if first.anchor.is_some() => return Err(wanted.failed("changing its anchor")(error)),
            // One that can't be started is no loss.
            Err(error) => tracing::info!(%error, anchor = first.id, "an anchor is made anew"),
        }
        // Clients remember the address for ten minutes: the new anchor gets it again.
        former = first.networks.into_iter().filter_map(|(name, one)| Some((name, one.address?))).collect();
        remove_one(engine, &first.id).await.map_err(wanted.failed("replacing its anchor"))?;
    }
    let image = image::ensure(engine).await.map_err(wanted.failed("making the anchors' image"))?;
    for attempt in 0..=ADDRESSES_MAX {
        let places =
            places(engine, wanted, &former, attempt).await.map_err(wanted.failed("reading its networks"))?;
        match create(engine, owner, wanted, &image, places).await {
            Ok(Some(id)) => return running(engine, &id, wanted).await,
            Ok(None) => break,
            Err(error) if address::is_taken(&error) && attempt < ADDRESSES_MAX => {}
            Err(error) => return Err(wanted.failed("making its anchor")(error)),
        }
    }
    Err(AnchorError::NamesTaken {
        service: wanted.service.clone(),
        names: wanted.container_names().join(", "),
    })
}

/// Gives an anchor what it lacks, and has it run.
async fn adapt(engine: &Docker, found: &Found, wanted: &Wanted) -> Result<(), Error> {
    let lacks = lacks(found, wanted);
    for network in lacks.join.iter().chain(&lacks.again) {
        let Some(place) = wanted.networks.get(network) else { continue };
        let former = found.networks.get(network).and_then(|joined| joined.address);
        let free = address::free(engine, network, former, &place.reserved, Some(&found.id)).await?;
        if lacks.again.contains(network) {
            leave(engine, &found.id, network).await?;
        }
        for attempt in 0..=ADDRESSES_MAX {
            let endpoint = endpoint(place, free.get(attempt).copied().filter(|_| attempt < ADDRESSES_MAX));
            match connect(engine, &found.id, network, endpoint).await {
                Ok(()) => break,
                Err(error) if address::is_taken(&error) && attempt < ADDRESSES_MAX => {}
                Err(error) => return Err(error),
            }
        }
    }
    for network in &lacks.leave {
        leave(engine, &found.id, network).await?;
    }
    if found.anchor.is_none() {
        engine.start_container(&found.id, None).await?;
    }
    Ok(())
}

async fn connect(
    engine: &Docker,
    container: &str,
    network: &str,
    endpoint: EndpointSettings,
) -> Result<(), Error> {
    let request = NetworkConnectRequest { container: container.to_owned(), endpoint_config: Some(endpoint) };
    engine.connect_network(network, request).await
}

async fn leave(engine: &Docker, container: &str, network: &str) -> Result<(), Error> {
    let request = NetworkDisconnectRequest { container: container.to_owned(), force: Some(true) };
    match engine.disconnect_network(network, request).await {
        // The network is gone, or somebody was faster.
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
        done => done,
    }
}

/// Makes and starts an anchor under the first of its names that is free; `None`: none is.
async fn create(
    engine: &Docker,
    owner: &str,
    wanted: &Wanted,
    image: &str,
    mut places: BTreeMap<String, EndpointSettings>,
) -> Result<Option<String>, Error> {
    let labels = [(label::OWNER, owner), (label::PROJECT, &wanted.project), (SERVICE, &wanted.service)];
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    // Engines before 25 take one network at creation; the others are joined before the start.
    let first = places.pop_first();
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        labels: Some(labels),
        stop_signal: Some("SIGKILL".to_owned()),
        host_config: Some(host_config(first.as_ref().map(|(network, _)| network.clone()))),
        networking_config: first.map(|(network, endpoint)| NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network, endpoint)])),
        }),
        ..ContainerCreateBody::default()
    };
    let mut made = None;
    for name in wanted.container_names() {
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        match engine.create_container(Some(options), body.clone()).await {
            Ok(answer) => {
                made = Some(answer.id);
                break;
            }
            Err(Error::DockerResponseServerError { status_code: 409, message })
                if message.contains("already in use") => {}
            Err(error) => return Err(error),
        }
    }
    let Some(id) = made else { return Ok(None) };
    let joined = async {
        for (network, endpoint) in places {
            connect(engine, &id, &network, endpoint).await?;
        }
        engine.start_container(&id, None).await
    };
    if let Err(error) = joined.await {
        // Half an anchor is worse than none; the error that made it half is what counts.
        drop(remove_one(engine, &id).await);
        return Err(error);
    }
    Ok(Some(id))
}

fn host_config(network: Option<String>) -> HostConfig {
    HostConfig {
        network_mode: network,
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::ALWAYS),
            maximum_retry_count: None,
        }),
        cap_drop: Some(vec!["ALL".to_owned()]),
        readonly_rootfs: Some(true),
        log_config: Some(bollard::models::HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        ..HostConfig::default()
    }
}

/// How a new anchor joins each of its networks: with its names, and a fixed address where there is one to be had.
async fn places(
    engine: &Docker,
    wanted: &Wanted,
    former: &BTreeMap<String, Ipv4Addr>,
    attempt: usize,
) -> Result<BTreeMap<String, EndpointSettings>, Error> {
    let mut all = BTreeMap::new();
    for (network, place) in &wanted.networks {
        let free =
            address::free(engine, network, former.get(network).copied(), &place.reserved, None).await?;
        let fixed = free.get(attempt).copied().filter(|_| attempt < ADDRESSES_MAX);
        all.insert(network.clone(), endpoint(place, fixed));
    }
    Ok(all)
}

fn endpoint(place: &Place, fixed: Option<Ipv4Addr>) -> EndpointSettings {
    EndpointSettings {
        aliases: Some(place.names.iter().cloned().collect()),
        ipam_config: fixed.map(|address| bollard::models::EndpointIpamConfig {
            ipv4_address: Some(address.to_string()),
            ..bollard::models::EndpointIpamConfig::default()
        }),
        ..EndpointSettings::default()
    }
}

async fn running(engine: &Docker, container: &str, wanted: &Wanted) -> Result<Anchor, AnchorError> {
    for _ in 0..LOOKS_MAX {
        let found = find(engine, container).await.map_err(wanted.failed("looking at its anchor"))?;
        if let Some(anchor) = found {
            return Ok(anchor);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(AnchorError::NotRunning { service: wanted.service.clone() })
}

/// The anchor of this container, if it is one and runs.
///
/// # Errors
/// When the Engine doesn't answer.
pub async fn find(engine: &Docker, container: &str) -> Result<Option<Anchor>, Error> {
    Ok(found::inspect(engine, container).await?.and_then(|found| found.anchor))
}

/// Whose name a container carries, if its labels say that it is an anchor.
#[must_use]
pub fn service_of(labels: &BTreeMap<String, String>) -> Option<&str> {
    // What has a replica's label is a replica, whatever its file says.
    labels.get(SERVICE).filter(|_| !labels.contains_key(label::REPLICA)).map(String::as_str)
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
    for (service, id) in found::of_project(engine, owner, project).await? {
        if !keep.contains(&service) {
            remove_one(engine, &id).await?;
        }
    }
    Ok(())
}

async fn remove_one(engine: &Docker, container: &str) -> Result<(), Error> {
    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    match engine.remove_container(container, Some(options)).await {
        // Gone, or being removed already.
        Ok(()) | Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;

//! The anchors that there are.
//!
//! Owns: finding them by their labels, and reading what they are joined to. Never: takes a container for an anchor by its
//! name.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
};

use bollard::{
    Docker,
    errors::Error,
    models::{ContainerInspectResponse, EndpointSettings},
    query_parameters::ListContainersOptionsBuilder,
};

use super::{Anchor, SERVICE, service_of};
use crate::agent::docker::label;

/// So many characters of a container's id are its short id.
const SHORT_ID: usize = 12;

/// An anchor's container as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: String,
    /// By the network's name.
    pub(super) networks: BTreeMap<String, Joined>,
    /// `None` while it doesn't run.
    pub(super) anchor: Option<Anchor>,
}

/// How it is joined to a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) names: BTreeSet<String>,
    pub(super) address: Option<Ipv4Addr>,
}

/// The anchors of a service, one that runs first.
pub(super) async fn all(
    engine: &Docker,
    owner: &str,
    project: &str,
    service: &str,
) -> Result<Vec<Found>, Error> {
    let mut all = Vec::new();
    for (of, id) in of_project(engine, owner, project).await? {
        if of == service {
            all.extend(inspect(engine, &id).await?);
        }
    }
    all.sort_by_key(|found| found.anchor.is_none());
    Ok(all)
}

/// The anchors of a project: the service of each, and its container.
pub(super) async fn of_project(
    engine: &Docker,
    owner: &str,
    project: &str,
) -> Result<Vec<(String, String)>, Error> {
    let labels = vec![
        format!("{}={owner}", label::OWNER),
        format!("{}={project}", label::PROJECT),
        SERVICE.to_owned(),
    ];
    let filters = HashMap::from([("label".to_owned(), labels)]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let listed = engine.list_containers(Some(options)).await?;
    let anchors = listed.into_iter().filter_map(|one| {
        let labels: BTreeMap<String, String> = one.labels?.into_iter().collect();
        Some((service_of(&labels)?.to_owned(), one.id?))
    });
    Ok(anchors.collect())
}

/// One of them; `None` if it is gone, or is no anchor.
pub(super) async fn inspect(engine: &Docker, container: &str) -> Result<Option<Found>, Error> {
    match engine.inspect_container(container, None).await {
        Ok(inspected) => Ok(read(inspected)),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn read(inspected: ContainerInspectResponse) -> Option<Found> {
    let id = inspected.id?;
    let labels: BTreeMap<String, String> = inspected.config?.labels?.into_iter().collect();
    let service = service_of(&labels)?.to_owned();
    let networks = inspected.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let networks: BTreeMap<String, Joined> =
        networks.into_iter().map(|(name, endpoint)| (name, joined(endpoint, &id))).collect();
    let state = inspected.state.unwrap_or_default();
    let pid = state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
    let project = labels.get(label::PROJECT)?.clone();
    let anchor = pid.filter(|_| state.running == Some(true)).map(|pid| Anchor {
        project,
        service,
        container: id.clone(),
        pid,
        addresses: networks.values().filter_map(|joined| joined.address).collect(),
    });
    Some(Found { id, networks, anchor })
}

fn joined(endpoint: EndpointSettings, id: &str) -> Joined {
    let given = endpoint.ip_address.filter(|text| !text.is_empty());
    let wanted = endpoint.ipam_config.and_then(|config| config.ipv4_address);
    // Engines before 25 have the short id among the names; one that only begins like it is the service's.
    let short: String = id.chars().take(SHORT_ID).collect();
    let names = endpoint.aliases.unwrap_or_default().into_iter().filter(|name| *name != short);
    Joined { names: names.collect(), address: given.or(wanted).and_then(|text| text.parse().ok()) }
}

//! How a replica's container joins its networks.
//!
//! Owns: aliases, fixed addresses, the order of joining, and what older Engines need instead. Never: makes a network.

use std::collections::BTreeMap;

use bollard::models::{EndpointIpamConfig, EndpointSettings};
use bulsa_core::spec::{
    Role,
    container::{Attachment, Container, NetworkMode},
};

use super::{super::EngineInfo, StartProblem, StartReplica};

/// The driver option by which an Engine from 28 on names an interface.
const INTERFACE_OPTION: &str = "com.docker.network.endpoint.ifname";

/// The networks of one container.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// The one that `NetworkMode` names.
    pub(super) first: Option<String>,
    /// Joined when it is made.
    pub(super) now: BTreeMap<String, EndpointSettings>,
    /// Joined between making and starting it.
    pub(super) later: Vec<(String, EndpointSettings)>,
}

pub(super) fn join(
    start: &StartReplica<'_>,
    container: &Container,
    engine: &EngineInfo,
    notes: &mut Vec<String>,
) -> Result<Joined, StartProblem> {
    let mut joined = Joined::default();
    notes.extend(lost(&start.service.name, container, engine));
    if let Some(mode) = &container.network_mode {
        if let NetworkMode::Named(name) = mode {
            let mut settings = endpoint(start, container, &Attachment::default(), engine)?;
            if let Some(address) = &container.isolation.mac_address {
                settings.mac_address = Some(mac(address, start, engine)?);
            }
            joined.now.insert(name.clone(), settings);
        }
        return Ok(joined);
    }
    let mut all: Vec<(&String, &Attachment)> = container.networks.iter().collect();
    // The map's order is by name; a stable sort keeps it among equals, as Compose does.
    all.sort_by_key(|(_, attachment)| -attachment.priority);
    for (index, (key, attachment)) in all.into_iter().enumerate() {
        let name = start.spec.networks.get(key).map_or_else(|| key.clone(), |known| known.name.clone());
        let mut settings = endpoint(start, container, attachment, engine)?;
        if index == 0 {
            if let Some(address) =
                container.isolation.mac_address.as_ref().filter(|_| settings.mac_address.is_none())
            {
                settings.mac_address = Some(mac(address, start, engine)?);
            }
            joined.first = Some(name.clone());
            joined.now.insert(name, settings);
        } else if engine.has(44) {
            joined.now.insert(name, settings);
        } else {
            joined.later.push((name, settings));
        }
    }
    Ok(joined)
}

/// What this Engine can't keep of how networks are joined.
fn lost(service: &str, container: &Container, engine: &EngineInfo) -> Option<String> {
    let attachments = || container.networks.values();
    let keys = [
        ("gw_priority", attachments().any(|one| one.gateway_priority.is_some())),
        ("interface_name", attachments().any(|one| one.interface_name.is_some())),
    ];
    let keys: Vec<&str> = keys.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key).collect();
    (!keys.is_empty() && !engine.has(48)).then(|| {
        format!(
            "`{service}`: `{}` needs Docker Engine 28 and is left out; here is {}",
            keys.join("` and `"),
            engine.version
        )
    })
}

fn endpoint(
    start: &StartReplica<'_>,
    container: &Container,
    attachment: &Attachment,
    engine: &EngineInfo,
) -> Result<EndpointSettings, StartProblem> {
    let mut aliases = Vec::new();
    // Otherwise an anchor has them: a name must never lead to a replica that isn't ready.
    if start.names {
        aliases.push(start.service.name.clone());
        if start.service.role == Role::App {
            aliases.extend(container.container_name.clone());
        }
        aliases.extend(attachment.aliases.iter().cloned());
    }
    let mut seen = std::collections::BTreeSet::new();
    aliases.retain(|alias| seen.insert(alias.clone()));
    let mut options = attachment.driver_options.clone();
    if let Some(name) = attachment.interface_name.as_ref().filter(|_| engine.has(48)) {
        options.insert(INTERFACE_OPTION.to_owned(), name.clone());
    }
    let ipam = EndpointIpamConfig {
        ipv4_address: attachment.ipv4.map(|address| address.to_string()),
        ipv6_address: attachment.ipv6.map(|address| address.to_string()),
        link_local_ips: (!attachment.link_local_ips.is_empty()).then(|| attachment.link_local_ips.clone()),
    };
    // A link is another name for a name of the same network: it is looked up when it is used.
    let mut links: Vec<String> = container
        .links
        .iter()
        .filter(|(service, alias)| service != alias)
        .map(|(service, alias)| format!("{service}:{alias}"))
        .collect();
    links.extend(container.external_links.iter().map(|link| match link.contains(':') {
        true => link.clone(),
        false => format!("{link}:{link}"),
    }));
    let mac_address = match &attachment.mac_address {
        None => None,
        Some(address) => Some(mac(address, start, engine)?),
    };
    Ok(EndpointSettings {
        aliases: (!aliases.is_empty()).then_some(aliases),
        ipam_config: (ipam != EndpointIpamConfig::default()).then_some(ipam),
        links: (!links.is_empty()).then_some(links),
        mac_address,
        driver_opts: (!options.is_empty()).then(|| options.into_iter().collect()),
        gw_priority: attachment.gateway_priority.filter(|_| engine.has(48)),
        ..EndpointSettings::default()
    })
}

fn mac(address: &str, start: &StartReplica<'_>, engine: &EngineInfo) -> Result<String, StartProblem> {
    if engine.has(44) {
        return Ok(address.to_owned());
    }
    Err(StartProblem::permanent(format!(
        "`mac_address` of `{}` needs Docker Engine 25; here is {}: take it out, or upgrade",
        start.service.name, engine.version
    )))
}

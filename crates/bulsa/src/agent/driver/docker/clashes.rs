//! What stands in a deploy's way on this host: names, addresses and ports that others have.
//!
//! Owns: the comparison of a Spec with the containers of others, and with what listens. Never: takes anything away; what
//! is the project's own is no clash, and the published ports of apps are looked at where they are opened.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use bollard::{models::ContainerSummary, query_parameters::ListContainersOptionsBuilder};
use bulsa_core::spec::{
    Role, Service, Spec,
    container::{Container, Published},
};

use crate::{
    agent::docker::{ANSWER_MAX, Docker, DockerError, create::labels, label},
    link::listeners::{ListenAddr, ListenError, open_listeners},
};

/// A container that isn't the project's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Theirs {
    name: String,
    image: String,
    /// Its addresses, by the name of the network.
    addresses: BTreeMap<String, IpAddr>,
}

/// What the Engine has.
#[derive(Clone, Debug, Default)]
struct There {
    theirs: Vec<Theirs>,
    /// The services of the project that have a container, whatever its state: they have what they need.
    ours: Vec<String>,
}

/// Every clash: the service, and what is in its way.
///
/// # Errors
/// If the Engine doesn't say what it has.
pub(super) async fn clashes(engine: &Docker, spec: &Spec) -> Result<Vec<(String, String)>, DockerError> {
    let options = ListContainersOptionsBuilder::new().all(true).build();
    let work = engine.client().list_containers(Some(options));
    let all = engine.call("asked for its containers", ANSWER_MAX, work).await?;
    let there = there(all, &spec.project);
    let mut clashes = Vec::new();
    for service in spec.services.values() {
        let Some(container) = &service.container else { continue };
        let mut add = |text: Option<String>| clashes.extend(text.map(|text| (service.name.clone(), text)));
        add(name_clash(service, container, &there));
        for (network, address) in fixed(spec, container) {
            add(address_clash(network, address, &there));
        }
        if service.role == Role::Shared && !there.ours.contains(&service.name) {
            container.published.iter().for_each(|port| add(port_clash(port)));
        }
    }
    Ok(clashes)
}

/// Programs that restart or replace containers by themselves, by the last part of their image's name, and what they do.
const HEALERS: [(&str, &str); 5] = [
    ("autoheal", "restarts what Docker calls unhealthy"),
    ("docker-autoheal", "restarts what Docker calls unhealthy"),
    ("deunhealth", "restarts what Docker calls unhealthy"),
    ("watchtower", "replaces containers whose image has a newer version"),
    ("ouroboros", "replaces containers whose image has a newer version"),
];

/// What else on this host looks after containers, in words: two supervisors of one container work against each other.
///
/// # Errors
/// If the Engine doesn't say what it has.
pub(super) async fn healers(engine: &Docker) -> Result<Vec<String>, DockerError> {
    let options = ListContainersOptionsBuilder::new().build();
    let work = engine.client().list_containers(Some(options));
    let running = engine.call("asked for its containers", ANSWER_MAX, work).await?;
    Ok(running.into_iter().filter_map(healer).collect())
}

fn healer(container: ContainerSummary) -> Option<String> {
    let image = container.image?;
    let name = image.rsplit('/').next()?.split([':', '@']).next()?;
    let (_, does) = HEALERS.iter().find(|(known, _)| *known == name)?;
    let called = container.names.unwrap_or_default().into_iter().next().unwrap_or_default();
    Some(format!(
        "`{}` ({image}) runs on this host and {does}: Bulsa heals its containers itself, so keep it away from them, or stop it",
        called.trim_start_matches('/')
    ))
}

fn there(all: Vec<ContainerSummary>, project: &str) -> There {
    let mut there = There::default();
    for one in all {
        let labels_of = one.labels.unwrap_or_default();
        let is = |name: &str| labels_of.get(name).is_some_and(|value| value == project);
        if is(labels::PROJECT) || is(label::PROJECT) {
            there.ours.extend(labels_of.get(labels::SERVICE).cloned());
            continue;
        }
        let name = one.names.unwrap_or_default().into_iter().next().unwrap_or_default();
        let networks = one.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let addresses = networks
            .into_iter()
            .filter_map(|(network, endpoint)| Some((network, endpoint.ip_address?.parse().ok()?)));
        there.theirs.push(Theirs {
            name: name.trim_start_matches('/').to_owned(),
            image: one.image.unwrap_or_default(),
            addresses: addresses.collect(),
        });
    }
    there
}

/// An app's name is one on its networks only, and any number may have it.
fn name_clash(service: &Service, container: &Container, there: &There) -> Option<String> {
    let name = container.container_name.as_ref().filter(|_| service.role != Role::App)?;
    let holder = there.theirs.iter().find(|theirs| theirs.name == *name)?;
    Some(format!(
        "the container name `{name}` is taken by a container of {} that isn't this project's: remove it (`docker rm -f \
         {name}`), or change `container_name`",
        holder.image
    ))
}

fn fixed<'a>(spec: &'a Spec, container: &'a Container) -> impl Iterator<Item = (&'a str, IpAddr)> {
    container.networks.iter().flat_map(|(key, attachment)| {
        let network = spec.networks.get(key).map_or(key.as_str(), |network| network.name.as_str());
        let v4 = attachment.ipv4.map(IpAddr::from);
        let v6 = attachment.ipv6.map(IpAddr::from);
        v4.into_iter().chain(v6).map(move |address| (network, address))
    })
}

fn address_clash(network: &str, address: IpAddr, there: &There) -> Option<String> {
    let holder = there.theirs.iter().find(|theirs| theirs.addresses.get(network) == Some(&address))?;
    Some(format!(
        "its fixed address {address} on the network `{network}` is the container `{}`'s ({}): give it another one, or stop \
         that container",
        holder.name, holder.image
    ))
}

/// Docker would publish it: whoever listens there already is named. A range takes what is free of it.
fn port_clash(port: &Published) -> Option<String> {
    let number: u16 = port.published.as_deref().and_then(|number| number.parse().ok())?;
    let is_tcp = port.protocol.is_empty() || port.protocol == "tcp";
    let host = port.host.filter(|host| !host.is_unspecified()).or(Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
    let tried = is_tcp.then(|| open_listeners(ListenAddr { host, port: number }, 1))?;
    match tried {
        Err(error @ ListenError::InUse { .. }) => Some(error.to_string()),
        // What else is wrong with it the Engine says better.
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerSummaryNetworkSettings, EndpointSettings};

    use super::*;

    fn container(name: &str, project: Option<&str>, address: &str) -> ContainerSummary {
        let endpoint =
            EndpointSettings { ip_address: Some(address.to_owned()), ..EndpointSettings::default() };
        let own = project.map(|project| (labels::PROJECT.to_owned(), project.to_owned()));
        let service = project.map(|_| (labels::SERVICE.to_owned(), name.to_owned()));
        ContainerSummary {
            names: Some(vec![format!("/{name}")]),
            image: Some("other:1".to_owned()),
            labels: Some(own.into_iter().chain(service).collect()),
            network_settings: Some(ContainerSummaryNetworkSettings {
                networks: Some([("lan".to_owned(), endpoint)].into()),
            }),
            ..ContainerSummary::default()
        }
    }

    #[test]
    fn another_healer_is_known_by_its_image() {
        let of = |image: &str| {
            let image = Some(image.to_owned());
            healer(ContainerSummary { image, ..container("helper", None, "10.9.0.5") })
        };
        for image in ["willfarrell/autoheal:1.2", "registry.example:5000/containrrr/watchtower@sha256:ab"] {
            let text = of(image).unwrap();
            assert!(text.contains("`helper`") && text.contains(image), "{text}");
        }
        assert_eq!(of("shop/autohealth:1"), None);
    }

    #[test]
    fn strangers_names_and_addresses_clash_and_ones_own_do_not() {
        let all = vec![container("db", None, "10.9.0.5"), container("cache", Some("shop"), "10.9.0.6")];
        let there = there(all, "shop");
        assert_eq!(there.ours, ["cache"]);
        let of = |last: u8| address_clash("lan", IpAddr::from([10, 9, 0, last]), &there);
        assert!(of(5).unwrap().contains("`db`"));
        assert_eq!(of(6), None, "it is ours");
        assert_eq!(of(7), None);
        assert_eq!(address_clash("wan", IpAddr::from([10, 9, 0, 5]), &there), None, "another network");
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_named_with_who() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = Published {
            host: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            published: Some(taken.local_addr().unwrap().port().to_string()),
            target: 80,
            protocol: "tcp".to_owned(),
        };
        let text = port_clash(&port).unwrap();
        assert!(text.contains("is in use") && text.contains(&std::process::id().to_string()), "{text}");
        assert_eq!(port_clash(&Published { protocol: "udp".to_owned(), ..port.clone() }), None);
        assert_eq!(port_clash(&Published { published: Some("1-65535".to_owned()), ..port }), None);
    }
}

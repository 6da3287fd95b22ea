//! The networks of a project.
//!
//! Owns: making those that are missing, as Compose would name and label them, and removing ours. Never: changes or
//! removes one that it did not make, or guesses that a network of the right name is meant when its labels say otherwise.
//! As with Compose, a network that another project made under the same key and the same `name` is meant by both.

use std::collections::{BTreeMap, HashMap};

use bollard::{
    models::{Ipam, IpamConfig, Network as EngineNetwork, NetworkCreateRequest, NetworkDisconnectRequest},
    query_parameters::ListNetworksOptionsBuilder,
};
use bulsa_core::spec::{
    Spec,
    container::{Network, Subnet},
};
use ipnet::Ipv4Net;

use super::{ANSWER_MAX, Docker, DockerError, WORK_MAX, create::labels, label, subnets};

/// Compose's key of a network.
const NETWORK: &str = "com.docker.compose.network";

/// So many blocks are tried for one network: another program may take one in the same moment.
const TRIES_MAX: u32 = 8;

/// The kernel's IPv4 routes.
const ROUTES_FILE: &str = "/proc/net/route";

impl Docker {
    /// Makes the networks of `spec` that are missing; returns the names of those that it made.
    ///
    /// Compose's `config-hash` is left out on purpose: Compose removes and remakes a network whose hash isn't its own,
    /// and leaves one without a hash alone.
    ///
    /// # Errors
    /// Every network that can't be had, at once; the others are there then.
    pub async fn ensure_networks(&self, spec: &Spec) -> Result<Vec<String>, Vec<DockerError>> {
        let (made, errors) = self.make_networks(spec).await;
        if errors.is_empty() { Ok(made) } else { Err(errors) }
    }

    /// The same, with the names of those that it made also where others can't be had.
    pub async fn make_networks(&self, spec: &Spec) -> (Vec<String>, Vec<DockerError>) {
        // Replicas that find a network missing at once come here at once.
        let _held = self.inner.making_networks.lock().await;
        let there = match self.networks(&[]).await {
            Ok(there) => there,
            Err(error) => return (Vec::new(), vec![error]),
        };
        let mut used = used_blocks(&there);
        let (mut made, mut errors) = (Vec::new(), Vec::new());
        for (key, network) in &spec.networks {
            let same: Vec<_> =
                there.iter().filter(|other| other.name.as_deref() == Some(&network.name)).collect();
            match judge(key, network, &same) {
                Ok(true) => {
                    if let Some(other) = shared_with(key, network, &same, &spec.project) {
                        tracing::info!(
                            network = network.name,
                            project = other,
                            "another project's network is used"
                        );
                    }
                }
                Ok(false) => match self.create_network(key, network, &spec.project, &mut used).await {
                    Ok(()) => made.push(network.name.clone()),
                    Err(error) => errors.push(error),
                },
                Err(error) => errors.push(error),
            }
        }
        (made, errors)
    }

    /// Takes a container out of all its networks; returns their names.
    ///
    /// # Errors
    /// If the Engine can't, or there is no such container. It may have left some of them then.
    pub async fn leave_all(&self, container: &str) -> Result<Vec<String>, DockerError> {
        let found = self.inspect(container).await?.ok_or_else(|| {
            DockerError::Resource(format!("container {container} is gone: it has no network to leave"))
        })?;
        let names: Vec<String> = found.addresses.into_keys().collect();
        for name in &names {
            let leave = NetworkDisconnectRequest { container: container.to_owned(), force: Some(true) };
            let work = self.client().disconnect_network(name, leave);
            let what = format!("asked to take container {container} out of network {name}");
            self.call(&what, WORK_MAX, work).await?;
        }
        Ok(names)
    }

    /// Removes the networks of `project` that this daemon made and nothing uses; returns their names.
    ///
    /// # Errors
    /// If the Engine gives no list of them. One that is in use stays, and isn't an error.
    pub async fn remove_networks(&self, project: &str) -> Result<Vec<String>, DockerError> {
        self.remove_networks_if(project, |_| true).await
    }

    /// The same for those whose name is wanted.
    ///
    /// # Errors
    /// As [`Docker::remove_networks`].
    pub async fn remove_networks_if(
        &self,
        project: &str,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, DockerError> {
        let mut removed = Vec::new();
        for network in self.networks(&self.ours_of(project)).await? {
            let (Some(id), Some(name)) = (network.id, network.name) else { continue };
            if !is_wanted(&name) {
                continue;
            }
            let work = self.client().remove_network(&id);
            match self.call(&format!("asked to remove network {name}"), WORK_MAX, work).await {
                Ok(()) => removed.push(name),
                Err(error) => tracing::info!(network = name, %error, "a network stays"),
            }
        }
        Ok(removed)
    }

    /// The networks of `project` that this daemon made and that are still there, with the names of the running
    /// containers that are in them.
    ///
    /// # Errors
    /// If the Engine can't say.
    pub async fn networks_left(&self, project: &str) -> Result<Vec<(String, Vec<String>)>, DockerError> {
        let mut left = Vec::new();
        for network in self.networks(&self.ours_of(project)).await? {
            let (Some(id), Some(name)) = (network.id, network.name) else { continue };
            let work = self.client().inspect_network(&id, None);
            let inside = match self.call(&format!("asked about network {name}"), ANSWER_MAX, work).await {
                Ok(network) => network.containers.unwrap_or_default(),
                Err(error) if error.status() == Some(404) => continue,
                Err(error) => return Err(error),
            };
            let mut users: Vec<String> = inside.into_values().filter_map(|endpoint| endpoint.name).collect();
            users.sort();
            left.push((name, users));
        }
        Ok(left)
    }

    /// What selects the networks of `project` that this daemon made.
    fn ours_of(&self, project: &str) -> [String; 2] {
        [format!("{}={}", label::OWNER, self.owner()), format!("{}={project}", label::PROJECT)]
    }

    async fn networks(&self, labels: &[String]) -> Result<Vec<EngineNetwork>, DockerError> {
        let mut options = ListNetworksOptionsBuilder::new();
        if !labels.is_empty() {
            options = options.filters(&HashMap::from([("label", labels.to_vec())]));
        }
        let work = self.client().list_networks(Some(options.build()));
        self.call("asked for its networks", ANSWER_MAX, work).await
    }

    /// Removes the younger ones of our networks of the same name that nothing uses: another daemon's process may have
    /// made one in the same moment.
    async fn drop_doubles(&self, name: &str, project: &str) -> Result<(), DockerError> {
        let all = self.networks(&self.ours_of(project)).await?;
        for id in younger(&all, name) {
            // One that is in use stays, and the Engine says so.
            let work = self.client().remove_network(&id);
            if let Err(error) = self.call("asked to remove a second network", WORK_MAX, work).await {
                tracing::info!(network = name, id, %error, "a second network of the same name stays");
            }
        }
        Ok(())
    }

    async fn create_network(
        &self,
        key: &str,
        network: &Network,
        project: &str,
        used: &mut Vec<Ipv4Net>,
    ) -> Result<(), DockerError> {
        if network.ipv4 == Some(false) && !self.engine().has(48) {
            return Err(DockerError::Resource(format!(
                "network {} (`{key}`): `enable_ipv4: false` needs Docker Engine 28; here is {}: take it out, or upgrade",
                network.name,
                self.engine().version
            )));
        }
        let what = format!("asked to make network {}", network.name);
        for _ in 0..TRIES_MAX {
            let block = if wants_block(network) { subnets::choose(used) } else { None };
            used.extend(block);
            let request = request(key, network, project, self.owner(), block);
            let work = self.client().create_network(request);
            match self.call(&what, WORK_MAX, work).await {
                Ok(_) => return self.drop_doubles(&network.name, project).await,
                Err(DockerError::Refused { message, .. })
                    if block.is_some() && message.to_lowercase().contains("overlap") => {}
                Err(error) => return Err(error),
            }
        }
        Err(DockerError::Resource(format!(
            "no free block of addresses was found for network {}: give it one with `ipam.config`",
            network.name
        )))
    }
}

fn label_of(network: &EngineNetwork, name: &str) -> String {
    network.labels.as_ref().and_then(|labels| labels.get(name)).cloned().unwrap_or_default()
}

/// The other project whose network is used, where this one has none of its own.
fn shared_with(key: &str, network: &Network, same: &[&EngineNetwork], project: &str) -> Option<String> {
    let projects: Vec<String> = same
        .iter()
        .filter(|of| label_of(of, NETWORK) == key)
        .map(|of| label_of(of, labels::PROJECT))
        .collect();
    let is_others = !network.external && !projects.iter().any(|of| of == project);
    projects.into_iter().next().filter(|_| is_others)
}

/// Whether it is there as it must be; `false`: it is to be made.
fn judge(key: &str, network: &Network, same: &[&EngineNetwork]) -> Result<bool, DockerError> {
    let name = &network.name;
    if network.external {
        return if same.is_empty() {
            Err(DockerError::Resource(format!(
                "network {name} (`{key}`) is external and isn't there: make it with `docker network create {name}`"
            )))
        } else {
            Ok(true)
        };
    }
    if same
        .iter()
        .any(|other| !label_of(other, labels::PROJECT).is_empty() && label_of(other, NETWORK) == key)
    {
        return Ok(true);
    }
    match same.first() {
        None => Ok(false),
        Some(other) => {
            let theirs = label_of(other, labels::PROJECT);
            let whose =
                if theirs.is_empty() { "no project".to_owned() } else { format!("project `{theirs}`") };
            Err(DockerError::Resource(format!(
                "network {name} (`{key}`) is there and belongs to {whose}: declare it with `external: true`, give \
                 yours another `name`, or remove it with `docker network rm {name}`"
            )))
        }
    }
}

/// The ids of all networks of a name but the oldest one's.
fn younger(all: &[EngineNetwork], name: &str) -> Vec<String> {
    let mut same: Vec<_> = all.iter().filter(|other| other.name.as_deref() == Some(name)).collect();
    same.sort_by_key(|other| (other.created.clone(), other.id.clone()));
    same.into_iter().skip(1).filter_map(|other| other.id.clone()).collect()
}

/// Whether the block of a network is ours to choose: a bridge that the file gives none.
fn wants_block(network: &Network) -> bool {
    let is_bridge = network.driver.as_deref().is_none_or(|driver| driver.is_empty() || driver == "bridge");
    let is_default_ipam = network.ipam_driver.as_deref().is_none_or(|driver| driver == "default");
    let has_v4 = |subnet: &Subnet| subnet.subnet.as_deref().is_none_or(|text| !text.contains(':'));
    is_bridge
        && is_default_ipam
        && network.ipam_options.is_empty()
        && network.ipv4 != Some(false)
        && !network.subnets.iter().any(has_v4)
}

fn request(
    key: &str,
    network: &Network,
    project: &str,
    owner: &str,
    block: Option<Ipv4Net>,
) -> NetworkCreateRequest {
    let map =
        |from: &BTreeMap<String, String>| (!from.is_empty()).then(|| from.clone().into_iter().collect());
    let mut config: Vec<IpamConfig> = network
        .subnets
        .iter()
        .map(|subnet| IpamConfig {
            subnet: subnet.subnet.clone(),
            ip_range: subnet.ip_range.clone(),
            gateway: subnet.gateway.clone(),
            auxiliary_addresses: map(&subnet.aux_addresses),
        })
        .collect();
    config.extend(block.map(|block| IpamConfig { subnet: Some(block.to_string()), ..IpamConfig::default() }));
    let ipam = Ipam {
        driver: network.ipam_driver.clone(),
        config: (!config.is_empty()).then_some(config),
        options: map(&network.ipam_options),
    };
    let mut labels: HashMap<String, String> = network.labels.clone().into_iter().collect();
    for (name, value) in [
        (labels::PROJECT, project),
        (NETWORK, key),
        (labels::VERSION, env!("CARGO_PKG_VERSION")),
        (label::OWNER, owner),
        (label::PROJECT, project),
    ] {
        labels.insert(name.to_owned(), value.to_owned());
    }
    NetworkCreateRequest {
        name: network.name.clone(),
        driver: network.driver.clone(),
        internal: Some(network.internal),
        attachable: Some(network.attachable),
        ipam: (ipam != Ipam::default()).then_some(ipam),
        enable_ipv4: network.ipv4,
        enable_ipv6: network.ipv6,
        options: map(&network.driver_options),
        labels: Some(labels),
        ..NetworkCreateRequest::default()
    }
}

/// What the Engine's networks and the host's routes take.
fn used_blocks(networks: &[EngineNetwork]) -> Vec<Ipv4Net> {
    let routes = std::fs::read_to_string(ROUTES_FILE).unwrap_or_default();
    let mut used = subnets::routes(&routes);
    let configs = networks
        .iter()
        .filter_map(|network| network.ipam.as_ref()?.config.as_ref())
        .flatten()
        .filter_map(|config| config.subnet.as_ref()?.parse::<Ipv4Net>().ok());
    used.extend(configs);
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str) -> Network {
        Network { name: name.to_owned(), ..Network::default() }
    }

    fn there(labels: &[(&str, &str)]) -> EngineNetwork {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        EngineNetwork {
            name: Some("shop_default".to_owned()),
            labels: Some(labels),
            ..EngineNetwork::default()
        }
    }

    #[test]
    fn composes_network_is_used_and_another_ones_is_not() {
        let ours = network("shop_default");
        let composes = there(&[(labels::PROJECT, "shop"), (NETWORK, "default")]);
        assert_eq!(judge("default", &ours, &[&composes]), Ok(true));
        assert_eq!(judge("default", &ours, &[]), Ok(false));
        assert_eq!(shared_with("default", &ours, &[&composes], "shop"), None);
        let foreign = there(&[(labels::PROJECT, "other"), (NETWORK, "default")]);
        assert_eq!(judge("default", &ours, &[&foreign]), Ok(true), "both files give it this name");
        assert_eq!(shared_with("default", &ours, &[&foreign], "shop").as_deref(), Some("other"));
        let other_key = there(&[(labels::PROJECT, "other"), (NETWORK, "front")]);
        for other in [other_key, there(&[])] {
            let error = judge("default", &ours, &[&other]).unwrap_err().to_string();
            assert!(error.contains("external: true"), "{error}");
        }
    }

    #[test]
    fn of_several_networks_of_a_name_the_oldest_stays() {
        let one = |id: &str, name: &str, created: &str| EngineNetwork {
            id: Some(id.to_owned()),
            name: Some(name.to_owned()),
            created: Some(created.to_owned()),
            ..EngineNetwork::default()
        };
        let all = [
            one("b", "shop_default", "2026-11-22T04:00:01Z"),
            one("a", "shop_default", "2026-11-22T04:00:02Z"),
            one("c", "shop_back", "2026-11-22T04:00:03Z"),
        ];
        assert_eq!(younger(&all, "shop_default"), ["a"]);
        assert!(younger(&all, "shop_back").is_empty() && younger(&all, "other").is_empty());
    }

    #[test]
    fn an_external_network_that_is_missing_says_how_to_make_it() {
        let external = Network { external: true, ..network("edge") };
        let error = judge("edge", &external, &[]).unwrap_err().to_string();
        assert!(error.contains("docker network create edge"), "{error}");
        assert_eq!(judge("edge", &external, &[&there(&[])]), Ok(true));
    }

    #[test]
    fn a_block_is_chosen_only_where_the_file_leaves_it_open() {
        assert!(wants_block(&network("x")));
        let of = |subnet: &str| Subnet { subnet: Some(subnet.to_owned()), ..Subnet::default() };
        assert!(!wants_block(&Network { subnets: vec![of("10.1.0.0/24")], ..network("x") }));
        assert!(wants_block(&Network { subnets: vec![of("fd00::/64")], ..network("x") }));
        assert!(!wants_block(&Network { driver: Some("macvlan".to_owned()), ..network("x") }));
        assert!(!wants_block(&Network { ipv4: Some(false), ..network("x") }));
    }

    #[test]
    fn what_is_made_has_composes_labels_and_no_hash() {
        let block: Ipv4Net = "172.30.0.0/24".parse().unwrap();
        let request = request("default", &network("shop_default"), "shop", "me", Some(block));
        let labels = request.labels.unwrap();
        assert_eq!(labels[NETWORK], "default");
        assert_eq!(labels[label::OWNER], "me");
        assert!(!labels.contains_key(labels::CONFIG_HASH));
        assert_eq!(request.ipam.unwrap().config.unwrap()[0].subnet.as_deref(), Some("172.30.0.0/24"));
    }
}

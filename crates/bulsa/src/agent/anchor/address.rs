//! Which address an anchor gets.
//!
//! Owns: choosing one that nobody has and nobody will ask for. Never: chooses on a network that isn't ours: its owner
//! may have plans for its addresses.

use std::{collections::BTreeSet, net::Ipv4Addr};

use bollard::{Docker, errors::Error, models::NetworkInspect};
use ipnet::Ipv4Net;

use super::ADDRESSES_MAX;
use crate::agent::docker::label;

/// Free addresses at the far end of a network that has a configured subnet (the Engine refuses one on any other); the
/// anchor's former one comes first. `own` is the anchor's container, where it is there.
pub(super) async fn free(
    engine: &Docker,
    network: &str,
    former: Option<Ipv4Addr>,
    reserved: &BTreeSet<Ipv4Addr>,
    own: Option<&str>,
) -> Result<Vec<Ipv4Addr>, Error> {
    Ok(choose(engine.inspect_network(network, None).await?, former, reserved, own))
}

pub(super) fn choose(
    network: NetworkInspect,
    former: Option<Ipv4Addr>,
    reserved: &BTreeSet<Ipv4Addr>,
    own: Option<&str>,
) -> Vec<Ipv4Addr> {
    let is_ours = network.labels.as_ref().is_some_and(|labels| labels.contains_key(label::OWNER));
    let config = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    let subnet = config.iter().find_map(|one| one.subnet.as_deref()?.parse::<Ipv4Net>().ok());
    let Some(subnet) = subnet.filter(|_| is_ours) else { return Vec::new() };
    let mut taken = reserved.clone();
    taken.extend(config.iter().filter_map(|one| one.gateway.as_deref()?.parse::<Ipv4Addr>().ok()));
    let auxiliary = config.iter().filter_map(|one| one.auxiliary_addresses.as_ref());
    taken.extend(auxiliary.flat_map(|all| all.values()).filter_map(|text| text.parse::<Ipv4Addr>().ok()));
    let endpoints = network.containers.unwrap_or_default();
    let others = endpoints.iter().filter(|(id, _)| Some(id.as_str()) != own);
    let addresses = others.filter_map(|(_, one)| one.ipv4_address.as_deref());
    taken.extend(addresses.filter_map(|text| Some(text.parse::<Ipv4Net>().ok()?.addr())));
    let last = u32::from(subnet.broadcast());
    let first = u32::from(subnet.network()) + 1;
    let far = (first..last).rev().map(Ipv4Addr::from).filter(|address| Some(*address) != former);
    let former = former.filter(|address| subnet.contains(address));
    former.into_iter().chain(far).filter(|address| !taken.contains(address)).take(ADDRESSES_MAX).collect()
}

/// Whether the Engine refused an address because somebody has it.
pub(super) fn is_taken(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { message, .. }
        if message.to_lowercase().contains("address already in use"))
}

//! Fixed addresses that two containers would have.

use std::{collections::BTreeMap, net::IpAddr};

use super::super::{
    diagnostic::{Diagnostic, Diagnostics, Pos},
    model::{Project, Service},
};

/// Looks at the `ipv4_address` and `ipv6_address` of all services.
pub(super) fn check(project: &Project, diags: &mut Diagnostics) {
    let mut taken: BTreeMap<(&str, IpAddr), (&Service, &Pos)> = BTreeMap::new();
    for service in project.services.values() {
        for (network, address, pos) in fixed(service) {
            let path = format!("services.{}.networks.{network}", service.name);
            let replicas = service.replicas();
            if replicas > 1 {
                let text = format!("{path}: {replicas} replicas can't all have the address {address}");
                let hint = "remove the address, or say `deploy: {replicas: 1}`";
                diags.push(Diagnostic::error(pos, text).hint(hint));
            }
            match taken.get(&(network, address)) {
                Some((other, first)) => {
                    let text = format!("{path}: the address {address} is `{}`'s too", other.name);
                    let hint = format!("the other one is at {first}; take another address");
                    diags.push(Diagnostic::error(pos, text).hint(hint));
                }
                None => drop(taken.insert((network, address), (service, pos))),
            }
        }
    }
}

/// The networks on which a service has an address of its choice.
fn fixed(service: &Service) -> impl Iterator<Item = (&str, IpAddr, &Pos)> {
    service.docker.iter().flat_map(|docker| {
        docker.container.networks.iter().flat_map(|(name, attachment)| {
            let addresses = [attachment.ipv4.map(IpAddr::V4), attachment.ipv6.map(IpAddr::V6)];
            let pos = docker.at.networks.get(name);
            addresses.into_iter().flatten().filter_map(move |address| Some((name.as_str(), address, pos?)))
        })
    })
}

#[cfg(test)]
mod tests {
    use crate::compose::tests::Shop;

    #[test]
    fn a_fixed_address_can_be_had_once() {
        let text = "\
services:
  a:
    image: a
    networks: {back: {ipv4_address: 10.9.0.2}}
  b:
    image: b
    networks:
      back: {ipv4_address: 10.9.0.2}
      front: {ipv4_address: 10.9.0.2}
  c:
    image: c
    deploy: {replicas: 2}
    networks:
      back: {ipv6_address: 'fd00::2'}
networks:
  back: {ipam: {config: [{subnet: 10.9.0.0/24}]}}
  front: {ipam: {config: [{subnet: 10.8.0.0/24}]}}
";
        insta::assert_snapshot!(Shop::new().load(text).diagnostics, @"
        compose.yaml:8:7: error: services.b.networks.back: the address 10.9.0.2 is `a`'s too
          hint: the other one is at compose.yaml:4:16; take another address
        compose.yaml:14:7: error: services.c.networks.back: 2 replicas can't all have the address fd00::2
          hint: remove the address, or say `deploy: {replicas: 1}`
        ");
    }
}

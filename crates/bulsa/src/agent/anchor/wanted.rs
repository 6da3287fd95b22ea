//! What an anchor is to be, by the releases that have its service.
//!
//! Owns: its networks, the names that it carries on each, and those that it must not. Never: asks the Engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use bulsa_core::spec::{
    Role, Service, Spec,
    container::{Attachment, Container},
};

/// So many names are tried for an anchor: the usual one may be somebody else's.
const NAMES_MAX: usize = 5;

/// What an anchor is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub(super) project: String,
    pub(super) service: String,
    /// By the Engine's name of the network.
    pub(super) networks: BTreeMap<String, Place>,
}

/// An anchor's place in one network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The names that it carries there.
    pub(super) names: BTreeSet<String>,
    /// Names of others there, of other services and of replicas that carry theirs themselves: it must not carry them.
    pub(super) others: BTreeSet<String>,
    /// Addresses that the file gives to others.
    pub(super) reserved: BTreeSet<Ipv4Addr>,
}

impl Wanted {
    /// The anchor of a service in several releases at once: it is on the networks of all that have one, and serves what
    /// they call it. `by` is the release by which its name goes: what that gives to others, or to the service's replicas
    /// themselves, the anchor doesn't carry: a name that two have would lead to either.
    #[must_use]
    pub fn of(project: &str, service: &str, specs: &[&Spec], by: Option<&Spec>) -> Self {
        let mut networks: BTreeMap<String, Place> = BTreeMap::new();
        let is_own = |one: &Service| one.name == service && has_anchor(one);
        for spec in specs {
            let own = spec.services.get(service).filter(|one| is_own(one));
            let keys =
                own.and_then(|own| own.container.as_deref()).into_iter().flat_map(|it| it.networks.keys());
            for network in keys.filter_map(|key| spec.networks.get(key)) {
                networks.entry(network.name.clone()).or_default();
            }
        }
        for (network, place) in &mut networks {
            for spec in specs {
                place.reserved.extend(reserved(spec, network));
                place.names.extend(names(spec, network, is_own));
                place.others.extend(names(spec, network, |one| !is_own(one)));
            }
            let own = by.map(|by| names(by, network, is_own)).unwrap_or_default();
            let given = by.map(|by| names(by, network, |one| !is_own(one))).unwrap_or_default();
            place.names.retain(|name| own.contains(name) || !given.contains(name));
            place.others.retain(|name| !place.names.contains(name));
        }
        Self { project: project.to_owned(), service: service.to_owned(), networks }
    }

    /// The names that it carries, by network.
    pub fn names(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        self.networks.iter().map(|(network, place)| (network.as_str(), &place.names))
    }

    /// The names that its container may have, in order of preference.
    pub(super) fn container_names(&self) -> Vec<String> {
        let first = format!("{}-{}-anchor", self.project, self.service);
        let further: Vec<_> = (2..=NAMES_MAX).map(|number| format!("{first}-{number}")).collect();
        std::iter::once(first).chain(further).collect()
    }
}

/// Whether an anchor carries the name of a service; else its replicas do themselves.
fn has_anchor(service: &Service) -> bool {
    let container = service.container.as_deref().filter(|_| service.role == Role::App);
    container.is_some_and(|container| !container.anchor.is_empty())
}

/// How some services of a release join the network that the Engine knows by this name.
fn joined<'a>(
    spec: &'a Spec,
    network: &'a str,
    who: impl Fn(&Service) -> bool + 'a,
) -> impl Iterator<Item = (&'a Service, &'a Container, &'a Attachment)> {
    let services = spec.services.values().filter(move |service| who(service));
    services.flat_map(move |service| {
        let container = service.container.as_deref();
        let all = container.into_iter().flat_map(|it| it.networks.iter().map(move |one| (it, one)));
        let is_it = move |key: &str| spec.networks.get(key).is_some_and(|known| known.name == network);
        all.filter(move |(_, (key, _))| is_it(key)).map(move |(it, (_, one))| (service, it, one))
    })
}

/// The names that some services of a release have on a network.
fn names(spec: &Spec, network: &str, who: impl Fn(&Service) -> bool) -> BTreeSet<String> {
    joined(spec, network, who)
        .flat_map(|(service, container, joined)| {
            let own = [Some(service.name.clone()), container.container_name.clone()];
            own.into_iter().flatten().chain(joined.aliases.iter().cloned())
        })
        .collect()
}

/// The addresses that a release's file gives out on a network.
fn reserved(spec: &Spec, network: &str) -> BTreeSet<Ipv4Addr> {
    joined(spec, network, |_| true).filter_map(|(_, _, joined)| joined.ipv4).collect()
}

//! Anchors: told by their labels, changed in place, and at addresses that nobody else has.

use std::collections::{BTreeMap, HashMap};

use bollard::{models::ContainerCreateBody, query_parameters::CreateContainerOptionsBuilder};
use bulsa::agent::{
    anchor::{self, Anchor, Wanted, netns},
    docker::label,
};
use bulsa_core::spec::{
    Role, Spec,
    container::{Attachment, Container, Network},
};

use crate::world::{World, service};

fn spec_with(world: &World, aliases: &[&str], networks: &[&str]) -> Spec {
    let mut spec = world.spec.clone();
    let mut container = Container { image: world.image(), anchor: vec![3000], ..Container::default() };
    for key in networks {
        let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        container.networks.insert((*key).to_owned(), Attachment { aliases, ..Attachment::default() });
        let network = Network { name: format!("{}_{key}", world.name), ..Network::default() };
        spec.networks.insert((*key).to_owned(), network);
    }
    spec.services.insert("web".to_owned(), service("web", Role::App, container));
    spec
}

async fn ensure(world: &World, spec: &Spec) -> Anchor {
    world.docker.ensure_networks(spec).await.unwrap();
    let wanted = Wanted::of(&world.name, "web", &[spec], Some(spec));
    anchor::ensure(&world.raw, &world.name, &wanted).await.unwrap()
}

/// The names of a container on each of its networks.
async fn names(world: &World, container: &str) -> BTreeMap<String, Vec<String>> {
    let inspected = world.raw.inspect_container(container, None).await.unwrap();
    let networks = inspected.network_settings.unwrap().networks.unwrap();
    networks.into_iter().map(|(name, endpoint)| (name, endpoint.aliases.unwrap_or_default())).collect()
}

#[tokio::test]
async fn a_strangers_container_with_an_anchors_name_is_left_alone() {
    let Some(world) = World::new("anchor-name").await else { return };
    let name = format!("{}-web-anchor", world.name);
    let body = ContainerCreateBody {
        image: Some(world.image()),
        cmd: Some(["sleep", "1000"].map(str::to_owned).to_vec()),
        labels: Some(HashMap::from([("bulsa.test".to_owned(), world.name.clone())])),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(&name).build();
    let stranger = world.raw.create_container(Some(options), body).await.unwrap().id;
    world.raw.start_container(&stranger, None).await.unwrap();

    let spec = spec_with(&world, &[], &["default"]);
    let first = ensure(&world, &spec).await;
    let found = world.raw.inspect_container(&first.container, None).await.unwrap();
    assert_eq!(found.name, Some(format!("/{name}-2")));
    assert_eq!(ensure(&world, &spec).await, first, "it is found again, by its labels");
    let left = world.docker.inspect(&stranger).await.unwrap().unwrap();
    assert!(left.is_up() && left.name == name, "{left:?}");

    anchor::remove(&world.raw, &world.name, &world.name, &std::collections::BTreeSet::new()).await.unwrap();
    assert!(world.docker.inspect(&first.container).await.unwrap().is_none());
    assert!(world.docker.inspect(&stranger).await.unwrap().is_some_and(|left| left.is_up()));
}

#[tokio::test]
async fn an_anchor_that_runs_is_changed_in_place() {
    let Some(world) = World::new("anchor-place").await else { return };
    let first = ensure(&world, &spec_with(&world, &[], &["default"])).await;
    let further = ensure(&world, &spec_with(&world, &["www"], &["default", "back"])).await;
    assert_eq!((&further.container, further.pid), (&first.container, first.pid), "its sockets stay open");
    let known = names(&world, &further.container).await;
    let has = |network: &str| {
        let names = &known[&format!("{}_{network}", world.name)];
        ["web", "www"].iter().all(|name| names.iter().any(|known| known == name))
    };
    assert!(has("default") && has("back"), "{known:?}");
    assert!(further.addresses.contains(&first.addresses[0]), "{first:?} {further:?}");

    let less = ensure(&world, &spec_with(&world, &[], &["default"])).await;
    assert_eq!(less, first);
    let known = names(&world, &less.container).await;
    assert_eq!(known.len(), 1, "{known:?}");
}

#[tokio::test]
async fn an_address_that_a_stopped_container_has_is_not_insisted_on() {
    let Some(world) = World::new("anchor-address").await else { return };
    let spec = spec_with(&world, &[], &["default"]);
    let first = ensure(&world, &spec).await;
    assert_eq!(first.addresses.len(), 1);
    assert_eq!(first.addresses[0].octets()[3], 254, "the far end of the network");
    world.raw.stop_container(&first.container, None).await.unwrap();
    let mut container = world.container(crate::world::SERVER);
    let ipv4 = Some(first.addresses[0]);
    container.networks = [("default".to_owned(), Attachment { ipv4, ..Attachment::default() })].into();
    let other = world.start_as(Role::Shared, "db", 1, container).await.unwrap().found;
    assert_eq!(other.addresses.values().next(), Some(&first.addresses[0].into()));

    let again = ensure(&world, &spec).await;
    assert_ne!(again.addresses, first.addresses);
    assert!(netns::open(&again, vec![3000], 1).await.is_ok());
    let labels = world.docker.inspect(&again.container).await.unwrap().unwrap().labels;
    assert_eq!(labels[label::OWNER], world.name);
}

//! Networks and volumes.

use bulsa::agent::docker::{Docker, ExecOutcome};
use bulsa_core::spec::{
    Role,
    container::{Attachment, Network, NetworkMode, Volume},
};

use crate::world::{PATIENCE, SERVER, World};

#[tokio::test]
async fn networks_are_made_once_with_addresses_that_may_be_fixed() {
    let Some(mut world) = World::new("networks").await else { return };
    let back = Network { name: format!("{}_back", world.name), internal: true, ..Network::default() };
    world.spec.networks.insert("back".to_owned(), back);
    let made = world.docker.ensure_networks(&world.spec).await.unwrap();
    assert_eq!(made, [format!("{}_back", world.name)], "the default one is there already");
    assert!(world.docker.ensure_networks(&world.spec).await.unwrap().is_empty());

    let first = world.start(world.container(SERVER)).await.unwrap().found;
    let network = format!("{}_default", world.name);
    let std::net::IpAddr::V4(address) = first.addresses[&network] else { panic!("{first:?}") };
    let [a, b, c, _] = address.octets();
    let fixed = std::net::Ipv4Addr::new(a, b, c, 77);
    let mut container = world.container(SERVER);
    container.networks = [
        ("default".to_owned(), Attachment { ipv4: Some(fixed), priority: -1, ..Attachment::default() }),
        ("back".to_owned(), Attachment { aliases: vec!["storage".to_owned()], ..Attachment::default() }),
    ]
    .into();
    let second = world.start_as(Role::Shared, "db", 1, container).await.unwrap().found;
    assert_eq!(second.addresses.len(), 2, "{second:?}");
    assert_eq!(second.addresses[&network], std::net::IpAddr::V4(fixed));
    let inspected = world.raw.inspect_container(&second.id, None).await.unwrap();
    let networks = inspected.network_settings.unwrap().networks.unwrap();
    let aliases = networks[&format!("{}_back", world.name)].aliases.clone().unwrap();
    assert!(["storage", "db"].iter().all(|name| aliases.iter().any(|alias| alias == name)), "{aliases:?}");

    assert!(world.docker.remove_networks(&world.name).await.unwrap().is_empty(), "they are in use");
    for found in world.docker.list().await.unwrap() {
        world.docker.remove(&found.id, true).await.unwrap();
    }
    assert_eq!(world.docker.remove_networks(&world.name).await.unwrap().len(), 2);
}

#[tokio::test]
async fn everything_external_that_is_missing_is_named_at_once() {
    let Some(mut world) = World::new("external").await else { return };
    for key in ["edge", "mesh"] {
        let network = Network { name: format!("{}-{key}", world.name), external: true, ..Network::default() };
        world.spec.networks.insert(key.to_owned(), network);
        let volume = Volume { name: format!("{}-{key}", world.name), external: true, ..Volume::default() };
        world.spec.volumes.insert(key.to_owned(), volume);
    }
    let errors = world.docker.ensure_networks(&world.spec).await.unwrap_err();
    let all = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(
        errors.len() == 2 && all.contains(&format!("docker network create {}-mesh", world.name)),
        "{all}"
    );
    let errors = world.docker.ensure_volumes(&world.spec).await.unwrap_err();
    assert_eq!(errors.len(), 2);
    assert!(errors[0].to_string().contains("docker volume create"), "{}", errors[0]);
}

#[tokio::test]
async fn volumes_are_made_once_and_outlive_their_replicas() {
    let Some(mut world) = World::new("volumes").await else { return };
    let volume = Volume { name: format!("{}_data", world.name), ..Volume::default() };
    world.spec.volumes.insert("data".to_owned(), volume);
    let name = format!("{}_data", world.name);
    assert_eq!(world.docker.ensure_volumes(&world.spec).await.unwrap(), std::slice::from_ref(&name));
    assert!(world.docker.ensure_volumes(&world.spec).await.unwrap().is_empty());
    let labels = world.raw.inspect_volume(&name).await.unwrap().labels;
    assert_eq!(labels["com.docker.compose.volume"], "data");
    assert_eq!(labels["com.docker.compose.project"], world.name);
}

#[tokio::test]
async fn another_services_network_can_be_shared() {
    let Some(world) = World::new("sidecar").await else { return };
    let mut container = world.container(SERVER);
    container.networks.clear();
    container.network_mode = Some(NetworkMode::Service("vpn".to_owned()));
    let early = world.start(container.clone()).await.unwrap_err();
    assert!(!early.permanent && early.message.contains("`vpn`"), "{early}");
    let vpn = world.start_as(Role::Shared, "vpn", 1, world.container(SERVER)).await.unwrap().found;
    let web = world.start(container).await.unwrap().found;
    let hostname = async |id: &str| world.docker.exec(id, &["hostname".to_owned()], PATIENCE).await;
    let (one, other) = (hostname(&vpn.id).await, hostname(&web.id).await);
    assert!(matches!(one, ExecOutcome::Exited { code: 0, .. }), "{one:?}");
    assert_eq!(one, other);
}

#[tokio::test]
async fn an_engine_that_isnt_there_is_said_in_a_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let error = Docker::connect_to(&socket, "bulsa-test").await.unwrap_err();
    assert!(error.is_engine_gone() && error.to_string().contains("no Docker Engine answers at"), "{error}");
}

#[tokio::test]
async fn two_projects_whose_files_give_one_network_the_same_name_share_it() {
    let Some(mut first) = World::new("networks-first").await else { return };
    let Some(mut second) = World::new("networks-second").await else { return };
    let name = format!("{}-proxy", first.name);
    for world in [&mut first, &mut second] {
        world.spec.networks.insert("proxy".to_owned(), Network { name: name.clone(), ..Network::default() });
    }
    assert_eq!(first.docker.ensure_networks(&first.spec).await.unwrap(), std::slice::from_ref(&name));
    assert!(second.docker.ensure_networks(&second.spec).await.unwrap().is_empty());
    let removed = second.docker.remove_networks(&second.name).await.unwrap();
    assert!(!removed.contains(&name), "it is the other one's: {removed:?}");
    assert!(first.docker.remove_networks(&first.name).await.unwrap().contains(&name));
}

#[tokio::test]
async fn whoever_finds_a_network_missing_at_once_makes_it_once() {
    let Some(mut world) = World::new("networks-race").await else { return };
    let name = format!("{}_race", world.name);
    world.spec.networks.insert("race".to_owned(), Network { name: name.clone(), ..Network::default() });
    let all = futures_util::future::join_all((0..5).map(|_| world.docker.ensure_networks(&world.spec))).await;
    let made: Vec<String> = all.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(made, std::slice::from_ref(&name));
    let listed = world.raw.list_networks(None).await.unwrap();
    assert_eq!(listed.iter().filter(|one| one.name.as_deref() == Some(&name)).count(), 1);
}

//! Which image a deploy means, with registries that answer, don't know, are down or say nothing.

use std::{net::TcpListener, time::Duration};

use bulsa::agent::images::{ImageProblem, disk_free, resolve_all};
use bulsa_core::spec::{Role, container::PullPolicy};
use tokio::sync::mpsc;

use crate::{
    registry::{Registry, free_port},
    world::{World, container, wanted},
};

#[tokio::test]
async fn a_moved_tag_is_another_image() {
    let Some(world) = World::new("moved").await else { return };
    let registry = Registry::start(world.dir.path(), None);
    let shop = format!("127.0.0.1:{}/{}:1", registry.port, world.name);
    let changes =
        ["EXPOSE 3000/tcp", "VOLUME /data", "HEALTHCHECK --interval=2s CMD [\"/bin/busybox\", \"true\"]"];
    let first = world.image(&shop, "first", &[]).await;
    let second = world.image(&shop, "second", &changes).await;
    world.push(&shop).await;
    world.tag(&first, &shop).await;
    assert_eq!(world.id(&shop).await.as_ref(), Some(&first));
    // A service that isn't replaced at each deploy keeps what is here.
    let (kept, _) = world.resolve(&shop, |wanted| wanted.role = Role::Shared).await;
    assert_eq!(kept.unwrap().facts.id, first);
    let (result, said) = world.resolve(&shop, |_| {}).await;
    let resolved = result.unwrap();
    assert_eq!((&resolved.facts.id, resolved.facts.is_pulled, resolved.note), (&second, true, None));
    assert_eq!(resolved.facts.expose[0].port, 3000);
    assert_eq!(resolved.facts.volumes, ["/data"]);
    assert_eq!(resolved.facts.healthcheck.unwrap().interval, Some(Duration::from_secs(2)));
    assert!(said.iter().any(|progress| progress.text.ends_with(&shop)), "{said:?}");
}

#[tokio::test]
async fn what_the_registry_does_not_know_is_taken_from_here_with_a_note() {
    let Some(world) = World::new("unknown").await else { return };
    let registry = Registry::start(world.dir.path(), None);
    let shop = format!("127.0.0.1:{}/{}:1", registry.port, world.name);
    let (result, _) = world.resolve(&shop, |_| {}).await;
    assert!(matches!(result, Err(ImageProblem::Unknown { .. })), "{result:?}");
    let id = world.image(&shop, "only here", &[]).await;
    let (result, said) = world.resolve(&shop, |_| {}).await;
    let resolved = result.unwrap();
    assert_eq!((&resolved.facts.id, resolved.facts.is_pulled), (&id, false));
    let note = resolved.note.unwrap();
    assert!(note.contains("manifest unknown") && note.contains("on this host"), "{note}");
    assert!(said.iter().any(|progress| progress.text == note));
}

#[tokio::test]
async fn a_registry_that_is_down_matters_only_where_there_is_no_image() {
    let Some(world) = World::new("down").await else { return };
    let shop = format!("127.0.0.1:{}/{}:1", free_port(), world.name);
    let (result, _) = world.resolve(&shop, |_| {}).await;
    let error = result.unwrap_err();
    assert!(matches!(error, ImageProblem::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("connection refused"), "{error}");
    let id = world.image(&shop, "here", &[]).await;
    let (result, _) = world.resolve(&shop, |_| {}).await;
    let resolved = result.unwrap();
    assert_eq!(resolved.facts.id, id);
    assert!(resolved.note.unwrap().contains("connection refused"));
    // A name without a registry, as people give what they build: Docker Hub has no such image, or can't be reached.
    let local = format!("{}:1.4", world.name);
    world.tag(&id, &local).await;
    let (result, _) = world.resolve(&local, |_| {}).await;
    let resolved = result.unwrap();
    assert_eq!(resolved.facts.id, id);
    assert!(resolved.note.unwrap().contains("docker.io"));
}

#[tokio::test]
async fn a_registry_that_says_nothing_is_not_waited_for_by_each_image() {
    let Some(world) = World::new("silent").await else { return };
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let containers: Vec<_> = (0..5)
        .map(|at| {
            (
                format!("s{at}"),
                container(&format!("127.0.0.1:{port}/{}:{at}", world.name), PullPolicy::Always),
            )
        })
        .collect();
    for (_, container) in &containers {
        world.image(&container.image, "here", &[]).await;
    }
    let all: Vec<_> = containers.iter().map(|(service, container)| wanted(service, container)).collect();
    let (to, _heard) = mpsc::channel(100);
    let resolved = resolve_all(&world.docker, &all, &to).await;
    assert_eq!(resolved.len(), 5);
    for (service, result) in resolved {
        let note = result.unwrap().note.unwrap();
        assert!(note.contains("no answer within 10 s"), "{service}: {note}");
    }
}

#[tokio::test]
async fn without_pulling_no_registry_is_asked() {
    let Some(world) = World::new("no-pull").await else { return };
    let registry = Registry::start(world.dir.path(), None);
    let shop = format!("127.0.0.1:{}/{}:1", registry.port, world.name);
    world.image(&shop, "pushed", &[]).await;
    world.push(&shop).await;
    world.forget(&shop).await;
    let (result, _) = world.resolve(&shop, |wanted| wanted.no_pull = true).await;
    assert!(result.unwrap_err().to_string().contains("`--no-pull` was given"));
    let id = world.image(&shop, "another", &[]).await;
    let (result, said) = world.resolve(&shop, |wanted| wanted.no_pull = true).await;
    let resolved = result.unwrap();
    assert_eq!((resolved.facts.id, resolved.note), (id, None));
    assert!(said.is_empty(), "{said:?}");
}

#[tokio::test]
async fn a_digest_and_an_id_need_no_registry_once_they_are_here() {
    let Some(world) = World::new("digest").await else { return };
    let registry = Registry::start(world.dir.path(), None);
    let shop = format!("127.0.0.1:{}/{}:1", registry.port, world.name);
    let id = world.image(&shop, "by digest", &[]).await;
    world.push(&shop).await;
    let digests = world.docker.inspect_image(&shop).await.unwrap().repo_digests.unwrap();
    let digest = digests[0].clone();
    world.forget(&id).await;
    let (result, _) = world.resolve(&digest, |_| {}).await;
    let resolved = result.unwrap();
    assert_eq!((&resolved.facts.id, resolved.facts.is_pulled), (&id, true));
    drop(registry);
    for name in [digest, id.clone()] {
        let (result, _) = world.resolve(&name, |_| {}).await;
        let resolved = result.unwrap();
        assert_eq!(
            (&resolved.facts.id, resolved.facts.is_pulled, resolved.note),
            (&id, false, None),
            "{name}"
        );
    }
    let nowhere = format!("sha256:{}", "0".repeat(64));
    let (result, _) = world.resolve(&nowhere, |_| {}).await;
    assert!(matches!(result, Err(ImageProblem::Missing { .. })), "{result:?}");
}

#[tokio::test]
async fn several_are_pulled_at_once_and_the_same_one_once() {
    let Some(world) = World::new("many").await else { return };
    let registry = Registry::start(world.dir.path(), None);
    let name = |at: usize| format!("127.0.0.1:{}/{}:{at}", registry.port, world.name);
    let mut ids = Vec::new();
    for at in 0..4 {
        ids.push(world.image(&name(at), &format!("word {at}"), &[]).await);
        world.push(&name(at)).await;
    }
    for id in &ids {
        world.forget(id).await;
    }
    // Eight services, two for each image.
    let containers: Vec<_> =
        (0..8).map(|at| (format!("s{at}"), container(&name(at % 4), PullPolicy::Default))).collect();
    let all: Vec<_> = containers.iter().map(|(service, container)| wanted(service, container)).collect();
    let (to, _heard) = mpsc::channel(1);
    let before = registry.log().matches("GET /v2/").count();
    let resolved = resolve_all(&world.docker, &all, &to).await;
    for (at, (service, _)) in containers.iter().enumerate() {
        assert_eq!(resolved[service].as_ref().unwrap().facts.id, ids[at % 4], "{service}");
    }
    let asked = format!("/v2/{}/manifests/0", world.name);
    let log = registry.log();
    assert!(log.matches("GET /v2/").count() > before, "{log}");
    let heads = log.lines().filter(|line| line.contains("HEAD") && line.contains(&asked));
    // One for the push, one for the pull.
    assert!(heads.count() <= 2, "{log}");
}

#[tokio::test]
async fn an_image_for_another_platform_is_none() {
    let Some(world) = World::new("platform").await else { return };
    let registry = Registry::start(world.dir.path(), None);
    let shop = format!("127.0.0.1:{}/{}:1", registry.port, world.name);
    world.image(&shop, "for this machine", &[]).await;
    world.push(&shop).await;
    let mut other = container(&shop, PullPolicy::Default);
    other.platform = Some("linux/s390x".to_owned());
    let (to, _heard) = mpsc::channel(100);
    let all = [wanted("web", &other)];
    let resolved = resolve_all(&world.docker, &all, &to).await;
    let error = resolved["web"].clone().unwrap_err();
    assert!(matches!(error, ImageProblem::Platform { .. }), "{error:?}");
}

#[tokio::test]
async fn the_engine_has_room_for_images() {
    let Some(world) = World::new("disk").await else { return };
    let space = disk_free(&world.docker).await.unwrap();
    assert!(space.directory.starts_with('/') && space.free <= space.total && space.total > 0, "{space:?}");
}

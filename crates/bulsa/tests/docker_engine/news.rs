//! What the watcher tells, and in which order.

use std::time::Duration;

use bollard::{models::ContainerCreateBody, query_parameters::CreateContainerOptionsBuilder};
use bulsa::agent::docker::{Happened, News};
use bulsa_core::spec::container::Healthcheck;
use tokio::sync::mpsc;

use crate::world::{PATIENCE, SERVER, World};

/// The next thing that happened to `container`; lists are passed over.
async fn next(news: &mut mpsc::Receiver<News>, expected_container: &str) -> Happened {
    let look = async {
        loop {
            match news.recv().await.unwrap() {
                News::Happened { container, replica, what, .. } => {
                    assert_eq!(container, expected_container, "a foreign container's news: {what:?}");
                    assert_eq!(replica.as_deref(), Some("web-r1-1.1"));
                    return what;
                }
                News::Listed { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap()
}

#[tokio::test]
async fn a_life_is_told_from_start_to_end() {
    let Some(world) = World::new("news").await else { return };
    let (sender, mut news) = mpsc::channel(64);
    let watching = world.docker.watch(sender);
    assert!(matches!(news.recv().await, Some(News::Connected(_))));
    let Some(News::Listed { containers, .. }) = news.recv().await else { panic!("no list") };
    assert!(containers.is_empty());

    // A stranger's life is not told.
    let body = ContainerCreateBody {
        image: Some(world.image()),
        cmd: Some(vec!["true".to_owned()]),
        labels: Some([("bulsa.test".to_owned(), world.name.clone())].into()),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(&format!("{}-stranger", world.name)).build();
    let stranger = world.raw.create_container(Some(options), body).await.unwrap().id;
    world.raw.start_container(&stranger, None).await.unwrap();

    let mut container = world.container(SERVER);
    container.healthcheck = Some(Healthcheck {
        test: vec!["CMD".to_owned(), "true".to_owned()],
        interval: Some(Duration::from_millis(100)),
        timeout: Some(Duration::from_secs(5)),
        ..Healthcheck::default()
    });
    let id = world.start(container).await.unwrap().found.id;
    assert_eq!(next(&mut news, &id).await, Happened::Started);
    assert_eq!(next(&mut news, &id).await, Happened::Health("healthy".to_owned()));
    world.raw.pause_container(&id).await.unwrap();
    assert_eq!(next(&mut news, &id).await, Happened::Paused);
    world.raw.unpause_container(&id).await.unwrap();
    assert_eq!(next(&mut news, &id).await, Happened::Unpaused);
    world.docker.rename(&id, &format!("{}-other", world.name)).await.unwrap();
    assert_eq!(next(&mut news, &id).await, Happened::Renamed);

    world.docker.stop(&id, PATIENCE, &[]).await.unwrap();
    assert_eq!(next(&mut news, &id).await, Happened::Signalled { signal: 15 });
    let mut ends = [next(&mut news, &id).await, next(&mut news, &id).await];
    ends.sort_by_key(|end| *end == Happened::StopAsked);
    assert_eq!(ends, [Happened::Died { exit_code: 7, oom: false }, Happened::StopAsked]);
    world.docker.remove(&id, true).await.unwrap();
    assert_eq!(next(&mut news, &id).await, Happened::Removed);

    drop(news);
    tokio::time::timeout(PATIENCE, watching).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_there_is_listed_again_and_again() {
    let Some(world) = World::new("news-lists").await else { return };
    let id = world.start(world.container(SERVER)).await.unwrap().found.id;
    let (sender, mut news) = mpsc::channel(64);
    let watching = world.docker.watch(sender);
    let mut lists = 0;
    let look = async {
        while lists < 2 {
            if let Some(News::Listed { containers, .. }) = news.recv().await {
                assert!(containers.len() == 1 && containers[0].id == id);
                lists += 1;
            }
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap();
    watching.abort();
}

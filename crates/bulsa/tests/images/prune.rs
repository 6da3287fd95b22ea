//! Which images go with old releases.

use std::collections::{BTreeMap, BTreeSet};

use bulsa::agent::images::prune;

use crate::world::World;

#[tokio::test]
async fn only_images_that_nobody_else_needs_go() {
    let Some(world) = World::new("prune").await else { return };
    let name = |what: &str| format!("{}:{what}", world.name);
    let mut ids = BTreeMap::new();
    for what in ["gone", "live", "busy", "retagged", "foreign"] {
        ids.insert(what, world.image(&name(what), what, &[]).await);
    }
    // One whose tag has moved on: it has no name any more.
    let moved = world.image(&name("moved"), "before", &[]).await;
    world.image(&name("moved"), "after", &[]).await;
    let container = world.container(&ids["busy"]).await;
    world.tag(&ids["retagged"], &name("somebody-elses")).await;
    let used: BTreeMap<String, BTreeSet<String>> = ["gone", "live", "busy", "retagged"]
        .iter()
        .map(|what| (ids[what].clone(), BTreeSet::from([name(what)])))
        .chain([(moved.clone(), BTreeSet::from([name("moved")]))])
        .chain([(format!("sha256:{}", "0".repeat(64)), BTreeSet::new())])
        .collect();
    let keep = BTreeSet::from([ids["live"].clone()]);
    let gone: BTreeSet<String> = prune(&world.docker, &keep, &used).await.into_iter().collect();
    assert_eq!(gone, BTreeSet::from([ids["gone"].clone(), moved.clone()]));
    assert_eq!((world.id(&ids["gone"]).await, world.id(&moved).await), (None, None));
    for what in ["live", "busy", "retagged", "foreign", "moved", "somebody-elses"] {
        assert!(world.id(&name(what)).await.is_some(), "{what}");
    }
    // Once its container is away, the image goes too.
    world.remove_container(&container).await;
    assert_eq!(prune(&world.docker, &keep, &used).await, [ids["busy"].clone()]);
}

#[tokio::test]
async fn an_image_under_a_name_that_no_release_used_stays() {
    let Some(world) = World::new("named").await else { return };
    let theirs = format!("{}:theirs", world.name);
    let id = world.image(&theirs, "x", &[]).await;
    let used = BTreeMap::from([(id.clone(), BTreeSet::from([format!("{}:ours", world.name)]))]);
    assert!(prune(&world.docker, &BTreeSet::new(), &used).await.is_empty());
    assert_eq!(world.id(&theirs).await, Some(id));
}

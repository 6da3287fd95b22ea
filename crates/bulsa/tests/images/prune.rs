//! Which images go with old releases.

use std::collections::{BTreeMap, BTreeSet};

use bulsa::agent::images::{Candidate, Fate, prune};
use bulsa_core::image::Surplus;

use crate::{registry::Registry, world::World};

/// An image that some release used under these names.
fn candidate(names: &[&str], replaceable: bool) -> Candidate {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Candidate { image: Surplus { names, replaceable, ..Surplus::default() }, since_ms: u64::MAX }
}

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
    let missing = format!("sha256:{}", "0".repeat(64));
    let used: BTreeMap<String, Candidate> = ["gone", "live", "busy", "retagged"]
        .iter()
        .map(|what| (ids[what].clone(), candidate(&[&name(what)], true)))
        .chain([(moved.clone(), candidate(&[&name("moved")], false))])
        .chain([(missing.clone(), candidate(&[], true))])
        .collect();
    let keep = BTreeSet::from([ids["live"].clone()]);
    let fates = prune(&world.docker, &keep, &used).await;
    let expected = BTreeMap::from([
        (ids["gone"].clone(), Fate::Gone),
        (moved.clone(), Fate::Gone),
        (ids["busy"].clone(), Fate::Later),
        (ids["retagged"].clone(), Fate::Left),
        (missing, Fate::Left),
    ]);
    assert_eq!(fates, expected);
    assert_eq!((world.id(&ids["gone"]).await, world.id(&moved).await), (None, None));
    for what in ["live", "busy", "retagged", "foreign", "moved", "somebody-elses"] {
        assert!(world.id(&name(what)).await.is_some(), "{what}");
    }
    // Once its container is away, the image goes too.
    world.remove_container(&container).await;
    let fates = prune(&world.docker, &keep, &used).await;
    assert_eq!(fates[&ids["busy"]], Fate::Gone);
}

#[tokio::test]
async fn an_image_under_a_name_that_no_release_used_stays() {
    let Some(world) = World::new("named").await else { return };
    let theirs = format!("{}:theirs", world.name);
    let id = world.image(&theirs, "x", &[]).await;
    let ours = format!("{}:ours", world.name);
    let used = BTreeMap::from([(id.clone(), candidate(&[&ours], true))]);
    let fates = prune(&world.docker, &BTreeSet::new(), &used).await;
    assert_eq!(fates, BTreeMap::from([(id.clone(), Fate::Left)]));
    assert_eq!(world.id(&theirs).await, Some(id));
}

#[tokio::test]
async fn the_only_copy_of_what_a_user_named_stays_and_what_a_registry_has_goes() {
    let Some(world) = World::new("copies").await else { return };
    let registry = Registry::start(world.dir.path(), None);
    let local = format!("{}:local", world.name);
    let loaded = world.image(&local, "local", &[]).await;
    let remote = format!("127.0.0.1:{}/{}:1", registry.port, world.name);
    let pushed = world.image(&remote, "remote", &[]).await;
    world.push(&remote).await;
    let used = BTreeMap::from([
        (loaded.clone(), candidate(&[&local], false)),
        (pushed.clone(), candidate(&[&remote], false)),
    ]);
    let fates = prune(&world.docker, &BTreeSet::new(), &used).await;
    assert_eq!(fates, BTreeMap::from([(loaded.clone(), Fate::Left), (pushed.clone(), Fate::Gone)]));
    assert_eq!((world.id(&local).await, world.id(&pushed).await), (Some(loaded), None));
}

#[tokio::test]
async fn what_was_named_again_after_it_was_given_up_stays() {
    let Some(world) = World::new("again").await else { return };
    let name = format!("{}:again", world.name);
    let id = world.image(&name, "again", &[]).await;
    let given_up = Candidate { since_ms: 1, ..candidate(&[&name], true) };
    world.tag(&id, &name).await;
    let fates = prune(&world.docker, &BTreeSet::new(), &BTreeMap::from([(id.clone(), given_up)])).await;
    assert_eq!(fates, BTreeMap::from([(id, Fate::Left)]));
}

#[tokio::test]
async fn nameless_parents_go_with_an_image_unless_a_release_needs_one() {
    let Some(world) = World::new("parents").await else { return };
    let name = |what: &str| format!("{}:{what}", world.name);
    for needed in [true, false] {
        let base = world.image(&name("base"), &format!("base-{needed}"), &[]).await;
        let child = world.commit(&base, &name("child")).await;
        world.forget(&name("base")).await;
        let keep = if needed { BTreeSet::from([base.clone()]) } else { BTreeSet::new() };
        let used = BTreeMap::from([(child.clone(), candidate(&[&name("child")], true))]);
        assert_eq!(prune(&world.docker, &keep, &used).await[&child], Fate::Gone);
        assert_eq!(world.id(&base).await.is_some(), needed);
        if needed {
            world.forget(&base).await;
        }
    }
}

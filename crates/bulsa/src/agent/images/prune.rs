//! Removing the images of releases that are gone.
//!
//! Owns: when an image of ours may go. Never: forces, removes an image that no release used, that a container uses or
//! that has a name besides the one a release used, or the parents of one.

use std::collections::{BTreeMap, BTreeSet};

use bollard::{
    Docker,
    query_parameters::{ListContainersOptionsBuilder, RemoveImageOptionsBuilder},
};
use bulsa_core::image::Reference;

use super::facts;

/// Removes the images that releases used and that none needs any more: `used` has what releases used, by id, with the
/// names under which they did; `keep` the ids that stay. Gives the ids that went. What can't be removed now stays, is
/// logged, and goes at a later call.
pub async fn prune(
    docker: &Docker,
    keep: &BTreeSet<String>,
    used: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<String> {
    let mut gone = Vec::new();
    let candidates: Vec<_> = used.iter().filter(|(id, _)| !keep.contains(*id)).collect();
    if candidates.is_empty() {
        return gone;
    }
    let Some(busy) = images_of_containers(docker).await else { return gone };
    for (id, names) in candidates {
        if !busy.contains(id) && may_go(docker, id, names).await && remove(docker, id).await {
            gone.push(id.clone());
        }
    }
    gone
}

/// The images of all containers, those that don't run included; `None` where the Engine doesn't say.
async fn images_of_containers(docker: &Docker) -> Option<BTreeSet<String>> {
    let options = ListContainersOptionsBuilder::default().all(true).build();
    match docker.list_containers(Some(options)).await {
        Ok(containers) => Some(containers.into_iter().filter_map(|container| container.image_id).collect()),
        Err(error) => {
            tracing::warn!(%error, "no image is pruned: the Engine doesn't list its containers");
            None
        }
    }
}

/// Whether nobody else has given it a name.
async fn may_go(docker: &Docker, id: &str, names: &BTreeSet<String>) -> bool {
    let local = match facts::inspect(docker, id).await {
        Ok(Some(local)) => local,
        Ok(None) => return false,
        Err(error) => {
            tracing::warn!(%error, id, "an image of an old release is kept for now");
            return false;
        }
    };
    let ours: BTreeSet<Reference> = names.iter().filter_map(|name| Reference::parse(name).ok()).collect();
    // By id the Engine removes an image that has one name at most.
    local.tags.len() <= 1
        && local.tags.iter().all(|tag| Reference::parse(tag).is_ok_and(|tag| ours.contains(&tag)))
}

async fn remove(docker: &Docker, id: &str) -> bool {
    let options = RemoveImageOptionsBuilder::default().force(false).noprune(true).build();
    match docker.remove_image(id, Some(options), None).await {
        Ok(_) => true,
        // A container came meanwhile, or another image is built on it.
        Err(error) => {
            tracing::info!(%error, id, "an image of an old release stays");
            false
        }
    }
}

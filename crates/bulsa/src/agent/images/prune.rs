//! Removing the images of releases that are gone.
//!
//! Owns: when an image of ours may go. Never: forces, removes an image that no release used, that a container uses,
//! that has a name besides the one a release used, or one that is only here and under a name that a user gave it.

use std::collections::{BTreeMap, BTreeSet};

use bollard::{
    Docker,
    query_parameters::{ListContainersOptionsBuilder, RemoveImageOptionsBuilder},
};
use bulsa_core::image::{Reference, Surplus};

use super::facts::{self, Local};

/// An image that is to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Who used it, and how.
    pub image: Surplus,
    /// Since when nobody needs it, in milliseconds since 1970. One that was named later is somebody else's.
    pub since_ms: u64,
}

/// What became of an image that was to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is removed.
    Gone,
    /// It is not ours to remove, or isn't there any more. It isn't asked about again.
    Left,
    /// It can't be removed yet.
    Later,
}

/// Removes the images that releases used and that none needs any more, by id; `keep` has the ids that stay. Says what
/// became of each. What can't be removed now stays, is logged, and goes at a later call.
pub async fn prune(
    docker: &Docker,
    keep: &BTreeSet<String>,
    surplus: &BTreeMap<String, Candidate>,
) -> BTreeMap<String, Fate> {
    let mut fates = BTreeMap::new();
    let candidates: Vec<_> = surplus.iter().filter(|(id, _)| !keep.contains(*id)).collect();
    if candidates.is_empty() {
        return fates;
    }
    let Some(busy) = images_of_containers(docker).await else { return fates };
    for (id, candidate) in candidates {
        let fate = if busy.contains(id) { Fate::Later } else { decide(docker, keep, id, candidate).await };
        fates.insert(id.clone(), fate);
    }
    fates
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

async fn decide(docker: &Docker, keep: &BTreeSet<String>, id: &str, candidate: &Candidate) -> Fate {
    match facts::inspect(docker, id).await {
        Ok(Some(local)) if is_ours(&local, candidate) => {
            let spare_parents = has_kept_parent(docker, keep, id).await;
            remove(docker, id, spare_parents).await
        }
        Ok(_) => Fate::Left,
        Err(error) => {
            tracing::warn!(%error, id, "an image of an old release is kept for now");
            Fate::Later
        }
    }
}

/// Whether nobody else has given it a name, and it can be had again: from the file's `build`, or from a registry, as
/// the release that used it found, or as the Engine tells. One without any name is of no use to anybody.
fn is_ours(local: &Local, candidate: &Candidate) -> bool {
    let names = &candidate.image.names;
    let ours: BTreeSet<Reference> = names
        .iter()
        .filter_map(|name| Reference::parse(name).ok())
        .map(Reference::without_idle_tag)
        .collect();
    let is_ours = |tag: &String| Reference::parse(tag).is_ok_and(|tag| ours.contains(&tag));
    let can_be_had = candidate.image.replaceable || local.came_from_a_registry() || local.tags.is_empty();
    let since = i64::try_from(candidate.since_ms).unwrap_or(i64::MAX);
    // By id the Engine removes an image that has one name at most.
    can_be_had
        && local.tags.len() <= 1
        && local.tags.iter().all(is_ours)
        && (local.tags.is_empty() || local.tagged.is_none_or(|tagged| tagged.as_millisecond() <= since))
}

/// Whether an image that stays is below this one: it may be without a name, and would go with it.
async fn has_kept_parent(docker: &Docker, keep: &BTreeSet<String>, id: &str) -> bool {
    match docker.image_history(id).await {
        Ok(parents) => parents.iter().any(|parent| keep.contains(&parent.id)),
        Err(error) => {
            tracing::info!(%error, id, "what an image of an old release was built on isn't known: that stays");
            true
        }
    }
}

/// With its nameless parents, which the Engine's own builder leaves one of for each line of a Dockerfile: the Engine
/// keeps those that have a name, another child or a container.
async fn remove(docker: &Docker, id: &str, spare_parents: bool) -> Fate {
    let options = RemoveImageOptionsBuilder::default().force(false).noprune(spare_parents).build();
    match docker.remove_image(id, Some(options), None).await {
        Ok(_) => Fate::Gone,
        // A container came meanwhile, or another image is built on it.
        Err(error) => {
            tracing::info!(%error, id, "an image of an old release stays");
            Fate::Later
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
    const OTHER: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

    /// Whether an image with these names and digests goes, which releases used under this name.
    fn goes(tags: &[&str], digests: &[&str], used_as: &str, replaceable: bool) -> bool {
        let answer = serde_json::json!({ "Id": ID, "RepoTags": tags, "RepoDigests": digests });
        let local = facts::read(serde_json::from_value(answer).unwrap()).unwrap();
        let image = Surplus { names: [used_as.to_owned()].into(), replaceable, ..Surplus::default() };
        is_ours(&local, &Candidate { image, since_ms: u64::MAX })
    }

    #[test]
    fn a_digest_of_a_registrys_own_says_that_it_can_be_had_again() {
        assert!(goes(&["shop:1"], &[&format!("shop@{OTHER}")], "shop:1", false));
        assert!(!goes(&["shop:1"], &[], "shop:1", false), "only here");
        assert!(goes(&["shop:1"], &[], "shop:1", true), "but it can be built, or was pulled");
        assert!(!goes(&["other:1"], &[&format!("shop@{OTHER}")], "shop:1", false), "somebody else's name");
    }

    /// With containerd's image store an image's id is its digest, and each name has that beside it, pushed or not.
    #[test]
    fn a_digest_that_is_the_images_id_says_nothing() {
        assert!(!goes(&["shop:1"], &[&format!("shop@{ID}")], "shop:1", false));
        assert!(goes(&["shop:1"], &[&format!("shop@{ID}")], "shop:1", true));
        assert!(goes(&[], &[], "shop:1", false), "its name has moved on");
    }

    /// There a name with a digest is only made by a pull.
    #[test]
    fn one_that_was_pulled_by_its_digest_goes_whatever_tag_stood_beside_it() {
        let by_digest = format!("shop@{ID}");
        for used_as in [format!("shop:1@{ID}"), by_digest.clone(), format!("docker.io/library/shop:2@{ID}")] {
            assert!(goes(&[&by_digest], &[&by_digest], &used_as, false), "{used_as}");
        }
        assert!(!goes(&[&by_digest], &[&by_digest], "shop:1", false), "not under that name");
        assert!(!goes(&[&by_digest], &[&by_digest], &format!("other@{ID}"), false));
        assert!(!goes(&[&by_digest, "shop:1"], &[&by_digest], &format!("shop:1@{ID}"), false), "named again");
    }
}

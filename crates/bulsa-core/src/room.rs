//! Whether a new release has room beside the old one.
//!
//! Owns: the comparison of what a second copy of the apps needs with what this machine has free, and the way out where
//! it is too little: `stop_first`, with requests held, and the reason in the plan. Never: measures anything.

use std::collections::BTreeMap;

use crate::spec::{Handover, Role, Spec};

/// So much memory stays free beside an overlap, in bytes.
pub const RESERVE_BYTES: u64 = 64 << 20;
/// Disk space below which a deploy is refused, in bytes: pulling an image into the last of it takes everything down.
pub const DISK_MIN_BYTES: u64 = 256 << 20;

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Memory that can be had without taking it from anybody, in bytes; `None` where it isn't known.
    pub available: Option<u64>,
    /// What one running replica of a service uses now, in bytes.
    pub used: BTreeMap<String, u64>,
}

/// The spec as there is room for it: with too little memory for both releases at once, the apps that were to overlap are
/// exchanged `stop_first`.
#[must_use]
pub fn fit(mut spec: Spec, room: &Room) -> Spec {
    let Some(available) = room.available else { return spec };
    let need: u64 = spec
        .services
        .values()
        .filter(|service| overlaps(service) && room.used.contains_key(&service.name))
        .map(|service| {
            let container = service.container.as_deref();
            let reserved = container.and_then(|one| one.resources.memory_reservation).unwrap_or(0);
            let one = room.used.get(&service.name).copied().unwrap_or(0);
            one.max(u64::try_from(reserved).unwrap_or(0)).saturating_mul(u64::from(service.replicas))
        })
        .sum();
    if need == 0 || need + RESERVE_BYTES <= available {
        return spec;
    }
    let mib = |bytes: u64| bytes >> 20;
    let note = format!(
        "there is no room for two releases at once (a second copy of the apps needs about {} MiB, {} MiB are free): \
         the old replicas are stopped first, and requests are held meanwhile",
        mib(need),
        mib(available)
    );
    for service in spec.services.values_mut() {
        if overlaps(service)
            && let Some(container) = service.container.as_mut()
        {
            container.notes.push(note.clone());
            service.handover = Handover::StopFirst;
        }
    }
    spec
}

fn overlaps(service: &crate::spec::Service) -> bool {
    service.container.is_some() && service.role == Role::App && service.handover == Handover::Overlap
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::{LoadInput, ReadError, SourceFile, load};

    fn spec() -> Spec {
        let text = "services:\n  web: {command: [a], ports: ['80:80']}\n";
        let files = vec![SourceFile { path: "compose.yaml".to_owned(), text: text.to_owned() }];
        let mut read = |_: &str| Err(ReadError::NotFound);
        let mut spec = load(LoadInput::new(files, "/srv/shop", &mut read)).spec.unwrap();
        let web = spec.services.get_mut("web").unwrap();
        web.container = Some(Box::default());
        web.replicas = 2;
        spec
    }

    fn room(available: u64, used: u64) -> Room {
        Room { available: Some(available), used: BTreeMap::from([("web".to_owned(), used)]) }
    }

    #[test]
    fn two_releases_overlap_where_both_fit() {
        let fits = fit(spec(), &room(RESERVE_BYTES + 200, 100));
        assert_eq!(fits, spec());
    }

    #[test]
    fn with_a_byte_too_little_the_old_one_is_stopped_first_and_the_plan_says_why() {
        let tight = fit(spec(), &room(RESERVE_BYTES + 199, 100));
        let web = &tight.services["web"];
        assert_eq!(web.handover, Handover::StopFirst);
        assert!(web.container.as_ref().unwrap().notes[0].contains("no room for two releases"));
    }

    #[test]
    fn nothing_known_changes_nothing() {
        assert_eq!(fit(spec(), &Room::default()), spec());
        assert_eq!(fit(spec(), &room(1, 0)), spec(), "a first release has nothing to overlap with");
    }
}

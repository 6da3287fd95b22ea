//! Whether a new release has room beside the old one.
//!
//! Owns: the comparison of what a second copy of the apps needs with what this machine has free, and the way out where
//! it is too little: replica by replica where a service has several, else `stop_first` with requests held, and the
//! reason in the plan. Never: measures anything.

use std::collections::BTreeMap;

use crate::spec::{Handover, Role, Rolling, Service, Spec};

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
    /// So many replicas of a service end before the new ones start: those of warm releases that make room.
    pub leaving: BTreeMap<String, u32>,
}

/// Whether there is room without measuring what each replica uses, which takes a second on some Engines. `in_use` is what
/// everything on this host uses, in bytes, the `running` replicas of these services among it: a second copy of them needs
/// no more, and more of them as many times that.
#[must_use]
pub fn is_ample(
    spec: &Spec,
    (available, in_use): (u64, u64),
    running: &BTreeMap<String, u32>,
    replicas: impl Fn(&Service) -> u32,
) -> bool {
    let (mut times, mut reserved) = (0, 0_u64);
    for service in spec.services.values().filter(|service| overlaps(service)) {
        let Some(now) = running.get(&service.name).filter(|count| **count > 0) else { continue };
        let wanted = replicas(service);
        times = times.max(wanted.div_ceil(*now));
        reserved = reserved.saturating_add(reserved_by(service).saturating_mul(u64::from(wanted)));
    }
    let need = in_use.saturating_mul(u64::from(times)).saturating_add(reserved);
    need.saturating_add(RESERVE_BYTES) <= available
}

/// The spec as there is room for it. With too little memory for both releases at once, the apps that were to overlap are
/// replaced one replica after the other, the new one first where there is room for one more of each, else the old one.
/// An app with one replica is exchanged `stop_first` then. `replicas` says how many a service has, humans' wishes
/// included.
#[must_use]
pub fn fit(mut spec: Spec, room: &Room, replicas: impl Fn(&Service) -> u32) -> Spec {
    let Some(available) = room.available else { return spec };
    let leaving = |(name, count): (&String, &u32)| {
        room.used.get(name).copied().unwrap_or(0).saturating_mul(u64::from(*count))
    };
    let available = available.saturating_add(room.leaving.iter().map(leaving).sum());
    let measured = || {
        spec.services
            .values()
            .filter(|service| overlaps(service) && room.used.contains_key(&service.name))
            .map(|service| (one_of(service, room), u64::from(replicas(service))))
    };
    let need: u64 = measured().map(|(one, replicas)| one.saturating_mul(replicas)).sum();
    if need == 0 || need + RESERVE_BYTES <= available {
        return spec;
    }
    let stop_first = measured().map(|(one, _)| one).sum::<u64>() + RESERVE_BYTES > available;
    let mib = |bytes: u64| bytes >> 20;
    let why = format!(
        "there is no room for two releases at once (a second copy of the apps needs about {} MiB, {} MiB are free)",
        mib(need),
        mib(available)
    );
    for service in spec.services.values_mut().filter(|service| overlaps(service)) {
        let (handover, how) = if replicas(service) > 1 {
            let how = if stop_first { "stopping each old one first" } else { "starting each new one first" };
            let rolling = Rolling { stop_first, ..Rolling::default() };
            (Handover::Rolling(rolling), format!("its replicas are replaced one after the other, {how}"))
        } else if stop_first {
            let how = "the old replica is stopped first, and requests are held meanwhile";
            (Handover::StopFirst, how.to_owned())
        } else {
            continue;
        };
        service.handover = handover;
        if let Some(container) = service.container.as_mut() {
            container.notes.push(format!("{why}: {how}"));
        }
    }
    spec
}

/// What one replica needs, in bytes: what one uses now, and what the file reserves.
fn one_of(service: &Service, room: &Room) -> u64 {
    let used = room.used.get(&service.name).copied().unwrap_or(0);
    used.max(reserved_by(service))
}

fn reserved_by(service: &Service) -> u64 {
    let reserved = service.container.as_deref().and_then(|one| one.resources.memory_reservation);
    reserved.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0)
}

fn overlaps(service: &Service) -> bool {
    let runs_twice = matches!(service.role, Role::App | Role::Worker);
    service.container.is_some() && runs_twice && service.handover == Handover::Overlap
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
        let used = BTreeMap::from([("web".to_owned(), used)]);
        Room { available: Some(available), used, ..Room::default() }
    }

    fn fit(spec: Spec, room: &Room) -> Spec {
        super::fit(spec, room, |service| service.replicas)
    }

    #[test]
    fn what_a_human_scaled_counts_and_what_leaves_makes_room() {
        let tight = room(RESERVE_BYTES + 299, 100);
        assert_eq!(super::fit(spec(), &tight, |_| 2), spec());
        assert_ne!(super::fit(spec(), &tight, |_| 3), spec());
        let leaving = Room { leaving: BTreeMap::from([("web".to_owned(), 1)]), ..tight };
        assert_eq!(super::fit(spec(), &leaving, |_| 3), spec());
    }

    #[test]
    fn two_releases_overlap_where_both_fit() {
        let fits = fit(spec(), &room(RESERVE_BYTES + 200, 100));
        assert_eq!(fits, spec());
    }

    fn web(spec: &Spec) -> (Handover, String) {
        let web = &spec.services["web"];
        (web.handover, web.container.as_ref().unwrap().notes.join("; "))
    }

    #[test]
    fn with_a_byte_too_little_it_goes_one_by_one_and_the_plan_says_why() {
        let (handover, note) = web(&fit(spec(), &room(RESERVE_BYTES + 199, 100)));
        assert_eq!(handover, Handover::Rolling(Rolling::default()));
        assert!(note.contains("no room for two releases") && note.contains("new one first"), "{note}");
    }

    #[test]
    fn without_room_for_one_more_the_old_one_of_each_stops_first() {
        let (handover, note) = web(&fit(spec(), &room(RESERVE_BYTES + 99, 100)));
        assert_eq!(handover, Handover::Rolling(Rolling { stop_first: true, ..Rolling::default() }));
        assert!(note.contains("old one first"), "{note}");
    }

    #[test]
    fn the_only_replica_is_exchanged_with_requests_held() {
        let mut one = spec();
        one.services.get_mut("web").unwrap().replicas = 1;
        let (handover, note) = web(&fit(one, &room(RESERVE_BYTES + 99, 100)));
        assert_eq!(handover, Handover::StopFirst);
        assert!(note.contains("requests are held"), "{note}");
    }

    #[test]
    fn where_all_that_runs_fits_once_more_nothing_need_be_measured() {
        let ample = |spec: &Spec, available, running| {
            let running = BTreeMap::from([("web".to_owned(), running), ("gone".to_owned(), 1)]);
            is_ample(spec, (available, 1000), &running, |service| service.replicas)
        };
        assert!(ample(&spec(), RESERVE_BYTES + 1000, 2));
        assert!(!ample(&spec(), RESERVE_BYTES + 999, 2));
        assert!(!ample(&spec(), RESERVE_BYTES + 1999, 1), "twice as many as run");
        assert!(ample(&spec(), RESERVE_BYTES + 2000, 1));
        assert!(ample(&spec(), RESERVE_BYTES, 0), "nothing runs, so there is nothing to measure");
        let mut greedy = spec();
        greedy.services.get_mut("web").unwrap().container.as_mut().unwrap().resources.memory_reservation =
            Some(500);
        assert!(!ample(&greedy, RESERVE_BYTES + 1999, 2));
        assert!(ample(&greedy, RESERVE_BYTES + 2000, 2));
    }

    #[test]
    fn nothing_known_changes_nothing() {
        assert_eq!(fit(spec(), &Room::default()), spec());
        assert_eq!(fit(spec(), &room(1, 0)), spec(), "a first release has nothing to overlap with");
    }
}

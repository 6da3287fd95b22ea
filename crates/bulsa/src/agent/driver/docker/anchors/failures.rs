//! What went wrong with anchors.
//!
//! Owns: when one that couldn't be had is tried again, and which warnings about them don't hold any more. Never: warns.

use std::{collections::BTreeMap, time::Duration};

use bulsa_core::time::Timestamp;

use super::Name;

/// An anchor that could not be had is tried again after this long. The Engine's lists, or housekeeping, come more often.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// After so many tries in vain a deploy is given up for it.
const TRIES_MAX: u32 = 3;

/// The anchors that couldn't be had, or listened in.
#[derive(Default)]
pub(super) struct Failures {
    by_name: BTreeMap<Name, Failure>,
}

/// What went wrong with one last.
struct Failure {
    at: Timestamp,
    /// How often in a row.
    tries: u32,
    why: String,
}

impl Failures {
    /// It failed. Gives the warning that this one replaces.
    #[must_use = "people still see the warning of the failure before"]
    pub(super) fn add(&mut self, name: Name, why: String, at: Timestamp) -> Option<String> {
        let before = self.by_name.remove(&name);
        let tries = before.as_ref().map_or(0, |before| before.tries) + 1;
        self.by_name.insert(name, Failure { at, tries, why });
        before.map(|before| before.why)
    }

    /// What was wrong isn't any more, or may not be: it is tried at once. Gives the warning that doesn't hold any more.
    #[must_use = "people still see the warning"]
    pub(super) fn forget(&mut self, name: &Name) -> Option<String> {
        self.by_name.remove(name).map(|failure| failure.why)
    }

    /// Forgets those of anchors that nobody wants. Gives the warnings that don't hold any more.
    #[must_use = "people still see the warnings"]
    pub(super) fn keep(&mut self, is_wanted: impl Fn(&Name) -> bool) -> Vec<String> {
        let unwanted: Vec<Name> = self.by_name.keys().filter(|name| !is_wanted(name)).cloned().collect();
        unwanted.iter().filter_map(|name| self.forget(name)).collect()
    }

    /// Whether it isn't tried again yet.
    pub(super) fn waits(&self, name: &Name, now: Timestamp) -> bool {
        self.by_name.get(name).is_some_and(|failure| now.since(failure.at) < TRY_AGAIN)
    }

    /// Why it is given up, where it was tried often enough.
    pub(super) fn given_up(&self, name: &Name) -> Option<&str> {
        self.by_name
            .get(name)
            .filter(|failure| failure.tries >= TRIES_MAX)
            .map(|failure| failure.why.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(service: &str) -> Name {
        ("shop".to_owned(), service.to_owned())
    }

    #[test]
    fn one_that_fails_is_tried_again_after_a_while_and_given_up_after_a_few_tries() {
        let (mut failures, api) = (Failures::default(), name("api"));
        for tries in 1..=TRIES_MAX {
            assert_eq!(failures.given_up(&api), None);
            let before = failures.add(api.clone(), format!("no {tries}"), Timestamp(0));
            assert_eq!(before, (tries > 1).then(|| format!("no {}", tries - 1)), "one warning at a time");
        }
        assert_eq!(failures.given_up(&api), Some("no 3"));
        let end = Timestamp(0) + TRY_AGAIN;
        assert!(failures.waits(&api, Timestamp(0)) && !failures.waits(&api, end));
    }

    #[test]
    fn the_warning_of_one_that_is_well_or_that_nobody_wants_is_taken_back() {
        let mut failures = Failures::default();
        for service in ["api", "web", "gone"] {
            assert_eq!(failures.add(name(service), format!("no {service}"), Timestamp(0)), None);
        }
        assert_eq!(failures.keep(|name| name.1 != "gone"), ["no gone"]);
        assert_eq!(failures.forget(&name("api")).as_deref(), Some("no api"));
        assert!(!failures.waits(&name("api"), Timestamp(0)) && failures.waits(&name("web"), Timestamp(0)));
        assert_eq!(failures.forget(&name("api")), None);
    }
}

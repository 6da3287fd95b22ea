//! Names of things: releases, replicas, proxy generations.
//!
//! Owns: the identifiers that pass between decide, the engines and the proxy. Never: looks anything up.

use std::{fmt, str::FromStr};

/// The number of a release, counted from 1 within its project.
///
/// `0` never names a release: [`ReplicaId::release`] uses it for the replicas of `shared` services, which belong to
/// the project and not to a release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReleaseId(pub u32);

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// A place that a replica fills: the `ordinal`-th copy (from 1) of `service` in `release`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// The release, or release 0 for a `shared` service.
    pub release: ReleaseId,
    /// The service's name in the compose file.
    pub service: String,
    /// 1 for the first copy.
    pub ordinal: u32,
}

/// One running copy: the `attempt`-th start (from 1, never reused while the project lives) in its slot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId {
    /// The release, or release 0 for a `shared` service.
    pub release: ReleaseId,
    /// The service's name in the compose file.
    pub service: String,
    /// 1 for the first copy.
    pub ordinal: u32,
    /// Counts the starts in this slot.
    pub attempt: u32,
}

impl ReplicaId {
    /// The slot that this replica fills.
    #[must_use]
    pub fn slot(&self) -> Slot {
        Slot { release: self.release, service: self.service.clone(), ordinal: self.ordinal }
    }

    /// The name that people see and that a replica finds in `BULSA_REPLICA`: `web-r3-1`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}-{}", self.service, self.release, self.ordinal)
    }
}

/// The full form, unique within a project and parsed back by [`ReplicaId::from_str`]: `web-r3-1.5`.
impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}.{}", self.service, self.release, self.ordinal, self.attempt)
    }
}

/// Why a string isn't a [`ReplicaId`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no replica: expected SERVICE-rRELEASE-ORDINAL.ATTEMPT")]
pub struct ReplicaIdError(String);

impl FromStr for ReplicaId {
    type Err = ReplicaIdError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (rest, attempt) = s.rsplit_once('.')?;
            let (rest, ordinal) = rest.rsplit_once('-')?;
            let (service, release) = rest.rsplit_once("-r")?;
            if service.is_empty() {
                return None;
            }
            Some(Self {
                release: ReleaseId(release.parse().ok()?),
                service: service.to_owned(),
                ordinal: ordinal.parse().ok()?,
                attempt: attempt.parse().ok()?,
            })
        };
        parse().ok_or_else(|| ReplicaIdError(s.to_owned()))
    }
}

/// One started instance of the proxy, counted by the keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replica_ids_survive_the_round_trip_even_with_awkward_service_names() {
        for service in ["web", "web-r2-1", "a.b", "x-r"] {
            let id =
                ReplicaId { release: ReleaseId(7), service: service.to_owned(), ordinal: 2, attempt: 31 };
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for bad in ["", "web", "web-1.2", "-r1-1.1", "web-r1-1", "web-r1-x.1"] {
            assert!(bad.parse::<ReplicaId>().is_err(), "{bad}");
        }
    }
}

//! Which keys exist, what they may be, and where they work.
//!
//! Owns: the support matrix, as data: every key of the Compose Specification ([`TOP`] and what is below it) and of
//! `x-bulsa`, at each level. A key that works on one engine only, or on none yet, is an error that names it where it
//! doesn't work, never ignored; a key in no table is an error with the nearest name. The documentation's matrix is made
//! from these tables. Never: looks at a file; that is `canonical`, for the values, and `support`.

mod deploy;
mod service;
mod service_parts;
pub mod shape;
mod top;

pub use service::SERVICE;
pub use shape::{Field, Identity, Object, Shape, Short, Show, Support};
pub use top::TOP;

pub(super) use service_parts::{BLKIO_RATE, BLKIO_WEIGHT, ULIMIT};

/// Every mapping of Compose's own keys, from the top down, each once.
#[must_use]
pub fn matrix() -> Vec<&'static Object> {
    let mut found = vec![&TOP];
    let mut next = 0;
    while let Some(object) = found.get(next).copied() {
        for inner in object.fields.iter().filter_map(|field| field.shape.object()) {
            if !found.iter().any(|known| known.title == inner.title) {
                found.push(inner);
            }
        }
        next += 1;
    }
    found
}

/// The keys of one mapping of `x-bulsa`.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// They work.
    pub known: &'static [&'static str],
    /// They are valid but don't work yet, and why.
    pub later: &'static [(&'static str, Later)],
    /// Whether `x-…` is allowed, and ignored.
    pub extensions: bool,
}

/// Why a valid key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    /// It needs a container, and the service is a program of this host.
    ProcessEngine,
    /// It belongs to Swarm.
    Swarm,
    /// It belongs to Windows containers.
    Windows,
    /// It belongs to Docker's model runner.
    Models,
    /// It starts a program of Compose's own kind of plugins.
    Plugins,
    /// It gives a container the Docker Engine.
    Socket,
    /// Nobody got to it yet.
    Soon,
    /// It belongs to further ways of replacing and healing.
    Healing,
}

impl Later {
    /// The rest of a sentence that starts with the key.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::ProcessEngine => "needs a container, and this service has no `image` and no `build`",
            Self::Healing | Self::Soon => "comes in a later version",
            Self::Swarm => "belongs to Swarm, which comes in a later version",
            Self::Windows => "is about Windows containers, which Bulsa doesn't run",
            Self::Models => "needs Docker's model runner, which Bulsa doesn't drive",
            Self::Plugins => "hands the service to a plug-in of Docker Compose, which Bulsa doesn't run",
            Self::Socket => "would give the container the Engine and your registry passwords",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::ProcessEngine => {
                "give the service an `image`, or remove the key: without one it is a program on this host"
            }
            Self::Healing | Self::Soon | Self::Swarm | Self::Windows => {
                "remove the key; Bulsa ignores no key silently"
            }
            Self::Models => "run the model as a service of its own and pass its address in `environment`",
            Self::Plugins => {
                "start what it provides by other means, and give the service an `image` or remove it"
            }
            Self::Socket => {
                "mount the Engine's socket under `volumes` if the container may control the whole host"
            }
        }
    }
}

impl Keys {
    /// The names that work, for suggestions.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.known.iter().copied().chain(self.later.iter().map(|(name, _)| *name))
    }

    /// Why `key` is refused, where it is valid but doesn't work yet.
    #[must_use]
    pub fn later(&self, key: &str) -> Option<Later> {
        self.later.iter().find(|(name, _)| *name == key).map(|(_, why)| *why)
    }
}

const fn plain(known: &'static [&'static str]) -> Keys {
    Keys { known, later: &[], extensions: false }
}

/// The top's `x-bulsa`
pub const BULSA_TOP: Keys = plain(&["engine", "heartbeat", "keep", "limits", "notify", "trusted_proxies"]);
/// `x-bulsa.heartbeat`
pub const BULSA_HEARTBEAT: Keys = plain(&["interval", "url"]);
/// `x-bulsa.keep`
pub const BULSA_KEEP: Keys = plain(&["releases", "warm"]);
/// `x-bulsa.limits`
pub const BULSA_LIMITS: Keys = plain(&["connections_per_address"]);
/// `x-bulsa.notify[]`
pub const BULSA_NOTIFY: Keys = plain(&["format", "on", "url"]);

/// A service's `x-bulsa`
pub const BULSA: Keys = Keys {
    known: &[
        "access_log",
        "app_port",
        "bake",
        "balance",
        "drain",
        "drill",
        "gate",
        "handover",
        "heartbeat",
        "hold",
        "probe",
        "recycle",
        "role",
        "route",
        "spare",
        "timeouts",
    ],
    later: &[],
    extensions: false,
};
/// `x-bulsa.recycle`
pub const BULSA_RECYCLE: Keys = plain(&["age", "memory", "requests"]);
/// `x-bulsa.route`, or one of its entries
pub const BULSA_ROUTE: Keys = plain(&[
    "host",
    "path",
    "protocol",
    "proxy_protocol",
    "redirect",
    "request_headers",
    "response_headers",
    "send_proxy",
    "strip_prefix",
]);
/// `x-bulsa.route.redirect`, long form
pub const BULSA_REDIRECT: Keys = plain(&["status", "to"]);
/// `x-bulsa.probe`
pub const BULSA_PROBE: Keys = plain(&["fall", "interval", "path", "port", "rise", "timeout"]);
/// `x-bulsa.gate`
pub const BULSA_GATE: Keys = plain(&["timeout"]);
/// `x-bulsa.balance`
pub const BULSA_BALANCE: Keys =
    plain(&["fail_timeout", "max_conns", "max_fails", "max_requests", "policy", "slow_start", "weight"]);
/// `x-bulsa.timeouts`
pub const BULSA_TIMEOUTS: Keys = plain(&["first_byte", "tunnel_idle", "tunnel_life"]);
/// `x-bulsa.drain`
pub const BULSA_DRAIN: Keys = plain(&["requests", "stagger", "websockets"]);
/// `x-bulsa.drill`
pub const BULSA_DRILL: Keys = plain(&["block"]);
/// `x-bulsa.hold`
pub const BULSA_HOLD: Keys = plain(&["page", "requests", "time"]);
/// `x-bulsa.bake`
pub const BULSA_BAKE: Keys = plain(&["errors", "time"]);
/// `x-bulsa.app_port`, long form
pub const BULSA_APP_PORT: Keys = plain(&["isolate", "port"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_stands_in_two_lists() {
        for keys in [BULSA, BULSA_BALANCE] {
            let mut names: Vec<_> = keys.names().collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all);
        }
    }

    #[test]
    fn the_tables_are_sorted_and_have_no_key_twice() {
        for object in matrix() {
            assert!(object.fields.is_sorted_by(|a, b| a.key < b.key), "{}", object.title);
        }
    }

    #[test]
    fn the_service_keys_are_all_of_the_specifications_93() {
        assert_eq!(SERVICE.names().filter(|name| *name != "x-bulsa").count(), 93);
    }

    #[test]
    fn the_matrix_reaches_every_level_once() {
        let places: Vec<_> = matrix().iter().map(|object| object.place).collect();
        for place in ["", "services.*", "services.*.deploy.resources.limits", "networks.*.ipam.config[]"] {
            assert_eq!(places.iter().filter(|known| **known == place).count(), 1, "{place}");
        }
    }
}

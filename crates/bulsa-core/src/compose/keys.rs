//! Which keys exist, and which of them work today.
//!
//! Owns: the support matrix, as data: every key of the Compose Specification and of `x-bulsa`, at each level that is
//! read. A key under `later` is an error that names it, never ignored; a key in no list is an error with the nearest
//! name. The documentation's matrix is made from these tables.

/// The keys of one mapping.
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
    /// The process engine doesn't have it yet.
    ProcessEngine,
    /// It needs containers: `image`, `build`.
    DockerEngine,
    /// It belongs to reading several files.
    SeveralFiles,
    /// It belongs to the proxy's balancing and limits.
    DataPlane,
    /// It belongs to further ways of replacing and healing.
    Healing,
}

impl Later {
    /// The rest of a sentence that starts with the key.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::ProcessEngine => "isn't supported by the process engine yet",
            Self::DockerEngine => "needs the docker engine, which comes in a later version",
            Self::SeveralFiles => "reads other compose files, which comes in a later version",
            Self::DataPlane => "belongs to the proxy's balancing, which comes in a later version",
            Self::Healing => "comes in a later version",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::ProcessEngine | Self::DataPlane | Self::Healing => {
                "remove the key; Bulsa ignores no key silently"
            }
            Self::DockerEngine => {
                "to run the program directly on this host, give `command` without `image` and `build`"
            }
            Self::SeveralFiles => "write what is needed into this file",
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

use Later::{DataPlane, DockerEngine, Healing, ProcessEngine, SeveralFiles};

/// The top of the file.
pub const TOP: Keys = Keys {
    known: &["name", "services", "version", "x-bulsa"],
    later: &[
        ("configs", ProcessEngine),
        ("include", SeveralFiles),
        ("models", ProcessEngine),
        ("networks", ProcessEngine),
        ("secrets", ProcessEngine),
        ("volumes", ProcessEngine),
    ],
    extensions: true,
};

/// `services.*`
pub const SERVICE: Keys = Keys {
    known: &[
        "command",
        "depends_on",
        "deploy",
        "entrypoint",
        "env_file",
        "environment",
        "healthcheck",
        "ports",
        "restart",
        "scale",
        "stop_grace_period",
        "stop_signal",
        "user",
        "working_dir",
        "x-bulsa",
    ],
    later: SERVICE_LATER,
    extensions: true,
};

const SERVICE_LATER: &[(&str, Later)] = &[
    ("annotations", ProcessEngine),
    ("attach", ProcessEngine),
    ("blkio_config", ProcessEngine),
    ("build", DockerEngine),
    ("cap_add", ProcessEngine),
    ("cap_drop", ProcessEngine),
    ("cgroup", ProcessEngine),
    ("cgroup_parent", ProcessEngine),
    ("configs", ProcessEngine),
    ("container_name", ProcessEngine),
    ("cpu_count", ProcessEngine),
    ("cpu_percent", ProcessEngine),
    ("cpu_period", ProcessEngine),
    ("cpu_quota", ProcessEngine),
    ("cpu_rt_period", ProcessEngine),
    ("cpu_rt_runtime", ProcessEngine),
    ("cpu_shares", ProcessEngine),
    ("cpus", ProcessEngine),
    ("cpuset", ProcessEngine),
    ("credential_spec", ProcessEngine),
    ("develop", ProcessEngine),
    ("device_cgroup_rules", ProcessEngine),
    ("devices", ProcessEngine),
    ("dns", ProcessEngine),
    ("dns_opt", ProcessEngine),
    ("dns_search", ProcessEngine),
    ("domainname", ProcessEngine),
    ("expose", ProcessEngine),
    ("extends", SeveralFiles),
    ("external_links", ProcessEngine),
    ("extra_hosts", ProcessEngine),
    ("gpus", ProcessEngine),
    ("group_add", ProcessEngine),
    ("hostname", ProcessEngine),
    ("image", DockerEngine),
    ("init", ProcessEngine),
    ("ipc", ProcessEngine),
    ("isolation", ProcessEngine),
    ("label_file", ProcessEngine),
    ("labels", ProcessEngine),
    ("links", ProcessEngine),
    ("logging", ProcessEngine),
    ("mac_address", ProcessEngine),
    ("mem_limit", ProcessEngine),
    ("mem_reservation", ProcessEngine),
    ("mem_swappiness", ProcessEngine),
    ("memswap_limit", ProcessEngine),
    ("models", ProcessEngine),
    ("network_mode", ProcessEngine),
    ("networks", ProcessEngine),
    ("oom_kill_disable", ProcessEngine),
    ("oom_score_adj", ProcessEngine),
    ("pid", ProcessEngine),
    ("pids_limit", ProcessEngine),
    ("platform", ProcessEngine),
    ("post_start", ProcessEngine),
    ("pre_start", ProcessEngine),
    ("pre_stop", ProcessEngine),
    ("privileged", ProcessEngine),
    ("profiles", ProcessEngine),
    ("provider", ProcessEngine),
    ("pull_policy", ProcessEngine),
    ("pull_refresh_after", ProcessEngine),
    ("read_only", ProcessEngine),
    ("runtime", ProcessEngine),
    ("secrets", ProcessEngine),
    ("security_opt", ProcessEngine),
    ("shm_size", ProcessEngine),
    ("stdin_open", ProcessEngine),
    ("storage_opt", ProcessEngine),
    ("sysctls", ProcessEngine),
    ("tmpfs", ProcessEngine),
    ("tty", ProcessEngine),
    ("ulimits", ProcessEngine),
    ("use_api_socket", ProcessEngine),
    ("userns_mode", ProcessEngine),
    ("uts", ProcessEngine),
    ("volumes", ProcessEngine),
    ("volumes_from", ProcessEngine),
];

/// `services.*.deploy`
pub const DEPLOY: Keys = Keys {
    known: &["replicas"],
    later: &[
        ("endpoint_mode", ProcessEngine),
        ("labels", ProcessEngine),
        ("mode", ProcessEngine),
        ("placement", ProcessEngine),
        ("resources", ProcessEngine),
        ("restart_policy", ProcessEngine),
        ("rollback_config", ProcessEngine),
        ("update_config", ProcessEngine),
    ],
    extensions: true,
};

/// `services.*.healthcheck`
pub const HEALTHCHECK: Keys = Keys {
    known: &["disable", "interval", "retries", "start_interval", "start_period", "test", "timeout"],
    later: &[],
    extensions: true,
};

/// `services.*.ports[]`, long form
pub const PORT: Keys = Keys {
    known: &["host_ip", "mode", "name", "protocol", "published", "target"],
    later: &[("app_protocol", ProcessEngine)],
    extensions: true,
};

/// `services.*.depends_on.*`
pub const DEPENDENCY: Keys =
    Keys { known: &["condition", "required"], later: &[("restart", ProcessEngine)], extensions: true };

/// `services.*.env_file[]`, long form
pub const ENV_FILE: Keys = plain(&["format", "path", "required"]);

/// The top's `x-bulsa`
pub const BULSA_TOP: Keys = plain(&["engine", "keep", "trusted_proxies"]);
/// `x-bulsa.keep`
pub const BULSA_KEEP: Keys = plain(&["releases", "warm"]);

/// A service's `x-bulsa`
pub const BULSA: Keys = Keys {
    known: &["app_port", "bake", "balance", "drain", "gate", "handover", "hold", "probe", "role", "route"],
    later: &[("recycle", Healing), ("spare", Healing)],
    extensions: false,
};
/// `x-bulsa.route`
pub const BULSA_ROUTE: Keys = plain(&["host", "path", "protocol"]);
/// `x-bulsa.probe`
pub const BULSA_PROBE: Keys = plain(&["fall", "interval", "path", "port", "rise", "timeout"]);
/// `x-bulsa.gate`
pub const BULSA_GATE: Keys = plain(&["timeout"]);
/// `x-bulsa.balance`
pub const BULSA_BALANCE: Keys = Keys {
    known: &["policy"],
    later: &[("fail_timeout", DataPlane), ("max_fails", DataPlane), ("weight", DataPlane)],
    extensions: false,
};
/// `x-bulsa.drain`
pub const BULSA_DRAIN: Keys = plain(&["requests", "stagger", "websockets"]);
/// `x-bulsa.hold`
pub const BULSA_HOLD: Keys = plain(&["requests", "time"]);
/// `x-bulsa.bake`
pub const BULSA_BAKE: Keys = plain(&["errors", "time"]);
/// `x-bulsa.app_port`, long form
pub const BULSA_APP_PORT: Keys = plain(&["isolate", "port"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_stands_in_two_lists() {
        for keys in [TOP, SERVICE, DEPLOY, HEALTHCHECK, PORT, DEPENDENCY, BULSA, BULSA_BALANCE] {
            let mut names: Vec<_> = keys.names().collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all);
        }
    }

    #[test]
    fn the_service_keys_are_all_of_the_specifications_93() {
        assert_eq!(SERVICE.names().filter(|name| *name != "x-bulsa").count(), 93);
    }
}

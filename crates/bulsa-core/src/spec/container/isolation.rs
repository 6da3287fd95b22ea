//! What a container may do: rights, namespaces, devices of the host.
//!
//! Owns: its resolved form; the rules of [`super`] hold for it. Never: knows the Engine's API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Rights and isolation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Isolation {
    /// `cap_add`
    pub cap_add: Vec<String>,
    /// `cap_drop`
    pub cap_drop: Vec<String>,
    /// `privileged`
    pub privileged: bool,
    /// `read_only`
    pub read_only: bool,
    /// `security_opt`, in the Engine's form (`seccomp=` with the file's text, `no-new-privileges`).
    pub security_options: Vec<String>,
    /// `security_opt: systempaths=unconfined`: the Engine hides and protects nothing of `/proc` and `/sys`.
    pub unconfined_paths: bool,
    /// `devices`: host path, container path, permissions.
    pub devices: Vec<(String, String, String)>,
    /// `device_cgroup_rules`
    pub device_cgroup_rules: Vec<String>,
    /// `group_add`
    pub group_add: Vec<String>,
    /// `sysctls`
    pub sysctls: BTreeMap<String, String>,
    /// `ipc`
    pub ipc: Option<String>,
    /// `pid`
    pub pid: Option<String>,
    /// `uts`
    pub uts: Option<String>,
    /// `userns_mode`
    pub userns: Option<String>,
    /// `cgroup`: `host` or `private`
    pub cgroup: Option<String>,
    /// `cgroup_parent`
    pub cgroup_parent: Option<String>,
    /// `isolation` (Windows)
    pub technology: Option<String>,
    /// `mac_address` of the service itself
    pub mac_address: Option<String>,
}

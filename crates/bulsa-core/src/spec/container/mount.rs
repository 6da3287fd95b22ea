//! What is mounted into a container: a service's `volumes`, and those of the top.
//!
//! Owns: its resolved form; the rules of [`super`] hold for it. Never: knows the Engine's API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One entry of `volumes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute, in the container.
    pub target: String,
    /// What is there.
    pub source: MountSource,
    /// `read_only`
    #[serde(default)]
    pub read_only: bool,
    /// `consistency`, as written.
    #[serde(default)]
    pub consistency: Option<String>,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A volume, by its key in the file; `None` is an anonymous one.
    Volume {
        /// The key in [`crate::spec::Spec::volumes`].
        name: Option<String>,
        /// `nocopy`
        #[serde(default)]
        no_copy: bool,
        /// `subpath`
        #[serde(default)]
        subpath: Option<String>,
        /// `labels`
        #[serde(default)]
        labels: BTreeMap<String, String>,
    },
    /// A path of this host.
    Bind {
        /// Absolute.
        path: String,
        /// Whether it is made where it is missing.
        #[serde(default)]
        create: bool,
        /// `propagation`
        #[serde(default)]
        propagation: Option<String>,
        /// `selinux`: `z` or `Z`
        #[serde(default)]
        selinux: Option<String>,
        /// `recursive`
        #[serde(default)]
        recursive: Option<String>,
    },
    /// Memory.
    Tmpfs {
        /// Bytes.
        #[serde(default)]
        size: Option<i64>,
        /// Permission bits.
        #[serde(default)]
        mode: Option<u32>,
    },
    /// `npipe`, `cluster` or `image`: the type and the source, as written.
    Other {
        /// The type.
        kind: String,
        /// The source.
        source: String,
        /// `subpath` of an image.
        #[serde(default)]
        subpath: Option<String>,
    },
}

/// One entry of the top's `volumes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// The Engine's name of it: `PROJECT_KEY`, or what `name` says.
    pub name: String,
    /// Whether it was made elsewhere and must exist.
    pub external: bool,
    /// `driver`; the Engine's default is `local`.
    pub driver: Option<String>,
    /// `driver_opts`
    pub driver_options: BTreeMap<String, String>,
    /// `labels`
    pub labels: BTreeMap<String, String>,
}
